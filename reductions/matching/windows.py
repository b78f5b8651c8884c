"""Matching inside windows of the patch grid, a window being a member of the batch.

Heo et al., "Fast Training-Free Compression of Vision Transformers by Delayed Spatial Merging", arXiv 2303.02331: before tokens
merge across the whole image, they merge bipartitely with their neighbours, equally many in each window. Every window then
holds fewer tokens and the next block goes on inside the same ones; tokens stay in the order of windows.

Where the side does not divide the grid, windows differ by a row or a column. The smaller ones are padded, and the padding is
masked: it never merges, nothing merges into it, and it is gone again after the matching.
"""

from itertools import accumulate

import torch
from torch import Tensor, nn

from vittle.reductions.matching import bipartite
from vittle.reductions.matching.merge import Matching
from vittle.spaces.windows import Windows


class WindowMatch(nn.Module):
    """Match inside `windows`, from each of which `gone` tokens have merged away in blocks before."""

    members: Tensor
    solid: Tensor
    whereto: Tensor
    leaving: Tensor

    def __init__(self, windows: Windows, gone: int, removed: int, prefix: int) -> None:
        super().__init__()
        self.prefix = prefix
        self.removed = removed
        left = [len(patches) - gone for patches in windows.members]
        starts = [0, *accumulate(left)]
        room = max(left)
        self.count = len(left)
        # The patches are in the order of the grid until windows have merged once, and in the order of windows from then on.
        present = windows.members if gone == 0 else [range(start, start + n) for start, n in zip(starts, left, strict=False)]
        padded = [[*(prefix + patch for patch in patches), *[0] * (room - len(patches))] for patches in present]
        solid = torch.tensor([[place < n for place in range(room)] for n in left])
        self.even = len(set(left)) == 1
        # After a bipartite matching a window's tokens are what is left of A, then B; padding is at the end of each.
        staying = -(-room // 2) - removed
        real = torch.tensor([[place < -(-n // 2) - removed for place in range(staying)] for n in left])
        leaving = torch.cat([real, solid[:, 1::2]], 1).flatten()  # (w * (room - removed),)
        self.register_buffer("members", torch.tensor(padded), persistent=False)
        self.register_buffer("solid", solid, persistent=False)
        self.register_buffer("leaving", leaving.nonzero().flatten(), persistent=False)
        self.register_buffer("whereto", prefix + leaving.long().cumsum(0) - 1, persistent=False)

    @torch.no_grad()
    def forward(self, metric: Tensor) -> Matching:
        """Merge the same number of tokens away in each window; metric (b, n, c) is compared by cosine."""
        b, _, c = metric.shape
        w, room = self.members.shape
        inside = metric[:, self.members.flatten()].view(b * w, room, c)
        found = bipartite.match(inside, self.removed, 0, None if self.even else self.solid.repeat(b, 1))
        members = self.members.repeat(b, 1)  # (b * w, room)
        kept = members.gather(1, found.kept).view(b, -1)
        if not self.even:
            kept = kept[:, self.leaving]
        start = torch.arange(w, device=metric.device).repeat(b)[:, None] * (room - self.removed)
        protected = torch.arange(self.prefix, device=metric.device).expand(b, -1)
        return Matching(
            torch.cat([protected, kept], 1),
            members.gather(1, found.sources).view(b, -1),
            self.whereto[(start + found.targets).view(b, -1)],
            found.similarity.view(b, -1),
        )
