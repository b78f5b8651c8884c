"""What a number means: named objectives with unit and direction, measured values with spread, and the latency budget.

Starts without torch.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from vittle.spaces.errors import VittleError

Phase = Literal["search", "confirmation"]
"""A trial is measured while searching; a front is then measured again, more carefully and on images that no search saw."""

NORMAL_95 = 1.959964  # two-sided 95 % of a normal distribution


@dataclass(frozen=True, slots=True)
class Objective:
    """A quantity that a schedule is judged by."""

    name: str
    unit: str
    direction: Literal["maximize", "minimize"]
    meaning: str


OBJECTIVES = {
    objective.name: objective
    for objective in (
        Objective(
            "accuracy",
            "share",
            "maximize",
            "share of images classified as labelled, or as the backbone does where there are no labels",
        ),
        Objective("accuracy_drop", "share", "minimize", "accuracy that the backbone has more, on the same images"),
        Objective("divergence", "nats", "minimize", "mean KL divergence of a schedule's answers from the backbone's"),
        Objective("latency_ms", "ms", "minimize", "median time of one batch"),
        Objective("latency_ratio", "share", "minimize", "median time of one batch over the backbone's, measured in turn"),
        Objective("macs", "MACs", "minimize", "multiply-accumulates of one image"),
        Objective("throughput", "images/s", "maximize", "images of one batch over its median time"),
        Objective("memory", "MB", "minimize", "peak memory while one batch runs, weights included"),
    )
}

SEARCHED = ("accuracy", "latency_ratio", "macs")
"""The objectives of the front. Latency is compared as a ratio, because the machine's drift cancels in it."""


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


@dataclass(frozen=True, slots=True)
class LatencyBudget:
    """The most that a schedule may take: milliseconds for a batch (`4ms`), or a share of the backbone's time (`60%`)."""

    limit: float
    relative: bool

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `4ms` or `60%`.

        Raises:
            VittleError: anything else, or a number that is not positive.
        """
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*(ms|%)\s*", text)
        number = float(match[1]) if match else 0.0
        if match is None or number <= 0:
            raise VittleError(
                f"latency budget {text!r} is not a time; accepted: milliseconds such as 4ms, or a share such as 60%"
            )
        return cls(number / 100, True) if match[2] == "%" else cls(number, False)

    @property
    def objective(self) -> str:
        return "latency_ratio" if self.relative else "latency_ms"

    def excess(self, measurements: Mapping[str, Measurement]) -> float:
        """How far the measured value is above the limit, as a share of the limit; 0 or less is within the budget."""
        return measurements[self.objective].value / self.limit - 1

    def holds(self, measurements: Mapping[str, Measurement]) -> bool:
        """Whether the latency is within the budget beyond the noise: the upper end of its interval is."""
        return measurements[self.objective].high <= self.limit

    def covering(self, measurements: Mapping[str, Measurement]) -> "LatencyBudget":
        """The smallest budget, rounded up, that these measurements hold."""
        high = measurements[self.objective].high
        step = 0.01 if self.relative else 10.0 ** (math.floor(math.log10(high)) - 1)
        return LatencyBudget(math.ceil(high / step) * step, self.relative)

    def __str__(self) -> str:
        return f"{self.limit * 100:g}%" if self.relative else f"{self.limit:g}ms"
