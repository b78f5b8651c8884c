"""Bipartite soft matching: every second token may merge into one of the others.

Bolya et al., "Token Merging: Your ViT But Faster", arXiv 2210.09461, section 3. Patch tokens at even positions (set A) each
find their most similar partner at an odd position (set B), by cosine; the `removed` most similar pairs merge. The order
afterwards is: prefix, what is left of A in its order, B. Departures from the paper: every prefix token is protected (class,
distillation, registers), and ties are broken by position on every device.
"""

import torch
from torch import Tensor

from vittle.reductions.matching.merge import Matching, ranked
from vittle.reductions.tokens import take


@torch.no_grad()
def match(metric: Tensor, removed: int, prefix: int, solid: Tensor | None = None) -> Matching:
    """Pair the `removed` most similar tokens of A with their partners in B.

    Args:
        metric: (b, n, c), compared by cosine.
        removed: tokens to merge away, at most half of the patch tokens.
        prefix: protected tokens at the front.
        solid: (b, n) which tokens are not padding, which stands behind the others; None where there is none.
    """
    b, n, _ = metric.shape
    unit = metric / torch.linalg.vector_norm(metric, dim=-1, keepdim=True).clamp_(min=1e-12)
    set_a, set_b = halves(unit, prefix)
    pairs = set_a @ set_b.mT  # (b, |A|, |B|)
    if solid is not None:
        solid_a, solid_b = halves(solid, prefix)
        pairs = pairs.masked_fill(~(solid_a[:, :, None] & solid_b[:, None]), -torch.inf)
    sources, stay = ranked(pairs.amax(-1), removed)  # of A: (b, r), (b, |A| - r)
    similarity, partner = take(pairs, sources).max(-1)  # both (b, r); an index costs more than a maximum, so few are asked for
    places = torch.arange(n, device=metric.device).expand(b, n)
    even = prefix + prefix % 2
    kept = torch.cat([places[:, :prefix], even + 2 * stay, halves(places, prefix)[1]], 1)
    return Matching(kept, even + 2 * sources, prefix + stay.shape[1] + partner, similarity)


def halves(values: Tensor, prefix: int) -> tuple[Tensor, Tensor]:
    """The patch tokens at even positions (A) and at odd ones (B) of (b, n, ...); counted with the prefix, as the paper does."""
    even = prefix + prefix % 2
    return values[:, even::2], values[:, 2 * prefix + 1 - even :: 2]
