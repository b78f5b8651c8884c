"""Token pruning: how many tokens each block keeps, the least important ones dropped.

Importance is the attention that the class token pays in the same block (Chen et al., "DiffRate: Differentiable Compression
Rate for Efficient Vision Transformers", arXiv 2305.17997, section 3; Liang et al., "EViT", arXiv 2202.07800). Pruning comes
before merging in a block. Any number of patch tokens may go at once, one has to stay. A search varies the share kept after each
block.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import field_validator

from vittle.spaces import published, shares
from vittle.spaces.curve import Curve, latest_start
from vittle.spaces.errors import ScheduleError
from vittle.spaces.reduction import Choice, Context, Parameter, Start, Values
from vittle.spaces.shape import BackboneShape
from vittle.spaces.token_reduction import Counts, TokenReduction
from vittle.spaces.validation import Count, falling

WORDS = {
    "en": {
        "name": "pruning",
        "title": "Pruning: unimportant tokens are dropped",
        "act": "{count} dropped",
        "probe": "pruning removes {share} of its tokens",
        "rules": {"pruning": "least attended to by the class token"},
        "summary": {"name": "pruning"},
    },
    "ja": {
        "name": "プルーニング",
        "title": "プルーニング：重要でないトークンを取り除く",
        "act": "{count} 個を削除",
        "probe": "プルーニングでトークンの {share} を削減",
        "rules": {"pruning": "クラストークンの注意が最も小さいもの"},
        "summary": {"name": "プルーニング"},
    },
}
NEEDS_CLASS = "it ranks tokens by the attention of the class token, and this model has none"


class Pruning(TokenReduction):
    """Drop the tokens that the class token attends to least.

    Attributes:
        kept: tokens that may stay in each block, prefix tokens included; where no more than that enter, nothing is pruned.
    """

    name: ClassVar[str] = "pruning"
    words: ClassVar[Mapping[str, Any]] = WORDS

    kept: tuple[Count, ...]

    _falls = field_validator("kept")(falling)

    @property
    def depth(self) -> int:
        return len(self.kept)

    def check(self, shape: BackboneShape) -> None:
        if (reason := self.refusal(shape)) is not None:
            raise ScheduleError(f"pruning does not fit: {reason}")

    def tokens_after(self, shape: BackboneShape, block: int, tokens: int) -> int:
        kept = self.kept[block]
        least = min(tokens, shape.prefix + 1)
        if kept < least:
            raise ScheduleError(f"pruning keeps {kept} tokens after block {block}, at least {least} have to stay")
        return min(kept, tokens)

    def nearest(self, shape: BackboneShape, passed: Counts, tokens: int, wanted: int) -> int:
        del passed
        return max(min(wanted, tokens), min(tokens, shape.prefix + 1))

    def realising(self, shape: BackboneShape, counts: Counts) -> Self | None:
        del shape
        if all(before == after for before, after in counts):
            return None
        return self.model_copy(update={"kept": tuple(after for _, after in counts)})

    def without_last_block(self) -> Self:
        return self.model_copy(update={"kept": (*self.kept[:-1], self.kept[-2])}) if len(self.kept) > 1 else self

    @classmethod
    def refusal(cls, shape: BackboneShape) -> str | None:
        return None if shape.has_class else NEEDS_CLASS

    @classmethod
    def parameters(cls, context: Context) -> tuple[Parameter | Choice, ...]:
        return shares.parameters(cls.name, context)

    @classmethod
    def propose(cls, context: Context, values: Values) -> Self:
        del values
        return cls(kept=(context.shape.tokens,) * context.shape.depth)

    def encode(self, context: Context) -> Values:
        del context
        return {}

    @classmethod
    def neutral(cls, context: Context) -> Values:
        return shares.neutral(cls.name, context)

    @classmethod
    def starting_points(cls, context: Context, end: float) -> tuple[Start, ...]:
        depth, blocks = context.shape.depth, context.blocks
        line = Curve(min(2, latest_start(context.shape)), end).shares(blocks)
        learnt = [published.shares(kept, depth, blocks, end) for kept in published.PRUNED]
        named = [("delayed", line), *(("published", rates) for rates in learnt)]
        return tuple(Start(origin, shares.written(cls.name, kept)) for origin, kept in named)
