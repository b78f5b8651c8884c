"""Plans of reductions that are no token counts: in each block one of the settings whose loss was measured there, or nothing.

As in `planning`, losses of blocks add up, and so do the costs that they save. Which probe each block gets is a knapsack with a
choice in each block, solved exactly over costs in small steps:

    least[l + 1, saved + saving(l, probe)] = min over probes of  least[l, saved] + loss(l, probe)

Where token reductions are searched too, plans of both kinds are laid on top of each other: of all pairs that together cost as
little as is wanted, the one whose losses add up to least.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vittle.objectives.backbones.sensitivity import Sensitivity
from vittle.spaces.reduction import Probe, Reduction
from vittle.spaces.schedule import Schedule
from vittle.spaces.space import Space

STEPS = 1000  # to the backbone's cost
PAIRED = 24  # costs at which plans of each kind are made to be laid on top of each other

Integers = NDArray[np.intp]
Cost = Callable[[Schedule], float]
"""What a schedule costs as a share of the backbone."""


class Plan(NamedTuple):
    """A schedule, with the loss in nats that it is expected to have."""

    schedule: Schedule
    loss: float


def block_plans(
    space: Space, kind: type[Reduction], sensitivity: Sensitivity, costs: Sequence[float], cost: Cost
) -> list[Plan | None]:
    """For each cost the plan of one reduction with the least loss within it; None where there is none.

    Args:
        space: what is searched.
        kind: the reduction.
        sensitivity: of the same backbone; without points of the reduction nothing is planned.
        costs: the most that a plan may cost.
        cost: of a schedule; of the plans it is asked again, since savings do not quite add up.
    """
    context = space.context
    whole = cost(Schedule((), context.tail))
    options: list[list[tuple[int, float, Probe]]] = [[] for _ in range(context.blocks)]
    for probe in kind.probes(context) if sensitivity.blocks(kind.name) else ():
        saved = round((whole - cost(Schedule((probe.settings,), context.tail))) * STEPS)
        if saved > 0:
            options[probe.block].append((saved, sensitivity.loss(kind.name, probe.block, probe.strength), probe))
    most = sum(max((saved for saved, *_ in block), default=0) for block in options)
    least = np.full(most + 1, np.inf)
    least[0] = 0.0
    chosen: list[Integers] = []
    for block in options:
        best, choice = least.copy(), np.full(most + 1, -1)
        for index, (saved, loss, _) in enumerate(block):
            shifted = np.full(most + 1, np.inf)
            shifted[saved:] = least[: most + 1 - saved] + loss
            choice[shifted < best] = index
            best = np.minimum(best, shifted)
        chosen.append(choice)
        least = best
    found, furthest = [], 0
    for saved in map(int, np.argsort(least, kind="stable")):  # what loses more has to save more
        if saved > furthest and np.isfinite(least[saved]) and (schedule := _joined(space, options, chosen, saved)):
            found.append(Plan(schedule, float(least[saved])))
            furthest = saved
    return _within(found, costs, cost)


def _joined(
    space: Space, options: Sequence[Sequence[tuple[int, float, Probe]]], chosen: Sequence[Integers], saved: int
) -> Schedule | None:
    """The schedule that saves so much, read off what was chosen in each block, from the last one on."""
    probes: list[Probe] = []
    for block, choice in zip(reversed(options), reversed(chosen), strict=True):
        if (index := int(choice[saved])) >= 0:
            of_probe, _, probe = block[index]
            probes.append(probe)
            saved -= of_probe
    settings = type(probes[0].settings).joined([probe.settings for probe in probes])
    return None if settings is None else Schedule((settings,), space.context.tail)


def pairs(first: Sequence[Plan], second: Sequence[Plan], costs: Sequence[float], cost: Cost) -> list[Plan | None]:
    """For each cost the two plans, of different reductions, that lose least on top of each other; None where none do."""
    both = [
        Plan(Schedule((*one.schedule.reductions, *other.schedule.reductions), one.schedule.tail), one.loss + other.loss)
        for one in first
        for other in second
    ]
    return _within(sorted(both, key=lambda plan: plan.loss), costs, cost)


def _within(plans: Sequence[Plan], costs: Sequence[float], cost: Cost) -> list[Plan | None]:
    """For each cost the first of some plans that costs no more."""
    spent = [cost(plan.schedule) for plan in plans]
    return [next((plan for plan, share in zip(plans, spent, strict=True) if share <= most), None) for most in costs]
