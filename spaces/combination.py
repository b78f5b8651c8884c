"""From the shares that reductions should keep to one schedule that can run, and back.

The shares of several reductions multiply: each is a share of the patch tokens that the others leave. A reduction answers for
its own share alone: what a block cannot do (at most half of the patch tokens merge at once) the same reduction makes up for in
the blocks after it, and no other one does.

Only one reduction can act in place of a visit's attention: the first in the table does, and the others leave that visit alone.
What has no effect in the end is left out, so that equal work has one schedule.

Counts are rounded for what enters the block, made feasible, and then raised as far as that costs the device no time. What comes
out is left as it is when it is asked for again, so the shares that a schedule keeps stand for that very schedule.
"""

from collections.abc import Sequence

from vittle.spaces import costs
from vittle.spaces.reduction import Context, Reduction
from vittle.spaces.schedule import Schedule
from vittle.spaces.shape import BackboneShape
from vittle.spaces.token_reduction import Counts, TokenReduction
from vittle.spaces.work import ALONE, BlockWork, Place


def combined(
    context: Context, parts: Sequence[tuple[TokenReduction, Sequence[float]]], others: Sequence[Reduction] = ()
) -> Schedule:
    """The schedule in which each reduction keeps the share that it is given of what enters a block, or the nearest it can.

    Args:
        context: the backbone, and the counts that cost the device no more.
        parts: token reductions in the order in which they act, each with the share wanted after each of `context.blocks`,
            falling.
        others: reductions that leave the token counts alone.
    """
    shape = context.shape
    visits = costs.visits(shape, others)
    # Nothing is reduced where nobody reads it, nor where some rest.
    read = max(1, len(visits) - (context.tail == "prefix"))
    end = min(context.blocks, read, next((index for index, visit in enumerate(visits) if visit.active < 1), read))
    done: list[list[tuple[int, int]]] = [[] for _ in parts]
    reached = [1.0] * len(parts)
    left = shape.tokens
    for block in range(len(visits)):
        for index, (part, shares) in enumerate(parts):
            after = left
            if block < end:
                patches = round((left - shape.prefix) * min(1.0, shares[block] / reached[index]))
                after = _raised(context, part, done[index], left, shape.prefix + patches)
            done[index].append((left, after))
            reached[index] *= _share(context, left, after)
            left = after
    realised = (part.realising(shape, counts) for (part, _), counts in zip(parts, done, strict=True))
    schedule = Schedule((*others, *(part for part in realised if part is not None)), context.tail)
    if not others:  # counts that are realised have an effect
        return schedule
    schedule = effective(shape, schedule)
    rest = [part for part in schedule.reductions if not isinstance(part, TokenReduction)]
    return schedule if len(rest) == len(others) else combined(context, parts, rest)  # who is gone may have had a route


def effective(shape: BackboneShape, schedule: Schedule) -> Schedule:
    """The same schedule without what has no effect, and without acts in a place that an earlier reduction has taken.

    Where a reduction cannot be written without an act that it may not have, all of it is left out.

    Raises:
        ScheduleError: the schedule does not fit the backbone.
    """
    rows = costs.asked(shape, schedule)
    taken: set[tuple[int, Place]] = set()
    for part in schedule.reductions:
        free = [row for row in rows if (places := _places(row, part)) and taken.isdisjoint(places)]
        realised = part.acting_in(shape, free)
        others = tuple(one for one in schedule.reductions if one.name != part.name)
        if realised is not None and realised != part:
            schedule = Schedule((*others, realised), schedule.tail)
            rows = costs.asked(shape, schedule)
        alone = {place for row in rows for place in _places(row, part) if place[1] in ALONE}
        if realised is None or taken & alone:
            schedule = Schedule(others, schedule.tail)
        else:
            taken |= alone
    return schedule


def _places(row: BlockWork, part: Reduction) -> list[tuple[int, Place]]:
    """Where in a visit it acts."""
    return [(row.index, act.place) for act in row.acts if act.reduction == part.name]


def shares(context: Context, schedule: Schedule) -> dict[str, list[float]]:
    """The share that each token reduction of a schedule keeps after each of `context.blocks`.

    Raises:
        ScheduleError: the schedule does not fit the backbone.
    """
    found: dict[str, list[float]] = {part.name: [] for part in schedule.reductions if isinstance(part, TokenReduction)}
    reached = dict.fromkeys(found, 1.0)
    for row in costs.work(context.shape, schedule)[: context.blocks]:
        for act in row.at("tokens"):
            reached[act.reduction] *= _share(context, act.entering, act.leaving)
        for name, share in reached.items():
            found[name].append(share)
    return {name: kept + kept[-1:] * (context.blocks - len(kept)) for name, kept in found.items()}


def _raised(context: Context, part: TokenReduction, passed: Counts, tokens: int, asked: int) -> int:
    """The count nearest to what is asked, or the highest that the block can realise and that takes no longer."""
    nearest = part.nearest(context.shape, passed, tokens, asked)
    for count in range(min(tokens, context.snapped(nearest)), nearest, -1):
        if part.nearest(context.shape, passed, tokens, count) == count:
            return count
    return nearest


def _share(context: Context, before: int, after: int) -> float:
    """Patch tokens in `after` as a share of those in `before`."""
    prefix = context.shape.prefix
    return (after - prefix) / (before - prefix)
