"""The contract of every reduction in the table: whatever a search proposes within its ranges can run, and is costed."""

import itertools

import numpy as np
import pytest
import yaml

from models import FAMILIES, make_model
from recorded import DENSE, SHAPE, line, neutral
from vittle import presets
from vittle.reductions.backbone import shape_of
from vittle.spaces import BackboneShape, Choice, Schedule, Space, VittleError, macs, published, shares, tokens, work
from vittle.spaces.reduction import AdapterRecord
from vittle.spaces.table import REDUCTIONS
from vittle.spaces.token_reduction import TokenReduction

SHAPES = {name: shape_of(make_model(name)) for name in FAMILIES} | {"digits": SHAPE}
ADAPTERS = {
    "recursion": AdapterRecord("distilled-0123456789ab", 1, 10),
    "sparsity": AdapterRecord("scored-0123456789ab", 16),
    "merging": AdapterRecord("modular-0123456789ab", 8),
}
DEIT = BackboneShape(
    depth=12, width=384, heads=6, grid=(14, 14), prefix=1, attention_width=384, key_macs=294912, query_macs=294912,
    mlp_macs=1179648, embed_macs=57802752, head_macs=384000, reads_prefix_only=True,
)  # fmt: skip
PRUNED, MERGED = published.PRUNED[0], published.MERGED[0]
MERGING = "merging: {kept: [49, 49, 49, 49, 49, 49, 49, 49, 49, 49, 49, 49], "
# Those that remove tokens have shares of them in common.
COUNTING = [name for name in REDUCTIONS if issubclass(REDUCTIONS[name].settings, TokenReduction)]
COMBINATIONS = [*((name,) for name in REDUCTIONS), tuple(REDUCTIONS)]
FITTING = [
    pytest.param((shape, names), id=f"{label}-{'+'.join(names)}")
    for label, shape in SHAPES.items()
    for names in COMBINATIONS
    if all(REDUCTIONS[name].settings.refusal(shape) is None for name in names)
]


@pytest.fixture(params=FITTING)
def space(request: pytest.FixtureRequest) -> Space:
    return Space(*request.param, adapters=ADAPTERS)


@pytest.fixture(params=[fitting for fitting in FITTING if len(fitting.values[0][1]) == 1])
def single(request: pytest.FixtureRequest) -> Space:
    return Space(*request.param, adapters=ADAPTERS)


@pytest.fixture(params=[fitting for fitting in FITTING if fitting.values[0][1][0] in COUNTING])
def counting(request: pytest.FixtureRequest) -> Space:
    """Of one reduction that removes tokens."""
    return Space(*request.param, adapters=ADAPTERS)


