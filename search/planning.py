"""Schedules that a model of each block's sensitivity holds for best, for the first trials of a search.

The model is additive: the loss of a schedule is the sum of what its blocks would lose if each were reduced alone, by the share
of the patch tokens entering that it removes. Blocks do not quite add up (what is merged early cannot be merged late, and errors
grow on their way), so a plan is a guess to be measured, and its predicted loss only ranks.

Under that model the best schedule within a cost is a shortest path with a budget, found exactly by dynamic programming over
blocks (Bellman, "Dynamic programming", 1957; Joksch, "The shortest route problem with constraints", 1966):

    least[l + 1, left, spent + cost(l, tokens, left)] = min over tokens of  least[l, tokens, spent] + loss(l, tokens, left)

where costs are counted in small steps, so one pass answers every budget at once. A multiplier on the cost would be shorter
still, but it only finds schedules on the convex hull, and the steps of a latency staircase leave wide gaps in it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vittle.objectives.backbones.sensitivity import Sensitivity
from vittle.objectives.latency.profile import LAST, MLP, PLAIN, WEIGHTED, LatencyProfile
from vittle.search.block_plans import PAIRED, Plan, block_plans, pairs
from vittle.spaces import costs as arithmetic
from vittle.spaces.errors import VittleError
from vittle.spaces.reduction import Context, Reduction
from vittle.spaces.schedule import Schedule
from vittle.spaces.space import Space
from vittle.spaces.table import REDUCTIONS
from vittle.spaces.token_reduction import TokenReduction

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]

STEPS = 1000  # to the backbone's cost


class Prices(NamedTuple):
    """What a schedule costs as a share of the backbone, by the tokens that enter and leave its blocks.

        constant + sum over blocks of  stay[left] where nothing is removed, else act[tokens] + leave[left]

    The attention of a block is in the price of leaving the one before. Each array is (blocks, counts).
    """

    constant: float
    stay: Floats
    act: Floats
    leave: Floats

    def of(self, paths: Integers) -> Floats:
        """Costs (p,) of paths (p, blocks + 1) of positions among the counts."""
        blocks = np.arange(len(self.stay))
        before, after = paths[:, :-1], paths[:, 1:]
        acting = self.act[blocks, before] + self.leave[blocks, after]
        spent: Floats = np.where(before == after, self.stay[blocks, after], acting).sum(1)
        return self.constant + spent


def plans(
    space: Space, sensitivity: Sensitivity, costs: Sequence[float], profile: LatencyProfile | None = None
) -> list[Schedule]:
    """For each reduction of a space alone, the schedule with the least predicted loss within each cost; all different.

    Where there are token reductions and others, also for each pair of the two.

    Args:
        space: what is searched.
        sensitivity: of the same backbone.
        costs: the most that a schedule may cost, as a share of the backbone's latency where the profile is trusted and knows
            the reduction, else of its MACs. There is no plan for a cost that nothing reaches.
        profile: of the same backbone.

    Returns:
        In the order of the costs, and for each cost in that of the reductions, pairs last.

    Raises:
        VittleError: the sensitivity of a reduction was not measured, or on a backbone of another depth.
    """

    def cost(schedule: Schedule) -> float:
        known = profile is not None and profile.trusted and profile.knows(schedule)
        return profile.ratio(schedule) if known and profile is not None else space.macs_share(schedule)

    def plan(kind: type[Reduction], within: Sequence[float]) -> list[Plan | None]:
        if not issubclass(kind, TokenReduction):
            return block_plans(space, kind, sensitivity, within, cost)
        measured, needed = sensitivity.blocks(kind.name), space.context.blocks
        if measured != needed:
            raise VittleError(f"the sensitivity to {kind.name} was measured in {measured} blocks; accepted: {needed}")
        return _plans(space.context, kind, sensitivity, within, profile)

    kinds = [REDUCTIONS[name].settings for name in space.reductions]
    tokens = [kind for kind in kinds if issubclass(kind, TokenReduction)]
    others = [kind for kind in kinds if not issubclass(kind, TokenReduction)]
    finely = np.geomspace(max(costs), min(costs), PAIRED).tolist() if tokens and others else []
    of_each = {kind: plan(kind, [*costs, *finely]) for kind in kinds}
    planned = [plans_of[: len(costs)] for plans_of in of_each.values()]
    laid = {kind: [one for one in plans_of[len(costs) :] if one is not None] for kind, plans_of in of_each.items()}
    planned += [pairs(laid[other], laid[one], costs, cost) for other in others for one in tokens]
    found = [one.schedule for same_cost in zip(*planned, strict=True) for one in same_cost if one is not None]
    return list({schedule.id: schedule for schedule in found}.values())


def _plans(
    context: Context,
    kind: type[TokenReduction],
    sensitivity: Sensitivity,
    costs: Sequence[float],
    profile: LatencyProfile | None,
) -> list[Plan | None]:
    """The best schedule of one reduction within each cost; None where nothing is."""
    settings = kind.keeping_all(context)
    counts = _counts(context)
    prices = _prices(context, settings, counts, profile)
    losses = _losses(context, settings, counts, sensitivity)
    paths = _paths(losses, prices, max(costs, default=0.0))
    blocks = np.arange(len(losses))
    lost = losses[blocks, paths[:, :-1], paths[:, 1:]].sum(1)
    spent = prices.of(paths)
    order = np.lexsort((spent, lost))  # least loss first, of equals the cheapest
    within = (next((path for path in order if spent[path] <= most), None) for most in costs)
    return [
        None if path is None else Plan(_schedule(context, settings, counts[paths[path]]), float(lost[path])) for path in within
    ]


def _counts(context: Context) -> Integers:
    """The token counts (counts,) that a schedule may have, rising: those to which no token can be added for free."""
    shape = context.shape
    return np.array([count for count in range(shape.prefix + 1, shape.tokens + 1) if context.snapped(count) == count])


def _losses(context: Context, settings: TokenReduction, counts: Integers, sensitivity: Sensitivity) -> Floats:
    """The loss of each block by the tokens that enter and leave it, (depth, counts, counts); infinite where it cannot be."""
    shape = context.shape
    least = np.array([settings.nearest(shape, (), int(count), 0) for count in counts])
    possible = (counts <= counts[:, None]) & (counts >= least[:, None])
    removed = np.where(possible, (counts[:, None] - counts) / (counts[:, None] - shape.prefix), 0.0)
    losses = np.full((shape.depth, len(counts), len(counts)), np.inf)
    for block in range(shape.depth):
        if block < context.blocks:
            losses[block] = np.where(possible, sensitivity.losses(settings.name, block, removed), np.inf)
        np.fill_diagonal(losses[block], 0.0)
    return losses


def _prices(context: Context, settings: TokenReduction, counts: Integers, profile: LatencyProfile | None) -> Prices:
    shape = context.shape
    variants = [settings.variant(shape, block) for block in range(shape.depth)]
    if profile is None or not profile.trusted or not set(variants) <= profile.acting.keys():
        dense = arithmetic.macs(shape, Schedule())
        attention, mlp = _block_macs(context, counts) / dense
        acting = (np.zeros(attention.shape),) * 2
        fixed = (shape.embed_macs + shape.head_macs) / dense
    else:
        correction = profile.correction
        attention, mlp = correction.blocks * _block_times(context, settings, counts, profile)
        acts = [profile.acting[variant] for variant in variants]
        acting = (
            correction.acting * np.array([[one.base + (one.per_token + one.per_removed) * n for n in counts] for one in acts]),
            correction.acting * np.array([[-one.per_removed * n for n in counts] for one in acts]),
        )
        fixed = correction.blocks * profile.embed + correction.constant
    stay = mlp.copy()
    stay[:-1] += attention[1:]
    return Prices(fixed + float(attention[0, -1]), stay, acting[0], stay + acting[1])


def _block_macs(context: Context, counts: Integers) -> Floats:
    """MACs of each block's attention and MLP by the tokens that enter them, (2, depth, counts)."""
    shape = context.shape
    found = np.empty((2, shape.depth, len(counts)))
    for block in range(shape.depth):
        for place, count in enumerate(map(int, counts)):
            asking = shape.prefix if _is_tail(context, block) else count
            found[0, block, place] = shape.block_macs(queries=asking, keys=count, mlp=0)
            found[1, block, place] = shape.block_macs(queries=0, keys=0, mlp=asking)
    return found


