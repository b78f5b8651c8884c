"""The learned merge embedding: one small affine layer per block that says which tokens are alike.

Lee and Hong, "Learning to Merge Tokens via Decoupled Embedding for Efficient Vision Transformers", arXiv 2412.10569, section 3.
The attention's keys serve attention and, in ToMe, also the choice of what merges. Here that choice has features of its own,

    e = W sg(norm1(x)) + b        in R^c,

where sg stops the gradient, so that the backbone's own features are never bent towards merging. At inference tokens merge as in
ToMe with e in place of the keys; `soft_merging.py` is how W and b are learned. `mode` says what was trained: "modular" is the
embedding alone, on a frozen backbone.

Departures. The paper starts from random weights; here W and b start as the key projection, averaged over heads, so that where
the backbone has no key norm the start is exactly ToMe's `key` metric, and training is kept only where it beats that. Any other
width c starts from a random projection of all heads' keys, which keeps their cosines approximately. By default c is the
published 64 (128 from a width of 1024 on), or the width of one head where that is less.
"""

import math
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from vittle.reductions.trained_adapter import TrainedAdapter


class MergeEmbedding(TrainedAdapter):
    """One `nn.Linear(width, embedding_width)` per block, applied to the block's normalised input (b, n, width).

    Attributes:
        layers: the affine layers, block after block.
    """

    kind = "merge embedding"
    mode = "modular"
    command = "vittle train merge-embedding"
    rival = "the metric key"
    otherwise = "the search keeps metric key"

    def __init__(self, depth: int, width: int, embedding_width: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):  # the caller's random numbers are the caller's
            self.layers = nn.ModuleList(nn.Linear(width, embedding_width) for _ in range(depth))

    @classmethod
    def of(cls, weights: Mapping[str, Tensor]) -> Self:
        embedding_width, width = weights["layers.0.weight"].shape
        return cls(len(weights) // 2, width, embedding_width)

    @classmethod
    def from_keys(cls, model: nn.Module, embedding_width: int | None = None, *, seed: int = 0) -> Self:
        """An embedding that starts from the key projections of a backbone.

        Args:
            model: a timm Vision Transformer.
            embedding_width: c; by default 64 or 128 as published, at most the width of one head.
            seed: of the random projection where c is not the width of one head.
        """
        vit: Any = model
        width, head = vit.embed_dim, vit.blocks[0].attn.head_dim
        chosen = embedding_width or min(head, 64 if width < 1024 else 128)
        embedding = cls(len(vit.blocks), width, chosen)
        generator = torch.Generator().manual_seed(seed)
        for layer, block in zip(embedding.layers, vit.blocks, strict=True):
            start = _start(block.attn, chosen, generator)
            layer.load_state_dict({"weight": start[:, :-1], "bias": start[:, -1]})
        return embedding

    @property
    def width(self) -> int:
        """Channels of an embedded token, c."""
        layer: Any = self.layers[0]
        return int(layer.out_features)

    @property
    def sizes(self) -> tuple[int, int]:
        layer: Any = self.layers[0]
        return len(self.layers), layer.in_features


def _start(attention: Any, embedding_width: int, generator: torch.Generator) -> Tensor:
    """Weight and, as the last column, bias of one layer: (c, d + 1)."""
    h, c = int(attention.num_heads), int(attention.head_dim)
    weight: Tensor = attention.qkv.weight.detach().float().cpu()  # (3 h c, d)
    bias: Tensor = weight.new_zeros(len(weight)) if attention.qkv.bias is None else attention.qkv.bias.detach().float().cpu()
    keys = torch.cat([weight, bias[:, None]], 1)[h * c : 2 * h * c]  # (h c, d + 1)
    if embedding_width == c:
        return keys.view(h, c, -1).mean(0)
    return torch.randn(embedding_width, h * c, generator=generator) @ keys / math.sqrt(embedding_width)
