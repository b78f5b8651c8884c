"""The contract of every reduction in the table: whatever a search proposes within its ranges can run, and is costed."""

import numpy as np
import pytest

from models import FAMILIES, make_model
from recorded import DENSE, SHAPE
from vittle.reductions.backbone import shape_of
from vittle.spaces import BackboneShape, Schedule, Space, macs, plan, tokens
from vittle.spaces.table import REDUCTIONS

SHAPES = {name: shape_of(make_model(name)) for name in FAMILIES} | {"digits": SHAPE}


@pytest.fixture(params=SHAPES)
def shape(request: pytest.FixtureRequest) -> BackboneShape:
    return SHAPES[request.param]


@pytest.fixture(params=[*[(name,) for name in REDUCTIONS], tuple(REDUCTIONS)], ids="+".join)
def space(request: pytest.FixtureRequest, shape: BackboneShape) -> Space:
    return Space(shape, request.param)


def test_every_value_within_its_range_is_feasible(space: Space) -> None:
    rng = np.random.default_rng(0)
    dense = macs(space.shape, Schedule())
    for _ in range(200):
        values = {
            one.name: int(rng.integers(one.low, one.high + 1)) if one.integer else float(rng.uniform(one.low, one.high))
            for one in space.parameters
        }
        schedule = space.schedule(values)
        counts = tokens(space.shape, schedule)
        assert all(before >= after > 0 for before, after in zip((space.shape.tokens, *counts), counts, strict=False))
        assert counts[-1] >= space.shape.prefix
        assert 0 < macs(space.shape, schedule) <= dense
        assert Schedule.from_dict(schedule.to_dict()) == schedule


@pytest.mark.parametrize("end", ["low", "high"])
def test_the_ends_of_every_range_are_feasible(space: Space, end: str) -> None:
    plan(space.shape, space.schedule({one.name: getattr(one, end) for one in space.parameters}))


def test_neutral_values_reduce_nothing(shape: BackboneShape) -> None:
    for name, entry in REDUCTIONS.items():
        assert Space(shape, (name,)).schedule(entry.settings.neutral(shape)).reductions == ()


def test_strength_lowers_the_cost(shape: BackboneShape) -> None:
    for name, entry in REDUCTIONS.items():
        space = Space(shape, (name,))
        strength = next(one for one in space.parameters if one.name == entry.settings.strength)
        for start in entry.settings.starting_points(shape):
            values = {**entry.settings.neutral(shape), **start}
            costs = [
                macs(shape, space.schedule({**values, strength.name: level}))
                for level in np.linspace(strength.low, strength.high, 30).tolist()
            ]
            assert costs == sorted(costs)
            assert costs[0] < costs[-1]


def test_starting_points_meet_their_cost() -> None:
    space = Space(SHAPE, tuple(REDUCTIONS))
    for share in (0.8, 0.6):
        reached = [macs(SHAPE, space.schedule(values)) / DENSE for values in space.starting_points([share])]
        assert all(share - 0.05 < cost <= share for cost in reached)
        assert len(reached) >= 3


def test_the_tail_is_left_out_where_nobody_reads_it(shape: BackboneShape) -> None:
    assert Space(shape, tuple(REDUCTIONS)).tail == ("prefix" if shape.reads_prefix_only else "full")
