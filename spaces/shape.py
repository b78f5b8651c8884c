"""What a schedule needs to know of a backbone: how many tokens it has and what each of them costs.

Costs are multiply-accumulates (MACs), which the field prints as "GFLOPs"; FLOPs are twice as many. Biases, norms, softmax and
the matching of tokens are not counted, as is usual (the matching of ToMe is about 0.1 % of a block).
"""

from dataclasses import dataclass


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
    """

    depth: int
    width: int
    heads: int
    grid: tuple[int, int]
    prefix: int
    attention_width: int
    key_macs: int
    query_macs: int
    mlp_macs: int
    embed_macs: int
    head_macs: int
    reads_prefix_only: bool
    has_class: bool = True

    @property
    def patches(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def tokens(self) -> int:
        return self.prefix + self.patches

    def block_macs(self, *, queries: int, keys: int, mlp: int) -> int:
        """MACs of one block in which `queries` tokens attend to `keys` tokens and `mlp` tokens pass the MLP.

        With all three equal to N, width D and an MLP four times as wide this is 12 N D^2 + 2 N^2 D.
        """
        attention = 2 * queries * keys * self.attention_width  # Q K^T, and the weights times V
        return keys * self.key_macs + queries * self.query_macs + attention + mlp * self.mlp_macs
