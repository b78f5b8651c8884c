"""Importance-based matching: the least important tokens merge into whichever of the others is most like them.

Chen et al., "DiffRate: Differentiable Compression Rate for Efficient Vision Transformers", arXiv 2305.17997, section 3. Tokens
are ranked by the attention that the class token pays them; those at the end of the ranking each merge into the most similar
token that stays. Any number can merge at once. Departure: what stays keeps its order, which changes no output.
"""

import torch
from torch import Tensor
from torch.nn import functional

from vittle.reductions.matching.merge import Matching, ranked
from vittle.reductions.tokens import take


@torch.no_grad()
def match(metric: Tensor, importance: Tensor, removed: int, prefix: int) -> Matching:
    """Merge the `removed` least important tokens away.

    Args:
        metric: (b, n, c), compared by cosine.
        importance: (b, n), higher is more important.
        removed: tokens to merge away, at most all patch tokens but one.
        prefix: protected tokens at the front.
    """
    patches = functional.normalize(metric[:, prefix:], dim=-1)
    least, stay = ranked(-importance[:, prefix:], removed)
    from_, to = (take(patches, chosen) for chosen in (least, stay))
    similarity, partner = (from_ @ to.mT).max(-1)  # both (b, r)
    protected = torch.arange(prefix, device=metric.device).expand(metric.shape[0], -1)
    return Matching(torch.cat([protected, prefix + stay], 1), prefix + least, prefix + partner, similarity)
