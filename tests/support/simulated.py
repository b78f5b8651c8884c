"""A study of real evaluations that are looked up: no model, no Ray, a whole search in a second.

`evaluations.npz` holds what schedules do to a backbone of the digits' shape, image by image (`benchmarks/record.py`). Any other
schedule answers like the most similar of them, at its own MACs.
"""

import base64
import json
from functools import cache
from pathlib import Path

import numpy as np

from recorded import SHAPE
from vittle.objectives.backbones.sensitivity import Sensitivity
from vittle.objectives.evaluation import Evaluation
from vittle.objectives.fronts import early_stopping
from vittle.objectives.goals import Goals
from vittle.objectives.measurement import NORMAL_95, Measurement, exact, proportion
from vittle.objectives.quality import paired, rungs
from vittle.search.coordinator import Assignment, Coordinator
from vittle.spaces import Schedule, macs, tokens

TABLE = Path(__file__).with_name("evaluations.npz")
DENSE = macs(SHAPE, Schedule())
ANOTHER_CHOICE = 0.05  # how far apart two schedules are that differ in one setting, as a share of all tokens in all blocks


class Table:
    """What is recorded.

    On the search images `right` (schedules, images) and `apart`, codes of how far answers are from the backbone's, of which
    `divergence` (schedules,) is the mean; `held_out` (schedules,) accuracies on other images.
    """

    def __init__(self) -> None:
        with np.load(TABLE) as file:
            searched, held_out = map(int, file["images"])
            self.schedules = [Schedule.from_dict(json.loads(text)) for text in file["schedules"]]
            self.right = np.unpackbits(file["right"], 1, count=searched).astype(bool)
            self.held_out = np.unpackbits(file["held_out"], 1, count=held_out).mean(1)
            self.divergence = file["divergence"]
            self.apart = file["apart"]
            self.sensitivity = Sensitivity.from_dict(json.loads(str(file["sensitivity"])))
        self.macs = np.array([macs(SHAPE, one) / DENSE for one in self.schedules])
        self._tokens = np.array([tokens(SHAPE, one) for one in self.schedules])
        self._settings = [_settings(one) for one in self.schedules]
        (self.backbone,) = (at for at, one in enumerate(self.schedules) if not one.reductions)

    def nearest(self, schedule: Schedule) -> int:
        """The most similar schedule that was evaluated."""
        settings = _settings(schedule)
        apart = np.abs(self._tokens - np.array(tokens(SHAPE, schedule)))[:, :-1].mean(1) / SHAPE.tokens
        others = np.array([sum(settings.get(name) != one.get(name) for name in {*settings, *one}) for one in self._settings])
        return int((apart + ANOTHER_CHOICE * others).argmin())


@cache
def table() -> Table:
    return Table()


def _settings(schedule: Schedule) -> dict[str, object]:
    part = schedule.to_dict().get("merging", {})
    return {name: value for name, value in part.items() if name not in ("kept", "global_from")}


def search(coordinator: Coordinator, *, stopping: bool = True) -> None:
    """Evaluate, rung by rung, until there is no more to do."""
    while (one := coordinator.next()) is not None:
        coordinator.finish(one.number, _climbed(one, coordinator.study.goals, stopping))


def _climbed(one: Assignment, goals: Goals, stopping: bool) -> Evaluation:
    known = table()
    at, n = known.nearest(one.candidate), known.right.shape[1]
    sizes = rungs.sizes(n) if one.candidate.reductions else (n,)
    for seen in sizes:
        measured = _measured(one.candidate, known.right[at, :seen], known.right[known.backbone], known.apart[at, :seen])
        evaluation = Evaluation(measured, "going" if seen < n else "complete")
        judged = early_stopping.judged(one.candidate, evaluation, one.rivals, goals) if stopping else evaluation
        if judged.ended:
            break
    return judged


def _measured(schedule: Schedule, right: np.ndarray, backbone: np.ndarray, apart: np.ndarray) -> dict[str, Measurement]:
    cost = macs(SHAPE, schedule)
    protocol = {"right": paired.pack(right), "image_macs": cost * len(right) if schedule.reductions else 0}
    if len(right) == len(backbone):
        accuracy = proportion("accuracy", int(right.sum()), len(right), protocol)
    else:
        accuracy = Measurement("accuracy", *paired.estimate(right, backbone), len(right), protocol)
    share = cost / DENSE
    nats = paired.FINEST * 2.0 ** (apart / paired.STEPS)
    mean, half = float(nats.mean()), NORMAL_95 * float(nats.std()) / len(nats) ** 0.5
    each = {"each": base64.b64encode(apart.tobytes()).decode()}
    lost = paired.difference(backbone[: len(right)], right)
    return {
        "macs": exact("macs", cost),
        "latency_ms": Measurement("latency_ms", 100 * share, 100 * share, 100 * share, 1, {"backbone_ms": 100.0}),
        "latency_ratio": exact("latency_ratio", share),
        "accuracy": accuracy,
        "accuracy_drop": Measurement("accuracy_drop", *lost, len(right)),
        "divergence": Measurement("divergence", mean, max(0.0, mean - half), mean + half, len(nats), each),
    }
