"""The budget that a schedule is exported for: the command line, the dashboard, the report and the service say the same one."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml
from fastapi.testclient import TestClient
from playwright.sync_api import Page, expect
from typer.testing import CliRunner

import vittle.cli.commands
from browsing import serving, show
from dashboard_study import Synthetic, open_store
from rankings import ranked
from services import BEARER, client_of, make_service
from vittle import presets
from vittle.dashboards import text
from vittle.dashboards.app import create_app
from vittle.dashboards.pages import report
from vittle.objectives.budget import LatencyBudget
from vittle.objectives.goals import parse_quality
from vittle.objectives.measurement import Measurement
from vittle.spaces.reduction import AdapterRecord
from vittle.storage.certificate import Certificate
from vittle.storage.records import BackboneRecord
from vittle.storage.settings import Settings
from vittle.storage.store import Store

NAME = "digits-60"
ADAPTER = "/data/mine=1/embedding.safetensors"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    opened = open_store(tmp_path_factory.mktemp("studies"))
    Synthetic(opened, NAME).fill(60)
    return opened


@pytest.fixture(scope="module")
def address(store: Store) -> Iterator[str]:
    with serving(store) as url:
        yield url


@pytest.fixture
def reader(store: Store) -> TestClient:
    return TestClient(create_app(store), base_url="http://127.0.0.1")


@pytest.fixture
def program(store: Store) -> TestClient:
    return client_of(make_service(store, often=1000), **BEARER)


def measured(ratio: float) -> dict[str, Measurement]:
    """A latency as it might be measured again, at a batch of which the backbone takes 8.2 ms."""
    one = Measurement("latency_ratio", ratio, 0.99 * ratio, 1.01 * ratio, 15)
    return {"latency_ratio": one, "latency_ms": Measurement("latency_ms", 8.2 * ratio, 8.1 * ratio, 8.3 * ratio, 15)}


def from_command_line(store: Store, folder: Path, value: str, option: str = "--latency-budget") -> str:
    url = store.engine.url.render_as_string(hide_password=False)
    options = ["--storage", url, option, value, "--output", str(folder / "best.yaml")]
    result = CliRunner().invoke(vittle.cli.app, ["export", NAME, *options], catch_exceptions=False)
    assert result.exit_code == 0
    return (folder / "best.yaml").read_text()


def from_page(opened: Page, url: str, limit: float, of: str = "budget") -> str:
    """What the button of a study's page gives once a slider is at a budget, or at a loss."""
    show(opened, url)
    opened.evaluate("([limit, axis]) => ask(limit, axis ?? undefined)", [limit, "loss" if of == "loss" else None])
    expect(opened.locator(f"#{of}-value")).to_have_text(f"{100 * limit:g} points" if of == "loss" else f"{limit:.1%}")
    opened.wait_for_timeout(60)  # it is drawn with the next frame
    with opened.expect_download() as download:
        opened.locator("#panel a.button").click()
    return download.value.path().read_text()


def test_all_four_export_the_same_for_the_same_budget(
    store: Store, page: Page, address: str, program: TestClient, tmp_path: Path
) -> None:
    best = ranked(store.trials(NAME), LatencyBudget.parse("40%")).best()
    assert best is not None
    assert best.number != ranked(store.trials(NAME), store.study(NAME).budget).best().number
    (tmp_path / "report.html").write_text(report.render(store, store.study(NAME)), encoding="utf-8")
    answer = program.get(f"/api/studies/{NAME}/export", params={"latency_budget": "40%"})
    inside = page.context.new_page()  # may read files
    texts = {
        "command line": from_command_line(store, tmp_path, "40%"),
        "dashboard": from_page(page, f"{address}/studies/{NAME}", 0.4),
        "report": from_page(inside, (tmp_path / "report.html").as_uri(), 0.4),
        "service": answer.text,
    }
    inside.close()
    assert answer.headers["content-type"].startswith("application/yaml")
    documents = {where: yaml.safe_load(text) for where, text in texts.items()}
    for where, exported in texts.items():
        assert documents[where] == documents["command line"], where
        assert (documents[where]["budget"], documents[where]["trial"]) == ("40%", best.number)
        assert (documents[where]["tolerance"], documents[where]["recommended"]) == ("0.3%", True)
        (tmp_path / "one.yaml").write_text(exported)
        certificate = Certificate.load(tmp_path / "one.yaml")
        assert certificate.schedule == best.schedule
        assert certificate.limit == 0.4
        assert certificate.covers(measured(0.58)) is False
        assert certificate.covers(measured(0.4)) is True


