"""Budgets: the most that a candidate may cost, as it is written, and whether measurements hold it. Starts without torch."""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Self

from vittle.objectives.measurement import OBJECTIVES, Measurement
from vittle.spaces.errors import VittleError

DIGITS = 12  # significant ones of a budget as it is written
FEWEST = 3  # of a cost that is told beside it


class Budget(ABC):
    """The most that a candidate may cost in one objective, of which less is better; `str` gives it as it is written.

    Attributes:
        limit: in the unit of its objective.
    """

    limit: float

    def __str__(self) -> str:
        return self.written(self.limit)

    @abstractmethod
    def written(self, cost: float, digits: int = DIGITS) -> str:
        """A cost in the unit of the limit, as a budget of so much is written, to so many significant digits."""

    @property
    @abstractmethod
    def objective(self) -> str:
        """The cost that it limits."""

    @property
    def what(self) -> str:
        """What it limits, in a word."""
        return self.objective

    def limited(self, measurements: Mapping[str, Measurement]) -> Measurement:
        """What of these measurements it limits."""
        return measurements[self.objective]

    def told(self, measurements: Mapping[str, Measurement]) -> str:
        """What of these measurements it limits, as `written`, to as many digits as tell it from the limit."""
        cost = self.limited(measurements).value
        texts = (self.written(cost, digits) for digits in range(FEWEST, DIGITS))
        return next((text for text in texts if text != str(self)), self.written(cost))

    def excess(self, measurements: Mapping[str, Measurement]) -> float:
        """How far the measured value is above the limit, as a share of the limit; 0 or less is within the budget."""
        return self.limited(measurements).value / self.limit - 1

    def holds(self, measurements: Mapping[str, Measurement]) -> bool:
        """Whether the cost is within the budget beyond the noise: the upper end of its interval is."""
        return self.limited(measurements).high <= self.limit

    def comparable(self, baseline: Mapping[str, Measurement]) -> "Budget":
        """The same budget in the unit that candidates are compared in, by what the baseline measured."""
        del baseline
        return self

    @abstractmethod
    def covering(self, measurements: Mapping[str, Measurement], baseline: Mapping[str, Measurement] | None = None) -> "Budget":
        """The smallest budget, rounded up, that these measurements hold.

        Args:
            measurements: of a candidate.
            baseline: what the baseline measured, where that is known; see `comparable`.
        """


@dataclass(frozen=True)
class CostBudget(Budget):
    """The most of any cost, in its own unit."""

    limit: float
    cost: str

    @property
    def objective(self) -> str:
        return self.cost

    def covering(
        self, measurements: Mapping[str, Measurement], baseline: Mapping[str, Measurement] | None = None
    ) -> "CostBudget":
        del baseline
        high = measurements[self.cost].high
        step = 10.0 ** (math.floor(math.log10(high)) - 1) if high > 0 else 1.0
        return CostBudget(math.ceil(high / step) * step, self.cost)

    def written(self, cost: float, digits: int = DIGITS) -> str:
        return f"{_plain(cost, digits)} {OBJECTIVES[self.cost].unit}"


LATENCY = re.compile(
    r"\s*(?:(?P<tail>p95)\s+)?(?P<number>\d+(?:\.\d+)?|\.\d+)\s*(?:(?P<ms>ms)(?:\s+(?P<after>p95))?|(?P<share>%)|(?:images|img)/s)\s*"
)
ROUNDING = 1 + 1e-12  # a limit that is turned into another unit and back is no smaller


