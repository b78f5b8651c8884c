"""The set of schedules that a study may propose."""

from collections.abc import Iterator, Mapping, Sequence

from vittle.spaces import costs
from vittle.spaces.errors import VittleError
from vittle.spaces.reduction import Parameter, Tail
from vittle.spaces.schedule import Schedule
from vittle.spaces.shape import BackboneShape
from vittle.spaces.table import REDUCTIONS


class Space:
    """The chosen reductions on one backbone, as named numbers that a sampler understands.

    The tail is not searched: where it is lossless, leaving it out only costs.

    Raises:
        VittleError: no reduction, or one that does not exist.
    """

    def __init__(self, shape: BackboneShape, reductions: Sequence[str]) -> None:
        unknown = [name for name in reductions if name not in REDUCTIONS]
        if unknown or not reductions:
            wrong = f"unknown reduction {unknown[0]!r}" if unknown else "no reduction to search"
            raise VittleError(f"{wrong}; accepted: {', '.join(REDUCTIONS)}")
        self.shape = shape
        self.tail: Tail = "prefix" if shape.reads_prefix_only else "full"
        self._settings = [REDUCTIONS[name].settings for name in REDUCTIONS if name in reductions]

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return tuple(parameter for settings in self._settings for parameter in settings.parameters(self.shape))

    def schedule(self, values: Mapping[str, float]) -> Schedule:
        """The schedule that a value for each parameter stands for. Every value within its range is feasible."""
        parts = (settings.propose(self.shape, self.tail, values) for settings in self._settings)
        return Schedule(tuple(part for part in parts if part is not None), self.tail)

    def starting_points(self, shares: Sequence[float]) -> Iterator[Mapping[str, float]]:
        """Values to try first: each reduction alone, brought down to each of `shares` of the backbone's MACs."""
        neutral = {name: value for settings in self._settings for name, value in settings.neutral(self.shape).items()}
        for share in shares:
            for settings in self._settings:
                for values in settings.starting_points(self.shape):
                    yield self._costing(share, {**neutral, **values}, settings.strength)

    def _costing(self, share: float, values: Mapping[str, float], strength: str) -> Mapping[str, float]:
        """`values` at the highest strength, to 1 % of its range, that costs at most `share`; at the lowest where none does."""
        parameter = next(parameter for parameter in self.parameters if parameter.name == strength)
        most = share * costs.macs(self.shape, Schedule())
        steps = 100
        low, high = 0, steps  # bisected over a grid: cost falls with strength, in steps
        scaled = {step: parameter.low + (parameter.high - parameter.low) * step / steps for step in range(steps + 1)}
        while low < high:
            middle = (low + high + 1) // 2
            if costs.macs(self.shape, self.schedule({**values, strength: scaled[middle]})) <= most:
                low = middle
            else:
                high = middle - 1
        return {**values, strength: scaled[low]}
