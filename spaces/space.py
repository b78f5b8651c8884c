"""The set of schedules that a study may propose."""

from collections.abc import Iterator, Mapping, Sequence

from vittle.spaces import costs
from vittle.spaces.errors import VittleError
from vittle.spaces.reduction import AdapterRecord, Choice, Context, Parameter, Tail, Values
from vittle.spaces.schedule import Schedule
from vittle.spaces.shape import BackboneShape
from vittle.spaces.table import REDUCTIONS


class Space:
    """The chosen reductions on one backbone, as named numbers and choices that a sampler understands.

    The tail is not searched: where it is lossless, leaving it out only costs.

    Args:
        shape: the backbone's.
        reductions: names out of the table.
        start: the block from which merging may start, as detected.
        adapters: trained weights at hand, by reduction.
        residuals: correct the curves over depth block by block.

    Raises:
        VittleError: no reduction, or one that does not exist or does not fit the backbone.
    """

    def __init__(
        self,
        shape: BackboneShape,
        reductions: Sequence[str],
        *,
        start: int | None = None,
        adapters: Mapping[str, AdapterRecord] | None = None,
        residuals: bool = False,
    ) -> None:
        unknown = [name for name in reductions if name not in REDUCTIONS]
        if unknown or not reductions:
            wrong = f"unknown reduction {unknown[0]!r}" if unknown else "no reduction to search"
            raise VittleError(f"{wrong}; accepted: {', '.join(REDUCTIONS)}")
        self._settings = [REDUCTIONS[name].settings for name in REDUCTIONS if name in reductions]
        for settings in self._settings:
            if (reason := settings.refusal(shape)) is not None:
                others = [name for name, entry in REDUCTIONS.items() if entry.settings.refusal(shape) is None]
                raise VittleError(f"{settings.name} does not fit this model: {reason}; accepted: {', '.join(others)}")
        tail: Tail = "prefix" if shape.reads_prefix_only else "full"
        self.context = Context(shape, tail, start, adapters or {}, residuals)

    @property
    def shape(self) -> BackboneShape:
        return self.context.shape

    @property
    def parameters(self) -> tuple[Parameter | Choice, ...]:
        return tuple(parameter for settings in self._settings for parameter in settings.parameters(self.context))

    def schedule(self, values: Values) -> Schedule:
        """The schedule that a value for each parameter stands for. Every value within its range is feasible."""
        parts = (settings.propose(self.context, values) for settings in self._settings)
        return costs.combined(self.shape, [part for part in parts if part is not None], self.context.tail)

    def starting_points(self, shares: Sequence[float]) -> Iterator[Values]:
        """Values to try first: each reduction alone, then all together, brought down to each of `shares` of the MACs."""
        neutral = {name: value for settings in self._settings for name, value in settings.neutral(self.context).items()}
        together = {
            name: value for settings in self._settings for name, value in settings.starting_points(self.context)[0].items()
        }
        for share in shares:
            for settings in self._settings:
                for values in settings.starting_points(self.context):
                    yield self._costing(share, {**neutral, **values}, [settings.strength])
            if len(self._settings) > 1:
                yield self._costing(share, {**neutral, **together}, [settings.strength for settings in self._settings])

    def _costing(self, share: float, values: Values, strengths: Sequence[str]) -> Values:
        """`values` at the highest strength, to 1 % of its range, that costs at most `share`; at the lowest where none does."""
        turned = [one for one in self.parameters if isinstance(one, Parameter) and one.name in strengths]
        most = share * costs.macs(self.shape, Schedule())
        steps = 100
        low, high = 0, steps  # bisected over a grid: cost falls with strength, in steps

        def at(step: int) -> Values:
            return {**values, **{one.name: one.low + (one.high - one.low) * step / steps for one in turned}}

        while low < high:
            middle = (low + high + 1) // 2
            if costs.macs(self.shape, self.schedule(at(middle))) <= most:
                low = middle
            else:
                high = middle - 1
        return at(low)
