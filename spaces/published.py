"""Rates that were published, for any depth and any strength.

Chen et al., "DiffRate: Differentiable Compression Rate for Efficient Vision Transformers", arXiv 2305.17997: the tokens that
the learnt rates of DeiT-S (2.9 GMACs) and DeiT-B (8.7 GMACs) keep of 197, after pruning and then after merging in each of 12
blocks. The last block's are left out: it drops all but 3 tokens, since no patch is read after it, which a prefix tail does
without loss.
"""

from collections.abc import Sequence

DEPTH = 12
PATCHES = 196
PREFIX = 1

PRUNED = (
    (197, 196, 190, 168, 150, 139, 129, 117, 99, 78, 58),
    (197, 192, 172, 156, 131, 107, 90, 72, 56, 33, 17),
)
MERGED = (
    (197, 194, 176, 156, 141, 133, 121, 107, 88, 64, 56),
    (197, 178, 162, 141, 115, 96, 78, 60, 47, 21, 13),
)


def shares(kept: Sequence[int], depth: int, blocks: int, end: float) -> list[float]:
    """The share of patch tokens kept after each of the first `blocks` of `depth` blocks, `end` after the last of them.

    Args:
        kept: one of the published rates.
        depth: blocks of the backbone, over which the rates are interpolated.
        blocks: how many of them reduce.
        end: how far the shares fall; what each block removes is scaled to it.
    """
    import numpy as np  # here, because no other part of a schedule's text needs it

    published = [1.0, *((count - PREFIX) / PATCHES for count in kept)]
    over = np.arange(1, blocks + 1) / depth
    removed = 1 - np.interp(over, np.arange(len(published)) / DEPTH, published)
    return [float(share) for share in 1 - (1 - end) * removed / removed[-1]]
