"""Token pruning by the attention of the class token.

Chen et al., "DiffRate: Differentiable Compression Rate for Efficient Vision Transformers", arXiv 2305.17997, section 3: the
patch tokens that the class token attends to least, mean over heads in the attention that has just run, are dropped before
anything merges. Departure: what stays keeps its order, which changes no output.
"""

import torch
from torch.nn import functional

from vittle.reductions.matching.merge import others, ranked
from vittle.reductions.tokens import Attention, Operator, Site, Tokens, take
from vittle.spaces.pruning import Pruning


class Prune(Operator):
    """Drop a block's least important patch tokens until as many are left as the settings say."""

    def __init__(self, settings: Pruning, site: Site, adapter: None = None) -> None:
        super().__init__()
        del settings, adapter  # how many go is all that one block needs to know
        self.prefix = site.shape.prefix
        self.removed = site.act.entering - site.act.leaving

    def reduce(self, tokens: Tokens, attended: Attention) -> tuple[Tokens, Attention]:
        features, sizes, source, _ = tokens
        with torch.no_grad():
            dropped, left = (self.prefix + part for part in ranked(-attended.importance()[:, self.prefix :], self.removed))
            protected = torch.arange(self.prefix, device=left.device).expand(left.shape[0], -1)
            kept = torch.cat([protected, left], 1)  # (b, n - removed)
            if source is not None:
                # Whoever restores the grid gets, for a dropped token, the one that stayed and was most like it.
                of_dropped, of_left = (functional.normalize(take(features, part), dim=-1) for part in (dropped, left))
                _, place = others(dropped, features.shape[1])
                nearest = self.prefix + (of_dropped @ of_left.mT).argmax(-1)
                source = place.scatter(1, dropped, nearest).gather(1, source)
        return Tokens(take(features, kept), None if sizes is None else take(sizes, kept), source), attended.keep(kept)