def _block_times(context: Context, settings: TokenReduction, counts: Integers, profile: LatencyProfile) -> Floats:
    """The same in time, before correction."""
    shape = context.shape
    weighted = settings.attends_in_proportion(shape)
    found = np.empty((2, shape.depth, len(counts)))
    for block in range(shape.depth):
        tail = _is_tail(context, block)
        for place, count in enumerate(map(int, counts)):
            part = LAST if tail else WEIGHTED if weighted and count < shape.tokens else PLAIN
            found[0, block, place] = profile.parts[part].at(count)
            found[1, block, place] = profile.parts[MLP].at(shape.prefix if tail else count)
    return found


def _is_tail(context: Context, block: int) -> bool:
    return context.tail == "prefix" and block == context.shape.depth - 1


def _paths(losses: Floats, prices: Prices, most: float) -> Integers:
    """For each cost up to `most`, in steps, the path with the least loss: (paths, depth + 1) positions among the counts."""
    depth, counts, _ = losses.shape
    dense = np.full((1, depth + 1), counts - 1)
    stay, act, leave = (np.rint(price * STEPS).astype(np.intp) for price in prices[1:])
    # Rounding may take half a step per price, and a price of leaving below 0 comes after that of acting.
    slack = depth + max(0, -int(leave.min()))
    size = max(0, int((min(most, prices.of(dense)[0]) - prices.constant) * STEPS)) + slack + 1
    least = np.full((depth + 1, counts, size), np.inf)  # by block, tokens that enter it, and what was spent
    least[0, -1, 0] = 0.0
    for block in range(depth):
        acted = _later(least[block], act[block])
        removing = np.full((counts, size), np.inf)
        for left in range(counts):
            before = np.flatnonzero(np.isfinite(losses[block, left + 1 :, left])) + left + 1
            if len(before):
                first, last = before[0], before[-1] + 1
                removing[left] = (acted[first:last] + losses[block, first:last, left, None]).min(0)
        least[block + 1] = np.minimum(_later(least[block], stay[block]), _later(removing, leave[block]))

    spent = np.flatnonzero(np.isfinite(least[-1]).any(0))
    paths = np.empty((len(spent), depth + 1), dtype=np.intp)
    paths[:, -1] = least[-1][:, spent].argmin(0)
    each, entering = np.arange(len(spent)), np.arange(counts)
    for block in reversed(range(depth)):
        after = paths[:, block + 1]
        price = act[block] + leave[block][after][:, None]  # (paths, counts), as is what follows
        price[each, after] = stay[block][after]
        at = spent[:, None] - price
        reached = (at >= 0) & (at < size)
        loss = least[block][entering, np.where(reached, at, 0)] + losses[block][:, after].T
        paths[:, block] = np.where(reached, loss, np.inf).argmin(1)
        spent = at[each, paths[:, block]]
    return paths


def _later(least: Floats, price: Integers) -> Floats:
    """The rows of (counts, size) moved to the right by their prices (counts,)."""
    if not price.any():
        return least
    at = np.arange(least.shape[1]) - price[:, None]
    inside = (at >= 0) & (at < least.shape[1])
    return np.where(inside, np.take_along_axis(least, np.where(inside, at, 0), 1), np.inf)


def _schedule(context: Context, settings: TokenReduction, tokens: Integers) -> Schedule:
    """The schedule with these tokens (depth + 1,) before, between and after the blocks."""
    part = settings.realising(context.shape, list(zip(map(int, tokens[:-1]), map(int, tokens[1:]), strict=True)))
    return Schedule(() if part is None else (part,), context.tail)
