"""Measuring a latency profile: a real one of a tiny model, and the arithmetic around it."""

import dataclasses
import itertools
import math
import tempfile
from collections.abc import Iterable, Iterator

import numpy as np
import pytest
import torch

from models import make_model
from recorded import SHAPE
from vittle.objectives.evaluator import make_stand
from vittle.objectives.latency import profiler
from vittle.objectives.latency.profile import LAST, MLP, PARTS, PLAIN, WEIGHTED, LatencyProfile
from vittle.objectives.latency.profiler import PLANS, MeasuringPlan, Profiler, key
from vittle.objectives.latency.stand import Stand
from vittle.reductions.backbone import Backbone, describe_backbone
from vittle.spaces import Schedule, Space
from vittle.spaces.reduction import AdapterRecord
from vittle.spaces.table import REDUCTIONS, unaided
from vittle.spaces.work import Act, BlockWork, Place, Visit

SMALLEST = MeasuringPlan(4, 1, 3)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path) -> Iterator[None]:
    """No waiting for the device: what is tested here holds on a busy one too."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(profiler, "PLANS", (SMALLEST,))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def at(name: str = "plain", **where: object) -> tuple[Backbone, Stand]:
    backbone = describe_backbone(make_model(name), "tiny")
    return backbone, make_stand(backbone, **{"device": "cpu", "batch_size": 2, **where})


@pytest.mark.parametrize("name", ["plain", "pooled, no class token"])
def test_a_profile_knows_every_part_and_whatever_a_search_may_propose(alone, name: str) -> None:
    told: list[tuple[int, int]] = []
    backbone, stand = at(name)
    before = {name: weight.clone() for name, weight in backbone.model.state_dict().items()}
    found = Profiler(backbone, stand, seconds=5, progress=lambda *how: told.append(how)).measure()
    shape = backbone.shape
    whole = set(PARTS) if shape.reads_prefix_only else {PLAIN, WEIGHTED, MLP}
    assert set(found.parts) == whole
    counts = found.parts[PLAIN].counts
    assert (counts[0], counts[-1], len(counts)) == (shape.prefix + 1, shape.tokens, SMALLEST.counts)
    assert found.parts[MLP].counts == ((shape.prefix, *counts) if shape.reads_prefix_only else counts)
    assert found.parts.get(LAST, found.parts[WEIGHTED]).counts == counts
    assert found.block.counts == counts
    assert found.embed > 0
    assert (found.key, found.shape, found.model) == (key(backbone, stand), shape, "tiny")
    assert found.protocol == stand.protocol()
    assert found.environment["threads"] == torch.get_num_threads()
    assert set(found.forms_ms) == {"fused", "eager"}
    assert len(found.checks) == SMALLEST.models
    assert all(check.low <= check.measured <= check.high for check in found.checks)
    # Of so few tokens sparse attention may save less than choosing costs.
    assert all(0 < check.macs < 1.5 for check in found.checks)
    assert (found.seconds > 0, found.backbone_ms > 0, found.measured_at.endswith("+00:00")) == (True, True, True)
    fitting = [name for name, entry in REDUCTIONS.items() if entry.settings.refusal(shape) is None]
    adapters = {
        "recursion": AdapterRecord("distilled-0123456789ab", 1, 10),
        "merging": AdapterRecord("modular-0123456789ab", 8),
    }
    space = Space(shape, fitting, adapters=adapters, start=1)
    rng = np.random.default_rng(7)
    for _ in range(50):
        schedule = space.schedule(space.draw(rng))
        assert found.knows(schedule)
        sums = found.sums(schedule)
        assert math.isfinite(found.ratio(schedule))
        assert found.noisy or found.ratio(schedule) > 0
        assert min(sums.blocks, sums.blocks + sums.acting) > 0
        assert sums.acting >= 0
    assert found.noisy or found.ratio(Schedule((), space.context.tail)) > 0
    assert found.noisy or all(one.predicted > 0 for one in found.checks)
    done, totals = zip(*told, strict=True)
    assert set(totals) == {done[-1]}
    assert list(done) == sorted(done)
    assert all(torch.equal(weight, before[name]) for name, weight in backbone.model.state_dict().items())
    assert LatencyProfile.from_dict(found.to_dict()) == found


def test_the_key_is_of_shape_and_protocol_and_not_of_weights() -> None:
    threads = torch.get_num_threads()
    keys = [key(*at()), key(*at(batch_size=3)), key(*at(dtype="bfloat16")), key(*at("registers"))]
    backbone, stand = at()
    keys.append(key(backbone, Stand(stand.model, stand.images, compiled=True)))
    torch.set_num_threads(threads % 2 + 1)
    try:
        keys.append(key(backbone, stand))
    finally:
        torch.set_num_threads(threads)
    assert len(set(keys)) == len(keys)
    with torch.no_grad():
        backbone.model.head.weight.add_(1)
    other = describe_backbone(backbone.model, "another name")
    assert other.fingerprint != backbone.fingerprint
    assert key(other, stand) == keys[0]


def test_disturbances_are_told(alone, monkeypatch) -> None:
    take_turns = profiler.take_turns
    monkeypatch.setattr(
        profiler, "take_turns", lambda *given, **how: dataclasses.replace(take_turns(*given, **how), noise="somebody")
    )
    measuring = Profiler(*at())
    measuring.plan, measuring.total = SMALLEST, 1
    measuring._turns([lambda: torch.ones(1)])
    assert measuring.disturbed == ["somebody"]


def test_the_staircase_is_the_nearest_that_never_falls() -> None:
    shares = {17: [0.5, 0.3, 0.4], 2: [0.1, 0.1, 0.2], 5: [0.3, 0.3, 0.3], 9: [0.2, 0.1, 0.2]}
    found = profiler._staircase([(count, np.array(values)) for count, values in shares.items()])
    assert found.counts == (2, 5, 9, 17)
    assert found.fitted == pytest.approx((0.1, 0.25, 0.25, 0.4))  # two that fall are pooled
    assert found.low[3] == pytest.approx(np.quantile(shares[17], 0.025))
    assert found.high[0] == pytest.approx(np.quantile(shares[2], 0.975))
    rng = np.random.default_rng(0)
    measured = np.sort(rng.uniform(0, 1, 6)) + 0.3 * rng.standard_normal(6)
    fitted = np.array(profiler._staircase([(n, np.array([value])) for n, value in enumerate(measured)]).fitted)
    error = ((fitted - measured) ** 2).sum()
    for _ in range(300):
        other = np.sort(fitted + rng.normal(0, 0.05, 6))
        assert ((other - measured) ** 2).sum() >= error - 1e-12


def acts(sites: Iterable[tuple[int, int, float]], place: Place = "tokens") -> list[tuple[BlockWork, Act, float]]:
    """What acting took, by the tokens before and after it; in place of a core, queries read half of the keys."""
    share = 0.5 if place == "attention" else 1.0
    found = []
    for tokens, left, taken in sites:
        row = BlockWork(0, Visit(0), tokens, tokens, tokens, tokens, key_share=share)
        found.append((row, Act("merging", place, tokens, left, 0.1, "variant", "rule"), taken))
    return found


def test_the_cost_of_acting_is_a_plane_that_never_falls() -> None:
    sites = [(tokens, tokens - removed) for tokens in (65, 40, 20) for removed in (1, 5, 9)]
    exact = [(tokens, left, 0.01 + 0.002 * tokens + 0.003 * (tokens - left)) for tokens, left in sites]
    assert dataclasses.astuple(profiler._cost(acts(exact))) == pytest.approx((0.01, 0.002, 0.003, 0.0))
    falling = profiler._cost(acts((tokens, left, 0.1 - 0.001 * tokens) for tokens, left in sites))
    assert min(dataclasses.astuple(falling)) >= 0
    assert falling.per_token == pytest.approx(0.0)
    ((row, act, _),) = alone = acts([(65, 60, 0.2)])
    assert profiler._cost(alone).of(row, act) == pytest.approx(0.2)
    ((row, act, _), *_) = skewed = acts([(10, 9, 0.001), (10, 9, 0.001), (10, 9, 1.0)])
    assert profiler._cost(skewed).of(row, act) < 0.01  # relative errors: the large one counts once


def test_what_replaces_attention_costs_by_the_pairs_that_it_reads() -> None:
    sites = [(tokens, tokens, 0.01 + 0.002 * tokens + 0.003 * tokens * tokens / 2) for tokens in (20, 40, 66, 90)]
    assert dataclasses.astuple(profiler._cost(acts(sites, "attention"))) == pytest.approx((0.01, 0.002, 0.0, 0.003))


def test_counts_reach_both_ends_and_are_closer_together_where_there_are_few() -> None:
    counts = profiler._counts(2, 197, 13)
    assert (counts[0], counts[-1], len(counts)) == (2, 197, 13)
    gaps = [after - before for before, after in itertools.pairwise(counts)]
    assert gaps == sorted(gaps)
    assert gaps[0] < gaps[-1] / 2
    assert profiler._counts(2, 5, 13) == [2, 3, 4, 5]


def test_whole_models_cover_all_costs() -> None:
    names = [Schedule() for _ in range(12)]
    costs = [0.9, 0.1, 0.11, 0.12, 0.13, 0.14, 0.5, 0.15, 0.16, 0.3, 0.7, 0.17]
    chosen = profiler._spread(names, costs, 5)
    places = [next(at for at, one in enumerate(names) if one is schedule) for schedule in chosen]
    assert [costs[place] for place in places] == [0.1, 0.3, 0.5, 0.7, 0.9]
    everything = profiler._spread(names, costs, 30)
    assert sorted(map(id, everything)) == sorted(map(id, names))  # none twice


@pytest.mark.parametrize("ms", [0.5, 20.0, 500.0])
def test_the_plan_is_the_largest_that_is_affordable(ms: float) -> None:
    costs = [plan.seconds(ms) for plan in PLANS]
    assert costs == sorted(costs, reverse=True)
    for larger, smaller in itertools.pairwise(PLANS):
        assert profiler._affordable(larger.seconds(ms) + 1e-6, ms) == larger
        assert profiler._affordable(larger.seconds(ms) - 1e-6, ms) == smaller
    assert profiler._affordable(0.0, ms) == PLANS[-1]
    if ms == 500.0:  # whatever is timed takes longer than the least sample
        assert all(profiler._affordable(2 * cost, 2 * ms) == plan for cost, plan in zip(costs, PLANS, strict=True))


def test_what_is_drawn_has_every_reduction_alone_and_all_that_need_no_training_together() -> None:
    space = Space(SHAPE, unaided())
    recursion = Space(SHAPE, ("recursion",), adapters={"recursion": AdapterRecord("distilled-0123456789ab", 1, 10)})
    drawn = profiler._drawn([*space.parts(), recursion], np.random.default_rng(0))
    acting = [tuple(part.name for part in one.reductions) for one in drawn]
    for names in (*((name,) for name in REDUCTIONS), tuple(unaided())):
        assert acting.count(names) > 20
    assert acting.count(()) == 1  # the dense end of the scale
    assert len({one.id for one in drawn}) == len(drawn)
    assert min(map(space.macs_share, drawn)) <= space.macs_share(space.cheapest()[0])
