"""What a schedule needs to know of a backbone: how many tokens it has and what each of them costs.

Costs are multiply-accumulates (MACs), which the field prints as "GFLOPs"; FLOPs are twice as many. Biases, norms, softmax and
the matching of tokens are not counted, as is usual (the matching of ToMe is about 0.1 % of a block).
"""

from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

from pydantic import Field

# What a shape that was written down may hold; see `vittle.spaces.validation.read_as`.
Depth = Annotated[int, Field(ge=1, le=10_000)]
Size = Annotated[int, Field(ge=1, le=2**20)]
Weight = Annotated[int, Field(ge=0, le=2**53)]


@dataclass(frozen=True, slots=True)
class BackboneShape:
    """The sizes of a Vision Transformer that decide its costs, read off the model once.

    Attributes:
        depth: blocks.
        width: channels of a token.
        heads: attention heads.
        grid: patches in a column and in a row.
        prefix: class, distillation and register tokens, which no reduction touches.
        attention_width: channels of all heads together.
        key_macs: MACs that a token costs in a block because it is attended to (keys and values).
        query_macs: MACs that a token costs because it attends (queries, gate, output projection).
        mlp_macs: MACs that a token costs in a block's MLP.
        embed_macs: MACs of the patch embedding of one image.
        head_macs: MACs of the classifier for one image.
        reads_prefix_only: whether nothing but prefix tokens is read after the last block.
        has_class: whether the first token is a class token.
        block_parameters: weights of one block; 0 of a shape that was written down before they were counted.
        other_parameters: weights of all that is no block.
    """

    depth: Depth
    width: Size
    heads: Size
    grid: tuple[Size, Size]
    prefix: Annotated[int, Field(ge=0, le=2**20)]
    attention_width: Size
    key_macs: Weight
    query_macs: Weight
    mlp_macs: Weight
    embed_macs: Weight
    head_macs: Weight
    reads_prefix_only: bool
    has_class: bool = True
    # They decide neither time nor work, so that shapes with and without them are the same.
    block_parameters: Weight = field(default=0, compare=False)
    other_parameters: Weight = field(default=0, compare=False)

    @property
    def patches(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def tokens(self) -> int:
        return self.prefix + self.patches

    @property
    def sizes(self) -> dict[str, Any]:
        """All that decides work and time, as plain values."""
        return {name: value for name, value in asdict(self).items() if not name.endswith("_parameters")}

    def block_macs(self, *, queries: int, keys: int, mlp: int, pairs: int | None = None) -> int:
        """MACs of one block in which `queries` tokens attend to `keys` tokens and `mlp` tokens pass the MLP.

        With all three equal to N, width D and an MLP four times as wide this is 12 N D^2 + 2 N^2 D. `pairs` is how many pairs
        of a query and a key are computed, where it is not all of them.
        """
        attention = 2 * (queries * keys if pairs is None else pairs) * self.attention_width  # Q K^T, and the weights times V
        return keys * self.key_macs + queries * self.query_macs + attention + mlp * self.mlp_macs
