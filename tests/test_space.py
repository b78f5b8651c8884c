"""The contract of every reduction in the table: whatever a search proposes within its ranges can run, and is costed."""

import itertools

import numpy as np
import pytest

from models import FAMILIES, make_model
from recorded import DENSE, SHAPE, neutral
from vittle.reductions.backbone import shape_of
from vittle.spaces import Choice, Parameter, Schedule, Space, VittleError, macs, plan, tokens
from vittle.spaces.reduction import AdapterRecord
from vittle.spaces.table import REDUCTIONS

SHAPES = {name: shape_of(make_model(name)) for name in FAMILIES} | {"digits": SHAPE}
ADAPTERS = {"merging": AdapterRecord("modular-0123456789ab", 8)}
COMBINATIONS = [*((name,) for name in REDUCTIONS), tuple(REDUCTIONS)]
FITTING = [
    pytest.param((shape, names), id=f"{label}-{'+'.join(names)}")
    for label, shape in SHAPES.items()
    for names in COMBINATIONS
    if all(REDUCTIONS[name].settings.refusal(shape) is None for name in names)
]


@pytest.fixture(params=FITTING)
def space(request: pytest.FixtureRequest) -> Space:
    return Space(*request.param, adapters=ADAPTERS, residuals=True)


@pytest.fixture(params=[fitting for fitting in FITTING if len(fitting.values[0][1]) == 1])
def single(request: pytest.FixtureRequest) -> Space:
    return Space(*request.param, adapters=ADAPTERS)


def test_every_value_within_its_range_is_feasible(space: Space) -> None:
    rng = np.random.default_rng(0)
    dense = macs(space.shape, Schedule())
    for _ in range(200):
        schedule = space.schedule(space.draw(rng))
        counts = tokens(space.shape, schedule)
        assert all(before >= after > 0 for before, after in zip((space.shape.tokens, *counts), counts, strict=False))
        assert counts[-1] >= space.shape.prefix
        embedding = sum(block.embedding_macs for block in plan(space.shape, schedule))
        assert 0 < macs(space.shape, schedule) <= dense + embedding
        assert embedding == 0 or any(part.adapter for part in schedule.reductions)
        assert Schedule.from_dict(schedule.to_dict()) == schedule


def test_the_ends_of_every_range_are_feasible(single: Space) -> None:
    ranges = [one.options if isinstance(one, Choice) else (one.low, one.high) for one in single.parameters]
    for values in itertools.product(*ranges):
        plan(single.shape, single.schedule({one.name: value for one, value in zip(single.parameters, values, strict=True)}))


def test_neutral_values_reduce_nothing(space: Space) -> None:
    values = neutral(space)
    assert set(values) == {one.name for one in space.parameters}
    assert space.schedule(values).reductions == ()


def test_strength_lowers_the_cost(single: Space) -> None:
    (settings,) = (REDUCTIONS[name].settings for name in REDUCTIONS if f"{name}.end" in {one.name for one in single.parameters})
    strength = next(one for one in single.parameters if one.name == settings.strength)
    assert isinstance(strength, Parameter)
    for start in settings.starting_points(single.context):
        costs = [
            macs(single.shape, single.schedule({**neutral(single), **start, strength.name: level}))
            for level in np.linspace(strength.low, strength.high, 30).tolist()
        ]
        assert costs == sorted(costs) or start.get("merging.metric") == "decoupled"  # an embedding costs where a block merges
        assert costs[0] < costs[-1]


def test_starting_points_meet_their_cost() -> None:
    space = Space(SHAPE, tuple(REDUCTIONS), adapters=ADAPTERS)
    for share in (0.8, 0.6):
        reached = [macs(SHAPE, space.schedule(values)) / DENSE for values in space.starting_points([share])]
        assert all(share - 0.05 < cost <= share for cost in reached)
        assert len(reached) >= 3


