"""A row that nobody here understands is shown as unreadable and stops nobody but who asks for that very study."""

import dataclasses
import json
from typing import Any

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

import vittle.cli.commands
from dashboard_study import FINGERPRINT, SHAPE, Synthetic, latency_profile, made_merge_start
from recorded import coordinate, make_study, run
from services import BEARER, client_of, make_service
from vittle.storage import fronts
from vittle.storage.ranking import Ranking
from vittle.storage.records import BackboneRecord, Study, UnreadableError, UnreadableStudy
from vittle.storage.store import Store
from vittle.storage.tables import KnowledgeRow, StudyRow, TrialRow

STUDIES, TRIALS, KNOWLEDGE = (row.__tablename__ for row in (StudyRow, TrialRow, KnowledgeRow))


def backbone(**shape: object) -> dict[str, Any]:
    """The document of a backbone, of which something is strange."""
    record = dataclasses.asdict(BackboneRecord("vit", FINGERPRINT, 10, SHAPE))
    return {**record, "shape": {**record["shape"], **shape}}


SETTINGS = {"model": "digits", "latency_budget": "60%", "trials": 40}
STRANGE_STUDIES: dict[str, dict[str, Any]] = {
    "latency budget 'soon' is not a time": {"settings": {**SETTINGS, "latency_budget": "soon"}},
    "latency budget '9e999%' is not a time": {"settings": {**SETTINGS, "latency_budget": "9e999%"}},
    "unknown reduction 'sorcery'": {"settings": {**SETTINGS, "reductions": ["sorcery"]}},
    "trials: Input should be a valid integer": {"settings": {**SETTINGS, "trials": "many"}},
    "trials: Input should be less than or equal to 2147483647": {"settings": {**SETTINGS, "trials": 10**30}},
    "time_limit: Input should be a finite number": {"settings": '{"time_limit": NaN}'},
    "future: Extra inputs are not permitted": {"settings": {**SETTINGS, "future": 1}},
    "argument after ** must be a mapping": {"settings": [1, 2]},
    "expected": {"settings": '{"model": '},
    "shape.depth: Input should be less than or equal to 10000": {"backbone": backbone(depth=10**9)},
    "shape.heads: Input should be greater than or equal to 1": {"backbone": backbone(heads=-1)},
    "shape.grid.1: Input should be less than or equal to 1048576": {"backbone": backbone(grid=[8, 10**12])},
    "shape: Input should be": {"backbone": {**backbone(), "shape": "square"}},
    "state is 'sleeping'": {"state": "sleeping"},
    "created": {"created": "yesterday"},
    "holder": {"state": "running", "heartbeat": "2100-01-01 00:00:00.000000", "holder": "somebody"},
    "heartbeat": {"state": "running", "heartbeat": "just now"},
    "images: Input should be a valid integer": {"images": {"images": "many", "names": "a", "sizes": "b", "labels": "c"}},
    "labels: Field required": {"images": {"images": 3, "names": "a", "sizes": "b"}},
}
STRANGE_TRIALS: dict[str, dict[str, Any]] = {
    "unknown key 'sorcery' in a schedule": {"candidate": {"sorcery": {}}},
    "merging.kept": {"candidate": {"merging": {"kept": [1e400]}}},
    "a schedule is a mapping": {"candidate": '"abc"'},
    "EOF": {"candidate": '{"tail": '},
    "state is 'sleeping'": {"state": "sleeping"},
    "parameters is [1]": {"parameters": [1]},
    "origin is 5": {"origin": b"5"},
    "started": {"started": "yesterday"},
}


def spoil(store: Store, table: str, where: str, values: dict[str, Any]) -> None:
    """Write what nothing here writes, as it is."""
    for column, value in values.items():
        raw = json.dumps(value) if isinstance(value, dict | list) else value
        with store.engine.begin() as connection:
            connection.execute(text(f"UPDATE {table} SET {column} = :value WHERE {where}"), {"value": raw})


@pytest.fixture
def two(store: Store) -> Store:
    """An old study and a newer one, both readable."""
    Synthetic(store, "good").fill(12)
    Synthetic(store, "bad").fill(12)
    return store


