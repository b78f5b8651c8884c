"""What a number means: named objectives with unit and direction, and measured values with spread.

Starts without torch.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Phase = Literal["search", "confirmation"]
"""A trial is measured while searching; a front is then measured again, more carefully and on images that no search saw."""

NORMAL_95 = 1.959964  # two-sided 95 % of a normal distribution


@dataclass(frozen=True, slots=True)
class Objective:
    """A quantity that a candidate is judged by.

    Attributes:
        chosen_by: whether candidates are chosen for it, so that the best ones are flattered: what is measured of it again, on
            data that no search saw, is reported and never selects.
    """

    name: str
    unit: str
    direction: Literal["maximize", "minimize"]
    meaning: str
    chosen_by: bool = False


OBJECTIVES: dict[str, Objective] = {}
"""By name; a kind of study that has others adds them by `define`."""


def define(*objectives: Objective) -> None:
    """Add objectives to those that there are.

    Raises:
        ValueError: there is one of that name already.
    """
    for one in objectives:
        if one.name in OBJECTIVES:
            raise ValueError(f"objective {one.name!r} is defined twice")
        OBJECTIVES[one.name] = one


define(
    Objective(
        "accuracy",
        "share",
        "maximize",
        "share of images classified as labelled, or as the backbone does where there are no labels",
        chosen_by=True,
    ),
    Objective("accuracy_drop", "share", "minimize", "accuracy that the backbone has more, on the same images"),
    Objective("divergence", "nats", "minimize", "mean KL divergence of a schedule's answers from the backbone's"),
    Objective("latency_ms", "ms", "minimize", "median time of one batch"),
    Objective("latency_ratio", "share", "minimize", "median time of one batch over the backbone's, measured in turn"),
    Objective("macs", "MACs", "minimize", "multiply-accumulates of one image"),
    Objective("parameters", "weights", "minimize", "weights of the model that runs, shared ones counted once"),
    Objective("throughput", "images/s", "maximize", "images of one batch over its median time"),
    Objective("memory", "MB", "minimize", "peak memory while one batch runs, weights included"),
)


@dataclass(frozen=True, slots=True)
class Measurement:
    """A value with its 95 % interval, the number of samples behind it and how it was taken.

    Raises:
        ValueError: a value that is not finite, or outside its own interval. A failure is a state of a trial, never a number.
    """

    objective: str
    value: float
    low: float
    high: float
    n: int
    protocol: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise ValueError(f"unknown objective {self.objective!r}; accepted: {', '.join(OBJECTIVES)}")
        if not (math.isfinite(self.value) and self.low <= self.value <= self.high):
            raise ValueError(f"{self.objective} is {self.value} in [{self.low}, {self.high}]")

    @property
    def estimated_of(self) -> int | None:
        """Of how many images this is an estimate, told from fewer of them; None where it is of those it has seen."""
        seen_of = self.protocol.get("of")
        return seen_of if isinstance(seen_of, int) else None  # a memory tells whose it is


def shown(one: Measurement) -> float:
    """The value as people read it: in tenths of a percent where it is a share, else to three or four digits.

    What nobody sees in a table decides nothing: two values that are shown alike are alike.
    """
    match OBJECTIVES[one.objective].unit:
        case "share":
            return float(f"{100 * one.value:.1f}") / 100
        case "ms":
            return float(f"{one.value:.0f}" if one.value >= 100 else f"{one.value:.3g}")
        case "MACs":
            unit, digits = (1e9, 2) if one.value >= 1e9 else (1e6, 1)
            return float(f"{one.value / unit:.{digits}f}") * unit
        case _:
            return float(f"{one.value:.4g}")


def exact(objective: str, value: float, protocol: Mapping[str, Any] | None = None) -> Measurement:
    """A value without spread."""
    return Measurement(objective, value, value, value, 1, protocol or {})


def proportion(objective: str, successes: int, n: int, protocol: Mapping[str, Any]) -> Measurement:
    """A share of `n` with its Wilson score interval, which stays inside 0..1 and is not empty at either end.

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    """
    share, z2 = successes / n, NORMAL_95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = NORMAL_95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return Measurement(objective, share, min(share, centre - half), max(share, centre + half), n, protocol)
