"""Token merging by bipartite soft matching.

Bolya et al., "Token Merging: Your ViT But Faster", arXiv 2210.09461, section 3. Patch tokens at even positions (set A) each
find their most similar partner at an odd position (set B); the `removed` most similar pairs merge into B. Similarity is the
cosine of the attention's keys, averaged over heads:

    x_b <- (s_b x_b + sum_a s_a x_a) / (s_b + sum_a s_a),    s_b <- s_b + sum_a s_a        over the a that merge into b

so the size-weighted sum of tokens is kept. The order afterwards is: prefix, what is left of A in its order, B. Departure from
the paper: every prefix token is protected (class, distillation, registers), and ties are broken by position on every device.

Who merges into whom is decided once (`match`) and then applied (`merge`).
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from vittle.reductions.tokens import Attended, Tokens
from vittle.spaces.merging import Merging


class Matching(NamedTuple):
    """Who merges into whom, as positions within the sets A and B of the patch tokens.

    Attributes:
        order: (b, a) all of A: first the members that stay, in their order, then the r that merge away.
        targets: (b, r) the member of B that each of those merges into.
    """

    order: Tensor
    targets: Tensor


class Merge:
    """Merge a block's most similar patch tokens until `keep` tokens are left. See `Operator`."""

    def __init__(self, settings: Merging, block: int, prefix: int, keep: int) -> None:
        del settings, block  # how many go is all that one block needs to know
        self.prefix = prefix
        self.keep = keep

    def __call__(self, tokens: Tokens, attended: Attended) -> Tokens:
        removed = tokens.features.shape[1] - self.keep
        return merge(tokens, match(attended.keys.mean(1), removed, self.prefix), self.prefix)


@torch.no_grad()
def match(metric: Tensor, removed: int, prefix: int) -> Matching:
    """Pair the `removed` most similar tokens of A with their partners in B.

    Args:
        metric: (b, n, c), compared by cosine.
        removed: tokens to merge away, at most half of the patch tokens.
        prefix: protected tokens at the front.
    """
    a, b = _split(metric, prefix)
    scores, partner = (a @ functional.normalize(b, dim=-1).mT).max(-1)  # both (b, a); the length of a changes no maximum
    ranks = (scores / a.norm(dim=-1).clamp(min=1e-12)).argsort(dim=-1, descending=True, stable=True)
    sources, kept = ranks[:, :removed], ranks[:, removed:].sort(dim=-1).values
    return Matching(torch.cat([kept, sources], 1), partner.gather(1, sources))


def merge(tokens: Tokens, matching: Matching, prefix: int) -> Tokens:
    """Replace each target by the size-weighted mean of itself and its sources, (b, n, d) to (b, n - r, d)."""
    features, sizes = tokens
    if sizes is None:
        sizes = features.new_ones(features.shape[:2], dtype=torch.float32)
    (a, b), (size_a, size_b) = _split(features, prefix), _split(sizes, prefix)
    a = a.gather(1, matching.order[..., None].expand_as(a))
    size_a = size_a.gather(1, matching.order)
    kept = a.shape[1] - matching.targets.shape[1]
    moved = a[:, kept:] * size_a[:, kept:, None]
    totals = size_b.scatter_add(1, matching.targets, size_a[:, kept:])
    merged = (b * size_b[..., None]).scatter_add_(1, matching.targets[..., None].expand_as(moved), moved)
    merged = merged.div_(totals[..., None]).to(features.dtype)
    return Tokens(
        torch.cat([features[:, :prefix], a[:, :kept], merged], 1),
        torch.cat([sizes[:, :prefix], size_a[:, :kept], totals], 1),
    )


def _split(values: Tensor, prefix: int) -> tuple[Tensor, Tensor]:
    """The patch tokens at even positions (A) and at odd positions (B), counted with the prefix as the paper does."""
    even = prefix + prefix % 2
    return values[:, even::2], values[:, 2 * prefix + 1 - even :: 2]
