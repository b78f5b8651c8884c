"""Merging as a differentiable function, so that a merge embedding can be learned.

Lee and Hong, "Learning to Merge Tokens via Decoupled Embedding for Efficient Vision Transformers", arXiv 2412.10569, section 3.
In training no token disappears: all n stay to the end with a real-valued size, and each block moves weight between them.

    S = cos(e_a, e_b) / tau1                          the k most similar b of each a; A and B as in ToMe
    r times:  q = softmax(S / tau2);  K <- K + q;  S_a <- S_a + log(1 - sum_b q_ab)          relaxed top r
    Q = K / max(sum_b K_ab, 1)                        no token gives away more than itself
    x_b <- (s_b x_b + sum_a Q_ab s_a x_a) / (s_b + sum_a Q_ab s_a),    s_b <- s_b + sum_a Q_ab s_a
    s_a <- s_a (1 - sum_b Q_ab)

Then the tokens are ordered by size, and the smallest r take part in no later merge: they fade as keys that attention weighs by
their vanishing size. As tau2 -> 0 this becomes the hard matching of `bipartite.py`.

Departures. Every prefix token is protected, not the class token alone. The share 1 - sum_b Q_ab is what is held within 0 and 1
(with a straight-through gradient), not s_a, so that the size-weighted sum of the tokens is kept where a has merged before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vittle.reductions.block import attend, classify, embed
from vittle.reductions.matching.bipartite import halves
from vittle.reductions.merge_embedding import MergeEmbedding
from vittle.reductions.tokens import Tokens

TAKEN = 1e-9  # what is left of a row that is taken: its logarithm outweighs the span of cosines over the published tau1
VANISHED = 1e-6  # added to sizes before their logarithm: at size 0 attention keeps its gradient and almost none of its weight


@dataclass(frozen=True, slots=True)
class Relaxation:
    """How soft the grouping is; the published values.

    Attributes:
        partners: k, the candidates that each a may merge into.
        score_temperature: tau1, divides the cosines.
        selection_temperature: tau2, of the softmax over all candidate pairs.
    """

    partners: int = 3
    score_temperature: float = 0.1
    selection_temperature: float = 0.1


def soft_forward(
    model: nn.Module,
    embedding: MergeEmbedding,
    images: Tensor,
    removed: Sequence[int],
    relaxation: Relaxation = Relaxation(),
) -> Tensor:
    """Logits (b, classes) of images (b, 3, height, width), differentiable in the embedding's weights.

    Args:
        model: a timm VisionTransformer.
        embedding: with one layer for each of its blocks.
        images: normalised as the model wants them.
        removed: tokens that go in each block, at most half of the patch tokens that still take part.
        relaxation: how soft the grouping is.
    """
    vit: Any = model
    state = Tokens(embed(vit, images))
    prefix = vit.num_prefix_tokens
    n = left = state.features.shape[1]
    for block, layer, r in zip(vit.blocks, embedding.layers, removed, strict=True):
        normed = block.norm1(state.features)
        sizes = None if state.sizes is None else state.sizes + VANISHED
        _, output = attend(block.attn, block.attn.qkv, normed, sizes, n, "mask")
        state = state._replace(features=state.features + block.drop_path1(block.ls1(output)))
        if r:
            state = group(state, layer(normed.detach()), left, r, prefix, relaxation)
            left -= r
        features = state.features
        state = state._replace(features=features + block.drop_path2(block.ls2(block.mlp(block.norm2(features)))))
    state = state._replace(features=vit.norm(state.features))
    if "max" in vit.global_pool and state.sizes is not None:  # what has merged away must not win a maximum
        state = Tokens(state.features[:, :left], state.sizes[:, :left])
    return classify(model, state)


def group(tokens: Tokens, metric: Tensor, left: int, removed: int, prefix: int, relaxation: Relaxation) -> Tokens:
    """Move weight from `removed` of the tokens to their partners; every token stays, the largest of the first `left` in front.

    Args:
        tokens: features (b, n, d) and sizes (b, n), or None while all are 1.
        metric: (b, n, c), compared by cosine.
        left: tokens that take part, the first of n, prefix included.
        removed: r, at most half of those that take part.
        prefix: protected tokens at the front.
        relaxation: how soft.
    """
    with torch.autocast(metric.device.type, enabled=False):
        features = tokens.features.float()
        sizes = features.new_ones(features.shape[:2]) if tokens.sizes is None else tokens.sizes
        unit = functional.normalize(metric[:, :left].float(), dim=-1)
        assignment = assign(*halves(unit, prefix), removed, relaxation)  # (b, A, B)
        (a, b), (size_a, size_b) = halves(features[:, :left], prefix), halves(sizes[:, :left], prefix)
        moved = assignment.mT @ torch.cat([size_a[..., None] * a, size_a[..., None]], -1)  # (b, B, d + 1)
        grown = size_b + moved[..., -1]
        b = (size_b[..., None] * b + moved[..., :-1]) / grown[..., None]
        share = 1 - assignment.sum(-1)
        size_a = size_a * (share + (share.clamp(0, 1) - share).detach())
        # Sorting is a choice of positions, through which no gradient passes.
        order = torch.cat([size_a, grown], 1).argsort(dim=1, descending=True, stable=True)
        mixed = torch.cat([a, b], 1).gather(1, order[..., None].expand(-1, -1, features.shape[-1]))
        return Tokens(
            torch.cat([features[:, :prefix], mixed, features[:, left:]], 1).to(tokens.features.dtype),
            torch.cat([sizes[:, :prefix], torch.cat([size_a, grown], 1).gather(1, order), sizes[:, left:]], 1),
        )


def assign(a: Tensor, b: Tensor, removed: int, relaxation: Relaxation) -> Tensor:
    """The soft assignment Q (b, A, B) of unit vectors a (b, A, c) to unit vectors b (b, B, c): row sums at most 1, r in all."""
    similarities, partners = (a @ b.mT).topk(min(relaxation.partners, b.shape[1]), dim=-1)  # both (b, A, k)
    chosen = select(similarities / relaxation.score_temperature, removed, relaxation.selection_temperature)
    chosen = chosen / chosen.sum(-1, keepdim=True).detach().clamp(min=1)
    return a.new_zeros(a.shape[0], a.shape[1], b.shape[1]).scatter(2, partners, chosen)


def select(scores: Tensor, count: int, temperature: float) -> Tensor:
    """A relaxed choice of the `count` highest `scores` (b, A, k) without replacement, at most one in each row of k.

    `count` softmaxes over all A x k, each of which lowers the rows that have been chosen; they add up to `count`.
    """
    chosen = torch.zeros_like(scores)
    for _ in range(count):
        share = (scores / temperature).flatten(1).softmax(1).view_as(scores)
        chosen = chosen + share
        scores = scores + (1 - share.sum(-1, keepdim=True)).clamp(min=TAKEN).log()
    return chosen