def test_all_four_export_the_same_for_the_same_loss(
    store: Store, page: Page, address: str, program: TestClient, tmp_path: Path
) -> None:
    ranking = ranked(store.trials(NAME), store.study(NAME).budget)
    best = ranking.choice(store.study(NAME).goals.asking(most_lost=0.03))
    assert best is not None
    assert best.recommended.number != ranking.best().number
    (tmp_path / "report.html").write_text(report.render(store, store.study(NAME)), encoding="utf-8")
    inside = page.context.new_page()  # may read files
    texts = {
        "command line": from_command_line(store, tmp_path, "3%", "--max-accuracy-drop"),
        "dashboard": from_page(page, f"{address}/studies/{NAME}", 0.03, "loss"),
        "report": from_page(inside, (tmp_path / "report.html").as_uri(), 0.03, "loss"),
        "service": program.get(f"/api/studies/{NAME}/export", params={"max_accuracy_drop": "3%"}).text,
    }
    inside.close()
    documents = {where: yaml.safe_load(text) for where, text in texts.items()}
    for where, exported in documents.items():
        assert exported == documents["command line"], where
        assert (exported["trial"], exported["recommended"]) == (best.recommended.number, True)
        assert (exported["budget"], exported["max_accuracy_drop"]) == ("60%", "3%")
        assert "tolerance" not in exported


def test_what_is_not_recommended_is_not_said_to_be(store: Store, reader: TestClient) -> None:
    best = ranked(store.trials(NAME), store.study(NAME).budget).best()
    other = next(one for one in ranked(store.trials(NAME)).front() if one.number != best.number)
    for number, query, recommended in (
        (best.number, "", True),
        (best.number, "?budget=40%25", False),
        (other.number, "", False),
    ):
        exported = yaml.safe_load(reader.get(f"/studies/{NAME}/trials/{number}.yaml{query}").text)
        assert exported["recommended"] is recommended
    refused = reader.get(f"/studies/{NAME}/trials/0.yaml?max_accuracy_drop=much")
    assert (refused.status_code, "is no amount of accuracy" in refused.text) == (422, True)


def test_without_a_budget_it_is_the_study_s_own(store: Store, reader: TestClient, program: TestClient, tmp_path: Path) -> None:
    best = ranked(store.trials(NAME), store.study(NAME).budget).best()
    assert best is not None
    there = reader.get(f"/studies/{NAME}/trials/{best.number}.yaml").text
    assert yaml.safe_load(there)["budget"] == "60%"
    assert program.get(f"/api/studies/{NAME}/export").text == there == from_command_line(store, tmp_path, " 60.0 %")


@pytest.mark.parametrize("budget", ["0%", "fast", "40", "", f"{'9' * 400}ms"])
def test_what_is_no_budget_is_one_line(reader: TestClient, program: TestClient, budget: str) -> None:
    for client, path in (
        (reader, f"/studies/{NAME}/trials/0.yaml?budget={quote(budget)}"),
        (program, f"/api/studies/{NAME}/export?latency_budget={quote(budget)}"),
    ):
        answer = client.get(path)
        assert answer.status_code == 422
        assert "is not a time; accepted: milliseconds such as 4ms, or p95 4ms for 95 of 100 batches, a share" in answer.text
    assert program.get("/api/studies/nope/export").status_code == 404


@pytest.mark.parametrize(
    ("asked", "options"),
    [
        ({"max_accuracy_drop": "3%"}, ["--max-accuracy-drop", "3%"]),
        ({"tolerance": "5"}, ["--tolerance", "5"]),
        ({"tolerance": "0%", "latency_budget": "p95 4ms"}, ["--tolerance", "0%", "--latency-budget", "p95 4ms"]),
        (
            {"max_accuracy_drop": "4", "latency_budget": "15000 images/s"},
            ["--max-accuracy-drop", "4", "--latency-budget", "15000img/s"],
        ),
    ],
    ids=str,
)
def test_the_service_and_the_command_line_choose_alike(
    store: Store, program: TestClient, tmp_path: Path, asked: dict[str, str], options: list[str]
) -> None:
    goals = store.study(NAME).goals
    budget = LatencyBudget.parse(asked["latency_budget"], 64) if "latency_budget" in asked else None
    amounts = [parse_quality(asked[name], "accuracy") if name in asked else None for name in ("tolerance", "max_accuracy_drop")]
    choice = ranked(store.trials(NAME)).choice(goals.asking(budget, *amounts))
    assert choice is not None
    url = store.engine.url.render_as_string(hide_password=False)
    written = tmp_path / "best.yaml"
    invoked = ["export", NAME, "--storage", url, *options, "--output", str(written)]
    assert CliRunner().invoke(vittle.cli.app, invoked, catch_exceptions=False).exit_code == 0
    answer = program.get(f"/api/studies/{NAME}/export", params=asked)
    documents = [yaml.safe_load(text) for text in (answer.text, written.read_text())]
    assert documents[0]["budget"] == documents[1]["budget"] == str(budget or goals.budget)
    for document in documents:
        assert document["trial"] == choice.recommended.number
        expected = ranked(store.trials(NAME)).expected[document["trial"]]["accuracy"]
        assert document["measurements"]["expected_accuracy"]["value"] == expected.value
        assert document["measured_on"]["images"] == "held-out"


