"""The trials of a study compared: its front, its best trial, and how far it is, all by the study's goals."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np

from vittle.objectives.budget import Budget
from vittle.objectives.fronts import front as fronts
from vittle.objectives.fronts import hypervolume
from vittle.objectives.fronts.early_stopping import right
from vittle.objectives.goals import Goals, Measured, oriented
from vittle.objectives.measurement import NORMAL_95, Phase
from vittle.objectives.quality import paired
from vittle.objectives.quality.expectation import expected
from vittle.storage.records import Trial, baseline_trial

MORE = 100  # trials that an outlook is for


class Growth(NamedTuple):
    """How the front of a study has grown.

    Attributes:
        volumes: (n,) its hypervolume after each trial whose quality was looked at.
        spread: standard error of the last of them.
    """

    volumes: hypervolume.Volumes
    spread: float

    @property
    def volume(self) -> float:
        """The hypervolume now, a share."""
        return float(self.volumes[-1])

    @property
    def outlook(self) -> hypervolume.Outlook:
        """What another `MORE` trials are expected to add."""
        return hypervolume.outlook(self.volumes, self.spread, MORE)


class Standing(NamedTuple):
    """How far a study is.

    Attributes:
        finished: how many trials have ended; the baseline is none of them.
        points: the front, cheapest first.
        best: the best trial for the study's budget.
    """

    finished: int
    points: Sequence[Trial]
    best: Trial | None


class BestWithin(NamedTuple):
    """The best trial from one budget on.

    Attributes:
        limit: the smallest budget, in the unit of its objective, that the trial holds beyond the noise.
        trial: its number.
    """

    limit: float
    trial: int


class Ranking(tuple[Trial, ...]):
    """The trials of a study, compared by its goals once, however often it is asked. Where a budget is None, all trials fit."""

    goals: Goals

    @classmethod
    def of(cls, trials: Iterable[Trial], goals: Goals) -> Self:
        """The trials, to be asked about; a ranking by the same goals is returned as it is."""
        if isinstance(trials, cls) and trials.goals == goals:
            return trials
        made = cls(trials)
        made.goals = goals
        return made

    @cached_property
    def _fronts(self) -> dict[Budget | None, list[Trial]]:
        return {}

    @cached_property
    def baseline(self) -> Trial | None:
        """The trial of the baseline, once it is complete."""
        return baseline_trial(self)

    @cached_property
    def expected(self) -> dict[int, Measured]:
        """What each complete trial is ranked by, by its number: as measured, with the quality that follows from all of it.

        See `vittle.objectives.quality.expectation`. Without a baseline to compare with it is the measured quality.
        """
        complete = [trial for trial in self if trial.state == "complete"]
        judged: list[Measured] = [trial.judged for trial in complete]
        if self.baseline is not None:
            judged = expected(judged, self.baseline.judged)
        return {trial.number: one for trial, one in zip(complete, judged, strict=True)}

    @property
    def standing(self) -> Standing:
        """How far the study is."""
        finished = sum(trial.ended and not trial.is_baseline for trial in self)
        return Standing(finished, self.front(), self.best())

    def front(self, budget: Budget | None = None) -> list[Trial]:
        """The complete trials that none beats in expected quality and cost, cheapest first; of those within a budget."""
        if budget not in self._fronts:
            within = [one for one in self if one.state == "complete" and (budget is None or one.within(budget))]
            places = fronts.front([self.expected[trial.number] for trial in within], self.goals)
            self._fronts[budget] = [within[place] for place in places]
        return list(self._fronts[budget])

    def best(self, budget: Budget | None = None) -> Trial | None:
        """The trial of the best quality that holds a budget beyond the noise, a confirmed one where there are any.

        Args:
            budget: the study's where not given.
        """
        budget = budget or self.goals.budget
        within = self.front(budget)
        eligible = [trial for trial in within if trial.confirmed] or within
        chosen = fronts.best([self.expected[trial.number] for trial in eligible], self.goals, budget)
        return None if chosen is None else eligible[chosen]

    def best_by_budget(self, objective: str) -> list[BestWithin]:
        """What is best for every budget in a cost, the smallest budget first: what `best` finds, in one go."""
        points = [trial for trial in self.front() if objective in trial.judged]
        found: list[BestWithin] = []
        chosen: tuple[float, ...] | None = None
        for trial in sorted(points, key=lambda one: one.judged[objective].high):
            rank = self._rank(trial)
            if chosen is None or rank < chosen:
                chosen = rank
                limit = trial.judged[objective].high
                found = [*(one for one in found if one.limit < limit), BestWithin(limit, trial.number)]
        return found

    def _rank(self, trial: Trial) -> tuple[float, ...]:
        measured = self.expected[trial.number]
        return (not trial.confirmed, *(oriented(measured[name]) for name in self.goals.objectives))

    def knee(self) -> Trial | None:
        """Where the front bends most: from there on, quality costs more and more. None of a front without a bend."""
        points = self.front()
        found = fronts.knee([self.expected[trial.number] for trial in points], self.goals)
        return None if found is None else points[found]

    def tied_with_best(self, budget: Budget | None = None) -> set[int]:
        """Numbers of the trials on the front that differ from the best one by no more than noise."""
        budget = budget or self.goals.budget
        chosen = self.best(budget)
        if chosen is None:
            return set()
        best = self.expected[chosen.number]
        others = (trial.number for trial in self.front(budget) if trial.number != chosen.number)
        return {number for number in others if fronts.tied(self.expected[number], best, self.goals)}

    def nearest(self) -> Trial | None:
        """The cheapest trial that was measured at all, whatever its quality; None where none was."""
        charted = self.goals.charted
        measured = [trial for trial in self if charted in trial.judged]
        return min(measured, key=lambda trial: trial.judged[charted].high, default=None)

    def growth(self) -> Growth | None:
        """How the front within the study's budget has grown, by what the search measured and what that lets expect.

        None before the quality of the baseline and of one more trial has been looked at.
        """
        seen = [trial for trial in self if trial.state in ("complete", "stopped") and not trial.is_baseline]
        if self.baseline is None or not seen:
            return None
        first = self.baseline.measurements["search"]
        worst = hypervolume.ReferencePoint.of(self.goals, first)
        measured: list[Measured] = [trial.measurements["search"] if trial.state == "complete" else {} for trial in seen]
        volumes = hypervolume.volumes(expected(measured, first), worst, self.goals)  # a trial that was stopped adds nothing
        spread = hypervolume.spread(measured, worst, self.goals, baseline=right(first[self.goals.quality]))
        return Growth(volumes, spread)

    def optimism(self) -> paired.Interval | None:
        """How much more the front loses on held-out images than on those that it was chosen by: the winner's curse.

        A share, the mean over the confirmed points of the front within the study's budget, with its 95 % interval; the two sets
        of images are independent of each other. None where nothing is confirmed, or nobody wrote down which images were
        answered rightly.
        """
        baseline = self.baseline
        points = [trial for trial in self.front(self.goals.budget) if trial.confirmed and not trial.is_baseline]
        if baseline is None or not baseline.confirmed or not points:
            return None
        held_out, searched = (_lost(baseline, points, phase, self.goals.quality) for phase in ("confirmation", "search"))
        if held_out is None or searched is None:
            return None
        value = held_out.value - searched.value
        below = np.hypot(held_out.value - held_out.low, searched.high - searched.value)
        above = np.hypot(held_out.high - held_out.value, searched.value - searched.low)
        return paired.Interval(value, value - float(below), value + float(above))


def _lost(baseline: Trial, points: Sequence[Trial], phase: Phase, quality: str) -> paired.Interval | None:
    """What points lose against the baseline in a phase on average.

    Each image counts with the mean over the points, which are wrong about the same images more often than not; one win and one
    loss are added to them, as in `paired.difference`, whose interval this is for a single point.
    """
    answers = [right(trial.measurements[phase][quality]) for trial in (baseline, *points)]
    known = [one.astype(np.float64) for one in answers if one is not None]
    if len(known) < len(answers):
        return None
    lost = known[0] - np.mean(known[1:], axis=0)  # (n,)
    added = np.concatenate([lost, [1.0, -1.0]])
    centre, half = float(added.mean()), NORMAL_95 * float(added.std()) / np.sqrt(len(added))
    return paired.Interval(float(lost.mean()), centre - half, centre + half)
