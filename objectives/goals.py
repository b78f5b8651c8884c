"""What a study is after: the quality to keep, the costs to lower, its budget and what is best. Starts without torch.

A search, its front and its pages speak of these and know no objective by name.
"""

import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from vittle.objectives.budget import Budget, LatencyBudget
from vittle.objectives.measurement import OBJECTIVES, Measurement
from vittle.spaces.errors import VittleError

Measured = Mapping[str, Measurement]

LOST = 0.1  # a candidate that loses more of the baseline's quality is wanted by nobody
INDISTINCT = 0.02  # nats, some half percent of accuracy: what is closer still counts no more, for it saves little
TOLERANCE = "0.3%"  # points of accuracy that speed is worth, unless told otherwise

INFERENCE_OBJECTIVES = ("accuracy", "latency", "macs")
# What each stands for. Latency is compared as a ratio, because the machine's drift cancels in it.
INFERENCE_COSTS = {"latency": "latency_ratio", "macs": "macs", "parameters": "parameters"}
APART = ("parameters",)  # costs that do not fall with the charted one, so that a sampler has to know of them


@dataclass(frozen=True)
class Asked:
    """What a candidate is to be chosen for.

    Attributes:
        budget: the most that it may cost.
        tolerance: of the candidates whose quality is within this of the best one's the fastest is chosen; 0: the best one.
        most_lost: the most of the baseline's quality that it may lose; in place of the tolerance, which None leaves.
    """

    budget: Budget
    tolerance: float = 0.0
    most_lost: float | None = None


@dataclass(frozen=True)
class Goals:
    """The goals of a study, by the names of objectives.

    Attributes:
        quality: what is to be kept; the best candidate is the one that has most of it within the budget.
        costs: what is to be lowered. The first one is charted; the budget limits it, or the same in another unit.
        budget: the most that a candidate may cost.
        learned_from: what tells quality apart with fewer samples, and takes its place in a search where it is known of all.
        worth: quality that may be lost against the baseline and the candidate still be wanted.
        indistinct: less of `learned_from` than this counts no more.
        samples: what quality is measured on, in the plural.
        tolerance: as `Asked` has it, in the unit of quality.
        most_lost: the same.
        beside: what tables show besides the objectives.

    Raises:
        ValueError: an objective that there is not, a cost of which more is better, or a quality that is not `chosen_by`.
    """

    quality: str
    costs: tuple[str, ...]
    budget: Budget
    learned_from: str = ""
    worth: float = LOST
    indistinct: float | None = None
    samples: str = "samples"
    tolerance: float = 0.0
    most_lost: float | None = None
    beside: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "learned_from", self.learned_from or self.quality)
        unknown = [name for name in (*self.objectives, self.learned_from, self.budget.objective) if name not in OBJECTIVES]
        if unknown or not self.costs:
            raise ValueError(f"unknown objective {unknown[0]!r}" if unknown else "goals have at least one cost")
        rising = [name for name in (*self.costs, self.budget.objective) if OBJECTIVES[name].direction == "maximize"]
        if rising:
            raise ValueError(f"more of {rising[0]} is better, so it is no cost")
        if not OBJECTIVES[self.quality].chosen_by:
            raise ValueError(f"{self.quality} is not marked as what candidates are chosen by")

    @property
    def asked(self) -> Asked:
        """What the study itself chooses a candidate for."""
        return Asked(self.budget, self.tolerance, self.most_lost)

    def asking(self, budget: Budget | None = None, tolerance: float | None = None, most_lost: float | None = None) -> Asked:
        """The same for another budget, or by another rule.

        Raises:
            VittleError: a tolerance and a loss, of which one takes the place of the other.
        """
        if tolerance is not None and most_lost is not None:
            raise VittleError("a tolerance and a largest loss cannot both be asked for; accepted: one of them")
        asked = self.asked if budget is None else replace(self.asked, budget=budget)
        if tolerance is not None:
            return replace(asked, tolerance=tolerance, most_lost=None)
        return asked if most_lost is None else replace(asked, most_lost=most_lost)

    @property
    def charted(self) -> str:
        """The cost that quality is weighed against."""
        return self.costs[0]

    @property
    def sampled(self) -> tuple[str, ...]:
        """The costs that a sampler learns to lower: the charted one, and what does not fall with it."""
        return (self.charted, *(cost for cost in self.costs[1:] if cost in APART))

    @property
    def objectives(self) -> tuple[str, ...]:
        """What the candidates of a front are compared in."""
        return (self.quality, *self.costs)

    def compared(self, candidates: Iterable[Measured]) -> tuple[str, ...]:
        """What candidates are compared in while a search goes on: where it is known of all, what is learnt from for quality.

        Divergence puts schedules into the order of their accuracy on other images better than accuracy itself does, and with a
        fraction of the images (see `quality.expectation`).
        """
        known = all(self.learned_from in one for one in candidates)
        return (self.learned_from if known else self.quality, *self.costs)

    def upward(self, quality: float) -> float:
        """A value of quality such that more is better."""
        return quality if OBJECTIVES[self.quality].direction == "maximize" else -quality

    def allowed(self, baseline: Measured) -> float:
        """The budget in the unit of the charted cost."""
        budget = self.budget
        if budget.objective == self.charted:
            return budget.limit
        return budget.limit * baseline[self.charted].value / baseline[budget.objective].value

    def dearest(self, baseline: Measured) -> float:
        """The most of the charted cost that anybody would take: the baseline's, which is 1 where the cost is a share of it."""
        return 1.0 if OBJECTIVES[self.charted].unit == "share" else baseline[self.charted].value

    def lost(self, measured: Measured) -> float | None:
        """What a sampler learns to lower: what is learnt from, else what of quality is missing; None where nobody knows."""
        if self.learned_from != self.quality and self.learned_from in measured:
            told = oriented(measured[self.learned_from])
            return told if self.indistinct is None else max(self.indistinct, told)
        if self.quality not in measured:
            return None
        best = 1.0 if OBJECTIVES[self.quality].unit == "share" else 0.0
        return best - self.upward(measured[self.quality].value)