@dataclass(frozen=True)
class LatencyBudget(Budget):
    """The most that a schedule may take.

    It is written in milliseconds for a batch (`4ms`), as a share of the backbone's time (`60%`), in milliseconds that 95 of 100
    batches have to hold (`p95 4ms`), or as images per second (`1000 images/s`), which for a batch is a time.

    Attributes:
        limit: milliseconds, or a share.
        relative: whether it is a share.
        tail: whether it is about the 95th percentile of a batch's times, in place of their median.
        batch: images of one batch, where it is written as images per second.
    """

    limit: float
    relative: bool
    tail: bool = False
    batch: int | None = None

    @classmethod
    def parse(cls, text: str, batch_size: int | None = None) -> Self:
        """Read `4ms`, `p95 4ms`, `60%` or `1000 images/s`.

        Args:
            text: as it is written.
            batch_size: images of one batch, which turns images per second into a time; without it they are refused.

        Raises:
            VittleError: anything else, or a number that is not positive.
        """
        match = LATENCY.fullmatch(text)
        limit = _limit(match, batch_size) if match else 0.0
        tails = [name for name in ("tail", "after") if match and match[name]]
        if match is None or not 0 < limit < math.inf or len(tails) > 1 or (tails and not match["ms"]):
            raise VittleError(
                f"latency budget {text[:60]!r} is not a time; accepted: milliseconds such as 4ms, or p95 4ms for 95 of 100 "
                "batches, a share such as 60%, or images per second such as 1000 images/s"
            )
        if match["share"]:
            return cls(limit, relative=True)
        return cls(limit, relative=False, tail=bool(tails), batch=None if match["ms"] else batch_size)

    @property
    def objective(self) -> str:
        return "latency_ratio" if self.relative else "latency_ms"

    @property
    def what(self) -> str:
        return "latency"

    def limited(self, measurements: Mapping[str, Measurement]) -> Measurement:
        """The time that it limits; where the tail was not measured, the median, which is less."""
        found = measurements[self.objective]
        return (p95(found) or found) if self.tail else found

    def holds(self, measurements: Mapping[str, Measurement]) -> bool:
        """As of every budget; where it is about a tail that was not measured, nobody knows, so it does not hold."""
        return super().holds(measurements) and not (self.tail and p95(measurements[self.objective]) is None)

    def comparable(self, baseline: Mapping[str, Measurement]) -> "LatencyBudget":
        """A time as a share of the backbone's, which was measured in turn with every schedule.

        Milliseconds drift with the machine; the share does not. So a budget in either means the same schedules. One about the
        tail stays as it is.
        """
        return self if self.relative else self.converted(baseline) or self

    def converted(self, baseline: Mapping[str, Measurement]) -> "LatencyBudget | None":
        """The same budget in the other unit, by the backbone's time: ms of a share, a share of ms; None where it cannot be."""
        if self.tail or "latency_ms" not in baseline:
            return None
        time = baseline["latency_ms"].value
        return LatencyBudget(self.limit * time if self.relative else self.limit / time * ROUNDING, not self.relative)

    def covering(
        self, measurements: Mapping[str, Measurement], baseline: Mapping[str, Measurement] | None = None
    ) -> "LatencyBudget":
        high = self.limited(measurements).high
        if not self.relative and baseline is not None:
            share = LatencyBudget(measurements["latency_ratio"].high, relative=True).converted(baseline)
            high = high if share is None or self.tail else share.limit
        if self.batch is not None:
            most = 1000 * self.batch / high
            step = 10.0 ** (math.floor(math.log10(most)) - 1)
            return replace(self, limit=1000 * self.batch / (math.floor(most / step) * step))
        step = 0.01 if self.relative else 10.0 ** (math.floor(math.log10(high)) - 1)
        return replace(self, limit=math.ceil(high / step) * step)

    def written(self, cost: float, digits: int = DIGITS) -> str:
        if self.batch is not None:
            return f"{_plain(1000 * self.batch / cost, digits)} images/s"
        share = f"{_plain(cost * 100, digits)}%"
        return share if self.relative else f"{'p95 ' if self.tail else ''}{_plain(cost, digits)}ms"


def p95(latency: Measurement) -> Measurement | None:
    """The 95th percentile of a batch's times with its interval, told by a measured `latency_ms`; None by another one."""
    value, ends = latency.protocol.get("p95_ms"), latency.protocol.get("p95_ms_interval")
    if value is None:
        return None
    low, high = (value, value) if ends is None else ends
    return Measurement(latency.objective, value, min(low, value), max(high, value), latency.n)


def _limit(match: re.Match[str], batch_size: int | None) -> float:
    number = float(match["number"])
    if match["ms"] or match["share"]:
        return number if match["ms"] else number / 100
    return 1000 * batch_size / number if number > 0 and batch_size else 0.0


def _plain(number: float, digits: int) -> str:
    return f"{Decimal(f'{number:.{digits}g}'):f}"  # never with an exponent, so that `parse` reads it