def test_a_loss_that_nothing_is_within_is_told_with_the_least(store: Store, program: TestClient) -> None:
    ranking = ranked(store.trials(NAME))
    least = ranking.best_by_loss()[0]
    assert least.limit > 0
    told = program.get(f"/api/studies/{NAME}/export", params={"max_accuracy_drop": "0"}).json()["error"]
    assert told == (
        f"nothing in study '{NAME}' within 60% loses at most 0 points of expected accuracy; "
        f"the least is {text.points(least.limit)} points (trial {least.trial})"
    )
    refused = program.get(f"/api/studies/{NAME}/export", params={"max_accuracy_drop": "1", "tolerance": "1"})
    assert (refused.status_code, "cannot both be asked for" in refused.text) == (422, True)
    assert program.get(f"/api/studies/{NAME}/export", params={"tolerance": "-1"}).status_code == 422


def test_every_program_is_told_what_is_recommended_and_why(store: Store, program: TestClient) -> None:
    ranking = ranked(store.trials(NAME))
    choice, twin = ranking.choice(), program.get(f"/api/studies/{NAME}").json()
    assert choice is not None
    assert (twin["choice"]["trial"], twin["choice"]["most_accurate"]) == (choice.recommended.number, choice.finest.number)
    assert (twin["choice"]["ranked_by"], twin["choice"]["tolerance"]) == ("expected accuracy", 0.003)
    assert twin["choice"]["rule"] == text.rule(ranking.goals.asked, ranking.goals)
    schema = program.get("/api/openapi.json").json()["components"]["schemas"]
    assert {"tolerance", "max_accuracy_drop"} <= schema["Launch"]["properties"].keys()
    assert schema["Detailed"]["properties"]["choice"] == {"$ref": "#/components/schemas/Recommendation"}
    for trial in twin["trials"]:
        assert (trial["expected"] is None) == (trial["state"] != "complete")


def test_where_nothing_fits_the_service_names_a_budget_that_something_does(program: TestClient, store: Store) -> None:
    answer = program.get(f"/api/studies/{NAME}/export", params={"latency_budget": "1%"})
    assert answer.status_code == 404
    told = answer.json()["error"]
    assert told.startswith(f"nothing in study '{NAME}' fits 1%; the nearest feasible budget is ")
    near, number = told.split(" is ")[1].rstrip(")").split(" (trial ")
    found = program.get(f"/api/studies/{NAME}/export", params={"latency_budget": near})
    assert (found.status_code, yaml.safe_load(found.text)["trial"]) == (200, int(number))
    Synthetic(store, "new")
    assert program.get("/api/studies/new/export").json()["error"] == "study 'new' has no complete trial yet"


def test_the_service_describes_it(program: TestClient) -> None:
    described = program.get("/api/openapi.json").json()["paths"]["/api/studies/{name}/export"]["get"]
    assert list(described["responses"]["200"]["content"]) == ["application/yaml"]
    assert {"404", "422"} <= described["responses"].keys()
    assert [one["name"] for one in described["parameters"]] == ["name", "latency_budget", "tolerance", "max_accuracy_drop"]


def test_a_stopped_trial_says_that_its_accuracy_is_an_estimate(store: Store, reader: TestClient) -> None:
    trials = store.trials(NAME)
    for trial in (next(one for one in trials if one.state == "stopped"), trials[0]):
        accuracy = yaml.safe_load(reader.get(f"/studies/{NAME}/trials/{trial.number}.yaml").text)["measurements"]["accuracy"]
        estimate = {} if trial.state == "complete" else {"estimated_of": 449}
        assert {name: accuracy.get(name) for name in estimate} == estimate
        assert ("estimated_of" in accuracy) == bool(estimate)
        assert accuracy["n"] == (449 if trial.state == "complete" else 128)


def test_a_file_from_a_page_says_what_to_put_beside_it(store: Store, tmp_path: Path) -> None:
    opened = open_store(tmp_path)
    made = store.study(NAME)
    record = BackboneRecord(**{**vars(made.backbone), "adapters": {"merging": AdapterRecord("modular-0123456789ab", 32)}})
    opened.create_study(NAME, Settings(adapters={"merging": ADAPTER}), record)
    by = {"metric": "decoupled", "embedding": "modular-0123456789ab", "embedding_width": 32}
    schedule = presets.constant(made.backbone.shape, 3, **by)
    number = opened.start_trial(NAME, "sampler", schedule, {})
    opened.finish_trial(NAME, number, "complete", ranked(store.trials(NAME), made.budget).best().judged)
    client = client_of(make_service(opened), **BEARER)
    inside = report.render(opened, opened.study(NAME))
    text = client.get(f"/studies/{NAME}/trials/{number}.yaml").text
    assert (
        text.splitlines()[1]
        == f"# Put beside this file: a copy of '{ADAPTER}', as 'best.merging.modular-0123456789ab.safetensors'"
    )
    assert yaml.safe_load(text)["adapters"] == {"merging": "best.merging.modular-0123456789ab.safetensors"}
    assert client.get(f"/api/studies/{NAME}/export").text == text
    assert f"a copy of '{ADAPTER}', as 'best.merging.modular-0123456789ab.safetensors'" in inside
