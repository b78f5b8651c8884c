"""The sparsity predictor: light modules, one for each block, that say which keys attention should read.

Wei et al., "Sparsifiner: Learning Sparse Instance-Dependent Attention for Efficient Vision Transformers", arXiv 2303.13755. Two
predictions, for the two forms of `vittle.spaces.sparsity`, both from keys and queries that the block has made anyway:

    keys      score_j = u . k_j + w . relu(A k_j + a)        one score for each key of a head, learned
    queries   logit_ij = (Q^T q_i) . (K^T k_j)               one for each pair, of low rank, fitted

The paper's connectivity is of low rank in positions: its basis is tied to the patches of one grid. Here it is of low rank in
channels, so that any tokens will do, merged ones too. Q and K (c, r) are the best there are for queries and keys with second
moments C_q and C_k: with the largest singular values of C_q^1/2 C_k^1/2 = U S V^T,

    Q = C_q^-1/2 U_r S_r^1/2,    K = C_k^-1/2 V_r S_r^1/2.

Shapes: b images, h heads, p patches, c channels of a head.
"""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from vittle.reductions.backbone import Backbone
from vittle.reductions.trained_adapter import TrainedAdapter
from vittle.spaces.errors import VittleError
from vittle.spaces.shape import BackboneShape
from vittle.spaces.sparsity import HIDDEN, RANK

LEAST_MOMENT = 1e-6  # of a channel, as a share of the largest: what hardly varies is not divided by


class BlockPredictor(nn.Module):
    """The two predictions for one block."""

    def __init__(self, heads: int, channels: int, hidden: int = HIDDEN, rank: int = RANK) -> None:
        super().__init__()
        self.hidden = nn.Parameter(torch.zeros(heads, channels, hidden))
        self.bias = nn.Parameter(torch.zeros(heads, 1, hidden))
        self.out = nn.Parameter(torch.zeros(heads, hidden, 1))
        self.linear = nn.Parameter(torch.zeros(heads, channels, 1))
        self.queries = nn.Parameter(torch.zeros(heads, channels, rank), requires_grad=False)
        self.keys = nn.Parameter(torch.zeros(heads, channels, rank), requires_grad=False)

    def begin(self, queries: Tensor, keys: Tensor, scale: float, generator: torch.Generator) -> None:
        """Start from what some queries and keys (b, h, p, c) show: the mean query scores, and the bases are fitted."""
        with torch.no_grad():
            self.hidden.copy_(torch.randn(self.hidden.shape, generator=generator) / self.hidden.shape[1] ** 0.5)
            self.linear.copy_(queries.mean((0, 2))[..., None] * scale)
            for basis, found in zip((self.queries, self.keys), low_rank(queries, keys, self.queries.shape[-1]), strict=True):
                basis.copy_(found)

    def scores(self, keys: Tensor) -> Tensor:
        """How much each key (b, h, p, c) matters, in logarithms: (b, h, p)."""
        return ((keys @ self.hidden + self.bias).relu() @ self.out + keys @ self.linear).squeeze(-1)

    def logits(self, queries: Tensor, keys: Tensor) -> Tensor:
        """What queries would find in keys, both (b, h, p, c), before scaling: (b, h, p, p)."""
        return (queries @ self.queries) @ (keys @ self.keys).mT


class SparsityPredictor(TrainedAdapter):
    """One `BlockPredictor` for each block of a backbone.

    Attributes:
        blocks: block after block.
    """

    kind = "sparsity predictor"
    mode = "scored"
    command = "vittle train sparsity"
    rival = "keys chosen by a sample of queries"
    otherwise = "the search keeps selection sampled"

    def __init__(self, depth: int, heads: int, channels: int, hidden: int = HIDDEN, rank: int = RANK) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(BlockPredictor(heads, channels, hidden, rank) for _ in range(depth))

    @classmethod
    def for_backbone(cls, shape: BackboneShape) -> Self:
        """One that knows nothing yet."""
        return cls(shape.depth, shape.heads, shape.attention_width // shape.heads)

    @classmethod
    def of(cls, weights: Mapping[str, Tensor]) -> Self:
        heads, channels, hidden = weights["blocks.0.hidden"].shape
        depth = len({name.split(".")[1] for name in weights})
        return cls(depth, heads, channels, hidden, weights["blocks.0.keys"].shape[-1])

    @property
    def width(self) -> int:
        first: Any = self.blocks[0]
        return int(first.hidden.shape[-1])

    @property
    def sizes(self) -> tuple[int, int]:
        first: Any = self.blocks[0]
        heads, channels, _ = first.hidden.shape
        return len(self.blocks), heads * channels

    @staticmethod
    def sizes_of(shape: BackboneShape) -> tuple[int, int]:
        return shape.depth, shape.attention_width

    def check(self, backbone: Backbone) -> None:
        super().check(backbone)
        first: Any = self.blocks[0]
        # The same weights can be split into other heads, which their fingerprint does not tell.
        if (ours := len(first.hidden)) != (theirs := backbone.shape.heads):
            raise VittleError(
                f"the {self.kind} is for {ours} heads, {backbone.name} has {theirs}; "
                "accepted: one that was trained for this model"
            )


@torch.no_grad()
def low_rank(queries: Tensor, keys: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The bases (h, c, r) by which products of queries and keys (b, h, p, c) are nearest to what they are."""
    roots = [_roots(_moments(one)) for one in (queries, keys)]
    u, s, v = torch.linalg.svd(roots[0][0] @ roots[1][0])
    weights = s[:, None, :rank].sqrt()
    return roots[0][1] @ u[..., :rank] * weights, roots[1][1] @ v.mT[..., :rank] * weights


def _moments(values: Tensor) -> Tensor:
    """Second moments (h, c, c) of values (b, h, p, c)."""
    flat = values.transpose(0, 1).flatten(1, 2).double()  # (h, b p, c)
    return flat.mT @ flat / flat.shape[1]


def _roots(moments: Tensor) -> tuple[Tensor, Tensor]:
    """The square root of moments (h, c, c), and its inverse where there is one."""
    values, vectors = torch.linalg.eigh(moments)
    kept = values > LEAST_MOMENT * values[:, -1:]
    root = values.clamp(min=0).sqrt()
    inverse = torch.where(kept, 1 / root.clamp(min=torch.finfo(root.dtype).tiny ** 0.5), 0)
    return vectors * root[:, None] @ vectors.mT, vectors * inverse[:, None] @ vectors.mT
