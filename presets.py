"""Named schedules that people try by hand, for a timm model: `constant`, `linear`, `delayed` and `kept`.

A block can merge at most half of its patch tokens. Where a preset asks for more, the block merges that half, as is usual;
`vittle.tokens(model, schedule)` says what is left. Presets keep `tail="full"` unless told otherwise, so that their costs are
the published ones.
"""

from collections.abc import Sequence

from torch import nn

from vittle.reductions.backbone import shape_of
from vittle.spaces import costs
from vittle.spaces.errors import ScheduleError
from vittle.spaces.merging import Merging, most_merged
from vittle.spaces.reduction import Tail
from vittle.spaces.schedule import Schedule
from vittle.spaces.shape import BackboneShape

Model = nn.Module | BackboneShape


def constant(model: Model, removed: int, *, tail: Tail = "full") -> Schedule:
    """Merge `removed` tokens away in every block (ToMe's r, arXiv 2210.09461)."""
    return delayed(model, 0, removed, tail=tail)


def linear(model: Model, removed: int, inflection: float, *, tail: Tail = "full") -> Schedule:
    """Merge `removed` tokens away in the average block, on a straight line over depth.

    `inflection` -1 falls from 2 x removed to none, 0 is constant, 1 rises from none to 2 x removed. Rounding is exact: where no
    block reaches its half, depth x removed tokens go in all (the published integer truncation loses some of them).
    """
    if not -1 <= inflection <= 1:
        raise ScheduleError(f"inflection is {inflection}; accepted: -1 (early) to 1 (late)")
    shape = shape_of(model)
    _check_removed(removed)
    last = max(1, shape.depth - 1)
    slopes = [removed * (1 + inflection * (2 * block / last - 1)) for block in range(shape.depth)]
    totals = [round(sum(slopes[: block + 1])) for block in range(shape.depth)]
    return _removing(shape, [after - before for before, after in zip([0, *totals], totals, strict=False)], tail)


def delayed(model: Model, start: int, removed: int, *, tail: Tail = "full") -> Schedule:
    """Merge `removed` tokens away in every block from block `start` on (delayed merging, arXiv 2303.02331)."""
    shape = shape_of(model)
    _check_removed(removed)
    if not 0 <= start < shape.depth:
        raise ScheduleError(f"start is {start}; accepted: 0 to {shape.depth - 1}, the model's blocks")
    return _removing(shape, [0] * start + [removed] * (shape.depth - start), tail)


def kept(model: Model, merged: Sequence[int], *, tail: Tail = "full") -> Schedule:
    """Keep `merged[l]` tokens after block l, prefix tokens included, exactly.

    Raises:
        ScheduleError: not one count per block, counts that rise, or a block that would lose more than half of its patches.
    """
    shape = shape_of(model)
    if len(merged) != shape.depth:
        raise ScheduleError(f"{len(merged)} token counts are given, the model has {shape.depth} blocks")
    schedule = Schedule.from_dict({"tail": tail, "merging": {"kept": list(merged)}})
    costs.plan(shape, schedule)
    return schedule


def _removing(shape: BackboneShape, removed: list[int], tail: Tail) -> Schedule:
    counts: list[int] = []
    tokens = shape.tokens
    for wanted in removed:
        tokens -= min(wanted, most_merged(tokens, shape.prefix))
        counts.append(tokens)
    return Schedule((Merging(kept=tuple(counts)),), tail)


def _check_removed(removed: int) -> None:
    if removed < 0:
        raise ScheduleError(f"removed is {removed}; accepted: 0 or more tokens per block")
