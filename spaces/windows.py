"""The windows of delayed spatial merging, as arithmetic on the patch grid.

A side of w cuts the grid into windows of at most w x w patches, as equal as can be: 14 patches and w = 7 give two of 7, 16 and
w = 7 give 6, 5 and 5 (not 7, 7 and 2, which would leave a window with nothing to merge). Where windows differ, the smaller ones
are padded while tokens are matched, and the padding is masked.
"""

import itertools
from dataclasses import dataclass
from functools import cache

from vittle.spaces.shape import BackboneShape


@dataclass(frozen=True)
class Windows:
    """The windows of at most `side` x `side` patches of a `grid` (rows, columns)."""

    grid: tuple[int, int]
    side: int

    @property
    def members(self) -> tuple[tuple[int, ...], ...]:
        """The patches of each window as positions in the grid's reading order; windows in reading order too."""
        return _members(self.grid, self.side)

    @property
    def count(self) -> int:
        return len(self.members)

    @property
    def smallest(self) -> int:
        """Patches in the smallest window."""
        return min(map(len, self.members))

    def most_merged(self, shape: BackboneShape, tokens: int) -> int:
        """How many tokens can merge in each window at once, when `tokens` are left of the whole grid."""
        gone = (shape.tokens - tokens) // self.count
        return (self.smallest - gone) // 2


@cache
def _members(grid: tuple[int, int], side: int) -> tuple[tuple[int, ...], ...]:
    return tuple(
        tuple(row * grid[1] + column for row in rows for column in columns)
        for rows in _cut(grid[0], side)
        for columns in _cut(grid[1], side)
    )


def _cut(length: int, side: int) -> list[range]:
    pieces = -(-length // side)
    short, longer = divmod(length, pieces)
    starts = [piece * short + min(piece, longer) for piece in range(pieces + 1)]
    return [range(start, stop) for start, stop in itertools.pairwise(starts)]
