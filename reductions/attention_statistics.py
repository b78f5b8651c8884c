"""What the attention of a dense Vision Transformer shows, block by block and image by image, of when its tokens grow alike.

Heo et al., "Training-Free Acceleration of ViTs with Delayed Spatial Merging", arXiv 2303.02331, which speaks of the delayed
onset of convergent attention, of attention sinks and of activation outliers. The formulas are this project's. For the n tokens
that enter a block, p of them patches, with unit vectors u of the patches' keys (mean over heads, as merging compares them):

    similarity = (|sum_i u_i|^2 - sum_i |u_i|^2) / (p (p - 1))      the mean cosine of all pairs, without a p x p matrix
    partner    = mean over set A of max over set B of u_a . u_b     A and B as in `merging.py`
    sink       = mean over heads of max_j mean_i attention_ij
    entropy    = mean over heads and i of -sum_j attention_ij log attention_ij / log n
    outlier    = max |x| / median |x| of the patch tokens x that enter the block

Prefix tokens are no patches, but they attend and are attended to, so the sums of `sink` and `entropy` run over all n tokens:
the class token is the usual sink.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from vittle.reductions.backbone import shape_of
from vittle.reductions.block import embed
from vittle.reductions.matching.bipartite import halves
from vittle.spaces.errors import UnsupportedBackboneError

PIECE = 2**24  # attention weights that exist at once: 64 MiB, unless a single head has more


class Observer:
    """Collects every statistic above from the tokens that enter the blocks, while somebody else makes the dense pass.

    Args:
        model: a timm VisionTransformer in evaluation mode.

    Raises:
        UnsupportedBackboneError: the model is not understood, or has a single patch.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model: Any = model
        self._shape = shape_of(model)
        if self._shape.patches < 2:
            raise UnsupportedBackboneError("this model has a single patch, like no other; accepted: at least 2 patches")
        self._seen: list[dict[str, list[Tensor]]] = [{} for _ in range(self._shape.depth)]

    @torch.inference_mode()
    def see(self, block: int, features: Tensor) -> None:
        """A batch (b, n, d) is about to enter a block."""
        for name, values in _observe_block(self._model.blocks[block], features, self._shape.prefix).items():
            self._seen[block].setdefault(name, []).append(values)

    def statistics(self) -> dict[str, NDArray[np.float64]]:
        """For each statistic an array (images, depth)."""
        names = self._seen[0]
        return {name: torch.stack([torch.cat(seen[name]) for seen in self._seen], 1).double().cpu().numpy() for name in names}


@torch.inference_mode()
def observe(model: nn.Module, batches: Iterable[Tensor]) -> dict[str, NDArray[np.float64]]:
    """One dense pass; timm's own blocks compute what the next one sees.

    Args:
        model: a timm VisionTransformer in evaluation mode.
        batches: images (b, 3, height, width), normalised, on the model's device.

    Returns:
        For each statistic above an array (images, depth).

    Raises:
        UnsupportedBackboneError: the model is not understood, or has a single patch.
    """
    vit: Any = model
    observer = Observer(model)
    for images in batches:
        features = embed(vit, images)  # (b, n, d)
        for index, block in enumerate(vit.blocks):
            observer.see(index, features)
            features = block(features)
    return observer.statistics()


def _observe_block(block: Any, features: Tensor, prefix: int) -> dict[str, Tensor]:
    """Every statistic of one block, each (b,), from the tokens that enter it, (b, n, d)."""
    attention = block.attn
    qkv = attention.qkv(block.norm1(features)).unflatten(-1, (3, attention.num_heads, attention.head_dim))
    q, k, _ = qkv.permute(2, 0, 3, 1, 4)  # each (b, h, n, c)
    q, k = attention.q_norm(q).float(), attention.k_norm(k).float()
    sink, entropy = attention_statistics(q * attention.scale, k)
    similarity, partner = key_statistics(k.mean(1), prefix)
    magnitudes = features[:, prefix:].float().abs().flatten(1)
    outlier = magnitudes.amax(1) / magnitudes.median(1).values
    return {"similarity": similarity, "partner": partner, "sink": sink, "entropy": entropy, "outlier": outlier}


def key_statistics(keys: Tensor, prefix: int) -> tuple[Tensor, Tensor]:
    """`similarity` and `partner`, each (b,), of keys (b, n, c) of which the first `prefix` are no patches."""
    units = functional.normalize(keys, dim=-1)
    patches = units[:, prefix:]
    p = patches.shape[1]
    similarity = (patches.sum(1).square().sum(-1) - patches.square().sum((1, 2))) / (p * (p - 1))
    a, b = halves(units, prefix)
    return similarity, (a @ b.mT).amax(-1).mean(-1)


def attention_statistics(queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """`sink` and `entropy`, each (b,), of scaled queries and of keys, both (b, h, n, c).

    A few heads at a time, so that the weights (b, h, n, n) are never in memory at once.
    """
    b, h, n, _ = queries.shape
    size = max(1, PIECE // n**2)
    sinks, entropies = [], []
    for q, k in zip(torch.split(queries.flatten(0, 1), size), torch.split(keys.flatten(0, 1), size), strict=True):
        weights = (q @ k.mT).softmax(-1)  # (heads, n, n)
        sinks.append(weights.mean(1).amax(-1))
        entropies.append(torch.special.entr(weights).sum(-1).mean(-1) / math.log(n))
    return torch.cat(sinks).view(b, h).mean(1), torch.cat(entropies).view(b, h).mean(1)
