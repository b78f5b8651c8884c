import itertools

import pytest

import vittle
from vittle import ScheduleError, presets
from vittle.spaces import BackboneShape, Merging

DEIT = BackboneShape(
    depth=12, width=384, heads=6, grid=(14, 14), prefix=1, attention_width=384, key_macs=294912, query_macs=294912,
    mlp_macs=1179648, embed_macs=57802752, head_macs=384000, reads_prefix_only=True,
)  # fmt: skip


def counts(schedule: vittle.Schedule) -> tuple[int, ...]:
    (merging,) = schedule.reductions
    assert isinstance(merging, Merging)
    return merging.kept


def removed(schedule: vittle.Schedule) -> list[int]:
    left = (DEIT.tokens, *counts(schedule))
    return [before - after for before, after in itertools.pairwise(left)]


def test_constant() -> None:
    assert removed(presets.constant(DEIT, 8)) == [8] * 12


def test_constant_stops_at_half_of_the_patches() -> None:
    assert removed(presets.constant(DEIT, 16))[-2:] == [16, 10]  # 21 tokens enter the last block, 20 of them patches


@pytest.mark.parametrize("inflection", [-1, -0.5, 0, 0.3, 1])
@pytest.mark.parametrize("mean", [1, 7, 13])
def test_linear_removes_the_exact_total(inflection: float, mean: int) -> None:
    steps = removed(presets.linear(DEIT, mean, inflection))
    assert sum(steps) == 12 * mean
    ordered = sorted(steps, reverse=inflection < 0)
    assert max(abs(a - b) for a, b in zip(steps, ordered, strict=True)) <= 1  # monotone but for rounding
    assert max(steps) - min(steps) == pytest.approx(2 * mean * abs(inflection), abs=2)


def test_delayed() -> None:
    assert removed(presets.delayed(DEIT, 2, 10)) == [0, 0] + [10] * 10


def test_kept_is_exact() -> None:
    published = [197, 194, 176, 156, 141, 133, 121, 107, 88, 64, 56, 31]
    assert list(counts(presets.kept(DEIT, published))) == published


def test_presets_keep_a_full_tail_unless_asked() -> None:
    assert presets.constant(DEIT, 8).tail == "full"
    assert presets.constant(DEIT, 8, tail="prefix").tail == "prefix"
    assert vittle.tokens(DEIT, presets.constant(DEIT, 8, tail="prefix"))[-2:] == (109, 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: presets.constant(DEIT, -1), "removed is -1; accepted: 0 or more"),
        (lambda: presets.linear(DEIT, 3, 1.5), "inflection is 1.5; accepted: -1"),
        (lambda: presets.delayed(DEIT, 12, 3), "start is 12; accepted: 0 to 11"),
        (lambda: presets.kept(DEIT, [197]), "1 token counts are given, the model has 12 blocks"),
        (lambda: presets.kept(DEIT, [90] * 12), "at most half of its 196 patch tokens, 98"),
    ],
)
def test_bad_arguments(make, message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        make()
