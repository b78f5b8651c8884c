"""What a schedule does to a backbone, as plain arithmetic, before anything runs: the work of each visit, MACs, weights."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from vittle.spaces.errors import ScheduleError
from vittle.spaces.reduction import Reduction
from vittle.spaces.schedule import Schedule
from vittle.spaces.shape import BackboneShape
from vittle.spaces.token_reduction import TokenReduction
from vittle.spaces.work import ALONE, BlockWork, Visit


def work(shape: BackboneShape, schedule: Schedule) -> tuple[BlockWork, ...]:
    """What each visit of a block computes, in the order in which they run. What it says is what runs and what is costed.

    Raises:
        ScheduleError: the schedule is for another depth, asks a block for more than it can do, has two reductions act where
            only one can, or has a tail that would change this backbone's output.
    """
    rows = asked(shape, schedule)
    for row in rows:
        for place in ALONE:
            if len(names := [act.reduction for act in row.at(place)]) > 1:
                raise ScheduleError(
                    f"{' and '.join(names)} each act on the {place} of visit {row.index}; accepted: one of them"
                )
    return rows


def asked(shape: BackboneShape, schedule: Schedule) -> tuple[BlockWork, ...]:
    """The same, whether or not all acts of a visit can be had together.

    Raises:
        ScheduleError: as `work` does, save for acts that exclude each other.
    """
    if schedule.tail == "prefix" and not shape.reads_prefix_only:
        raise ScheduleError("tail: prefix needs a head that reads prefix tokens alone; this one pools patches, use tail: full")
    route = visits(shape, schedule.reductions)
    for reduction in schedule.reductions:
        if reduction.depth not in (None, len(route)):
            raise ScheduleError(f"the schedule is for {reduction.depth} blocks, the model has {len(route)}")
        reduction.check(shape)
    proportional = attends_in_proportion(shape, schedule)
    rows: list[BlockWork] = []
    tokens, fewer = shape.tokens, False
    for index, visit in enumerate(route):
        keys = shape.prefix + round(visit.active * (tokens - shape.prefix))
        is_tail = schedule.tail == "prefix" and index == len(route) - 1
        row = BlockWork(
            index, visit, tokens, keys, shape.prefix if is_tail else keys, tokens, in_proportion=proportional and fewer
        )
        for reduction in schedule.reductions:
            row = reduction.act(shape, row)
        rows.append(replace(row, leaving=min(row.leaving, row.queries)) if is_tail else row)
        tokens, fewer = rows[-1].leaving, fewer or bool(row.at("tokens"))
    return tuple(rows)


def attends_in_proportion(shape: BackboneShape, schedule: Schedule) -> bool:
    """Whether tokens that stand for several patches are attended to in proportion to them."""
    parts = (part for part in schedule.reductions if isinstance(part, TokenReduction))
    return all(part.attends_in_proportion(shape) for part in parts)


def tokens(shape: BackboneShape, schedule: Schedule) -> tuple[int, ...]:
    """Tokens left after each visit, prefix tokens included."""
    return tuple(row.leaving for row in work(shape, schedule))


def visits_told(rows: Sequence[BlockWork]) -> list[dict[str, int]]:
    """Visit by visit the `block` that runs, its `step` of so many `steps`, all from 0, and how many tokens are `resting`."""
    steps = Counter(row.visit.block for row in rows)
    return [
        {"block": row.visit.block, "step": row.visit.step, "steps": steps[row.visit.block], "resting": row.resting}
        for row in rows
    ]


def computed(shape: BackboneShape, schedule: Schedule) -> tuple[int, ...]:
    """Of the tokens left after each visit those that did not rest in it."""
    return tuple(row.mlp for row in work(shape, schedule))


def macs(shape: BackboneShape, schedule: Schedule) -> int:
    """MACs of one image: patch embedding, blocks and classifier."""
    return shape.embed_macs + sum(row_macs(shape, row) for row in work(shape, schedule)) + shape.head_macs


def row_macs(shape: BackboneShape, row: BlockWork) -> int:
    """MACs of one visit, with all that the reductions compute in it."""
    return shape.block_macs(queries=row.queries, keys=row.keys, mlp=row.mlp, pairs=row.pairs) + row.extra_macs


def parameters(shape: BackboneShape, schedule: Schedule) -> int:
    """Weights that a schedule runs with, however often each of them runs; 0 where the shape does not know its own."""
    rows = work(shape, schedule)
    if not shape.block_parameters:
        return 0
    read = {(act.reduction, row.visit.block): act.parameters for row in rows for act in row.acts}
    blocks = len({row.visit.block for row in rows})
    return shape.other_parameters + blocks * shape.block_parameters + sum(read.values())


def dense_macs_through(shape: BackboneShape, block: int) -> int:
    """MACs of one image through a dense backbone up to and including the attention of a block."""
    whole = shape.block_macs(queries=shape.tokens, keys=shape.tokens, mlp=shape.tokens)
    return shape.embed_macs + block * whole + shape.block_macs(queries=shape.tokens, keys=shape.tokens, mlp=0)


def visits(shape: BackboneShape, reductions: Sequence[Reduction]) -> Sequence[Visit]:
    """The route through the blocks: once through each, unless a reduction has another.

    Raises:
        ScheduleError: two reductions have one.
    """
    routed = [(reduction.name, route) for reduction in reductions if (route := reduction.route(shape)) is not None]
    if len(routed) > 1:
        raise ScheduleError(f"{' and '.join(name for name, _ in routed)} each have a route through the blocks; accepted: one")
    return routed[0][1] if routed else [Visit(block) for block in range(shape.depth)]
