"""Planned schedules against every schedule there is, on backbones small enough to list them all."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from vittle.objectives.backbones.sensitivity import Point, Sensitivity
from vittle.objectives.latency.profile import (
    LAST,
    MLP,
    PLAIN,
    WEIGHTED,
    ActingCost,
    Check,
    Correction,
    LatencyProfile,
    Staircase,
)
from vittle.search.planning import plans
from vittle.spaces import BackboneShape, Schedule, ScheduleError, Space, VittleError, tokens, work
from vittle.spaces.table import REDUCTIONS

BOTH = ("pruning", "merging")
SHAPE = BackboneShape(
    depth=4, width=8, heads=2, grid=(2, 4), prefix=1, attention_width=8, key_macs=128, query_macs=128, mlp_macs=512,
    embed_macs=300, head_macs=80, reads_prefix_only=True,
)  # fmt: skip
LARGE = dataclasses.replace(SHAPE, depth=12, grid=(8, 8))
POOLED = dataclasses.replace(SHAPE, reads_prefix_only=False)
COSTS = tuple(np.linspace(0.25, 1.25, 41))


def sensitivity(scales: Sequence[float], *, exponent: float = 1.6, names: Sequence[str] = BOTH) -> Sensitivity:
    """Each block loses its scale times a power of the share removed."""

    def block(scale: float) -> tuple[Point, ...]:
        losses = [(share, scale * share**exponent) for share in (1 / 8, 1 / 4, 1 / 2)]
        return tuple(Point(share, loss, loss, loss) for share, loss in losses)

    return Sensitivity("0123456789ab", "digits", 64, {name: tuple(map(block, scales)) for name in names})


def profile(
    shape: BackboneShape = SHAPE, *, mlp: Callable[[int], float] = lambda count: count, error: float = 0.0
) -> LatencyProfile:
    """Attention takes a step more for every four tokens, the MLP as long as it has tokens; what acts takes some time too."""
    block = 1 / (2 * shape.depth * shape.tokens)

    def part(cost: Callable[[int], float]) -> Staircase:
        counts = range(1, shape.tokens + 1)
        return Staircase(tuple(counts), *(tuple(block * cost(count) for count in counts),) * 3)

    acting = {
        "merging key bipartite size": ActingCost(block, 0.02 * block, 0.05 * block),
        "pruning": ActingCost(0.5 * block, 0.0, 0.1 * block),
    }
    checks = tuple(Check("x", one, one, one, one, one * (1 + error)) for one in (0.4, 0.6, 0.8, 1.0))
    return LatencyProfile(
        key="c4d91be07a35",
        model="tiny",
        shape=shape,
        environment={"device": "cpu", "threads": 2},
        protocol={"batch_size": 4, "dtype": "float32"},
        backbone_ms=8.0,
        forms_ms={"fused": 8.0},
        embed=0.04,
        parts={
            PLAIN: part(lambda count: -(-count // 4) * 4),
            WEIGHTED: part(lambda count: -(-count // 4) * 4.4),
            LAST: part(lambda count: -(-count // 4)),
            MLP: part(mlp),
        },
        acting=acting,
        correction=Correction(0.95, 1.1, 0.02),
        checks=checks,
    )


def every(space: Space) -> list[Schedule]:
    """Every schedule of the plain settings of a space of one reduction."""
    shape, (name,), found = space.shape, space.reductions, {}
    settings = REDUCTIONS[name].settings.keeping_all(space.context)
    for kept in itertools.combinations_with_replacement(range(shape.tokens, shape.prefix, -1), space.context.blocks):
        counts = (*kept, *[kept[-1]] * (shape.depth - len(kept)))
        part = settings.model_copy(update={"kept": counts})
        schedule = Schedule((part,) if kept[-1] < shape.tokens else (), space.context.tail)
        try:
            work(shape, schedule)
        except ScheduleError:
            continue
        found[schedule.id] = schedule
    return list(found.values())


def lost(space: Space, one: Sensitivity, schedule: Schedule) -> float:
    """The sum of what each block loses."""
    (name,), shape = space.reductions, space.shape
    counts = (shape.tokens, *tokens(shape, schedule)[: space.context.blocks])
    pairs = enumerate(itertools.pairwise(counts))
    return sum(one.loss(name, block, (before - after) / (before - shape.prefix)) for block, (before, after) in pairs)


def check_against_all(
    space: Space, one: Sensitivity, cost: Callable[[Schedule], float], profile: LatencyProfile | None
) -> None:
    listed = [(cost(schedule), lost(space, one, schedule)) for schedule in every(space)]
    assert len(listed) > 50
    reached = set()
    for most in COSTS:
        best = min((loss for spent, loss in listed if spent <= most), default=math.inf)
        found = plans(space, one, [most], profile)
        assert len(found) == math.isfinite(best)
        for schedule in found:
            assert cost(schedule) <= most
            assert lost(space, one, schedule) == pytest.approx(best)
            reached.add(schedule.id)
    assert len(reached) > 6


@pytest.mark.parametrize("exponent", [0.7, 1.6])
@pytest.mark.parametrize("shape", [SHAPE, POOLED])
@pytest.mark.parametrize("name", BOTH)
def test_no_schedule_within_the_macs_loses_less(name: str, shape: BackboneShape, exponent: float) -> None:
    space = Space(shape, (name,))
    one = sensitivity((0.4, 1.0, 0.2, 0.7)[: space.context.blocks], exponent=exponent)
    check_against_all(space, one, space.macs_share, None)


@pytest.mark.parametrize("shape", [SHAPE, POOLED])
@pytest.mark.parametrize("name", BOTH)
def test_no_schedule_within_the_latency_loses_less(name: str, shape: BackboneShape) -> None:
    space, staircases = Space(shape, (name,)), profile(shape)
    one = sensitivity((0.4, 1.0, 0.2, 0.7)[: space.context.blocks])
    check_against_all(space, one, staircases.ratio, staircases)


@pytest.mark.parametrize("name", BOTH)
def test_pairs_of_tokens_that_cost_the_same_are_kept_together(name: str) -> None:
    space = Space(SHAPE, (name,), free=(0, 1, 3, 3, 5, 5, 7, 7, 9, 9))
    found = plans(space, sensitivity((0.4, 1.0, 0.2)), COSTS)
    assert {count for one in found for part in one.reductions for count in tokens(SHAPE, one)[:3]} <= {3, 5, 7, 9}
    assert len(found) > 2


@pytest.mark.parametrize("measured", [None, profile(LARGE)], ids=["macs", "latency"])
def test_plans_are_feasible_distinct_and_lose_less_the_more_they_may_cost(measured: LatencyProfile | None) -> None:
    rng = np.random.default_rng(0)
    one = sensitivity(rng.lognormal(-3, 1, 11))
    for name in BOTH:
        space = Space(LARGE, (name,))
        cost = measured.ratio if measured else space.macs_share
        wanted = np.linspace(0.35, 0.9, 12)
        found = plans(space, one, wanted, measured)
        assert len({schedule.id for schedule in found}) == len(found) == 12
        spent = [cost(schedule) for schedule in found]
        assert spent == sorted(spent)
        assert (np.array(spent) <= wanted).all()
        assert (np.array(spent) > wanted - 0.01).all()
        losses = [lost(space, one, schedule) for schedule in found]
        assert losses == sorted(losses, reverse=True)


@pytest.mark.parametrize("free", [(), (0, 1, *np.repeat(range(5, 66, 4), 4).tolist())])
def test_plans_are_points_of_the_space(free: Sequence[int]) -> None:
    one = sensitivity(np.random.default_rng(0).lognormal(-3, 1, 11))
    for names in (("pruning",), ("merging",), BOTH):
        space = Space(LARGE, names, free=free)
        for schedule in plans(space, one, COSTS):
            assert space.schedule(space.encode(schedule)) == schedule


def test_each_reduction_of_the_space_is_planned_alone_in_the_order_of_the_costs() -> None:
    one, costs = sensitivity((0.4, 1.0, 0.2)), (0.5, 0.7, 0.4)
    alone = [plans(Space(SHAPE, (name,)), one, [cost]) for cost in costs for name in BOTH]
    assert [len(planned) for planned in alone] == [1] * 6
    together = plans(Space(SHAPE, BOTH), one, costs)
    assert together == [schedule for planned in alone for schedule in planned]


def test_a_block_that_is_far_more_sensitive_is_left_alone() -> None:
    for block in range(11):
        scales = np.ones(11)
        scales[block] = 10
        (found,) = plans(Space(LARGE, ("merging",)), sensitivity(scales, exponent=1.0), [0.7])
        before, after = (LARGE.tokens, *tokens(LARGE, found))[block : block + 2]
        assert before == after


def test_no_token_is_removed_where_that_saves_no_time() -> None:
    steps = profile(mlp=lambda count: -(-count // 4) * 4)
    space = Space(SHAPE, ("pruning",))
    found = plans(space, sensitivity((0.4, 1.0, 0.2)), COSTS, steps)
    assert {count for one in found for count in tokens(SHAPE, one)[:3]} == {4, 8, 9}
    by_macs = plans(space, sensitivity((0.4, 1.0, 0.2)), COSTS)
    assert {count for one in by_macs for count in tokens(SHAPE, one)[:3]} > {4, 8, 9}


@pytest.mark.parametrize(
    "unused", [profile(error=0.5), dataclasses.replace(profile(), acting={})], ids=["not trusted", "knows nothing of it"]
)
def test_macs_stand_in_for_a_profile_of_no_use(unused: LatencyProfile) -> None:
    space, one = Space(SHAPE, BOTH), sensitivity((0.4, 1.0, 0.2))
    assert plans(space, one, COSTS, unused) == plans(space, one, COSTS) != plans(space, one, COSTS, profile())


def test_a_cost_that_the_dense_backbone_keeps_asks_for_nothing() -> None:
    space, one = Space(SHAPE, ("merging",)), sensitivity((0.4, 1.0, 0.2))
    assert plans(space, one, [1.0, 2.0]) == [Schedule((), "prefix")]
    assert plans(space, one, [0.01]) == plans(space, one, []) == []


def test_a_sensitivity_that_does_not_fit_is_refused() -> None:
    with pytest.raises(VittleError, match="to merging was measured in 4 blocks; accepted: 3"):
        plans(Space(SHAPE, ("merging",)), sensitivity((1.0,) * 4), COSTS)
    with pytest.raises(VittleError, match="to pruning was measured in 0 blocks; accepted: 3"):
        plans(Space(SHAPE, BOTH), sensitivity((1.0,) * 3, names=("merging",)), COSTS)
