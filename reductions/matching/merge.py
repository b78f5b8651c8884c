"""Who merges into whom, and the merge itself. Every rule of matching ends in a `Matching`, and `merge` applies any of them.

    x_t <- (s_t x_t + sum_a s_a x_a) / (s_t + sum_a s_a),    s_t <- s_t + sum_a s_a        over the a that merge into t

so the size-weighted sum of tokens is kept (Bolya et al., "Token Merging", arXiv 2210.09461). It is computed as

    x_t <- x_t + sum_a (x_a - x_t) s_a / s_t'        with the new size s_t'

which touches only the tokens that merge; all others are copied once.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from vittle.reductions.tokens import Tokens, take
from vittle.spaces.merging import Weights


class Matching(NamedTuple):
    """Who merges into whom, of n tokens of which r merge away.

    Attributes:
        kept: (b, n - r) positions of the tokens that stay, in the order in which they leave.
        sources: (b, r) positions of the tokens that merge away.
        targets: (b, r) what each of those merges into, as positions among the tokens that leave.
        similarity: (b, r) cosine of each pair.
    """

    kept: Tensor
    sources: Tensor
    targets: Tensor
    similarity: Tensor


def merge(tokens: Tokens, matching: Matching, weights: Weights = "size") -> Tokens:
    """Apply a matching, (b, n, d) to (b, n - r, d).

    Args:
        tokens: what the matching is of.
        matching: who merges into whom.
        weights: `size` as above. `equal` takes the plain mean of a target and its sources, and counts each source's size in
            proportion to its similarity (DiffRate, arXiv 2305.17997); negative similarities count as none.
    """
    features, sizes, source, _ = tokens
    if sizes is None:
        sizes = features.new_ones(features.shape[:2], dtype=torch.float32)
    kept, sources, targets, similarity = matching
    moving = take(sizes, sources)  # (b, r)
    staying = take(sizes, kept)
    if weights == "size":
        left = staying.scatter_add(1, targets, moving)
        share = moving / take(left, targets)
    else:
        left = staying.scatter_add(1, targets, moving * similarity.clamp(min=0).to(moving.dtype))
        share = 1 / take(torch.ones_like(staying).scatter_add(1, targets, torch.ones_like(moving)), targets)
    merged = take(features, kept)  # (b, n - r, d), a copy
    change = (take(features, sources) - take(features, kept.gather(1, targets))) * share[..., None].to(features.dtype)
    merged = merged.scatter_add_(1, targets[..., None].expand_as(change), change)
    if source is not None:
        leaving = torch.arange(kept.shape[1], device=kept.device).expand_as(kept)
        whereto = torch.empty_like(sizes, dtype=torch.int64).scatter_(1, kept, leaving).scatter_(1, sources, targets)
        source = whereto.gather(1, source)
    return Tokens(merged, left, source)


def others(positions: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """All but some of n tokens, in their order.

    Args:
        positions: (b, r) without repetition.
        n: tokens in all.

    Returns:
        (b, n - r) the positions of the others, and (b, n) how many others stand before each of the n tokens: for one of the
        others, its place among them.
    """
    b, r = positions.shape
    stays = torch.ones((b, n), dtype=torch.bool, device=positions.device).scatter_(1, positions, False)
    rank = stays.cumsum(1) - stays.long()
    # Each of the others writes its position into its place; the rest write into one place too many, which is cut off.
    places = torch.where(stays, rank, n - r)
    order = torch.arange(n, device=positions.device).expand(b, n)
    return torch.empty((b, n - r + 1), dtype=torch.int64, device=positions.device).scatter_(1, places, order)[:, :-1], rank


def ranked(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The positions (b, count) of the highest of scores (b, n), highest first, and (b, n - count) of the rest in their order.

    Of equal scores the first counts as higher, on every device.
    """
    order = scores.argsort(dim=-1, descending=True, stable=True)
    return order[:, :count], order[:, count:].sort(dim=-1).values
