"""Token merging: how many tokens each block hands on.

Bolya et al., "Token Merging: Your ViT But Faster", arXiv 2210.09461. A block pairs similar tokens and replaces each pair by its
weighted mean, so at most half of its patch tokens can go at once. The settings hold the *realised* counts, tokens left after
each block, so nothing is clamped in silence.

A search varies a curve over depth in place of one number per block. From block `start` on, the share of patch tokens kept falls
from 1 to `end`:

    kept(l) = 1 - (1 - end) * ((l - start + 1) / (last - start + 1)) ** exponent

exponent 1 removes equally many in each block, below 1 more of them early, above 1 more of them late.
"""

import itertools
from collections.abc import Mapping
from typing import ClassVar, Self

from pydantic import field_validator

from vittle.spaces.errors import ScheduleError
from vittle.spaces.reduction import Parameter, Reduction, Tail
from vittle.spaces.shape import BackboneShape


class Merging(Reduction):
    """Merge similar tokens after attention.

    Attributes:
        kept: tokens left after each block, prefix tokens included.
        proportional: attend to a merged token in proportion to the patches in it (adds log size to its logits).
    """

    name: ClassVar[str] = "merging"
    strength: ClassVar[str] = "merging.end"

    kept: tuple[int, ...]
    proportional: bool = True

    @field_validator("kept")
    @classmethod
    def _falls(cls, kept: tuple[int, ...]) -> tuple[int, ...]:
        if not kept:
            raise ValueError("needs one token count per block")
        if kept[-1] < 1:
            raise ValueError(f"ends at {kept[-1]} tokens, at least 1 must be left")
        for block, (before, after) in enumerate(itertools.pairwise(kept), start=1):
            if after > before:
                raise ValueError(f"rises from {before} to {after} tokens in block {block}; counts can only fall")
        return kept

    @property
    def depth(self) -> int:
        return len(self.kept)

    def tokens_after(self, shape: BackboneShape, block: int, tokens: int) -> int:
        kept = self.kept[block]
        limit = most_merged(tokens, shape.prefix)
        if kept > tokens:
            raise ScheduleError(f"merging keeps {kept} tokens after block {block}, but only {tokens} enter it")
        if tokens - kept > limit:
            raise ScheduleError(
                f"merging removes {tokens - kept} of {tokens} tokens in block {block}; "
                f"at most half of its {tokens - shape.prefix} patch tokens, {limit}, can merge at once"
            )
        return kept

    def without_last_block(self) -> Self:
        if len(self.kept) < 2:
            return self
        return self.model_copy(update={"kept": (*self.kept[:-1], self.kept[-2])})

    @classmethod
    def parameters(cls, shape: BackboneShape) -> tuple[Parameter, ...]:
        return (
            Parameter("merging.start", 0, max(0, shape.depth - 2), integer=True),
            Parameter("merging.end", 0.02, 1.0),
            Parameter("merging.exponent", 0.25, 4.0, log=True),
        )

    @classmethod
    def propose(cls, shape: BackboneShape, tail: Tail, values: Mapping[str, float]) -> Self | None:
        start, end, exponent = int(values["merging.start"]), values["merging.end"], values["merging.exponent"]
        blocks = shape.depth - 1 if tail == "prefix" and shape.depth > 1 else shape.depth
        wanted = [
            shape.patches * (1 - (1 - end) * (max(0, block - start + 1) / (blocks - start)) ** exponent)
            for block in range(blocks)
        ]
        kept = feasible(shape, [shape.prefix + round(patches) for patches in wanted])
        kept += [kept[-1]] * (shape.depth - blocks)
        return cls(kept=tuple(kept)) if kept[-1] < shape.tokens else None

    @classmethod
    def neutral(cls, shape: BackboneShape) -> Mapping[str, float]:
        return {"merging.start": 0, "merging.end": 1.0, "merging.exponent": 1.0}

    @classmethod
    def starting_points(cls, shape: BackboneShape) -> tuple[Mapping[str, float], ...]:
        # Constant removal from the first block (ToMe), more of it early, and a delayed start (DSM: a sixth of the depth).
        curves = [(0, 1.0), (0, 0.5), (0, 0.25), (round(shape.depth / 6), 1.0)]
        latest = max(0, shape.depth - 2)
        return tuple({"merging.start": min(start, latest), "merging.exponent": exponent} for start, exponent in curves)


def most_merged(tokens: int, prefix: int) -> int:
    """How many of a block's `tokens` can merge at once: half of its patch tokens, since each needs a partner that stays."""
    return max(0, tokens - prefix) // 2


def feasible(shape: BackboneShape, wanted: list[int]) -> list[int]:
    """The counts nearest to `wanted` that blocks can realise one after another: never rising, never more than half gone."""
    kept: list[int] = []
    tokens = shape.tokens
    for count in wanted:
        tokens = max(min(count, tokens), tokens - most_merged(tokens, shape.prefix), shape.prefix + 1)
        kept.append(tokens)
    return kept
