"""The set of schedules that a study may propose."""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from vittle.spaces import combination, costs, shares
from vittle.spaces.errors import VittleError
from vittle.spaces.reduction import AdapterRecord, Choice, Context, Parameter, Reduction, Start, Tail, Value, Values
from vittle.spaces.schedule import Schedule
from vittle.spaces.shape import BackboneShape
from vittle.spaces.table import REDUCTIONS, check_reductions
from vittle.spaces.token_reduction import TokenReduction

if TYPE_CHECKING:
    from numpy.random import Generator

STEPS = 100  # at which a starting point may end


class Space:
    """The chosen reductions on one backbone, as named numbers and choices that a sampler understands.

    The tail is not searched: where it is lossless, leaving it out only costs.

    Args:
        shape: the backbone's.
        reductions: names out of the table.
        start: the block from which merging may start, as detected.
        adapters: trained weights at hand, by reduction.
        free: for each token count, the most tokens that take a block no longer on the device.

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
        free: Sequence[int] = (),
    ) -> None:
        check_reductions(reductions)
        self._settings = [REDUCTIONS[name].settings for name in REDUCTIONS if name in reductions]
        for settings in self._settings:
            if (reason := settings.refusal(shape)) is not None:
                raise VittleError(f"{settings.name} does not fit this model: {reason}; accepted: {', '.join(fitting(shape))}")
        tail: Tail = "prefix" if shape.reads_prefix_only else "full"
        self.context = Context(shape, tail, start, adapters or {}, free)

    @property
    def shape(self) -> BackboneShape:
        return self.context.shape

    @property
    def reductions(self) -> tuple[str, ...]:
        """What is searched, in the order in which it acts."""
        return tuple(settings.name for settings in self._settings)

    @cached_property
    def parameters(self) -> tuple[Parameter | Choice, ...]:
        return tuple(parameter for settings in self._settings for parameter in settings.parameters(self.context))

    @cached_property
    def _neutral(self) -> Values:
        return {name: value for settings in self._settings for name, value in settings.neutral(self.context).items()}

    @cached_property
    def _dense_macs(self) -> int:
        return costs.macs(self.shape, Schedule())

    def schedule(self, values: Values) -> Schedule:
        """The schedule that a value for each parameter stands for. Every value within its range is feasible."""
        parts: list[tuple[TokenReduction, Sequence[float]]] = []
        others: list[Reduction] = []
        for settings in self._settings:
            proposed = settings.propose(self.context, values)
            if isinstance(proposed, TokenReduction):
                parts.append((proposed, shares.read(settings.name, self.context, values)))
            elif proposed is not None:
                others.append(proposed)
        return combination.combined(self.context, parts, others)

    def candidate(self, values: Values) -> Schedule:
        """The same, for a search that does not know what it searches."""
        return self.schedule(values)

    def encode(self, schedule: Schedule) -> Values:
        """The canonical value of each parameter: what `schedule` makes this schedule of, if it can make it at all.

        Values without effect are neutral. The tail is not searched, so it is not looked at. Where counts could be raised at no
        cost, which this space always does, `schedule` gives the raised ones.

        Raises:
            VittleError: a reduction, an option or an adapter that this space does not have, or another backbone's schedule.
        """
        for part in schedule.reductions:
            if part.name not in self.reductions:
                raise VittleError(f"{part.name} is not searched here; accepted: {', '.join(self.reductions)}")
        values = dict(self._neutral)
        kept = combination.shares(self.context, schedule)
        schedule = combination.effective(self.shape, schedule)
        for part in schedule.reductions:
            counts = shares.written(part.name, kept[part.name]) if part.name in kept else {}
            values |= {**counts, **part.encode(self.context)}
        for parameter in self.parameters:
            if not parameter.holds(value := values[parameter.name]):
                raise VittleError(f"{parameter.name} is {value} in this schedule; the space has {parameter.accepted}")
        return values

    def draw(self, generator: "Generator") -> Values:
        """A value for each parameter, at random."""
        return {one.name: _drawn(one, generator) for one in self.parameters}

    def cheapest(self) -> list[Schedule]:
        """The schedules with the lowest MACs that each reduction alone, and all together, can have; cheapest first."""
        found = map(self._cheapest, self._starts(0.0))
        return sorted({schedule.id: schedule for schedule in found}.values(), key=self.macs_share)

    def parts(self) -> list[Self]:
        """The spaces of each reduction alone, and where there are several this one, of all together."""
        if len(self._settings) == 1:
            return [self]
        context = self.context
        about: dict[str, Any] = {"start": context.start, "adapters": context.adapters, "free": context.free}
        return [*(type(self)(self.shape, (name,), **about) for name in self.reductions), self]

    def _cheapest(self, start: Start) -> Schedule:
        """No token kept by what a starting point reduces, and of every other parameter the end or option that costs least."""
        best = dict(start.values)
        acting = [
            settings
            for settings in self._settings
            if any(best[one.name] != self._neutral[one.name] for one in settings.parameters(self.context))
        ]
        for settings in acting:
            if issubclass(settings, TokenReduction):
                best |= shares.written(settings.name, [0.0] * self.context.blocks)
        schedule = self.schedule(best)
        for parameter in (parameter for settings in acting for parameter in settings.parameters(self.context)):
            for end in parameter.options if isinstance(parameter, Choice) else (parameter.low, parameter.high):
                tried = self.schedule({**best, parameter.name: end})
                if self.macs_share(tried) < self.macs_share(schedule):
                    best, schedule = {**best, parameter.name: end}, tried
        return schedule

    def macs_share(self, schedule: Schedule) -> float:
        """MACs of a schedule as a share of the backbone's."""
        return costs.macs(self.shape, schedule) / self._dense_macs

    def starting_points(self, shares: Sequence[float], cost: Callable[[Schedule], float] | None = None) -> Iterator[Start]:
        """Values to try first: each reduction alone, then all together, brought down to each of `shares` of the cost.

        Each keeps the most that costs so little, to 1 % of what is left at last.

        Args:
            shares: the most that a schedule may cost; where none costs as little, the cheapest.
            cost: what a schedule costs as a share of the backbone, falling as more is reduced; MACs where none is given.
        """
        cost = cost or self.macs_share
        starts = [self._starts(step / STEPS) for step in range(STEPS + 1)]
        for most in shares:
            for turned in zip(*starts, strict=True):
                # Cost rises with the end, in steps.
                affordable = bisect_right(turned, most, key=lambda start: cost(self.schedule(start.values)))
                yield turned[max(0, affordable - 1)]

    def _starts(self, end: float) -> list[Start]:
        """The starting points that end at a share: each reduction alone, then all together where each has the same origin."""
        each = [starts for settings in self._settings if (starts := settings.starting_points(self.context, end))]
        first = [{start.origin: start.values for start in reversed(starts)} for starts in each]
        together = [
            Start(origin, {name: value for values in first for name, value in values[origin].items()})
            for origin in (reversed(first[0]) if len(first) > 1 else ())
            if all(origin in one for one in first)
        ]
        alone = [start for starts in each for start in starts]
        return [Start(start.origin, {**self._neutral, **start.values}) for start in (*alone, *together)]


def fitting(shape: BackboneShape) -> list[str]:
    """The names of the reductions that fit a backbone."""
    return [name for name, entry in REDUCTIONS.items() if entry.settings.refusal(shape) is None]


def _drawn(one: Parameter | Choice, generator: "Generator") -> Value:
    if isinstance(one, Choice):
        return str(generator.choice(one.options))
    if one.integer:
        return int(generator.integers(int(one.low), int(one.high) + 1))
    if one.log:
        return math.exp(generator.uniform(math.log(one.low), math.log(one.high)))
    return float(generator.uniform(one.low, one.high))
