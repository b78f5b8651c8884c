"""Bipartite soft matching: every second token may merge into one of the others.

Bolya et al., "Token Merging: Your ViT But Faster", arXiv 2210.09461, section 3. Patch tokens at even positions (set A) each
find their most similar partner at an odd position (set B), by cosine; the `removed` most similar pairs merge. The order
afterwards is: prefix, what is left of A in its order, B. Departures from the paper: every prefix token is protected (class,
distillation, registers), and ties are broken by position on every device.
"""

import torch
from torch import Tensor
from torch.nn import functional

from vittle.reductions.matching import Matching, highest, others


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
    set_a, set_b = metric[:, even::2], functional.normalize(metric[:, odd::2], dim=-1)
    pairs = set_a @ set_b.mT  # (b, |A|, |B|); the length of a token of A changes no maximum over B
    if solid is not None:
        pairs = pairs.masked_fill(~(solid[:, even::2, None] & solid[:, None, odd::2]), -torch.inf)
    scores, partner = pairs.max(-1)  # both (b, |A|)
    scores = scores / set_a.norm(dim=-1).clamp(min=1e-12)
    sources = highest(scores, removed)
    stay, _ = others(sources, set_a.shape[1])  # (b, |A| - r)
    places = torch.arange(n, device=metric.device)
    kept = torch.cat([places[:prefix].expand(b, -1), even + 2 * stay, places[odd::2].expand(b, -1)], 1)
    targets = partner.gather(1, sources) + prefix + stay.shape[1]
    return Matching(kept, even + 2 * sources, targets, scores.gather(1, sources))
