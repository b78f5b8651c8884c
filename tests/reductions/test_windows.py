"""Windows of the grid, against matching each of them alone."""

import pytest
import torch

from vittle.reductions.matching import bipartite
from vittle.reductions.matching.windows import WindowMatch
from vittle.spaces import BackboneShape
from vittle.spaces.windows import Windows


@pytest.mark.parametrize(
    ("grid", "side", "sizes"),
    [
        ((14, 14), 7, {49: 4}),
        ((16, 16), 7, {36: 1, 30: 4, 25: 4}),
        ((15, 15), 7, {25: 9}),
        ((5, 7), 3, {9: 1, 6: 3, 4: 2}),
        ((8, 8), 8, {64: 1}),
        ((8, 8), 100, {64: 1}),
    ],
)
def test_windows_cover_the_grid_once_and_are_as_equal_as_can_be(grid, side: int, sizes: dict[int, int]) -> None:
    windows = Windows(grid, side)
    patches = sorted(patch for members in windows.members for patch in members)
    assert patches == list(range(grid[0] * grid[1]))
    found = [len(members) for members in windows.members]
    assert {size: found.count(size) for size in found} == sizes
    for members in windows.members:
        rows, columns = {patch // grid[1] for patch in members}, {patch % grid[1] for patch in members}
        assert len(members) == len(rows) * len(columns)
        assert max(len(rows), len(columns)) <= side


@pytest.mark.parametrize(
    ("grid", "side", "removed"), [((8, 8), 4, (3, 5, 1)), ((5, 7), 3, (1, 1)), ((16, 9), 7, (5, 4, 2)), ((5, 5), 5, (12,))]
)
@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_each_window_is_matched_as_if_it_were_alone(grid, side: int, removed: tuple[int, ...], prefix: int) -> None:
    windows = Windows(grid, side)
    n = prefix + grid[0] * grid[1]
    metric = torch.randn(2, n, 6, generator=torch.Generator().manual_seed(n))
    names = torch.arange(n).expand(2, n)  # which of the first tokens stands at a position
    left = [[[prefix + patch for patch in members] for members in windows.members] for _ in range(2)]
    gone = 0
    for count in removed:
        matching = WindowMatch(windows, gone, count, prefix)(metric)
        kept, sources = names.gather(1, matching.kept), names.gather(1, matching.sources)
        targets = kept.gather(1, matching.targets)
        for image in range(2):
            pairs = dict(zip(sources[image].tolist(), targets[image].tolist(), strict=True))
            expected_order = list(range(prefix))
            for at, members in enumerate(left[image]):
                positions = torch.tensor([names[image].tolist().index(name) for name in members])
                alone = bipartite.match(metric[image, positions][None], count, 0)
                stay = [members[i] for i in alone.kept[0].tolist()]
                for source, target in zip(alone.sources[0].tolist(), alone.targets[0].tolist(), strict=True):
                    assert pairs.pop(members[source]) == stay[target]
                left[image][at] = stay
                expected_order += stay
            assert pairs == {}
            assert kept[image].tolist() == expected_order
        metric = metric.gather(1, matching.kept[..., None].expand(-1, -1, 6))
        names = kept
        gone += count


def test_how_much_can_merge_falls_with_what_is_left() -> None:
    shape = BackboneShape(2, 8, 2, (5, 7), 1, 8, 1, 1, 1, 1, 1, True)
    windows = Windows((5, 7), 3)  # the smallest has 4 patches
    assert [windows.most_merged(shape, 36 - 6 * gone) for gone in range(4)] == [2, 1, 1, 0]
