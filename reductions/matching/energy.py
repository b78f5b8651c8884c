"""Energy-based matching: tokens in dense groups merge, isolated ones are protected.

Tran et al., "Accelerating Transformers with Spectrum-Preserving Token Merging" (PiToMe), arXiv 2405.16148. A token's energy is
high where many others are like it:

    E_i = mean_j ELU(cos(m_i, m_j) - margin),    margin = 0.75 (1 - l / L) in block l of L

Tokens are ranked by energy and dealt out in turn into sets A and B; each of A finds its most similar partner in B and the most
similar pairs merge. In the first half of the blocks all tokens take part, in the second only the 2r most energetic ones: the
rest is protected. Departures: what stays keeps its order, and sizes weigh the attention as in ToMe.
"""

import torch
from torch import Tensor
from torch.nn import functional

from vittle.reductions.matching.merge import Matching, others, ranked
from vittle.reductions.tokens import take

MARGIN = 0.75


@torch.no_grad()
def match(metric: Tensor, removed: int, prefix: int, block: int, depth: int) -> Matching:
    """Merge `removed` tokens of high energy into their like.

    Args:
        metric: (b, n, c), compared by cosine.
        removed: tokens to merge away, at most half of the patch tokens.
        prefix: protected tokens at the front.
        block: which block this is, from 0.
        depth: blocks of the backbone.
    """
    n = metric.shape[1]
    patches = functional.normalize(metric[:, prefix:], dim=-1)
    similarity = patches @ patches.mT  # (b, m, m)
    energy = functional.elu(similarity - MARGIN * (1 - block / depth)).mean(-1)
    taking_part, _ = ranked(energy, n - prefix if block < (depth + 1) // 2 else 2 * removed)
    set_a, set_b = taking_part[:, ::2], taking_part[:, 1::2]
    pairs = take(similarity, set_a).gather(2, set_b[:, None].expand(-1, set_a.shape[1], -1))
    scores, partner = pairs.max(-1)  # both (b, |A|)
    best, _ = ranked(scores, removed)
    sources = prefix + set_a.gather(1, best)
    kept, place = others(sources, n)
    targets = place.gather(1, prefix + set_b.gather(1, partner.gather(1, best)))
    return Matching(kept, sources, targets, scores.gather(1, best))
