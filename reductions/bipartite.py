"""Bipartite soft matching: every second token may merge into one of the others.

Bolya et al., "Token Merging: Your ViT But Faster", arXiv 2210.09461, section 3. Patch tokens at even positions (set A) each
find their most similar partner at an odd position (set B), by cosine; the `removed` most similar pairs merge. The order
afterwards is: prefix, what is left of A in its order, B. Departures from the paper: every prefix token is protected (class,
distillation, registers), and ties are broken by position on every device.
"""

import torch
from torch import Tensor

from vittle.reductions.matching import Matching, ranked
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
    even = prefix + prefix % 2  # positions are counted with the prefix, as the paper does
    odd = 2 * prefix + 1 - even
    unit = metric / torch.linalg.vector_norm(metric, dim=-1, keepdim=True).clamp_(min=1e-12)
    pairs = unit[:, even::2] @ unit[:, odd::2].mT  # (b, |A|, |B|)
    if solid is not None:
        pairs = pairs.masked_fill(~(solid[:, even::2, None] & solid[:, None, odd::2]), -torch.inf)
    sources, stay = ranked(pairs.amax(-1), removed)  # of A: (b, r), (b, |A| - r)
    similarity, partner = take(pairs, sources).max(-1)  # both (b, r); an index costs more than a maximum, so few are asked for
    places = torch.arange(n, device=metric.device)
    kept = torch.cat([places[:prefix].expand(b, -1), even + 2 * stay, places[odd::2].expand(b, -1)], 1)
    return Matching(kept, even + 2 * sources, prefix + stay.shape[1] + partner, similarity)
