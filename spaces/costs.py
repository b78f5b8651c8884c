"""What a schedule does to a backbone, as plain arithmetic: token counts and MACs, before anything runs."""

from typing import NamedTuple

from vittle.spaces.errors import ScheduleError
from vittle.spaces.schedule import Schedule
from vittle.spaces.shape import BackboneShape


class BlockWork(NamedTuple):
    """One block under a schedule.

    Attributes:
        keys: tokens that enter and are attended to.
        queries: tokens that attend: all of them, or the prefix tokens alone.
        steps: (reduction, tokens left after it), in the order in which they act between attention and MLP.
        tokens: tokens that pass the MLP and leave.
        embedding_macs: MACs of what the reductions compute besides.
    """

    keys: int
    queries: int
    steps: tuple[tuple[str, int], ...]
    tokens: int
    embedding_macs: int = 0


def plan(shape: BackboneShape, schedule: Schedule) -> tuple[BlockWork, ...]:
    """What happens in each block. The counts are what runs and what is costed.

    Raises:
        ScheduleError: the schedule is for another depth, asks a block for more than it can do, or has a tail that would
            change this backbone's output.
    """
    if schedule.tail == "prefix" and not shape.reads_prefix_only:
        raise ScheduleError("tail: prefix needs a head that reads prefix tokens alone; this one pools patches, use tail: full")
    for reduction in schedule.reductions:
        if reduction.depth != shape.depth:
            raise ScheduleError(f"the schedule is for {reduction.depth} blocks, the model has {shape.depth}")
        reduction.check(shape)
    blocks = []
    tokens = shape.tokens
    for block in range(shape.depth):
        keys = tokens
        queries = shape.prefix if schedule.tail == "prefix" and block == shape.depth - 1 else keys
        steps, embedding = [], 0
        for reduction in schedule.reductions:
            left = reduction.tokens_after(shape, block, tokens)
            if left < tokens:
                steps.append((reduction.name, left))
                embedding += reduction.embedding_macs(shape, keys)
            tokens = left
        tokens = min(tokens, queries)
        blocks.append(BlockWork(keys, queries, tuple(steps), tokens, embedding))
    return tuple(blocks)


def tokens(shape: BackboneShape, schedule: Schedule) -> tuple[int, ...]:
    """Tokens left after each block, prefix tokens included."""
    return tuple(block.tokens for block in plan(shape, schedule))


def macs(shape: BackboneShape, schedule: Schedule) -> int:
    """MACs of one image: patch embedding, blocks and classifier."""
    blocks = plan(shape, schedule)
    inside = sum(
        shape.block_macs(queries=block.queries, keys=block.keys, mlp=block.tokens) + block.embedding_macs for block in blocks
    )
    return shape.embed_macs + inside + shape.head_macs


def dense_macs_through(shape: BackboneShape, block: int) -> int:
    """MACs of one image through a dense backbone up to and including the attention of a block."""
    whole = shape.block_macs(queries=shape.tokens, keys=shape.tokens, mlp=shape.tokens)
    return shape.embed_macs + block * whole + shape.block_macs(queries=shape.tokens, keys=shape.tokens, mlp=0)
