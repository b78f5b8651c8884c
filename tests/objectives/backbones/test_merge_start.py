"""The decision where merging may start, on curves whose answer is known."""

import json
from statistics import median

import numpy as np
import pytest

from vittle import VittleError
from vittle.objectives.backbones.merge_start import STATISTICS, BlockCurve, MergeStart, detect, theil_sen

FALL_AND_RISE = [0.5, 0.4, 0.3, 0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.62, 0.64, 0.66]


def per_image(similarity, sink=None, *, images: int = 200, noise: float = 0.0, seed: int = 0) -> dict[str, np.ndarray]:
    """Every statistic of every image: the curve, and noise of that deviation."""
    rng = np.random.default_rng(seed)
    curves = dict.fromkeys(STATISTICS, np.linspace(0.1, 0.9, len(similarity))) | {"similarity": np.array(similarity)}
    if sink is not None:
        curves["sink"] = np.array(sink)
    return {name: curve + noise * rng.normal(size=(images, len(curve))) for name, curve in curves.items()}


def found(similarity, sink=None, **settings) -> MergeStart:
    return detect(per_image(similarity, sink, **settings), "0123456789ab")


@pytest.mark.parametrize("lowest", range(6))
def test_merging_starts_after_the_lowest_block_wherever_that_is(lowest: int) -> None:
    merge_start = found(np.abs(np.arange(12) - lowest) / 12, noise=0.02)
    assert (merge_start.detected, merge_start.start, merge_start.low, merge_start.high) == (
        True,
        lowest + 1,
        lowest + 1,
        lowest + 1,
    )


def test_a_single_step_up_is_no_rise() -> None:
    flat_bottom = [0.5, 0.2, 0.3, 0.25, 0.26, 0.4, 0.5, 0.6]  # up, down, and only then up twice
    assert found(flat_bottom).start == 4


def test_a_last_block_that_falls_back_does_not_hide_the_rise() -> None:
    merge_start = found([*FALL_AND_RISE[:-1], 0.1 + FALL_AND_RISE[3]])
    assert (merge_start.detected, merge_start.start) == (True, 4)


@pytest.mark.parametrize(
    ("similarity", "why"),
    [
        (np.linspace(0.9, 0.2, 12), "falls to the end"),
        (np.abs(np.arange(12) - 7), "is lowest in the second half"),
        ([0.5, 0.1, 0.3, 0.6, 0.5, 0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.11], "rises and falls back for good"),
        ([0.3] * 12, "is flat"),
    ],
)
def test_without_a_minimum_and_a_lasting_rise_it_is_the_rule_of_thumb(similarity, why: str) -> None:
    merge_start = found(similarity)
    assert (merge_start.detected, merge_start.start) == (False, 2), why


@pytest.mark.parametrize(("depth", "start"), [(1, 0), (2, 0), (3, 0), (4, 1), (12, 2), (24, 4), (32, 5)])
def test_the_rule_of_thumb_is_a_sixth_of_the_depth(depth: int, start: int) -> None:
    merge_start = found([0.5] * depth)
    assert (merge_start.detected, merge_start.start, merge_start.depth) == (False, start, depth)


TWO_VALLEYS = [0.5, 0.2, 0.3, 0.4, 0.3, 0.2, 0.3, 0.4, 0.5, 0.6, 0.65, 0.7]


@pytest.mark.parametrize(
    ("crossing", "start"),
    [(1, 2), (3, 2), (4, 2), (5, 6), (9, 6), (None, 2)],  # 2 and 6 can be chosen; of equally near ones the earlier
)
def test_a_tie_goes_to_the_start_next_to_the_rise_of_the_sink(crossing: int | None, start: int) -> None:
    sink = [0.1] * 12 if crossing is None else [0.1] * crossing + [0.8] * (12 - crossing)
    assert found(TWO_VALLEYS, sink).start == start


@pytest.mark.parametrize(("excess", "start"), [(0.9, 6), (1.1, 2)])
def test_blocks_tie_within_the_noise_between_them_and_not_beyond(excess: float, start: int) -> None:
    """What an image has in common in all blocks is no noise between them."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(100, 12))
    noise = np.concatenate([noise, -noise]) * 0.01  # so that means are exactly those of the curve
    common = np.resize([-0.5, 0.5], 200)[:, None]
    deviation = np.std(noise[:, 1] - noise[:, 5], ddof=1) / np.sqrt(200)
    curve = np.array(TWO_VALLEYS)
    curve[5] += excess * 1.96 * deviation
    observed = per_image(curve, [0.1] * 6 + [0.8] * 6)
    observed["similarity"] = curve + noise + common
    assert detect(observed, "a").start == start


def test_noise_widens_every_interval() -> None:
    # Two blocks on the way are nearly as low as the lowest one.
    shallow = [0.5, 0.3, 0.21, 0.205, 0.2, 0.22, 0.3, 0.4, 0.45, 0.5, 0.55, 0.6]
    quiet, loud = (found(shallow, noise=noise, images=100) for noise in (0.001, 0.1))
    assert (quiet.low, quiet.high) == (5, 5)
    assert loud.high - loud.low >= 1
    for before, after in zip(quiet.curves, loud.curves, strict=True):
        assert np.all(np.subtract(after.high, after.low) > 10 * np.subtract(before.high, before.low))


def test_an_interval_of_a_mean_is_as_wide_as_theory_says() -> None:
    merge_start = found(FALL_AND_RISE, noise=0.3, images=400)
    curve = merge_start.curve("entropy")
    widths = np.subtract(curve.high, curve.low)
    assert widths.mean() == pytest.approx(2 * 1.96 * 0.3 / 20, rel=0.1)


def test_the_same_seed_gives_the_same_answer_and_another_one_other_draws() -> None:
    observed = per_image(FALL_AND_RISE, noise=0.3)
    assert detect(observed, "a") == detect(observed, "a")
    assert detect(observed, "a").curves != detect(observed, "a", seed=1).curves


def test_it_comes_back_from_json() -> None:
    merge_start = found(FALL_AND_RISE, noise=0.1)
    assert MergeStart.from_dict(json.loads(json.dumps(merge_start.to_dict()))) == merge_start


def test_what_cannot_be_decided_on_is_one_line() -> None:
    with pytest.raises(VittleError, match="1 image says nothing of the spread between images; accepted: at least 2"):
        found(FALL_AND_RISE, images=1)
    observed = per_image(FALL_AND_RISE)
    observed["outlier"][3, 5] = np.inf
    with pytest.raises(VittleError, match="the outlier of block 5 is not finite"):
        detect(observed, "a")


def test_values_that_make_no_sense_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="unknown statistic 'warmth'; accepted: similarity"):
        BlockCurve("warmth", (1.0,), (1.0,), (1.0,))
    with pytest.raises(ValueError, match="sink of block 0 is 2.0 in"):
        BlockCurve("sink", (2.0,), (0.0,), (1.0,))
    curve = BlockCurve("similarity", (0.5,), (0.4,), (0.6,))
    with pytest.raises(ValueError, match="start is 1 in"):
        MergeStart(1, 0, 1, True, (curve,), 5, "a")


def test_theil_sen_is_the_median_of_all_slopes() -> None:
    values = np.random.default_rng(0).normal(size=9)
    slopes = [(values[j] - values[i]) / (j - i) for i in range(9) for j in range(i + 1, 9)]
    assert theil_sen(values) == pytest.approx(median(slopes))
