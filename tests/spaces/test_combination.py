"""Several reductions in one schedule: what each answers for, what gives way, and that equal work is one schedule."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pytest

from new_reductions import ENTRIES, Averaging
from recorded import SHAPE, line, neutral
from vittle import Schedule, VittleError
from vittle.spaces import BackboneShape, Merging, Space, Sparsity, Visit, combination, costs, shares, tokens
from vittle.spaces.table import REDUCTIONS


def test_what_is_combined_multiplies() -> None:
    space = Space(SHAPE, ("pruning", "merging"))
    ends = {name: line(space, name, end) for name, end in {"pruning": 0.6, "merging": 0.5}.items()}
    alone = [tokens(SHAPE, space.schedule({**neutral(space), **one})) for one in ends.values()]
    both = tokens(SHAPE, space.schedule({**neutral(space), **ends["pruning"], **ends["merging"]}))
    for pruned, merged, left in zip(*alone, both, strict=True):
        assert abs((left - 1) / 64 - (pruned - 1) / 64 * (merged - 1) / 64) < 0.5 / 64 + 2 * 0.5 / 64


def test_nobody_makes_up_for_what_another_cannot_do() -> None:
    space = Space(SHAPE, ("pruning", "merging"))
    steep = shares.written("merging", [0.1] * 11)  # no block merges more than half
    pruned = shares.written("pruning", [1.0] * 5 + [0.9] * 6)
    pruning, merging = space.schedule({**neutral(space), **steep, **pruned}).reductions
    assert merging.kept[:3] == (33, 17, 9)
    assert [block for block in range(12) if pruning.kept[block] < (65, *merging.kept)[block]] == [5]


def test_windows_give_way_to_what_breaks_the_grid() -> None:
    space = Space(SHAPE, ("pruning", "merging"))
    values = {**neutral(space), **line(space, "merging", 0.3), "merging.local": 3, "merging.window": 4}
    (merging,) = space.schedule(values).reductions
    assert (merging.window, merging.global_from) == (4, 3)
    *_, merging = space.schedule({**values, **line(space, "pruning", 0.5, 2)}).reductions
    assert (merging.window, merging.global_from) == (4, 2)
    *_, merging = space.schedule({**values, **line(space, "pruning", 0.5)}).reductions
    assert (merging.window, merging.global_from) == (None, 0)


class TestWithoutEffect:
    """Shares that with their rests are no fewer keys once tokens are few, and rests where there is no grid."""

    @pytest.fixture
    def space(self) -> Space:
        return Space(SHAPE, ("sparsity", "merging"))

    def values(self, space: Space, read: Sequence[float], **settings: str) -> dict[str, float | str]:
        """Down to 2 patches after the fifth block, of which a share of half and its rest are 2."""
        kept = shares.written("merging", [0.5, 0.25, 0.125, 0.0625, *[0.03125] * 7])
        named = {f"sparsity.share.{block}": share for block, share in enumerate(read)}
        return {**neutral(space), **kept, **named, **{f"sparsity.{name}": value for name, value in settings.items()}}

    def test_a_share_that_does_nothing_is_left_out(self, space: Space) -> None:
        found = [space.schedule(self.values(space, [0.1, 0.1, 1.0, 1.0, 1.0, *late])) for late in ([], [0.5], [0.05, 1.0, 0.3])]
        assert {one.id for one in found} == {found[0].id}
        sparse, _ = found[1].reductions
        assert sparse.shares == (0.1, 0.1, *[1.0] * 10)
        assert tokens(SHAPE, found[0])[:6] == (33, 17, 9, 5, 3, 3)

    def test_where_no_share_does_anything_there_is_no_sparsity(self, space: Space) -> None:
        (merging,) = space.schedule(self.values(space, [*[1.0] * 5, 0.5, 0.1])).reductions
        assert merging == space.schedule(self.values(space, [])).reductions[0]

    def test_rests_that_are_one_everywhere_are_called_so(self, space: Space) -> None:
        one, four, sixteen = (space.schedule(self.values(space, [1.0, 0.1], rests=rests)) for rests in ("one", "2x2", "4x4"))
        assert one.id == four.id == sixteen.id
        grid = {space.schedule(self.values(space, [0.1, 0.1], rests=rests)).id for rests in ("one", "2x2", "4x4")}
        assert len(grid) == 3

    def test_what_is_written_by_hand_stays_and_stands_at_the_same_point(self, space: Space) -> None:
        canonical = space.schedule(self.values(space, [0.1, 0.1]))
        sparse, merging = canonical.reductions
        idle = sparse.model_copy(update={"shares": (0.1, 0.1, 1.0, 1.0, 1.0, *[0.7] * 7)})
        written = Schedule((idle, merging), canonical.tail)
        assert Schedule.from_dict(written.to_dict()).reductions[0].shares[5:11] == (0.7,) * 6
        assert costs.work(SHAPE, written) == costs.work(SHAPE, canonical)
        assert space.encode(written) == space.encode(canonical)
        acting = sparse.model_copy(update={"shares": (0.1, 0.7, *[1.0] * 10)})
        with pytest.raises(VittleError, match="shares above 0.5 are not searched"):
            space.encode(Schedule((acting, merging), canonical.tail))

    def test_a_point_is_the_same_again(self, space: Space) -> None:
        rng = np.random.default_rng(0)
        idle = 0
        for _ in range(200):
            values = space.draw(rng)
            few = rng.random()
            values |= {name: few * float(share) for name, share in values.items() if ".kept." in name}
            schedule = space.schedule(values)
            encoded = space.encode(schedule)
            assert space.schedule(encoded) == schedule
            assert space.encode(space.schedule(encoded)) == encoded
            asked = {name for name in values if "share" in name and float(values[name]) <= 0.5}
            idle += any(encoded[name] == 1.0 for name in asked)
            for part in schedule.reductions:
                if isinstance(part, Sparsity):
                    acting = {row.visit.block for row in costs.work(SHAPE, schedule) if row.at("attention")}
                    assert acting == {block for block, share in enumerate(part.shares) if share < 1}
        assert idle > 20


class Rerunning(Averaging):
    """Every block runs twice, and from some visit on reads the mean of all values."""

    name: ClassVar[str] = "rerunning"

    def route(self, shape: BackboneShape) -> list[Visit]:
        return [Visit(block, step) for block in range(shape.depth) for step in (0, 1)]


def test_who_gives_way_takes_its_route_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REDUCTIONS, "rerunning", ENTRIES["averaging"])
    context = Space(SHAPE, ("merging",)).context
    parts = [(Merging.keeping_all(context), [0.5] * 24)]
    sparse = Sparsity(shares=(0.1, *[1.0] * 11))
    both = combination.combined(context, parts, [sparse, Rerunning(start=2)])
    assert [part.name for part in both.reductions] == ["sparsity", "merging", "rerunning"]
    assert len(costs.work(SHAPE, both)) == 24
    alone = combination.combined(context, parts, [sparse, Rerunning(start=0)])
    assert alone == combination.combined(context, parts, [sparse])
    assert len(costs.work(SHAPE, alone)) == 12