def test_starting_points_meet_any_cost_with_the_most_kept() -> None:
    space = Space(SHAPE, tuple(REDUCTIONS))

    def blocks(schedule: Schedule) -> float:  # falls otherwise than MACs do, and in steps
        return round(sum(left >= 33 for left in tokens(SHAPE, schedule)) / 12, 2)

    strengths = {settings.settings.strength for settings in REDUCTIONS.values()}
    for share in (0.75, 0.25):
        for values in space.starting_points([share], blocks):
            weakest = {0.02} if blocks(space.schedule(values)) > share else set()
            assert {values[name] for name in strengths} - {1.0} >= weakest  # it cannot cost less
            turned = [one for one in space.parameters if one.name in strengths and values[one.name] < 1]
            more = {one.name: values[one.name] + (one.high - one.low) / 100 for one in turned}
            assert blocks(space.schedule({**values, **more})) > share
    reached = [
        [macs(SHAPE, space.schedule(values)) for values in space.starting_points([0.75], cost)] for cost in (blocks, None)
    ]
    assert reached[0] != reached[1]


def test_where_nothing_costs_as_little_the_cheapest_is_tried() -> None:
    space = Space(SHAPE, tuple(REDUCTIONS), adapters=ADAPTERS)
    points = [list(space.starting_points([0.0], cost)) for cost in (None, lambda _: 0.9)]
    assert points[0] == points[1]
    for values in points[0]:
        ends = {values[f"{name}.end"] for name in REDUCTIONS}
        assert ends in ({0.02}, {0.02, 1.0})  # each alone, or all together
    assert list(space.starting_points([2.0], lambda _: 1.5)) == [
        {**values, **{name: 1.0 for name in values if name.endswith(".end")}} for values in points[0]
    ]


def test_the_cheapest_are_as_strong_as_can_be(space: Space) -> None:
    cheapest = space.cheapest()
    shares = [macs(space.shape, one) / macs(space.shape, Schedule()) for one in cheapest]
    assert shares == sorted(shares) == [space.macs_share(one) for one in cheapest]
    assert len({one.id for one in cheapest}) == len(cheapest)
    acting = {tuple(part.name for part in one.reductions) for one in cheapest}
    assert acting >= {(name,) for name in space.reductions}
    assert space.reductions in acting


@pytest.mark.parametrize("names", COMBINATIONS)
def test_nothing_costs_less_than_the_cheapest(names: tuple[str, ...]) -> None:
    space = Space(SHAPE, names)
    rng = np.random.default_rng(0)
    least = min((space.schedule(space.draw(rng)) for _ in range(300)), key=space.macs_share)
    assert space.macs_share(space.cheapest()[0]) <= space.macs_share(least)


def test_draws_cover_every_range_and_follow_the_generator() -> None:
    space = Space(SHAPE, tuple(REDUCTIONS), adapters=ADAPTERS, residuals=True)
    rng = np.random.default_rng(0)
    drawn = [space.draw(rng) for _ in range(600)]
    assert [space.draw(np.random.default_rng(5)) for _ in range(2)] == [space.draw(np.random.default_rng(5))] * 2
    assert all(set(values) == {one.name for one in space.parameters} for values in drawn)
    for one in space.parameters:
        values = [given[one.name] for given in drawn]
        if isinstance(one, Choice):
            assert set(values) == set(one.options)
        elif one.integer:
            assert set(values) == set(range(int(one.low), int(one.high) + 1))
        else:
            assert one.low <= min(values) < max(values) <= one.high
            middle = (one.low * one.high) ** 0.5 if one.log else (one.low + one.high) / 2
            assert 0.42 < np.mean(np.array(values) < middle) < 0.58


