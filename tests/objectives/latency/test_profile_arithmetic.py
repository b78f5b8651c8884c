"""What a latency profile predicts: hand-made profiles against hand computation."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from vittle import presets
from vittle.objectives.latency.profile import (
    FREE,
    LAST,
    LEAST,
    MLP,
    PLAIN,
    PULL,
    TRUSTED,
    WEIGHTED,
    ActingCost,
    Check,
    Correction,
    LatencyProfile,
    Staircase,
    Sums,
    fit,
    left_out,
    spearman,
)
from vittle.spaces import BackboneShape, Schedule, work

SHAPE = BackboneShape(
    depth=4, width=8, heads=2, grid=(4, 4), prefix=1, attention_width=8, key_macs=128, query_macs=128, mlp_macs=512,
    embed_macs=1000, head_macs=80, reads_prefix_only=True,
)  # fmt: skip
COUNTS = (2, 5, 9, 17)
BIPARTITE, PRUNING = "merging key bipartite size", "pruning"


def staircase(*fitted: float, counts: tuple[int, ...] = COUNTS) -> Staircase:
    return Staircase(counts, tuple(0.9 * one for one in fitted), tuple(1.1 * one for one in fitted), fitted)


PARTS = {
    PLAIN: staircase(0.02, 0.05, 0.06, 0.14),
    WEIGHTED: staircase(0.03, 0.06, 0.08, 0.20),
    LAST: staircase(0.011, 0.013, 0.017, 0.025),
    MLP: staircase(0.005, 0.01, 0.025, 0.04, 0.09, counts=(1, *COUNTS)),
}
ACTING = {BIPARTITE: ActingCost(0.01, 0.001, 0.002), PRUNING: ActingCost(0.003, 0.0, 0.0005)}


def check(measured: float, predicted: float) -> Check:
    return Check("0123456789ab", 0.5, measured, measured, measured, predicted)


def profile(**changes: object) -> LatencyProfile:
    about = {"shape": SHAPE, "environment": {"device": "cpu", "threads": 2}, "protocol": {"batch_size": 4, "dtype": "float32"}}
    found = {"backbone_ms": 8.0, "forms_ms": {"fused": 8.0, "eager": 9.0}, "embed": 0.07, "parts": PARTS, "acting": ACTING}
    return LatencyProfile(**{"key": "c4d91be07a35", "model": "tiny", **about, **found, **changes})


def kept(*merged: int, tail: str = "full", **choices: object) -> Schedule:
    return presets.kept(SHAPE, merged, tail=tail, **{"metric": "key", "matching": "bipartite", "weights": "size", **choices})


def test_a_staircase_is_exact_where_it_was_measured_and_never_falls() -> None:
    steps = PARTS[PLAIN]
    assert [steps.at(count) for count in COUNTS] == list(steps.fitted)
    assert steps.at(13) == pytest.approx(0.10)
    times = [steps.at(count) for count in range(20)]
    assert times == sorted(times)
    assert (times[0], times[19]) == (0.02, 0.14)
    for counts, fitted in (((2, 5, 4), (1.0, 2.0, 3.0)), ((2, 2), (1.0, 2.0)), ((2, 5), (2.0, 1.0))):
        with pytest.raises(ValueError, match="a staircase rises"):
            Staircase(counts, fitted, fitted, fitted)


def test_the_sum_over_blocks_by_hand() -> None:
    schedule = kept(17, 9, 5, 5)
    # Attention sees the tokens that enter, the MLP those that are left; sizes differ once a block has merged.
    blocks = 0.07 + (0.14 + 0.09) + (0.14 + 0.04) + (0.08 + 0.025) + (0.06 + 0.025)
    acting = (0.01 + 0.017 + 0.016) + (0.01 + 0.009 + 0.008)
    assert profile().sums(schedule) == pytest.approx(Sums(blocks, acting))
    assert profile().sums(kept(17, 9, 5, 5, proportional="off")) == pytest.approx(Sums(blocks - 0.02 - 0.01, acting))
    assert profile().sums(Schedule()) == pytest.approx(Sums(0.07 + 4 * 0.23, 0.0))
    assert profile(correction=Correction(2.0, 3.0, 0.1)).ratio(schedule) == pytest.approx(2 * blocks + 3 * acting + 0.1)


def test_a_profile_of_noise_predicts_some_time() -> None:
    predicted = profile(correction=Correction(1.0, 1.0, -5.0)).predict(kept(17, 9, 5, 5))
    assert predicted["latency_ratio"].value == LEAST
    assert predicted["throughput"].value == pytest.approx(4 * 1000 / 8.0 / LEAST)


def test_a_tail_that_asks_for_the_prefix_alone() -> None:
    found = profile().sums(kept(17, 9, 9, 9, tail="prefix"))
    assert found.blocks == pytest.approx(0.07 + (0.14 + 0.09) + (0.14 + 0.04) + (0.08 + 0.04) + (0.017 + 0.005))
    assert profile().sums(Schedule(tail="prefix")).blocks == pytest.approx(0.07 + 3 * 0.23 + 0.025 + 0.005)


def test_pruning_then_merging_in_one_block() -> None:
    schedule = presets.kept(
        SHAPE, merged=[17, 5, 5, 5], pruned=[17, 9, 9, 9], metric="key", matching="bipartite", weights="size"
    )  # fmt: skip
    pruned, merged = work(SHAPE, schedule)[1].acts
    assert [(one.reduction, one.leaving) for one in (pruned, merged)] == [("pruning", 9), ("merging", 5)]
    assert profile().sums(schedule).acting == pytest.approx((0.003 + 0.004) + (0.01 + 0.009 + 0.008))


def test_a_merge_embedding_costs_its_share_of_attention() -> None:
    embedded = {"metric": "decoupled", "embedding": "modular-0123456789ab", "embedding_width": 4}
    plain, learned = (profile().sums(kept(17, 9, 9, 9, **choices)) for choices in ({}, embedded))
    attention = 17 * 128 + 17 * 128 + 2 * 17 * 17 * 8
    assert learned.blocks == plain.blocks
    assert learned.acting - plain.acting == pytest.approx(0.14 * (17 * 8 * 4) / attention)


def test_what_was_not_measured_is_not_known() -> None:
    assert profile().knows(kept(17, 9, 5, 5))
    assert profile().knows(Schedule())
    assert not profile().knows(kept(17, 9, 5, 5, metric="feature"))
    assert not profile(acting={BIPARTITE: ACTING[BIPARTITE]}).knows(
        presets.kept(SHAPE, [17, 17, 17, 17], [17, 9, 9, 9], metric="key", matching="bipartite", weights="size")
    )
    with pytest.raises(KeyError):
        profile().ratio(kept(17, 9, 5, 5, weights="equal"))


def test_a_prediction_has_its_margin_as_interval() -> None:
    exact = (check(1.0, 1.04), check(0.5, 0.5), check(0.4, 0.38))
    found = profile(checks=exact, key="0123").predict(kept(17, 9, 5, 5))
    ratio = profile().ratio(kept(17, 9, 5, 5))
    margin = np.quantile([0.04, 0.0, 0.05], 0.95)
    values = {"latency_ratio": ratio, "latency_ms": 8 * ratio, "throughput": 4 / (0.008 * ratio)}
    assert {name: one.value for name, one in found.items()} == pytest.approx(values)
    for one in found.values():
        assert (one.low, one.high) == pytest.approx((one.value / (1 + margin), one.value * (1 + margin)))
        assert one.n == 3
        assert one.protocol.items() >= {"source": "predicted", "profile": "0123", "threads": 2, "batch_size": 4}.items()
        assert one.protocol["mape"] == pytest.approx(0.03)


TRUE = Correction(1.3, 0.6, 0.05)


def made(n: int, noise: float = 0.0) -> tuple[list[Sums], list[float]]:
    rng = np.random.default_rng(n)
    sums = [Sums(*rng.uniform((0.3, 0.01), (1.0, 0.3))) for _ in range(n)]
    return sums, [TRUE.apply(one) * (1 + noise * rng.standard_normal()) for one in sums]


def test_the_correction_finds_known_scales(monkeypatch) -> None:
    sums, measured = made(30)
    drawn = fit(sums, measured)
    assert [TRUE.apply(one) for one in sums] == pytest.approx([drawn.apply(one) for one in sums], rel=0.02)
    monkeypatch.setattr("vittle.objectives.latency.profile.PULL", PULL / 1e4)
    assert dataclasses.astuple(fit(sums, measured)) == pytest.approx(dataclasses.astuple(TRUE), abs=1e-4)
    assert fit([], []) == Correction()
    exact = fit(sums, [one.blocks + one.acting for one in sums])
    assert dataclasses.astuple(exact) == pytest.approx((1.0, 1.0, 0.0), abs=1e-9)


def test_one_model_is_enough_for_a_correction() -> None:
    one = Sums(0.8, 0.1)
    assert fit([one], [1.2 * sum(one)]).apply(one) == pytest.approx(1.2 * sum(one), rel=0.01)


def test_the_error_is_that_of_models_the_correction_did_not_see() -> None:
    sums, measured = made(12, noise=0.1)
    expected = [fit(sums[:at] + sums[at + 1 :], measured[:at] + measured[at + 1 :]).apply(sums[at]) for at in range(12)]
    found = left_out(sums, measured)
    assert found == pytest.approx(expected)
    for at in range(12):
        changed = [value * (5 if at == index else 1) for index, value in enumerate(measured)]
        assert left_out(sums, changed)[at] == pytest.approx(found[at])
        assert left_out(sums, changed)[at - 1] != pytest.approx(found[at - 1])


def test_errors_and_ranks_by_hand() -> None:
    one = profile(checks=(check(1.0, 1.1), check(0.5, 0.4), check(0.25, 0.25)))
    assert one.mape == pytest.approx((0.1 + 0.2 + 0.0) / 3)
    assert one.margin == pytest.approx(np.quantile([0.1, 0.2, 0.0], 0.95))
    assert one.spearman == pytest.approx(1.0)
    ranks = (np.array([3.0, 1.0, 2.0, 5.0, 4.0]), np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert spearman(*ranks) == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert spearman([3.0, 1.0, 2.0, 9.0], [1.0, 2.0, 2.0, 8.0]) == pytest.approx(
        stats.spearmanr([3, 1, 2, 9], [1, 2, 2, 8]).statistic
    )
    assert spearman([1.0, 2.0], [1.0, 2.0]) == spearman([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) == 0
    assert (profile().mape, profile().margin, profile().spearman) == (np.inf, np.inf, 0)
    assert not profile().trusted


@pytest.mark.parametrize(("off", "trusted"), [(TRUSTED.mape - 0.01, True), (TRUSTED.mape + 0.01, False)])
def test_trust_ends_where_the_error_is_too_large(off: float, trusted: bool) -> None:
    checks = tuple(check(value, value * (1 + off)) for value in np.linspace(0.3, 1, 8).tolist())
    assert profile(checks=checks).trusted == trusted


@pytest.mark.parametrize(("swapped", "trusted"), [(2, True), (3, False)])
def test_trust_ends_where_the_ranks_are_wrong(swapped: int, trusted: bool) -> None:
    measured = np.linspace(0.50, 0.55, 8).tolist()
    guessed = measured.copy()
    guessed[7], guessed[7 - swapped] = guessed[7 - swapped], guessed[7]
    one = profile(checks=tuple(map(check, measured, guessed)))
    assert one.spearman == pytest.approx(1 - 12 * swapped**2 / (8 * 63))
    assert one.mape < TRUSTED.mape
    assert one.trusted == trusted


def flat(*fitted: float) -> LatencyProfile:
    half = staircase(*(one / 2 for one in fitted))
    return profile(parts={PLAIN: half, MLP: staircase(0.0, *half.fitted, counts=(1, *COUNTS))})


def test_a_block_is_both_halves() -> None:
    assert profile().block.counts == COUNTS
    assert profile().block.fitted == pytest.approx((0.03, 0.075, 0.10, 0.23))
    assert profile().block.low == pytest.approx((0.027, 0.0675, 0.09, 0.207))
    assert profile().block.high == pytest.approx((0.033, 0.0825, 0.11, 0.253))


def test_flat_is_what_rises_by_less_than_a_share_of_the_average() -> None:
    edge = FREE * 0.01  # of a slope of 0.01 per token, over 15 tokens
    for rise, flats in ((0.99 * edge, ((5, 9),)), (1.01 * edge, ())):
        assert flat(0.0, 0.1, 0.1 + 4 * rise, 0.15).flats == flats
    assert flat(0.0, 0.0, 0.0, 0.15).flats == ((2, 9),)  # neighbours are one
    assert flat(0.0, 0.0, 0.15, 0.15).flats == ((2, 5), (9, 17))
    assert flat(0.0, 0.05, 0.1, 0.15).flats == ()


def test_counts_in_a_flat_stretch_go_to_its_upper_edge() -> None:
    assert flat(0.0, 0.0, 0.15, 0.15).free == (0, 1, 5, 5, 5, 5, 6, 7, 8, *[17] * 9)
    assert flat(0.0, 0.05, 0.1, 0.15).free == tuple(range(18))


def test_it_is_read_as_it_was_written() -> None:
    one = profile(correction=TRUE, checks=(check(1.0, 1.1),), noisy="somebody", seconds=12.5, measured_at="2026-11-24T20:57:00")
    again = LatencyProfile.from_dict(json.loads(json.dumps(one.to_dict())))
    assert again == one
    assert again.ratio(kept(17, 9, 5, 5)) == one.ratio(kept(17, 9, 5, 5))
    assert isinstance(again.shape.grid, tuple)


def test_it_starts_without_torch() -> None:
    code = "import sys, vittle.objectives.latency.profile; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
