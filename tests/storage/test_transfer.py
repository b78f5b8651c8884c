"""A study from one database to another and back, without loss."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import vittle.cli.commands
from dashboard_study import made_merge_start
from recorded import BACKBONE, coordinate, latency_profile, make_study, outcome, run
from vittle import VittleError
from vittle.objectives.measurement import Measurement
from vittle.objectives.parameter_importance import Importance
from vittle.storage import transfer
from vittle.storage.store import Store


@pytest.fixture
def full(store: Store) -> Store:
    """A study with trials of every kind, and what is known of its backbone; and another study."""
    profile = latency_profile()
    store.save_profile(profile)
    study = make_study(store, "mine 試し", trials=6, target=profile.key)
    run(coordinate(study, store))
    first = store.trials(study.name)[1]
    store.confirm_trial(study.name, first.number, outcome(first.schedule, study.settings).measurements)
    failed = store.start_trial(study.name, "sampler", first.schedule, {"x": 0.1 + 0.2})
    store.finish_trial(study.name, failed, "failed", reason="out of memory, 'quoted' \"twice\"\n<b>")
    store.start_trial(study.name, "sampler", first.schedule, {})
    noted = {"accuracy": Measurement("accuracy", 1 / 3, 0.1, 0.5, 7, {"right": "AAA=", "of": 9})}
    store.finish_trial(
        study.name, store.start_trial(study.name, "plan", first.schedule, {}), "stopped", noted, "trial 1 is better"
    )
    store.save_merge_start(made_merge_start(BACKBONE.fingerprint))
    store.save_importance(study.name, Importance(30, {"fanova": {"accuracy": {"merging.metric": 1.0}}}))
    store.set_state(study.name, "complete", "the front grows no more")
    make_study(store, "another")
    store.save_importance("another", Importance(10, {"fanova": {"accuracy": {"merging.metric": 0.5}}}))
    return store


def known(store: Store, name: str) -> tuple[object, ...]:
    study = store.study(name)
    about = (store.merge_start(study.backbone.fingerprint), store.importance(name), store.profiles())
    return (study, store.trials(name), *about)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_there_and_back_nothing_is_lost(full: Store, kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = f"sqlite:///{tmp_path / 'there.db'}" if kind == "sqlite" else request.getfixturevalue("postgres")()
    there = Store.open(url, create=True)
    make_study(there, "in the way")
    lines = list(transfer.write(full, "mine 試し"))
    transfer.read(there, lines)
    assert known(there, "mine 試し") == known(full, "mine 試し")
    back = Store.open(f"sqlite:///{tmp_path / 'back.db'}", create=True)
    again = list(transfer.write(there, "mine 試し"))
    assert again == lines
    transfer.read(back, again)
    assert known(back, "mine 試し") == known(full, "mine 試し")


def test_what_the_database_knows_already_it_keeps(full: Store, tmp_path: Path) -> None:
    there = Store.open(f"sqlite:///{tmp_path / 'there.db'}", create=True)
    newer = made_merge_start(BACKBONE.fingerprint, rising=False)
    there.save_merge_start(newer)
    transfer.read(there, transfer.write(full, "mine 試し"))
    assert there.merge_start(BACKBONE.fingerprint) == newer


def test_a_study_that_was_running_is_interrupted_and_can_go_on(store: Store, tmp_path: Path) -> None:
    study = make_study(store, trials=5)
    coordinator = coordinate(study, store)
    first = coordinator.next()
    assert first is not None
    there = Store.open(f"sqlite:///{tmp_path / 'there.db'}", create=True)
    copied = transfer.read(there, transfer.write(store, "study"), "copy")
    assert (copied.name, copied.state) == ("copy", "interrupted")
    assert [trial.state for trial in there.trials("copy")] == ["interrupted"]
    trials = run(coordinate(copied, there))
    assert [trial.state for trial in there.trials("copy")].count("running") == 0
    assert len(trials) == 6


def test_a_file_from_before_there_were_kinds_is_read(full: Store, tmp_path: Path) -> None:
    """Format 1: a study without a kind, trials with schedules."""
    before = []
    for line in map(json.loads, transfer.write(full, "mine 試し")):
        if line["line"] == "study":
            line = {name: value for name, value in line.items() if name != "kind"} | {"format": 1}
        if line["line"] == "trial":
            line = {name.replace("candidate", "schedule"): value for name, value in line.items()}
        before.append(json.dumps(line))
    there = Store.open(f"sqlite:///{tmp_path / 'there.db'}", create=True)
    transfer.read(there, before)
    assert known(there, "mine 試し") == known(full, "mine 試し")


def changed(lines: list[str], at: int, **values: object) -> list[str]:
    return [*lines[:at], json.dumps({**json.loads(lines[at]), **values}), *lines[at + 1 :]]


def test_a_file_that_is_not_one_changes_nothing(full: Store, tmp_path: Path) -> None:
    lines = list(transfer.write(full, "mine 試し"))
    there = Store.open(f"sqlite:///{tmp_path / 'there.db'}", create=True)
    for broken, message in (
        ([], "the file is not whole"),
        (lines[:-1], "the file is not whole"),
        (lines[1:], "the file is not whole"),
        ([*lines[:2], *lines[3:]], "the file is not whole"),
        ([*lines[:1], *lines], "the file holds something twice"),
        (["nonsense", *lines], "line 1 cannot be understood"),
        ([*lines[:2], lines[2][:40], *lines[3:]], "line 3 cannot be understood"),
        (changed(lines, 0, format=3), r"line 1 cannot be understood \(study.format: Input should be 2\)"),
        (changed(lines, 1, number="one"), r"line 2 cannot be understood \(trial.number"),
        (changed(lines, 1, extra=1), r"line 2 cannot be understood \(trial.extra"),
        (changed(lines, 2, candidate={"tail": "full"}), "the study cannot be understood .trial 1 has another candidate"),
        (changed(lines, 0, kind="future"), "the study cannot be understood .unknown kind of study 'future'"),
        (changed(lines, 0, settings={"trials": "many"}), "the study cannot be understood"),
    ):
        with pytest.raises(VittleError, match=message) as refused:
            transfer.read(there, broken)
        assert "\n" not in str(refused.value)
        assert there.studies() == there.profiles() == []
    with pytest.raises(VittleError, match="study 'mine 試し' exists; give another --study"):
        transfer.read(full, lines)
    assert len(full.studies()) == 2


def test_a_file_from_before_there_were_several_adapters_is_read(full: Store, tmp_path: Path) -> None:
    lines = list(transfer.write(full, "mine 試し"))
    settings = json.loads(lines[0])["settings"]
    assert settings.pop("adapters") == {}
    there = Store.open(f"sqlite:///{tmp_path / 'there.db'}", create=True)
    for name, adapter, read in (("none", None, {}), ("one", "/data/e.safetensors", {"merging": "/data/e.safetensors"})):
        old = changed(lines, 0, settings={**settings, "adapter": adapter})
        assert transfer.read(there, old, name).settings.adapters == read
        assert there.study(name).settings.adapters == read
        again = Store.open(f"sqlite:///{tmp_path / f'{name}.db'}", create=True)
        assert transfer.read(again, transfer.write(there, name)).settings == there.study(name).settings


def test_the_commands(full: Store, url: str, tmp_path: Path) -> None:
    def invoke(*arguments: str):
        return CliRunner().invoke(vittle.cli.app, list(arguments))

    path, other = tmp_path / "mine.jsonl", f"sqlite:///{tmp_path / 'other.db'}"
    trials = len(full.trials("mine 試し"))
    wrote = invoke("export-study", "mine 試し", "--storage", url, "--output", str(path))
    assert f"study mine 試し, {trials} trials" in wrote.stdout
    read = invoke("import-study", str(path), "--storage", other, "--study", "copy")
    assert f"study copy, {trials} trials" in read.stdout
    assert [trial.state for trial in Store.open(other).trials("copy")] == [trial.state for trial in full.trials("mine 試し")]
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\xff")
    for file, reason in (("none.jsonl", "No such file"), ("picture.png", "not text")):
        with pytest.raises(VittleError, match=f"cannot read .*{file}: {reason}"):
            CliRunner().invoke(
                vittle.cli.app, ["import-study", str(tmp_path / file), "--storage", other], catch_exceptions=False
            )
