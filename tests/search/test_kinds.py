"""A kind of study that the project does not have: searched, killed, resumed, listed, exported and carried elsewhere."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from fastapi.testclient import TestClient
from sqlalchemy import update
from typer.testing import CliRunner

import vittle.cli.commands
from recorded import make_study
from toy import BASELINE, Toy, ToyProblem, ToySettings
from vittle import VittleError
from vittle.dashboards.app import create_app
from vittle.objectives.evaluation import Evaluation
from vittle.objectives.measurement import exact
from vittle.search.coordinator import Coordinator
from vittle.search.reporter import Reporter
from vittle.search.study import run
from vittle.storage import kinds, transfer
from vittle.storage.ranking import Ranking
from vittle.storage.store import Store
from vittle.storage.tables import StudyRow

SUPPORT = Path(__file__).parent.parent / "support"
TRIALS = 24


def command(*arguments: str, **how: object) -> subprocess.Popen[str]:
    """`vittle` with the toy kind, in a process group of its own."""
    paths = [str(SUPPORT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    return subprocess.Popen(
        [sys.executable, "-c", "import toy; toy.main()", *arguments], env=environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **how,
    )  # fmt: skip


def invoke(*arguments: str) -> str:
    """What a command of this process prints."""
    result = CliRunner().invoke(vittle.cli.app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def searched(store: Store, name: str = "mine", **settings: object) -> Coordinator:
    """A study without Ray: each candidate evaluated in turn."""
    asked = ToySettings(**{"trials": 12, "until_flat": False, **settings})
    problem = ToyProblem(asked)
    coordinator = Coordinator(store.create_study(name, asked), problem, store)
    evaluator = problem.evaluator()
    while (one := coordinator.next()) is not None:
        try:
            *_, last = evaluator.climb(one.candidate, one.rivals, one.hints)
        except RuntimeError as error:
            last = Evaluation(verdict="failed", reason=str(error))
        coordinator.finish(one.number, last)
    store.set_state(name, "complete", coordinator.ended)
    return coordinator


@pytest.mark.timeout(900)
def test_a_search_that_is_killed_and_resumed_loses_and_repeats_nothing(url: str, tmp_path: Path) -> None:
    launched = command("launch", "mine", url, str(TRIALS))
    end = time.monotonic() + 300
    before = []
    while len(before) < 4:
        assert launched.poll() is None, launched.communicate()
        assert time.monotonic() < end
        time.sleep(0.1)
        if Path(url.removeprefix("sqlite:///")).exists():
            store = Store.open(url, create=True)
            before = [trial for study in store.studies() for trial in store.trials(study.name) if trial.ended]
    os.killpg(launched.pid, signal.SIGKILL)
    launched.communicate()
    store = Store.open(url)
    before = [trial for trial in store.trials("mine") if trial.ended]
    assert 4 <= len(before) < TRIALS
    resumed = command("resume", "mine", "--storage", url, "--json")
    front, errors = resumed.communicate(timeout=400)
    assert resumed.returncode == 0, errors

    study, trials = store.study("mine"), store.trials("mine")
    assert (study.state, study.kind, study.subject) == ("complete", "toy", None)
    assert [trial.number for trial in trials] == list(range(TRIALS + 1))
    assert len({trial.candidate.id for trial in trials}) == TRIALS + 1
    assert {trial.state for trial in trials} <= {"complete", "infeasible", "failed"}
    for trial in before:
        assert trials[trial.number].measurements["search"] == trial.measurements["search"]
    assert (trials[0].candidate, trials[0].origin, trials[1].origin) == (BASELINE, "baseline", "small")
    ranking = Ranking.of(trials, study.goals)
    points = ranking.front(study.budget)
    assert [point["trial"] for point in json.loads(front)] == [trial.number for trial in points]
    assert all(trial.confirmed for trial in points)
    assert ranking.best().judged["steps"].value <= 400

    exported = tmp_path / "best.yaml"
    written = command("export", "mine", "--storage", url, "--output", str(exported))
    assert written.wait(60) == 0
    document = yaml.safe_load(exported.read_text())
    assert Toy(**document["candidate"]) == ranking.best().candidate
    assert (document["kind"], document["budget"], document["measured_on"]) == ("toy", "400 steps", "held-out")


def test_the_commands_show_and_carry_any_kind(store: Store, url: str, tmp_path: Path) -> None:
    coordinator = searched(store)
    study, trials = store.study("mine"), store.trials("mine")
    assert coordinator.ended == "all 12 trials are done"
    best = Ranking.of(trials, study.goals).best()
    listed = json.loads(invoke("studies", "--storage", url, "--json"))[0]
    assert (listed["kind"], listed["model"], listed["budget"], listed["finished"]) == ("toy", None, "400 steps", 12)
    assert (listed["best"]["trial"], listed["best"]["score"]) == (best.number, best.judged["score"].value)
    assert "12 of 12" in invoke("studies", "--storage", url)
    shown = invoke("trials", "mine", "--storage", url)
    assert "score" in shown
    assert "steps" in shown
    assert len(json.loads(invoke("trials", "mine", "--storage", url, "--json"))) == 13
    front = " ".join(invoke("front", "mine", "--storage", url).split())
    assert "* recommended for 400 steps" in front
    assert "Recommended: the best expected score that holds the budget." in front
    tolerant = " ".join(invoke("front", "mine", "--storage", url, "--tolerance", "60 points").split())
    fastest = min(
        (one for one in trials if one.state == "complete" and not one.is_baseline), key=lambda one: one.judged["steps"].value
    )
    assert f"* {fastest.number} " in tolerant
    assert "within 60 points of the best expected score. Trial" in tolerant
    assert f"less steps than trial {best.number}, the best in score, for " in tolerant
    with pytest.raises(VittleError, match="'0.5%' is no amount of score; accepted: a number of points, such as 0.5"):
        CliRunner().invoke(vittle.cli.app, ["front", "mine", "--storage", url, "--tolerance", "0.5%"], catch_exceptions=False)
    path, there = tmp_path / "mine.jsonl", f"sqlite:///{tmp_path / 'there.db'}"
    invoke("export-study", "mine", "--storage", url, "--output", str(path))
    invoke("import-study", str(path), "--storage", there)
    assert Store.open(there).study("mine") == study
    assert Store.open(there).trials("mine") == trials
    with pytest.raises(VittleError, match="study 'mine' is of kind 'toy'; accepted: inference"):
        CliRunner().invoke(
            vittle.cli.app, ["front", "mine", "--storage", url, "--latency-budget", "4ms"], catch_exceptions=False
        )
    told = invoke("importance", "mine", "--storage", url)
    assert "width" in told


def test_the_pages_show_any_kind_in_the_list_and_as_a_plain_table(store: Store) -> None:
    searched(store)
    make_study(store, "schedules")
    client = TestClient(create_app(store), base_url="http://localhost")
    page = client.get("/").text
    assert page.index("/studies/mine") > page.index("/studies/schedules")
    assert ">toy <small>" in page
    plain = client.get("/studies/mine").text
    assert "3 layers &lt;b&gt;of 16&lt;/b&gt;" in plain
    assert "<b>of" not in plain
    twin = client.get("/studies/mine.json").json()
    assert [trial["number"] for trial in twin["trials"]] == list(range(13))
    assert twin["objectives"] == ["score", "steps"]
    best = next(trial for trial in twin["trials"] if trial["number"] == twin["best"]["trial"])
    assert yaml.safe_load(client.get(best["export"]).text)["id"] == best["id"]
    for other in ("profile", "detector", "compare", "trials/1", "profile.json", "trials/1.json"):
        refused = client.get(f"/studies/mine/{other}")
        assert refused.status_code == 404
        assert "is of kind &#39;toy&#39;" in refused.text or "is of kind 'toy'" in refused.text


def test_a_kind_that_is_not_known_is_listed_and_stops_nobody(store: Store, url: str) -> None:
    searched(store)
    make_study(store, "schedules")
    with store.transaction() as session:
        session.execute(update(StudyRow).where(StudyRow.name == "mine").values(kind="future"))
    listed = {one["name"]: one for one in json.loads(invoke("studies", "--storage", url, "--json"))}
    assert set(listed) == {"mine", "schedules"}
    assert (listed["mine"]["kind"], listed["mine"]["budget"], listed["mine"]["best"]) == ("future", None, None)
    assert (listed["mine"]["finished"], listed["mine"]["planned"]) == (12, 12)
    assert "future" in invoke("studies", "--storage", url)
    client = TestClient(create_app(store), base_url="http://localhost")
    assert ">future <small>" in client.get("/").text
    assert "does not know studies of kind future" in client.get("/studies/mine").text
    assert client.get("/studies/mine.json").status_code == 404
    with pytest.raises(VittleError, match="unknown kind of study 'future'; accepted: inference"):
        store.trials("mine")
    assert list(transfer.write(store, "mine"))


def test_kinds_have_names_of_their_own() -> None:
    with pytest.raises(ValueError, match="a kind of study named 'toy' is there already"):
        kinds.register(kinds.find("toy"))
    with pytest.raises(VittleError, match="unknown kind of study 'magic'; accepted: inference, toy"):
        kinds.find("magic")


def test_settings_decide_the_kind_and_a_name_belongs_to_one(store: Store) -> None:
    store.create_study("mine", ToySettings())
    assert store.create_study("mine", ToySettings()).kind == "toy"
    with pytest.raises(VittleError, match="study 'mine' exists and is of kind 'toy'; give another --study"):
        make_study(store, "mine")
    study = store.study("mine")
    with pytest.raises(VittleError, match="study 'mine' is of kind 'toy' and has no backbone"):
        _ = study.backbone
    assert store.importance("mine") is None


def test_what_fails_and_what_is_over_the_budget_is_told_by_the_verdict(store: Store) -> None:
    searched(store, trials=40)
    trials = store.trials("mine")
    assert {trial.reason for trial in trials if trial.state == "failed"} <= {"seven layers fall over"}
    over = [trial for trial in trials if trial.state == "infeasible"]
    assert all("score" not in trial.judged for trial in over)
    assert all(re.fullmatch(r"steps is \d+ steps, the budget 400 steps", trial.reason) for trial in over)


def test_a_problem_is_pickled_without_a_store(store: Store) -> None:
    """It travels to workers, which must not know a password."""
    problem = ToyProblem(ToySettings())
    problem.prepare(store, Reporter())
    problem.examine(store, Reporter())
    assert not any(isinstance(value, Store) for value in vars(problem).values())
    assert problem.work({"steps": exact("steps", 3)}) == 0
    assert run.__doc__
