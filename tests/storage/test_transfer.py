"""A study from one database to another and back, without loss."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import vittle.cli.commands
from dashboard_study import made_merge_start
from recorded import BACKBONE, coordinate, latency_profile, make_study, outcome, run
from refusals import ADAPTED, KNOWN
from vittle import VittleError
from vittle.objectives.measurement import Measurement
from vittle.objectives.parameter_importance import Importance
from vittle.objectives.quality.image_digest import ImageDigest
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
    noted = {"accuracy": Measurement("accuracy", 1 / 3, 0.1, 0.5, 7, {"right": "AA==", "of": 9})}
    store.finish_trial(
        study.name, store.start_trial(study.name, "plan", first.schedule, {}), "stopped", noted, "trial 1 is better"
    )
    store.save_merge_start(made_merge_start(BACKBONE.fingerprint))
    store.save_importance(study.name, Importance(30, {"fanova": {"accuracy": {"merging.metric": 1.0}}}))
    store.set_images(study.name, ImageDigest.of(2, (b"a", b"b"), (1, 2), (0, 1)))
    store.set_state(study.name, "complete", "the front grows no more")
    make_study(store, "another")
    store.save_importance("another", Importance(10, {"fanova": {"accuracy": {"merging.metric": 0.5}}}))
    return store


@pytest.fixture
def plain(store: Store) -> list[str]:
    """The lines of a small study."""
    run(coordinate(make_study(store, trials=3), store))
    return list(transfer.write(store, "study"))


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


def test_a_file_from_before_images_were_kept_is_read(full: Store, tmp_path: Path) -> None:
    first, *rest = transfer.write(full, "mine 試し")
    before = {name: value for name, value in json.loads(first).items() if name != "images"}
    there = Store.open(f"sqlite:///{tmp_path / 'there.db'}", create=True)
    assert transfer.read(there, [json.dumps(before), *rest]).images is None


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


def within(document: dict[str, Any], place: str, value: object) -> dict[str, Any]:
    """The document with another value at a place such as `shape.depth`, or the first item of a list `measurements.0`."""
    first, _, rest = place.partition(".")
    if isinstance(document, list):
        return [within(document[0], rest, value) if rest else value, *document[1:]]
    return {**document, first: within(document[first], rest, value) if rest else value}


NESTED = json.loads("[" * 150 + "]" * 150)
STUDY, TRIAL = 0, 1


@pytest.mark.parametrize(
    ("line", "place", "value", "message"),
    [
        (STUDY, "name", "a/../../b", "study name 'a/../../b' cannot be used; accepted: up to 100 letters"),
        (STUDY, "name", "\x1b[2J", "study name '.x1b.2J' cannot be used"),
        (STUDY, "name", "<img src=x onerror=alert(1)>", "cannot be used"),
        (STUDY, "name", "n" * 101, "cannot be used"),
        (STUDY, "name", "a\n", "cannot be used"),
        (STUDY, "state", "sleeping", "study.state: Input should be 'running', "),
        (STUDY, "owner", "o" * 101, "study.owner: String should have at most 100 characters"),
        (STUDY, "created", "yesterday", "study.created: Input should be a valid datetime"),
        (STUDY, "settings.latency_budget", "nonsense", "latency budget 'nonsense' is not a time"),
        (STUDY, "settings.latency_budget", "9" * 400 + "%", "latency_budget: String should have at most 100 characters"),
        (STUDY, "settings.reductions", ["sorcery"], f"unknown reduction 'sorcery'; accepted: {KNOWN}"),
        (STUDY, "settings.reductions", [], f"no reduction to search; accepted: {KNOWN}"),
        (STUDY, "settings.trials", 10**40, "trials: Input should be less than or equal to 2147483647"),
        (STUDY, "settings.trials", -1, "trials: Input should be greater than or equal to 0"),
        (STUDY, "settings.workers", 0, "workers: Input should be greater than or equal to 1"),
        (STUDY, "settings.time_limit", float("nan"), "Out of range float values"),
        (STUDY, "settings.dtype", "float3", "unknown dtype 'float3'; accepted: float32, bfloat16, float16"),
        (STUDY, "settings.adapters", {"pruning": "p"}, f"no reduction 'pruning' has an adapter; accepted: {ADAPTED}"),
        (STUDY, "settings.image_size", "huge", "image size 'huge' is no size in pixels; accepted: 224, or 192x320"),
        (STUDY, "settings.image_size", [0, 8], "image_size.0: Input should be greater than or equal to 1"),
        (STUDY, "settings.tolerance", "much", "'much' is no amount of accuracy; accepted: percentage points"),
        (STUDY, "settings.max_accuracy_drop", "-1%", "'-1%' is no amount of accuracy; accepted: percentage points"),
        (STUDY, "settings.device", "tpu", "unknown device 'tpu'; accepted: cpu, cuda"),
        (STUDY, "settings.sampler", "dice", "unknown sampler 'dice'; accepted: auto, tpe"),
        (STUDY, "images", {"images": 3}, "names: Field required"),
        (STUDY, "images", "all", "study.images: Input should be an object"),
        (STUDY, "settings.surprise", NESTED, "surprise: Extra inputs are not permitted"),
        (STUDY, "backbone.shape.depth", 10**9, "shape.depth: Input should be less than or equal to 10000"),
        (STUDY, "backbone.shape.depth", 6, "trial 1: the schedule is for 12 blocks, the model has 6"),
        (STUDY, "backbone.shape.grid", [8], "shape.grid"),
        (STUDY, "backbone.fingerprint", 5, "fingerprint: Input should be a valid string"),
        (TRIAL, "state", "sleeping", "trial.state: Input should be 'running', "),
        (TRIAL, "number", -1, "trial.number: Input should be greater than or equal to 0"),
        (TRIAL, "number", 10**12, "trial.number: Input should be less than or equal to 2147483647"),
        (TRIAL, "candidate_id", "../../etc", "trial.candidate_id: String should match pattern"),
        (TRIAL, "candidate", {"sorcery": 1}, "unknown key 'sorcery' in a schedule"),
        (TRIAL, "candidate", {"merging": {"kept": ["9" * 5000]}}, "merging.kept.0: "),
        (TRIAL, "parameters", {"x": float("inf")}, "trial.parameters.x"),
        (TRIAL, "parameters", {"x": [1]}, "trial.parameters.x"),
        (TRIAL, "reason", "r" * 501, "trial.reason: String should have at most 500 characters"),
        (TRIAL, "origin", "o" * 41, "trial.origin: String should have at most 40 characters"),
        (TRIAL, "started", "2026-01-01T00:00:00", "trial.started: Input should have timezone info"),
        (TRIAL, "measurements", [], "trial 0 is complete, and its accuracy is missing"),
        (TRIAL, "measurements.0.value", float("nan"), "measurements.0.value: Input should be a finite number"),
        (TRIAL, "measurements.0.value", 1e300, "is 1e.300 in "),
        (TRIAL, "measurements.0.objective", "beauty", "unknown objective 'beauty'"),
        (TRIAL, "measurements.0.n", -1, "measurements.0.n: Input should be greater than or equal to 0"),
        (TRIAL, "measurements.0.protocol", {"a": [{"b": float("inf")}]}, "Out of range float values"),
        (TRIAL, "measurements.0.protocol", NESTED, "measurements.0.protocol: "),
        (TRIAL, "measurements.0.protocol", {"right": "AAA="}, r"2 bytes do not hold \d+ answers"),
        (TRIAL, "measurements.0.protocol", {"worst": [[0, "a lot", 3]]}, "worst.0.1: Input should be a valid number"),
        (TRIAL, "measurements.0.protocol", {"p95_ms": 1.0, "p95_ms_interval": [1.0]}, "p95_ms_interval.1: Field required"),
        (TRIAL, "measurements.0.protocol", {"measured_at": "noon"}, "measured_at: Input should be a valid datetime"),
        (TRIAL, "measurements.0.protocol", {"device": None}, "device: Input should be a valid string"),
    ],
)
def test_a_hostile_file_is_one_line_and_changes_nothing(
    plain: list[str], tmp_path: Path, line: int, place: str, value: object, message: str
) -> None:
    there = Store.open(f"sqlite:///{tmp_path / 'there.db'}", create=True)
    hostile = json.dumps(within(json.loads(plain[line]), place, value))
    with pytest.raises(VittleError, match=message) as refused:
        transfer.read(there, [*plain[:line], hostile, *plain[line + 1 :]])
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 300
    assert there.names() == there.profiles() == []


def test_a_hostile_file_teaches_nothing_about_other_backbones(full: Store, tmp_path: Path) -> None:
    lines = list(transfer.write(full, "mine 試し"))
    there = Store.open(f"sqlite:///{tmp_path / 'there.db'}", create=True)
    at = {json.loads(line)["kind"]: place for place, line in enumerate(lines) if '"line": "known"' in line}
    assert at.keys() == {"phase", "latency", "importance in study "}
    for kind, place, value, message in (
        ("phase", "fingerprint", "0" * 12, "phase of 000000000000 is not of this study"),
        ("phase", "document.fingerprint", "0" * 12, "is not of this study"),
        ("phase", "document.curves.similarity.values", [1.0], r"curves.0: similarity of block 0 is 1.0 in"),
        ("phase", "document.curves", {}, "the study cannot be understood"),
        ("phase", "document.start", "x", "start: Input should be a valid integer"),
        ("latency", "fingerprint", "0" * 12, "latency of 000000000000 is not of this study"),
        ("latency", "document.shape.width", 4, "is not of this study"),
        ("latency", "document.parts.block", {"counts": "x"}, "parts.block.counts: Input should be a valid tuple"),
        ("latency", "kind", "gossip", "unknown kind of knowledge 'gossip'"),
        ("importance in study ", "document.shares", {"fanova": {"accuracy": {"x": 2.0}}}, "x has the share 2.0"),
    ):
        hostile = json.dumps(within(json.loads(lines[at[kind]]), place, value))
        with pytest.raises(VittleError, match=message) as refused:
            transfer.read(there, [*lines[: at[kind]], hostile, *lines[at[kind] + 1 :]])
        assert str(refused.value).isprintable()
        assert there.names() == there.profiles() == []


def test_a_study_of_another_name_is_read_under_one_that_can_be_used(plain: list[str], tmp_path: Path) -> None:
    there = Store.open(f"sqlite:///{tmp_path / 'there.db'}", create=True)
    assert transfer.read(there, changed(plain, 0, name="a/b"), "mine").name == "mine"
    with pytest.raises(VittleError, match="study name 'c/d' cannot be used"):
        transfer.read(there, plain, "c/d")
    assert there.names() == ["mine"]


def test_something_measured_twice_is_one_line(plain: list[str], tmp_path: Path) -> None:
    there = Store.open(f"sqlite:///{tmp_path / 'there.db'}", create=True)
    twice = json.loads(plain[1])["measurements"]
    with pytest.raises(VittleError, match="^[^\n]+$"):
        transfer.read(there, changed(plain, 1, measurements=[*twice, twice[0]]))
    assert there.names() == []


def test_a_reason_may_hold_whatever_ends_a_line_elsewhere(store: Store, url: str, tmp_path: Path) -> None:
    """A text file has more ends of lines than JSON: form feeds, separators of records, next line."""
    study = make_study(store, trials=1)
    run(coordinate(study, store))
    reason = "a\nb\rc\x0bd\x0ce\x1cf\x1dg\x1eh\x85i\u2028j\u2029k"
    store.finish_trial(
        "study", store.start_trial("study", "sampler", store.trials("study")[0].schedule, {}), "failed", reason=reason
    )
    path, other = tmp_path / "study.jsonl", f"sqlite:///{tmp_path / 'other.db'}"
    for command in (["export-study", "--storage", url, "--output", str(path)], ["import-study", str(path), "--storage", other]):
        assert CliRunner().invoke(vittle.cli.app, command).exit_code == 0
    assert Store.open(other).trials("study")[-1].reason == reason


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