def oriented(measurement: Measurement) -> float:
    """The value as a cost: less is better."""
    return sign(measurement.objective) * measurement.value


def sign(objective: str) -> int:
    """What makes a value of an objective a cost."""
    return -1 if OBJECTIVES[objective].direction == "maximize" else 1


def parse_quality(text: str, objective: str) -> float:
    """Read an amount of quality: percentage points such as `0.5%` where it is a share, else a number in its own unit.

    Raises:
        VittleError: anything else.
    """
    unit = OBJECTIVES[objective].unit
    name, scale, most = ("%", 100, 100.0) if unit == "share" else (unit, 1, math.inf)
    match = re.fullmatch(rf"\s*(\d+(?:\.\d+)?|\.\d+)\s*(?:{re.escape(name)})?\s*", text)
    if match is None or not float(match[1]) <= min(most, sys.float_info.max):
        what = "percentage points from 0 to 100, such as 0.5%" if unit == "share" else f"a number of {unit}, such as 0.5"
        raise VittleError(f"{text[:60]!r} is no amount of {objective}; accepted: {what}")
    return float(match[1]) / scale


def write_quality(amount: float, objective: str) -> str:
    """The same the other way round: 0.005 of a share is `0.5%`."""
    unit = OBJECTIVES[objective].unit
    return f"{100 * amount:.12g}%" if unit == "share" else f"{amount:.12g} {unit}"


def inference_goals(
    budget: LatencyBudget,
    tolerance: str = TOLERANCE,
    most_lost: str | None = None,
    objectives: Sequence[str] = INFERENCE_OBJECTIVES,
) -> Goals:
    """Accuracy against latency and what else is asked for.

    Args:
        budget: of the study.
        tolerance: in percentage points, as `parse_quality` reads it.
        most_lost: the same; None for no such limit.
        objectives: `accuracy`, `latency`, and of `macs` and `parameters` those that are to be lowered as well.

    Raises:
        VittleError: a text that is no amount of accuracy, or objectives that cannot be.
    """
    unknown = [name for name in objectives if name not in ("accuracy", *INFERENCE_COSTS)]
    if unknown or not {"accuracy", "latency"} <= set(objectives):
        wrong = f"unknown objective {unknown[0][:60]!r}" if unknown else f"objectives are {', '.join(objectives)[:60]}"
        raise VittleError(f"{wrong}; accepted: accuracy and latency, and of macs and parameters none, one or both")
    return Goals(
        "accuracy",
        tuple(cost for name, cost in INFERENCE_COSTS.items() if name in objectives),
        budget,
        learned_from="divergence",
        indistinct=INDISTINCT,
        samples="images",
        tolerance=parse_quality(tolerance, "accuracy"),
        most_lost=None if most_lost is None else parse_quality(most_lost, "accuracy"),
        beside=("latency_ms",),
    )
