"""How good what a search has found is: its front, chosen on the images searched on, is judged on held-out ones.

Rivals choose by the accuracy that they measured, this project by what it expects from it (see
`vittle.objectives.quality.expectation`).

The hypervolume is that of (share of the backbone's MACs, held-out accuracy) against the reference (1, the backbone's accuracy
less `LOST`), as a share of that box: 1 is the backbone's accuracy at no cost. A run is not charged for being judged.
"""

from collections.abc import Sequence
from typing import Any

from methods import Run, Trial
from problem import Problem
from vittle.objectives.fronts.hypervolume import hypervolume
from vittle.objectives.goals import LOST
from vittle.objectives.quality.expectation import expected
from vittle.spaces.schedule import Schedule

DIGITS = 6
Row = dict[str, Any]


class Judge:
    """Accuracy on held-out images; no schedule is judged twice, whoever found it.

    Attributes:
        backbone: the backbone's accuracy.
        macs: the backbone's MACs of one image.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._known: dict[str, float] = {}
        self.backbone = self.accuracy(Schedule())
        self.macs = problem.macs(Schedule())

    def accuracy(self, schedule: Schedule) -> float:
        """The share of held-out images answered rightly."""
        if schedule.id not in self._known:
            self._known[schedule.id], _ = self._problem.judge(schedule, self._problem.splits.held_out)
        return self._known[schedule.id]

    def point(self, trial: Trial) -> tuple[float, float]:
        """Share of the backbone's MACs, and held-out accuracy."""
        return trial.macs / self.macs, self.accuracy(trial.schedule)


def chosen(run: Run, trials: int) -> list[Trial]:
    """The front of the first trials as the search itself would choose it then."""
    done = list(run.trials[:trials])
    if run.backbone is not None:  # it expects an accuracy of each, from all that it knows by then
        known = [one for one in done if one.complete and one.measured is not None]
        believed = expected([one.measured for one in known if one.measured is not None], run.backbone)
        done = [one._replace(accuracy=new["accuracy"].value) for one, new in zip(known, believed, strict=True)]
    return front(done)


def front(trials: Sequence[Trial]) -> list[Trial]:
    """The complete trials that no other is as good as in accuracy searched on and MACs, and better in one; cheapest first."""
    chosen: list[Trial] = []
    for trial in sorted(trials, key=lambda one: (one.macs, -one.accuracy)):
        equal = chosen and (trial.macs, trial.accuracy) == (chosen[-1].macs, chosen[-1].accuracy)
        if trial.complete and (not chosen or equal or trial.accuracy > chosen[-1].accuracy):
            chosen.append(trial)
    return chosen


def volume(points: Sequence[tuple[float, float]], backbone: float) -> float:
    """The hypervolume of (share of MACs, accuracy), see above."""
    return hypervolume([(share, -accuracy) for share, accuracy in points], (1.0, LOST - backbone)) / LOST


def progress(run: Run, judge: Judge) -> list[list[float]]:
    """[trials, image MACs, seconds, hypervolume] after every trial with which the front changed, and after the last."""
    curve: list[list[float]] = []
    before: list[str] = []
    for done, trial in enumerate(run.trials, 1):
        best = chosen(run, done)
        schedules = [one.schedule.id for one in best]
        if schedules != before or done == len(run.trials):
            reached = volume([judge.point(one) for one in best], judge.backbone)
            curve.append([done, trial.image_macs, round(trial.wall_s, 3), round(reached, DIGITS)])
        before = schedules
    return curve


def judge_run(run: Run, judge: Judge) -> Row:
    """What is written of a run."""
    curve = progress(run, judge)
    best = [(*judge.point(one), one.accuracy) for one in chosen(run, len(run.trials))]
    return {
        "trials": len(run.trials),
        "hypervolume": curve[-1][-1],
        "image_macs": run.trials[-1].image_macs,
        "wall_s": round(run.wall_s, 3),
        "overhead_share": round(run.overhead_share, DIGITS),
        "workers": run.workers,
        "backbone_accuracy": judge.backbone,
        "front": [[round(value, DIGITS) for value in one] for one in best],
        "curve": curve,
    }
