"""The set of schedules that a study may propose."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np

from vittle.spaces import costs
from vittle.spaces.errors import VittleError
from vittle.spaces.reduction import AdapterRecord, Choice, Context, Parameter, Tail, Value, Values
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
        residuals: bool = False,
        free: Sequence[int] = (),
    ) -> None:
        unknown = [name for name in reductions if name not in REDUCTIONS]
        if unknown or not reductions:
            wrong = f"unknown reduction {unknown[0]!r}" if unknown else "no reduction to search"
            raise VittleError(f"{wrong}; accepted: {', '.join(REDUCTIONS)}")
        self._settings = [REDUCTIONS[name].settings for name in REDUCTIONS if name in reductions]
        for settings in self._settings:
            if (reason := settings.refusal(shape)) is not None:
                raise VittleError(f"{settings.name} does not fit this model: {reason}; accepted: {', '.join(fitting(shape))}")
        tail: Tail = "prefix" if shape.reads_prefix_only else "full"
        self.context = Context(shape, tail, start, adapters or {}, residuals, free)

    @property
    def shape(self) -> BackboneShape:
        return self.context.shape

    @property
    def reductions(self) -> tuple[str, ...]:
        """What is searched, in the order in which it acts."""
        return tuple(settings.name for settings in self._settings)

    @property
    def parameters(self) -> tuple[Parameter | Choice, ...]:
        return tuple(parameter for settings in self._settings for parameter in settings.parameters(self.context))

    def schedule(self, values: Values) -> Schedule:
        """The schedule that a value for each parameter stands for. Every value within its range is feasible."""
        parts = (settings.propose(self.context, values) for settings in self._settings)
        there = [part for part in parts if part is not None]
        return costs.combined(self.shape, there, self.context.tail, self.context.snapped)

    def draw(self, generator: np.random.Generator) -> Values:
        """A value for each parameter, at random."""
        return {one.name: _drawn(one, generator) for one in self.parameters}

    def cheapest(self) -> list[Schedule]:
        """The schedules with the lowest MACs that each reduction alone, and all together, can have; cheapest first."""
        found = [space._cheapest(values) for space in self.parts() for values in space.starting_points([0.0])]
        return sorted({schedule.id: schedule for schedule in found}.values(), key=self.macs_share)

    def parts(self) -> list[Self]:
        """The spaces of each reduction alone, and where there are several this one, of all together."""
        if len(self._settings) == 1:
            return [self]
        context = self.context
        about: dict[str, Any] = {
            "start": context.start,
            "adapters": context.adapters,
            "residuals": context.residuals,
            "free": context.free,
        }
        return [*(type(self)(self.shape, (name,), **about) for name in self.reductions), self]

    def _cheapest(self, values: Values) -> Schedule:
        """From `values` on, every parameter at that end of its range, or that option, which costs least."""
        best, schedule = dict(values), self.schedule(values)
        for parameter in self.parameters:
            for end in parameter.options if isinstance(parameter, Choice) else (parameter.low, parameter.high):
                tried = self.schedule({**best, parameter.name: end})
                if self.macs_share(tried) < self.macs_share(schedule):
                    best, schedule = {**best, parameter.name: end}, tried
        return schedule

    def macs_share(self, schedule: Schedule) -> float:
        """MACs of a schedule as a share of the backbone's."""
        return costs.macs(self.shape, schedule) / costs.macs(self.shape, Schedule())

    def starting_points(self, shares: Sequence[float], cost: Callable[[Schedule], float] | None = None) -> Iterator[Values]:
        """Values to try first: each reduction alone, then all together, brought down to each of `shares` of the cost.

        Args:
            shares: the most that a schedule may cost; where none costs as little, the cheapest.
            cost: what a schedule costs as a share of the backbone, falling as more is reduced; MACs where none is given.
        """
        cost = cost or self.macs_share
        neutral = {name: value for settings in self._settings for name, value in settings.neutral(self.context).items()}
        together = {
            name: value for settings in self._settings for name, value in settings.starting_points(self.context)[0].items()
        }
        for most in shares:
            for settings in self._settings:
                for values in settings.starting_points(self.context):
                    yield self._costing(most, cost, {**neutral, **values}, [settings.strength])
            if len(self._settings) > 1:
                strengths = [settings.strength for settings in self._settings]
                yield self._costing(most, cost, {**neutral, **together}, strengths)

    def _costing(self, most: float, cost: Callable[[Schedule], float], values: Values, strengths: Sequence[str]) -> Values:
        """`values` with the most kept, to 1 % of its range, that costs at most `most`; with the least kept where none does."""
        turned = [one for one in self.parameters if isinstance(one, Parameter) and one.name in strengths]
        steps = 100
        low, high = 0, steps  # bisected over a grid: cost falls with strength, in steps

        def at(step: int) -> Values:
            return {**values, **{one.name: one.low + (one.high - one.low) * step / steps for one in turned}}

        while low < high:
            middle = (low + high + 1) // 2
            if cost(self.schedule(at(middle))) <= most:
                low = middle
            else:
                high = middle - 1
        return at(low)


def fitting(shape: BackboneShape) -> list[str]:
    """The names of the reductions that fit a backbone."""
    return [name for name, entry in REDUCTIONS.items() if entry.settings.refusal(shape) is None]


def _drawn(one: Parameter | Choice, generator: np.random.Generator) -> Value:
    if isinstance(one, Choice):
        return str(generator.choice(one.options))
    if one.integer:
        return int(generator.integers(int(one.low), int(one.high) + 1))
    if one.log:
        return float(np.exp(generator.uniform(np.log(one.low), np.log(one.high))))
    return float(generator.uniform(one.low, one.high))
