import dataclasses
from pathlib import Path

import pytest

from refusals import KNOWN
from vittle import Schedule, ScheduleError
from vittle.spaces import Merging, Pruning


def merging(*kept: int, tail: str = "full", **settings: object) -> Schedule:
    return Schedule((Merging(kept=kept, **settings),), tail)


def test_equal_schedules_have_equal_ids_and_different_ones_do_not() -> None:
    first, again = merging(60, 50, 40), Schedule.from_dict(merging(60, 50, 40).to_dict())
    assert first == again
    assert hash(first) == hash(again)
    assert first.id == again.id
    others = [merging(60, 50, 41), merging(60, 50, 40, tail="prefix"), merging(60, 50, 40, proportional="off"), Schedule()]
    assert len({first.id, *(other.id for other in others)}) == 5


def test_id_is_stable_across_versions() -> None:
    # Stored in databases and exported files: a change of this value is a change of format.
    assert merging(60, 50, 40).to_json() == '{"merging":{"kept":[60,50,40]},"tail":"full"}'
    assert merging(60, 50, 40).id == "8ca627fd687e"


def test_merges_that_nobody_reads_do_not_make_another_schedule() -> None:
    assert merging(60, 50, 40, tail="prefix").id == merging(60, 50, 50, tail="prefix").id
    assert dataclasses.replace(merging(60, 50, 40), tail="prefix") == merging(60, 50, 50, tail="prefix")


def test_file_round_trip(tmp_path) -> None:
    schedule = merging(60, 50, 40, tail="prefix")
    schedule.save(tmp_path / "schedule.yaml")
    assert Schedule.load(tmp_path / "schedule.yaml") == schedule


@pytest.mark.parametrize("switch", ["on", "off", "auto"])
def test_a_switch_survives_yaml_with_and_without_quotes(tmp_path, switch: str) -> None:
    (tmp_path / "mine.yaml").write_text(f"merging: {{kept: [9, 8], proportional: {switch}}}")
    assert Schedule.load(tmp_path / "mine.yaml") == merging(9, 8, proportional=switch)
    merging(9, 8, proportional=switch).save(tmp_path / "saved.yaml")
    assert Schedule.load(tmp_path / "saved.yaml") == merging(9, 8, proportional=switch)


def test_load_reads_the_schedule_of_an_exported_document(tmp_path) -> None:
    (tmp_path / "best.yaml").write_text("schedule:\n  tail: full\n  merging: {kept: [9, 8]}\nbudget: 60%\n")
    assert Schedule.load(tmp_path / "best.yaml") == merging(9, 8)


def test_an_exported_document_says_where_its_adapters_lie(tmp_path) -> None:
    text = "schedule: {merging: {kept: [9, 8]}}\nbudget: 60%\n"
    (tmp_path / "folder").mkdir()
    for lines, files in (
        ("", {}),
        ("adapter: null", {}),
        ("adapter: /data/e.safetensors", {"merging": Path("/data/e.safetensors")}),  # as it was once written
        ("adapters: {merging: best.merging.safetensors}", {"merging": tmp_path / "folder" / "best.merging.safetensors"}),
        ("adapters: {merging: /data/e, pruning: p}", {"merging": Path("/data/e"), "pruning": tmp_path / "folder" / "p"}),
    ):
        (tmp_path / "folder" / "best.yaml").write_text(text + lines)
        schedule = Schedule.load(tmp_path / "folder" / "best.yaml")
        assert schedule.files == files
        assert (schedule, schedule.id, hash(schedule)) == (merging(9, 8), merging(9, 8).id, hash(merging(9, 8)))
        assert schedule.to_dict() == merging(9, 8).to_dict()
        assert repr(schedule) == repr(merging(9, 8))
    for wrong in ("[best]", "3", "{merging: 3}"):
        (tmp_path / "best.yaml").write_text(f"{text}adapters: {wrong}")
        with pytest.raises(ScheduleError, match="best.yaml: adapters is .*; accepted: a file for each reduction") as refused:
            Schedule.load(tmp_path / "best.yaml")
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tail: short", "tail is 'short'; accepted: full, prefix"),
        ("magic: {kept: [1]}", f"unknown key 'magic' in a schedule; accepted: tail, {KNOWN}"),
        ("merging: {kept: [5, 6]}", "merging.kept: rises from 5 to 6 tokens in block 1; counts can only fall"),
        ("merging: {kept: [5, 0]}", "merging.kept: ends at 0 tokens, at least 1 must be left"),
        ("merging: {kept: []}", "merging.kept: needs one token count per block"),
        ("merging: {kept: [5, x]}", "merging.kept.1: Input should be a valid integer"),
        ("merging: {kept: [5], r: 3}", "merging.r: Extra inputs are not permitted"),
        ("merging: {kept: [5], metric: value}", "merging.metric: Input should be 'key', 'feature' or 'decoupled'"),
        ("merging: {kept: [5], metric: decoupled}", "metric decoupled needs the embedding and embedding_width"),
        ("merging: {kept: [5], window: 1, global_from: 1}", "window 1 until block 1; accepted: a side of 2 or more"),
        ("merging: {kept: [5], global_from: 1}", "merges globally from block 1, but no window is given"),
        ("merging: 3", "merging: Input should be a valid dictionary"),
        ("- 1", f"holds no schedule; accepted keys: tail, {KNOWN}"),
        ("{", "is not YAML"),
        ("!!python/object/apply:os.system ['true']", "is not YAML"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_it(tmp_path, text: str, message: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(ScheduleError) as error:
        Schedule.load(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_file() -> None:
    with pytest.raises(ScheduleError, match="cannot read nowhere.yaml"):
        Schedule.load("nowhere.yaml")


def test_each_reduction_once_and_of_one_depth() -> None:
    with pytest.raises(ScheduleError, match="holds each reduction once"):
        Schedule((Merging(kept=(3,)), Merging(kept=(2,))))


def test_a_summary_says_how_in_a_few_words() -> None:
    assert Schedule().summary == "nothing reduced"
    assert merging(9, 8).summary == "merging by key"
    local = merging(9, 8, metric="feature", window=2, global_from=1, weights="equal", proportional="off")
    assert local.summary == "merging by feature, in windows of 2 up to block 1, equal weights, proportional attention off"
    both = Schedule((Pruning(kept=(9, 8)), Merging(kept=(9, 8), matching="energy")))
    assert both.summary == "pruning; merging by key, energy"