def stairs(most: int, rng: np.random.Generator) -> list[int]:
    """A table of free counts with flat stretches at random places."""
    tops = sorted({*rng.integers(1, most, most // 5).tolist(), most})
    return [next(top for top in tops if top >= count) for count in range(most + 1)]


def test_every_value_within_its_range_is_feasible(space: Space) -> None:
    rng = np.random.default_rng(0)
    dense = macs(space.shape, Schedule())
    for _ in range(200):
        schedule = space.schedule(space.draw(rng))
        counts = tokens(space.shape, schedule)
        assert all(before >= after > 0 for before, after in zip((space.shape.tokens, *counts), counts, strict=False))
        assert counts[-1] >= space.shape.prefix
        assert 0 < macs(space.shape, schedule) <= dense + extra(space.shape, schedule)
        acts = [act for row in work(space.shape, schedule) for act in row.acts]
        assert all(act.macs >= 0 and (0 < act.strength <= 1 or act.rule == "all") for act in acts)
        assert Schedule.from_dict(schedule.to_dict()) == schedule


def test_the_ends_of_every_range_are_feasible(single: Space) -> None:
    by_block = [one for one in single.parameters if one.name.rpartition(".")[2].isdigit()]
    others = [one for one in single.parameters if one not in by_block]
    ranges = [one.options if isinstance(one, Choice) else (one.low, one.high) for one in others]
    assert len(by_block) == (0 if single.reductions == ("recursion",) else single.context.blocks)
    for turn, *values in itertools.product(range(len(by_block) + 1), *ranges):
        high = {one.name: one.high if block < turn else one.low for block, one in enumerate(by_block)}
        work(single.shape, single.schedule(high | {one.name: value for one, value in zip(others, values, strict=True)}))


def test_the_order_of_the_shares_means_nothing(space: Space) -> None:
    rng = np.random.default_rng(0)
    values = space.draw(rng)
    for name in set(space.reductions) & set(COUNTING):
        kept = shares.read(name, space.context, values)
        assert kept == sorted(kept, reverse=True)
        assert space.schedule({**values, **shares.written(name, rng.permutation(kept).tolist())}) == space.schedule(values)


def test_neighbours_are_neighbours(counting: Space) -> None:
    rng = np.random.default_rng(0)
    step = 0.4 / counting.shape.patches  # moves each count by one, or not
    moved = 0
    for _ in range(100):
        values = {**counting.draw(rng), **({"merging.local": 0} if counting.reductions == ("merging",) else {})}
        kept = {name: share for name, share in values.items() if ".kept." in name}
        near = {name: float(np.clip(share + rng.uniform(-step, step), 0, 1)) for name, share in kept.items()}
        counts, others = (tokens(counting.shape, counting.schedule({**values, **one})) for one in (kept, near))
        assert max(abs(count - other) for count, other in zip(counts, others, strict=True)) <= 1
        moved += counts != others
    assert moved > 20


@pytest.mark.parametrize("free", [False, True], ids=["", "some counts are free"])
def test_a_schedule_has_one_point_that_stands_for_it(space: Space, free: bool) -> None:
    rng = np.random.default_rng(0)
    windows = 0
    for _ in range(150):
        if free:
            space = Space(space.shape, space.reductions, adapters=ADAPTERS, free=stairs(space.shape.tokens, rng))
        late = {"merging.local": 2, **shares.written("pruning", [1.0] * 2)} if rng.random() < 0.5 else {}  # room for windows
        schedule = space.schedule({**space.draw(rng), **{name: late[name] for name in late.keys() & neutral(space).keys()}})
        encoded = space.encode(schedule)
        assert space.schedule(encoded) == schedule
        assert space.encode(space.schedule(encoded)) == encoded
        assert encoded.keys() == neutral(space).keys()
        for name in set(space.reductions) & set(COUNTING):
            kept = [encoded[one.name] for one in space.parameters if one.name.startswith(f"{name}.kept.")]
            assert kept == shares.read(name, space.context, encoded)  # they fall
        windows += any(getattr(part, "window", None) is not None for part in schedule.reductions)
    assert windows > 10 or "merging" not in space.reductions


def test_what_has_no_effect_is_neutral() -> None:
    space = Space(SHAPE, ("pruning", "merging"), adapters=ADAPTERS)
    for schedule in (Schedule(), Schedule(tail="prefix")):
        assert space.encode(schedule) == neutral(space)
    chosen = {"merging.metric": "feature", "merging.local": 2, "merging.window": 4}
    assert space.encode(space.schedule({**neutral(space), **chosen})) == neutral(space)
    merged = space.encode(space.schedule({**neutral(space), **chosen, **line(space, "merging", 0.3, 2)}))
    assert {name: merged[name] for name in chosen} == chosen
    assert [value for name, value in merged.items() if name.startswith("pruning.")] == [1.0] * 11
    alone = {**neutral(space), "merging.local": 0, "merging.window": 4, **line(space, "merging", 0.3)}
    assert space.encode(space.schedule(alone))["merging.window"] == neutral(space)["merging.window"]


def test_a_schedule_made_by_hand_has_a_point() -> None:
    space = Space(DEIT, ("pruning", "merging"))
    for tail in ("prefix", "full"):
        schedule = presets.kept(DEIT, [*MERGED, 31], [*PRUNED, 31], tail=tail, proportional="auto")
        found = space.schedule(space.encode(schedule))
        assert found == Schedule(schedule.reductions, "prefix")
        assert tokens(DEIT, found)[:-1] == MERGED
    free = Space(DEIT, ("merging",), free=[-(-count // 16) * 16 for count in range(198)])
    off = presets.kept(DEIT, [170] * 12)
    assert tokens(DEIT, free.schedule(free.encode(off)))[:-1] == (176,) * 11


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (
            "pruning: {kept: [60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60]}",
            "pruning is not searched here; accepted: merging",
        ),
        ("merging: {kept: [60, 60], metric: feature}", "the schedule is for 2 blocks, the model has 12"),
        (
            MERGING + "metric: decoupled, embedding: another, embedding_width: 8}",
            "another, .* not at hand; there is: modular-0",
        ),
        (MERGING + "window: 4, global_from: 9}", "merging.local is 9 in this schedule; the space has 0 to 4"),
        (MERGING + "window: 8, global_from: 2}", "merging.window is 8 in this schedule; the space has 2 to 4"),
    ],
)
def test_a_schedule_of_another_space_is_refused(document: str, message: str) -> None:
    schedule = Schedule.from_dict(yaml.safe_load(document))
    with pytest.raises(VittleError, match=message):
        Space(SHAPE, ("merging",), adapters=ADAPTERS).encode(schedule)


def test_an_adapter_that_is_not_at_hand_is_refused() -> None:
    document = yaml.safe_load(MERGING + "metric: decoupled, embedding: modular-0123456789ab, embedding_width: 8}")
    schedule = Schedule.from_dict(document)
    assert Space(SHAPE, ("merging",), adapters=ADAPTERS).encode(schedule)["merging.metric"] == "decoupled"
    with pytest.raises(VittleError, match="compares by modular-0123456789ab, which is not at hand; there is: none"):
        Space(SHAPE, ("merging",)).encode(schedule)


def test_neutral_values_reduce_nothing(space: Space) -> None:
    values = neutral(space)
    assert set(values) == {one.name for one in space.parameters}
    assert space.schedule(values).reductions == ()


def test_a_lower_end_lowers_the_cost(single: Space) -> None:
    (settings,) = (REDUCTIONS[name].settings for name in single.reductions)
    ends = np.linspace(0, 1, 30).tolist()
    for turned in zip(*(settings.starting_points(single.context, end) for end in ends), strict=True):
        schedules = [single.schedule(start.values) for start in turned]
        costs = [macs(single.shape, schedule) for schedule in schedules]
        # What is chosen by an adapter, or at a cost of its own, costs wherever it acts.
        free = [cost for cost, schedule in zip(costs, schedules, strict=True) if not extra(single.shape, schedule)]
        assert free == sorted(free)
        assert costs[0] < costs[-1] == macs(single.shape, Schedule((), single.context.tail))
        bare = [cost - extra(single.shape, schedule) for cost, schedule in zip(costs, schedules, strict=True)]
        assert bare == sorted(bare)


def extra(shape: BackboneShape, schedule: Schedule) -> int:
    """MACs of what reductions compute besides."""
    return sum(row.extra_macs for row in work(shape, schedule))


def test_an_end_is_the_share_of_the_tokens_left(counting: Space) -> None:
    settings = REDUCTIONS[counting.reductions[0]].settings
    for end in np.linspace(0, 1, 30).tolist():
        for start in settings.starting_points(counting.context, end):
            assert min(shares.read(settings.name, counting.context, start.values)) == pytest.approx(end)


def test_starting_points_meet_their_cost() -> None:
    for names in COMBINATIONS:
        space = Space(SHAPE, names, adapters=ADAPTERS)
        least = [macs(SHAPE, space.schedule(start.values)) / DENSE for start in space.starting_points([0.0])]
        assert min(least) < 0.9
        for share in (0.8, 0.6, 1.1 * min(least)):
            starts = list(space.starting_points([share]))
            for start, lowest in zip(starts, least, strict=True):
                cost = macs(SHAPE, space.schedule(start.values)) / DENSE
                # A step of a recursion is a whole block.
                assert share - (0.09 if start.values.get("recursion.steps") else 0.05) < cost <= max(share, lowest), (
                    start.origin
                )
        assert len(starts) >= 2


@pytest.mark.parametrize("name", COUNTING)
def test_starting_points_meet_any_cost_with_the_most_kept(name: str) -> None:
    space = Space(SHAPE, (name,))

    def blocks(schedule: Schedule) -> float:  # falls otherwise than MACs do, and in steps
        return round(sum(left >= 33 for left in tokens(SHAPE, schedule)) / 12, 2)

    for most in (0.75, 0.25):
        for index, start in enumerate(space.starting_points([most], blocks)):
            end = min(shares.read(name, space.context, start.values))
            assert blocks(space.schedule(start.values)) <= most or end == 0  # it cannot cost less
            more = REDUCTIONS[name].settings.starting_points(space.context, end + 0.01)[index]
            assert blocks(space.schedule(more.values)) > most
    reached = [
        [macs(SHAPE, space.schedule(start.values)) for start in space.starting_points([0.75], cost)] for cost in (blocks, None)
    ]
    assert reached[0] != reached[1]


def test_where_nothing_costs_as_little_the_cheapest_is_tried() -> None:
    space = Space(SHAPE, tuple(REDUCTIONS), adapters=ADAPTERS)
    points = [list(space.starting_points([0.0], cost)) for cost in (None, lambda _: 0.9)]
    assert points[0] == points[1]
    least = {name: REDUCTIONS[name].settings.starting_points(space.context, 0.0) for name in space.reductions}
    alone = [{**neutral(space), **start.values} for starts in least.values() for start in starts]
    assert [start.values for start in points[0]][: len(alone)] == alone
    together = points[0][len(alone) :]
    assert together
    for start in together:  # each reduction as where it is alone, at an end of this origin
        assert all(any(one.values.items() <= start.values.items() for one in starts) for starts in least.values())
    dense = list(space.starting_points([2.0], lambda _: 1.5))
    assert [start.origin for start in dense] == [start.origin for start in points[0]]
    assert all(space.schedule(start.values).reductions == () for start in dense)


def test_the_cheapest_reduce_each_alone(space: Space) -> None:
    cheapest = space.cheapest()
    costs = [macs(space.shape, one) / macs(space.shape, Schedule()) for one in cheapest]
    assert costs == sorted(costs) == [space.macs_share(one) for one in cheapest]
    assert len({one.id for one in cheapest}) == len(cheapest)
    acting = {tuple(part.name for part in one.reductions) for one in cheapest}
    assert acting >= {(name,) for name in space.reductions}


@pytest.mark.parametrize("names", COMBINATIONS)
def test_nothing_costs_less_than_the_cheapest(names: tuple[str, ...]) -> None:
    rng = np.random.default_rng(0)
    for free in ((), stairs(65, rng)):
        space = Space(SHAPE, names, adapters=ADAPTERS, free=free)
        drawn = [space.draw(rng) for _ in range(300)]
        drawn += [{name: 0.0 if ".kept." in name else value for name, value in values.items()} for values in drawn]
        least = min(map(space.schedule, drawn), key=space.macs_share)
        assert space.macs_share(space.cheapest()[0]) <= space.macs_share(least)


def test_draws_cover_every_range_and_follow_the_generator() -> None:
    space = Space(SHAPE, tuple(REDUCTIONS), adapters=ADAPTERS)
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
    def first_merging(start: int | None) -> list[int]:
        space = Space(SHAPE, ("merging",), start=start)
        kept = [tokens(SHAPE, space.schedule(one.values)) for one in space.starting_points([0.7]) if one.origin == "delayed"]
        return [next(block for block, left in enumerate(counts) if left < 65) for counts in kept]

    assert first_merging(5) == [5, 5]
    assert first_merging(None) == [2, 2]
    learned = [one for one in Space(SHAPE, ("merging",), adapters=ADAPTERS).starting_points([0.7]) if one.origin == "learned"]
    assert [one.values["merging.metric"] for one in learned] == ["decoupled"]
    assert "learned" not in {one.origin for one in Space(SHAPE, ("merging",)).starting_points([0.7])}


def test_starting_points_say_where_they_come_from() -> None:
    origins = [start.origin for start in Space(SHAPE, ("pruning", "merging")).starting_points([0.7])]
    assert origins[:3] == ["delayed", "published", "published"]  # pruning
    assert origins[3:-2] == ["constant", "decreasing", "decreasing", "delayed", "delayed", "published", "published"]
    assert origins[-2:] == ["delayed", "published"]  # together
    *_, together = Space(SHAPE, ("pruning", "merging")).starting_points([0.7])
    assert len(Space(SHAPE, ("pruning", "merging")).schedule(together.values).reductions) == 2


def test_published_rates_are_what_was_published() -> None:
    for name, kept in (("pruning", PRUNED), ("merging", MERGED)):
        space = Space(DEIT, (name,))
        small, base = (
            [start for start in REDUCTIONS[name].settings.starting_points(space.context, end) if start.origin == "published"][
                at
            ]
            for at, end in enumerate(((kept[-1] - 1) / 196, 0.5))
        )
        assert tokens(DEIT, space.schedule(small.values))[:-1] == kept
        assert tokens(DEIT, space.schedule(base.values))[-2] == 1 + 98


def test_published_rates_fit_any_depth_and_strength() -> None:
    scaled = published.shares(published.MERGED[0], 24, 23, 0.1)
    assert scaled == sorted(scaled, reverse=True)
    assert (scaled[0] > 0.99, scaled[-1]) == (True, pytest.approx(0.1))
    removed = 1 - np.array(scaled)
    halved = 1 - np.array(published.shares(published.MERGED[0], 24, 23, 0.55))
    assert halved == pytest.approx(removed / 2)
    assert published.shares(published.PRUNED[1], 1, 1, 0.3) == [pytest.approx(0.3)]


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
    with pytest.raises(
        VittleError, match="pruning does not fit this model: .* has none; accepted: recursion, sparsity, merging"
    ):
        Space(SHAPES["pooled, no class token"], ("pruning",))


def test_the_tail_is_left_out_where_nobody_reads_it() -> None:
    for shape in SHAPES.values():
        assert Space(shape, ("merging",)).context.tail == ("prefix" if shape.reads_prefix_only else "full")
