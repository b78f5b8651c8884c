"""Budgets: the most that a candidate may cost, as it is written, and whether measurements hold it. Starts without torch."""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Self

from vittle.objectives.measurement import OBJECTIVES, Measurement
from vittle.spaces.errors import VittleError


class Budget(ABC):
    """The most that a candidate may cost in one objective, of which less is better; `str` gives it as it is written.

    Attributes:
        limit: in the unit of its objective.
    """

    limit: float

    @property
    @abstractmethod
    def objective(self) -> str:
        """The cost that it limits."""

    @property
    def what(self) -> str:
        """What it limits, in a word."""
        return self.objective

    def excess(self, measurements: Mapping[str, Measurement]) -> float:
        """How far the measured value is above the limit, as a share of the limit; 0 or less is within the budget."""
        return measurements[self.objective].value / self.limit - 1

    def holds(self, measurements: Mapping[str, Measurement]) -> bool:
        """Whether the cost is within the budget beyond the noise: the upper end of its interval is."""
        return measurements[self.objective].high <= self.limit

    @abstractmethod
    def covering(self, measurements: Mapping[str, Measurement]) -> "Budget":
        """The smallest budget, rounded up, that these measurements hold."""


@dataclass(frozen=True)
class CostBudget(Budget):
    """The most of any cost, in its own unit."""

    limit: float
    cost: str

    @property
    def objective(self) -> str:
        return self.cost

    def covering(self, measurements: Mapping[str, Measurement]) -> "CostBudget":
        high = measurements[self.cost].high
        step = 10.0 ** (math.floor(math.log10(high)) - 1) if high > 0 else 1.0
        return CostBudget(math.ceil(high / step) * step, self.cost)

    def __str__(self) -> str:
        return f"{self.limit:g} {OBJECTIVES[self.cost].unit}"


@dataclass(frozen=True)
class LatencyBudget(Budget):
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
        if match is None or not 0 < number < math.inf:
            raise VittleError(
                f"latency budget {text!r} is not a time; accepted: milliseconds such as 4ms, or a share such as 60%"
            )
        return cls(number / 100, True) if match[2] == "%" else cls(number, False)

    @property
    def objective(self) -> str:
        return "latency_ratio" if self.relative else "latency_ms"

    @property
    def what(self) -> str:
        return "latency"

    def covering(self, measurements: Mapping[str, Measurement]) -> "LatencyBudget":
        high = measurements[self.objective].high
        step = 0.01 if self.relative else 10.0 ** (math.floor(math.log10(high)) - 1)
        return LatencyBudget(math.ceil(high / step) * step, self.relative)

    def __str__(self) -> str:
        number, unit = (self.limit * 100, "%") if self.relative else (self.limit, "ms")
        return f"{Decimal(f'{number:.12g}'):f}{unit}"  # never with an exponent, so that `parse` reads it
