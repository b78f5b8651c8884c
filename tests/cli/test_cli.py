"""The command line as a user meets it: bad input is one line and exit code 2, and nothing is written."""

import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from rich.progress import Progress
from typer.testing import CliRunner

import vittle.cli.commands
import vittle.cli.running
from recorded import SHAPE, coordinate, make_study, run
from refusals import KNOWN, refusal
from vittle import Schedule, VittleError, presets
from vittle.search.reporter import Reporter
from vittle.storage.records import Study
from vittle.storage.store import Store


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's empty home and working folder."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return tmp_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with a finished study."""
    path = tmp_path_factory.mktemp("finished") / "studied.db"
    store = Store.open(f"sqlite:///{path}", create=True)
    run(coordinate(make_study(store, "demo", trials=40), store))
    store.set_state("demo", "complete")
    store.engine.dispose()  # or some of it would be in another file still
    return path


@pytest.fixture
def studied(finished: Path, home: Path) -> str:
    """The URL of a copy of it."""
    return f"sqlite:///{shutil.copy(finished, home)}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["launch", "--latency-budget=-3ms"], "latency budget '-3ms' is not a time; accepted: milliseconds such as 4ms"),
        (["launch", "--latency-budget", "fast"], "latency budget 'fast' is not a time"),
        (["launch", "--latency-budget", "0%"], "latency budget '0%' is not a time"),
        (["launch", "--model", "vit_tiny_patch16_224"], "model 'vit_tiny_patch16_224' needs images; give --data"),
        (["launch", "--model", "vit_nothing", "--data", "digits"], "unknown model 'vit_nothing'"),
        (["launch", "--model", "resnet18", "--data", "x", "--checkpoint", "nowhere.pth"], "no checkpoint at "),
        (["launch", "--data", "nowhere.npz"], "no file at nowhere.npz; accepted: digits, a folder of images"),
        (["launch", "--data", "wrong.npz"], "the labels of"),
        (["launch", "--storage", "nonsense"], "storage 'nonsense' is not a database; accepted: a SQLAlchemy URL"),
        (["launch", "--storage", "sqlite:////nowhere/x.db"], "cannot open storage"),
        (["launch", "--device", "tpu"], "unknown device 'tpu'; accepted: cpu, cuda"),
        (["launch", "--reductions", "magic"], f"unknown reduction 'magic'; accepted: {KNOWN}"),
        (["launch", "--study", "a/b"], "study name 'a/b' cannot be used; accepted: up to 100 letters"),
        (["launch", "--study", "x.json"], "study name 'x.json' cannot be used"),
        (["launch", "--time-limit", "soon"], "time limit 'soon' is not a time; accepted: 90s, 10m or 2h"),
        (["launch", "--dtype", "int4"], "unknown dtype 'int4'; accepted: float32, bfloat16, float16"),
        (["profile", "--model", "vit_nothing"], "unknown model 'vit_nothing'"),
        (["profile", "--model", "resnet18"], "this model cannot be reduced: ResNet is not a timm VisionTransformer"),
        (["profile", "--latency-budget", "fast"], "latency budget 'fast' is not a time"),
        (["profile", "--time-limit", "soon"], "time limit 'soon' is not a time; accepted: 90s, 10m or 2h"),
        (["profile", "--dtype", "int4"], "unknown dtype 'int4'"),
        (["verify", "nowhere.yaml"], "cannot read nowhere.yaml"),
        (["profiles"], "no database at"),
        (["retime"], "no database at"),
        (["profile", "--device", "tpu"], "unknown device 'tpu'; accepted: cpu, cuda"),
        (["profile", "--data", "nowhere.npz"], "no file at nowhere.npz"),
        (["front"], "no database at"),
        (["resume", "x"], "no database at"),
        (["importance"], "no database at"),
        (["dashboard"], "no database at"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    work = home / "work"
    np.savez(work / "wrong.npz", images=np.zeros((4, 32, 32, 3), np.uint8), labels=np.arange(4) + 90)
    before = sorted(home.rglob("*"))
    assert message in refusal(monkeypatch, capsys, *arguments)
    assert sorted(home.rglob("*")) == before


@pytest.mark.usefixtures("home")
def test_a_real_process_shows_one_line_too() -> None:
    command = [sys.executable, "-m", "vittle", "launch", "--latency-budget=-3ms"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        "error: latency budget '-3ms' is not a time; accepted: milliseconds such as 4ms, or p95 4ms for 95 of 100 batches, "
        "a share such as 60%, or images per second such as 1000 images/s\n"
    )


def test_a_usage_error_has_the_same_exit_code() -> None:
    assert invoke("launch", "--no-such-option").exit_code == 2


def invoke(*arguments: str):
    return CliRunner().invoke(vittle.cli.app, list(arguments), catch_exceptions=False)


def test_front_as_json(studied: str) -> None:
    points = json.loads(invoke("front", "demo", "--storage", studied, "--json").stdout)
    assert len(points) >= 5
    required = {"trial", "accuracy", "accuracy_interval", "macs", "latency_ms", "latency_ratio", "images", "schedule"}
    assert all(required <= set(point) for point in points)
    assert [point["latency_ratio"] for point in points] == sorted(point["latency_ratio"] for point in points)
    assert all(point["latency_ratio"] <= 0.6 for point in points)
    tighter = json.loads(invoke("front", "--storage", studied, "--json", "--latency-budget", "40%").stdout)
    assert 0 < len(tighter) < len(points)
    for point in points:
        Schedule.from_dict(point["schedule"])


def test_a_front_says_what_more_trials_would_add(studied: str) -> None:
    shown = invoke("front", "demo", "--storage", studied).stdout
    assert re.search(
        r"^Another 100 trials are expected to add \d+\.\d% \(at most .*%\) to the front's hypervolume", shown, re.M
    )
    assert "never saw" not in shown  # nothing is confirmed


def test_a_search_says_why_it_ended(studied: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store.open(studied)
    store.set_state("demo", "interrupted")

    def finish(study: Study, problem: object, store: Store, reporter: Reporter, ray_address: str | None) -> Study:
        reporter.ended("the front grows no more")
        store.set_state(study.name, "complete")
        return store.study(study.name)

    monkeypatch.setattr("vittle.search.study.run", finish)
    vittle.cli.running.run_study(store.study("demo"), SimpleNamespace(notes=[]), store, None, as_json=False)
    shown = capsys.readouterr()
    assert "search ended: the front grows no more" in shown.err
    assert "Another 100 trials" in shown.out


def test_the_confirmation_has_a_bar_of_its_own(studied: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(studied)
    store.set_state("demo", "interrupted")
    seen: list[list[tuple[str, float, float | None]]] = []
    progress = vittle.cli.running.progress_bar

    @contextmanager
    def watched(*about: object, **options: object) -> Iterator[tuple[Progress, object]]:
        with progress(*about, **options) as (bar, task):
            watched.bar = bar
            yield bar, task

    def finish(study: Study, problem: object, store: Store, reporter: Reporter, ray_address: str | None) -> Study:
        trials = store.trials(study.name)
        reporter.ended("the front grows no more")
        for wanted in (trials[:3], trials[3:4]):  # what is confirmed may bring others to the front
            reporter.confirming(len(wanted))
            for trial in wanted:
                reporter.confirmed(trial, 0)
                seen.append([(task.description, task.completed, task.total) for task in watched.bar.tasks])
        store.set_state(study.name, "complete")
        return store.study(study.name)

    monkeypatch.setattr(vittle.cli.running, "progress_bar", watched)
    monkeypatch.setattr("vittle.search.study.run", finish)
    vittle.cli.running.run_study(store.study("demo"), SimpleNamespace(notes=[]), store, None, as_json=False)
    assert [tasks[0][0] for tasks in seen] == ["search"] * 4
    assert [tasks[1] for tasks in seen] == [("confirm", 1, 3), ("confirm", 2, 3), ("confirm", 3, 3), ("confirm", 4, 4)]
    assert watched.bar.tasks[0].stop_time is not None  # the time that is left is that of what goes on


def test_export_writes_the_recommended_one(studied: str) -> None:
    """The fastest of those within the tolerance of the best accuracy; with a tolerance of 0 the best, whatever it takes."""
    for tolerance in (None, 0.0, 0.05):
        options = [] if tolerance is None else ["--tolerance", f"{100 * tolerance:g}%"]
        result = invoke("export", "demo", "--storage", studied, "--output", "best.yaml", *options)
        assert result.exit_code == 0
        points = json.loads(invoke("front", "demo", "--storage", studied, "--json", *options).stdout)
        holding = [point for point in points if point["latency_ratio_interval"][1] <= 0.6]
        most = max(point["expected"]["value"] for point in holding)
        within = 0.003 if tolerance is None else tolerance
        worth = [point for point in holding if round(point["expected"]["value"], 3) >= round(round(most, 3) - within, 3)]
        chosen = next(point for point in points if point["recommended"])
        assert chosen in worth
        if within:
            assert round(chosen["latency_ratio"], 3) == min(round(point["latency_ratio"], 3) for point in worth)
        else:
            assert chosen["expected"]["value"] == most
        assert Schedule.load("best.yaml") == Schedule.from_dict(chosen["schedule"])
        (finest,) = (point for point in points if point["most_accurate"])
        assert round(finest["expected"]["value"], 3) == round(most, 3)
        told = " ".join(result.stdout.split())
        assert f"Trial {chosen['trial']} takes" in told or finest == chosen
    assert not list(Path().glob(".best*"))


def test_a_loss_that_may_be_had_is_exported(studied: str) -> None:
    exported = invoke("export", "demo", "--storage", studied, "--output", "best.yaml", "--max-accuracy-drop", "5%")
    assert exported.exit_code == 0
    told = " ".join(exported.stdout.split())
    assert "Recommended: the fastest that holds the budget and loses at most 5 points of expected accuracy." in told
    with pytest.raises(VittleError, match="accepted: percentage points from 0 to 100, such as 0.5%"):
        invoke("front", "demo", "--storage", studied, "--max-accuracy-drop", "lots")


def test_a_budget_is_not_predicted_where_it_is_of_a_tail() -> None:
    with pytest.raises(VittleError, match="budget p95 4ms is not predicted: profiles predict medians; accepted: 4ms"):
        invoke("profile", "--latency-budget", "p95 4ms")


@pytest.mark.parametrize("command", ["export", "export-study", "report", "train backbone", "train merge-embedding"])
def test_nothing_is_written_where_nothing_can_be(
    studied: str, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = [] if command.startswith("train") else ["--storage", studied]
    for place, reason in (
        ("no/such/folder/best", "no folder no/such/folder"),
        ("/dev/null", "it is a device"),
        (".", "it is a folder"),
    ):
        line = refusal(monkeypatch, capsys, *command.split(), *storage, "--output", place)
        assert f"cannot write {place}: {reason}; give --output a file in an existing folder" in line
    assert list(Path().iterdir()) == []


def test_standard_output_gets_the_content_and_nothing_else(studied: str) -> None:
    exported = invoke("export", "demo", "--storage", studied, "--output", "-")
    assert yaml.safe_load(exported.stdout)["study"] == "demo"
    assert "wrote standard output: trial " in exported.stderr
    lines = invoke("export-study", "demo", "--storage", studied, "--output", "-").stdout.splitlines()
    assert json.loads(lines[-1]) == {"line": "end", "trials": 41}
    page = invoke("report", "demo", "--storage", studied, "--output", "-").stdout
    assert page.startswith("<!doctype html>")
    assert page.endswith("</html>")
    assert list(Path().iterdir()) == []


def test_the_files_of_two_studies_are_two_by_default(studied: str) -> None:
    store = Store.open(studied)
    for name in ("試し", "本番", "../up", ".hidden/x"):
        make_study(store, name)
        assert invoke("export-study", name, "--storage", studied).exit_code == 0
    assert {path.name for path in Path().iterdir()} == {"試し.jsonl", "本番.jsonl", "up.jsonl", "hidden-x.jsonl"}


def test_names_of_strangers_are_text_in_a_terminal(studied: str) -> None:
    store = Store.open(studied)
    name = "[red]x[/red]\x1b]0;title\x07\x1b[2J\u202e\\[bold]"
    make_study(store, name, model=name)
    for arguments in (["studies"], ["trials", name], ["front", name], ["export", name], ["importance", name]):
        shown = invoke(*arguments, "--storage", studied)
        said = shown.stdout + shown.stderr
        assert not {"\x1b", "\x07", "\u202e"} & set(said), arguments
    assert "[red]x[/red]\N{REPLACEMENT CHARACTER}" in invoke("export", name, "--storage", studied).stderr


def test_the_baseline_is_no_budget_to_offer(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'slow.db'}"
    store = Store.open(url, create=True)
    run(coordinate(make_study(store, "slow"), store), limit=1)
    told = invoke("export", "--storage", url, "--latency-budget", "3%")
    assert told.exit_code == 1
    assert "study slow has measured nothing but its baseline yet; continue it with: vittle resume slow" in told.stderr
    baseline = store.trials("slow")[0].measurements["search"]
    number = store.start_trial("slow", "sampler", presets.constant(SHAPE, 1), {})
    store.finish_trial("slow", number, "complete", baseline)  # as fast as the backbone
    told = invoke("export", "--storage", url, "--latency-budget", "3%")
    assert told.exit_code == 1
    assert told.stderr.strip() == "nothing in study slow fits 3%, and nothing in it takes less than the baseline itself"


def test_a_budget_that_nothing_fits_names_the_nearest(studied: str, home: Path) -> None:
    result = invoke("export", "demo", "--storage", studied, "--latency-budget", "3%")
    assert result.exit_code == 1
    assert "nothing in study demo fits 3%; the nearest feasible budget is" in result.stderr
    assert not (home / "work" / "best.yaml").exists()
    nearest = result.stderr.split("--latency-budget ")[1].strip()
    assert invoke("export", "--storage", studied, "--latency-budget", nearest).exit_code == 0


def test_lists(studied: str) -> None:
    assert "demo" in invoke("studies", "--storage", studied).stdout
    (study,) = json.loads(invoke("studies", "--storage", studied, "--json").stdout)
    assert study["name"] == "demo"
    trials = json.loads(invoke("trials", "demo", "--storage", studied, "--json").stdout)
    assert len(trials) == 41
    assert [trial["trial"] for trial in trials] == list(range(41))  # as `front` calls it
    assert all(trial["number"] == trial["trial"] for trial in trials)  # as a release before did
    states = {trial["state"] for trial in trials}
    assert "complete" in states
    shown = invoke("trials", "demo", "--storage", studied).stdout
    assert all(state in shown for state in states)


def test_unknown_study(studied: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no study named 'nope'; there are: demo" in refusal(monkeypatch, capsys, "front", "nope", "--storage", studied)


def test_a_port_that_is_taken(studied: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        line = refusal(monkeypatch, capsys, "dashboard", "--storage", studied, "--port", port)
    assert "give another --port" in line


def test_every_command_explains_itself() -> None:
    measuring = ["profile", "profiles", "retime", "verify"]
    for command in [
        "launch",
        "resume",
        "extend",
        "studies",
        "trials",
        "front",
        "importance",
        "export",
        "dashboard",
        *measuring,
    ]:
        assert invoke(command, "--help").exit_code == 0