def invoke(*arguments: str):
    return CliRunner().invoke(vittle.cli.app, list(arguments), env={"COLUMNS": "200"})


@pytest.mark.parametrize(("reason", "values"), [*STRANGE_STUDIES.items()])
def test_a_strange_study_stops_nobody(two: Store, url: str, reason: str, values: dict[str, Any]) -> None:
    spoil(two, STUDIES, "name = 'bad'", values)
    assert two.names()[0] in ("bad", "good")
    assert sorted(two.names()) == ["bad", "good"]
    assert [study.name for study in two.studies()] == ["good"]
    listed = {one.name if isinstance(one, UnreadableStudy) else one[0].name: one for one in fronts.listed(two)}
    assert isinstance(listed["good"], tuple)
    assert two.revision() > 0
    strange = listed["bad"]
    assert isinstance(strange, UnreadableStudy)
    assert strange.reason.isprintable()
    with pytest.raises(UnreadableError) as refused:
        two.study("bad")
    assert str(refused.value) == f"study 'bad' cannot be read ({strange.reason})"
    if reason not in ("created", "expected", "holder", "heartbeat"):  # whose words are a library's
        assert reason in strange.reason
    shown = invoke("studies", "--storage", url)
    assert shown.exit_code == 0
    assert "unreadable" in shown.stdout
    assert "study 'bad' cannot be read: " in shown.stderr
    entry = next(one for one in json.loads(invoke("studies", "--json", "--storage", url).stdout) if one["name"] == "bad")
    assert (entry["state"], entry["reason"], entry["finished"]) == ("unreadable", strange.reason, None)
    assert invoke("front", "--storage", url).exit_code == 0  # the newest that can be read
    for command in ("front", "trials", "export", "report", "resume", "export-study", "extend", "importance"):
        refused = invoke(command, "bad", "--storage", url)
        assert isinstance(refused.exception, UnreadableError), command
        assert refused.stdout == ""


def test_a_strange_study_is_shown_by_programs_and_pages(two: Store) -> None:
    spoil(two, STUDIES, "name = 'bad'", {"settings": {"latency_budget": "<b>soon</b>\x1b[2J"}})
    reason = "latency budget '<b>soon</b>\\x1b[2J' is not a time"
    program = client_of(make_service(two, often=100), **BEARER)
    listed = program.get("/api/studies").json()["studies"]
    assert {one["name"]: one["state"] for one in listed} == {"good": "complete", "bad": "unreadable"}
    assert next(one for one in listed if one["name"] == "bad")["reason"].startswith(reason)
    for language, word, said in (
        ("en", "unreadable", "cannot be read"),
        ("ja", "読み取り不可", "を読み取れません"),
    ):
        spoken = {"Accept-Language": language}
        page = program.get("/", headers=spoken)
        assert page.status_code == 200
        assert word in page.text
        assert "&lt;b&gt;soon" in page.text
        assert "<b>soon" not in page.text
        own = program.get("/studies/bad", headers=spoken)
        assert (own.status_code, said in own.text) == (422, True)
        for address in ("/studies/bad.json", "/api/studies/bad", "/api/studies/bad/activity", "/api/studies/bad/export"):
            answer = program.get(address, headers=spoken)
            assert (answer.status_code, said in answer.json()["error"]) == (422, True), address
    assert program.get("/studies/good").status_code == 200
    assert program.get("/launch").status_code == 200
    assert program.get("/api/jobs").status_code == 200
    taken = program.post("/api/studies", json={"name": "bad", "model": "digits", "data": "digits"})
    assert (taken.status_code, taken.json()["error"]) == (409, "study 'bad' exists; give another name, or extend it")