def test_counts_use_what_is_free() -> None:
    flats = ((4, 9), (20, 33), (50, 65))
    free = list(range(66))
    for low, high in flats:
        free[low : high + 1] = [high] * (high + 1 - low)
    rng = np.random.default_rng(0)
    spared = 0
    for name in REDUCTIONS:
        snapping, plain = (Space(SHAPE, (name,), free=table) for table in (free, ()))
        for _ in range(200):
            values = plain.draw(rng)
            if name == "merging":  # by importance any number can merge: no block is kept from an edge
                values = {**values, "merging.matching": "importance", "merging.local": 0}
            snapped, without = (tokens(SHAPE, one.schedule(values))[:-1] for one in (snapping, plain))
            assert all(count == free[count] for count in snapped)
            assert snapped == tuple(free[count] for count in without)
            spared += snapped != without
    assert spared > 100
    assert snapping.context.snapped(20) == 33
    assert plain.context.snapped(20) == 20


def test_starting_points_use_what_was_detected_and_trained() -> None:
    detected = [values["merging.start"] for values in Space(SHAPE, ("merging",), start=5).starting_points([0.7])]
    assert 5 in detected
    assert 5 not in [values["merging.start"] for values in Space(SHAPE, ("merging",)).starting_points([0.7])]
    metrics = {values["merging.metric"] for values in Space(SHAPE, ("merging",), adapters=ADAPTERS).starting_points([0.7])}
    assert metrics == {"key", "decoupled"}


def test_a_choice_that_needs_what_is_missing_is_not_offered() -> None:
    (metric,) = (one for one in Space(SHAPE, ("merging",)).parameters if one.name == "merging.metric")
    assert isinstance(metric, Choice)
    assert "decoupled" not in metric.options
    (matching,) = (
        one for one in Space(SHAPES["pooled, no class token"], ("merging",)).parameters if one.name == "merging.matching"
    )
    assert isinstance(matching, Choice)
    assert "importance" not in matching.options


def test_a_reduction_that_does_not_fit_is_refused() -> None:
    with pytest.raises(VittleError, match="pruning does not fit this model: .* has none; accepted: merging"):
        Space(SHAPES["pooled, no class token"], ("pruning",))


def test_what_is_combined_multiplies() -> None:
    space = Space(SHAPE, ("pruning", "merging"))
    ends = {"pruning.end": 0.6, "merging.end": 0.5}
    alone = [tokens(SHAPE, space.schedule({**neutral(space), name: end})) for name, end in ends.items()]
    both = tokens(SHAPE, space.schedule({**neutral(space), **ends}))
    for pruned, merged, left in zip(*alone, both, strict=True):
        assert abs((left - 1) / 64 - (pruned - 1) / 64 * (merged - 1) / 64) < 0.5 / 64 + 2 * 0.5 / 64


def test_windows_give_way_to_what_breaks_the_grid() -> None:
    space = Space(SHAPE, ("pruning", "merging"))
    values = {**neutral(space), "merging.end": 0.3, "merging.local": 3, "merging.window": 4}
    (merging,) = space.schedule(values).reductions
    assert (merging.window, merging.global_from) == (4, 3)
    *_, merging = space.schedule({**values, "pruning.start": 2, "pruning.end": 0.5}).reductions
    assert (merging.window, merging.global_from) == (4, 2)
    *_, merging = space.schedule({**values, "pruning.end": 0.5}).reductions
    assert (merging.window, merging.global_from) == (None, 0)


def test_residuals_correct_single_blocks() -> None:
    space = Space(SHAPE, ("merging",), residuals=True)
    values = {**neutral(space), "merging.end": 0.3, "merging.residual.4": -0.1}
    flat, corrected = (tokens(SHAPE, space.schedule({**values, "merging.residual.4": change})) for change in (0.0, -0.1))
    assert corrected[:4] == flat[:4]
    assert flat[4] - corrected[4] in (6, 7)  # a tenth of 64 patches, rounded


def test_the_tail_is_left_out_where_nobody_reads_it() -> None:
    for shape in SHAPES.values():
        assert Space(shape, ("merging",)).context.tail == ("prefix" if shape.reads_prefix_only else "full")
