import itertools
import json

import pytest
import torch

import vittle
from vittle import ScheduleError, presets
from vittle.objectives.backbones.merge_start import detect
from vittle.objectives.quality.accuracy import to_input
from vittle.reductions import digits
from vittle.reductions.attention_statistics import observe
from vittle.reductions.backbone import load_backbone
from vittle.spaces import BackboneShape, Merging, work

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


PRUNED = [197, 196, 190, 168, 150, 139, 129, 117, 99, 78, 58, 3]  # DiffRate's rates for DeiT-S at 2.9 GMACs
MERGED = [197, 194, 176, 156, 141, 133, 121, 107, 88, 64, 56, 3]


def test_kept_with_pruning_is_diffrates_arrangement() -> None:
    schedule = presets.kept(DEIT, MERGED, PRUNED)
    pruning, merging = schedule.reductions
    assert (pruning.kept, merging.kept) == (tuple(PRUNED), tuple(MERGED))
    assert (merging.metric, merging.matching, merging.weights, merging.proportional) == ("feature", "importance", "equal", "on")
    left = [{act.reduction: act.leaving for act in row.acts} for row in work(DEIT, schedule)]
    assert left[1] == {"pruning": 196, "merging": 194}
    assert left[11] == {"pruning": 3}
    *_, merging = presets.kept(DEIT, [180] * 12, [190] * 12, metric="key", matching="bipartite").reductions
    assert (merging.metric, merging.matching, merging.weights) == ("key", "bipartite", "equal")


def test_counts_that_rise_again_do_nothing() -> None:
    merged, pruned = [*MERGED], [*PRUNED]
    merged[5], pruned[7] = 150, 140  # as in some of the published lists
    schedule = presets.kept(DEIT, merged, pruned)
    assert vittle.tokens(DEIT, schedule)[4:8] == (141, 139, 121, 107)
    with pytest.raises(ScheduleError, match="rises from 141 to 150 tokens in block 5"):
        presets.kept(DEIT, merged)


def test_published_rates_are_read_from_their_file(tmp_path) -> None:
    rates = {"prune_kept_num": PRUNED, "merge_kept_num": MERGED}
    (tmp_path / "one.json").write_text(json.dumps(rates))
    (tmp_path / "many.json").write_text(json.dumps({"DeiT-S": {"2.9": rates, "3.1": rates}, "note": "x"}))
    expected = presets.kept(DEIT, MERGED, PRUNED)
    assert presets.published(DEIT, tmp_path / "one.json") == expected
    assert presets.published(DEIT, tmp_path / "many.json", "DeiT-S/2.9") == expected
    with pytest.raises(ScheduleError, match="many.json: choose one of: DeiT-S/2.9, DeiT-S/3.1"):
        presets.published(DEIT, tmp_path / "many.json")
    with pytest.raises(ScheduleError, match="has no schedule 'DeiT-B'; there are: DeiT-S/2.9, DeiT-S/3.1"):
        presets.published(DEIT, tmp_path / "many.json", "DeiT-B")
    (tmp_path / "none.json").write_text("[]")
    with pytest.raises(ScheduleError, match="choose one of: none; a schedule is a pair of lists prune_kept_num and"):
        presets.published(DEIT, tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ScheduleError, match="bad.json is not JSON"):
        presets.published(DEIT, tmp_path / "bad.json")
    with pytest.raises(ScheduleError, match="cannot read nowhere.json"):
        presets.published(DEIT, "nowhere.json")


def test_delayed_in_windows_first() -> None:
    schedule = presets.delayed(DEIT, 2, 16, window=7, global_from=4)
    assert removed(schedule) == [0, 0] + [16] * 10  # four windows lose four each, then 16 go anywhere
    (merging,) = schedule.reductions
    assert (merging.window, merging.global_from) == (7, 4)
    assert removed(presets.delayed(DEIT, 2, 10, window=7, global_from=4))[2:4] == [12, 12]  # a multiple of four


def test_curve() -> None:
    schedule = presets.curve(DEIT, 2, 0.5)
    assert counts(schedule)[:3] == (197, 197, 187)
    assert counts(schedule)[-1] == 1 + 98
    bent = presets.curve(DEIT, 0, 0.5, residuals=[0, 0, -0.05, *[0.0] * 9])
    straight = presets.curve(DEIT, 0, 0.5)
    assert [a - b for a, b in zip(counts(straight), counts(bent), strict=True)][:5] == [0, 0, 10, 1, 0]


def test_choices_are_those_of_merging() -> None:
    (merging,) = presets.constant(DEIT, 8, metric="feature", matching="energy", proportional="off").reductions
    assert (merging.metric, merging.matching, merging.proportional) == ("feature", "energy", "off")


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
        (lambda: presets.delayed(DEIT, "auto", 3), "start auto needs the model and images to look at"),
        (lambda: presets.constant(DEIT, 3, metric="value"), "merging.metric: Input should be 'key', 'feature' or 'decoupled'"),
        (lambda: presets.curve(DEIT, 0, 1.5), "end 1.5, exponent 1.0; accepted: a start from 0 to 11, an end from 0 to 1"),
        (lambda: presets.curve(DEIT, 0, 0.5, residuals=[0.1]), "1 residuals are given, the model has 12 blocks"),
        (lambda: presets.kept(DEIT, [100] * 12, [90] * 11), "11 token counts are given, the model has 12 blocks"),
        (lambda: presets.kept(DEIT, [197]), "1 token counts are given, the model has 12 blocks"),
        (lambda: presets.kept(DEIT, [90] * 12), "at most half of its 196 patch tokens, 98"),
    ],
)
def test_bad_arguments(make, message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        make()


def test_an_automatic_start_is_the_detected_one() -> None:
    backbone = load_backbone()
    images = to_input(digits.splits()["search"][0][:64], backbone.preprocessing, torch.device("cpu"))
    found = detect(observe(backbone.model, [images]), "").start
    assert 0 < found < 11
    assert presets.delayed(backbone.model, "auto", 3, images=images) == presets.delayed(backbone.model, found, 3)