@pytest.mark.parametrize(("reason", "values"), [*STRANGE_TRIALS.items()])
@pytest.mark.parametrize("number", [0, 3])
def test_a_strange_trial_stops_nobody(two: Store, url: str, reason: str, values: dict[str, Any], number: int) -> None:
    before = two.trials("bad")
    spoil(two, TRIALS, f"number = {number} AND study_id = (SELECT id FROM {STUDIES} WHERE name = 'bad')", values)
    trials = two.trials("bad")
    assert [trial.number for trial in trials] == [trial.number for trial in before]
    assert [trial for trial in trials if trial.number != number] == [trial for trial in before if trial.number != number]
    strange = trials[number]
    assert (strange.state, strange.readable, dict(strange.measurements)) == ("unreadable", False, {})
    assert strange.reason
    assert strange.reason.isprintable()
    if reason not in ("started", "EOF", "origin is 5"):
        assert reason in strange.reason
    (study, standing) = next(one for one in fronts.listed(two) if isinstance(one, tuple) and one[0].name == "bad")
    assert isinstance(study, Study)
    assert number not in {trial.number for trial in standing.points}
    assert standing == Ranking.of(trials, study.goals).standing
    shown = invoke("trials", "bad", "--storage", url)
    assert (shown.exit_code, shown.stdout.count("unreadable")) == (0, 1)
    document = json.loads(invoke("trials", "bad", "--json", "--storage", url).stdout)
    assert [one["state"] for one in document] == [trial.state for trial in trials]
    assert document[number]["reason"] == strange.reason
    assert invoke("front", "bad", "--storage", url).exit_code == 0


def test_a_strange_trial_is_shown_by_programs_and_pages(two: Store) -> None:
    spoil(two, TRIALS, f"number = 3 AND study_id = (SELECT id FROM {STUDIES} WHERE name = 'bad')", {"candidate": {"<b>": 1}})
    reader = client_of(make_service(two, often=100))
    twin = reader.get("/studies/bad.json").json()
    assert twin["counts"]["unreadable"] == 1
    assert (twin["trials"][3]["kind"], twin["trials"][3]["tokens"]) == ("unreadable", [])
    assert twin["trials"][3]["reason"].startswith("unknown key '<b>' in a schedule")
    for address in ("/studies/bad", "/studies/bad/compare", "/studies/bad/profile", "/studies/bad/trials/2"):
        assert reader.get(address).status_code == 200, address
    for address in ("/studies/bad/trials/3", "/studies/bad/trials/3.json", "/studies/bad/trials/3.yaml"):
        answer = reader.get(address)
        assert answer.status_code == 422
        assert "trial 3 cannot be read (unknown key" in answer.text


def test_a_search_goes_on_beside_a_trial_that_it_does_not_understand(store: Store) -> None:
    study = make_study(store, trials=6)
    run(coordinate(study, store))
    spoil(store, TRIALS, "number = 2", {"candidate": {"sorcery": {}}})
    store.set_trials("study", 9)
    run(coordinate(store.study("study"), store))
    trials = store.trials("study")
    assert [trial.number for trial in trials] == list(range(10))
    assert [trial.number for trial in trials if not trial.readable] == [2]


def test_what_is_known_and_not_understood_is_not_known(two: Store) -> None:
    two.save_merge_start(made_merge_start(FINGERPRINT))
    assert two.merge_start(FINGERPRINT) is not None
    for document in ('{"curves": ', "[]", '{"curves": {"similarity": {"values": ["a"], "low": [1], "high": [1]}}}'):
        spoil(two, KNOWLEDGE, "1 = 1", {"document": document})
        assert two.merge_start(FINGERPRINT) is None
    two.save_merge_start(made_merge_start(FINGERPRINT))
    assert two.merge_start(FINGERPRINT) is not None


def test_a_profile_that_is_not_understood_is_told_in_one_line(two: Store, url: str) -> None:
    two.save_profile(latency_profile())
    two.save_profile(dataclasses.replace(latency_profile(), key="other"))
    spoil(two, KNOWLEDGE, "fingerprint = 'other'", {"document": {"sorcery": 1}})
    for arguments in (["profiles"], ["profiles", "--json"]):
        told = invoke(*arguments, "--storage", url)
        assert (told.exit_code, told.stderr) == (
            0,
            "note: 1 of 2 latency profiles cannot be read; vittle profile measures anew\n",
        )
    assert len(json.loads(told.stdout)) == 1
    two.save_profile(dataclasses.replace(latency_profile(), key="other"))
    assert invoke("profiles", "--storage", url).stderr == ""
