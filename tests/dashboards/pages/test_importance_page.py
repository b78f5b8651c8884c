"""What mattered in a study: tables for the terminal, the JSON twin, and the charts in a real browser."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import Page, expect
from typer.testing import CliRunner

import vittle.cli.commands
from browsing import printed, serving, show
from dashboard_study import FINGERPRINT, Synthetic, importance, open_store, sensitivity
from recorded import coordinate, make_study, run
from vittle.dashboards import text
from vittle.dashboards.app import create_app
from vittle.dashboards.terminal.importance_tables import importance_table, sensitivity_table
from vittle.objectives.backbones.sensitivity import Sensitivity
from vittle.objectives.parameter_importance import METHODS, Importance
from vittle.storage.store import Store


@pytest.fixture
def shown_store(tmp_path: Path) -> Store:
    opened = open_store(tmp_path)
    Synthetic(opened).fill(8)
    return opened


@pytest.fixture
def address(shown_store: Store) -> Iterator[str]:
    with serving(shown_store) as url:
        yield url


def row(table: object, name: str) -> list[str]:
    """The numbers of a line."""
    (line,) = [line for line in printed(table).splitlines() if line.strip().startswith(name)]
    return [word for word in line[len(name) + 1 :].split() if word[-1] == "%"]


class TestTables:
    def test_parameters_and_blocks_stand_under_each_other(self) -> None:
        told = importance()
        table = importance_table(told)
        columns = [(method, objective) for objective in ("accuracy", "latency_ratio") for method in METHODS]
        for name in ("merging.kept", "merging.metric", "merging.window"):
            assert row(table, name) == [f"{told.grouped(*column)[name]:.0%}" for column in columns]
        for block in range(11):
            shares = [told.shares[method][objective][f"merging.kept.{block}"] for method, objective in columns]
            assert row(table, f"block {block + 1} ") == [f"{share:.0%}" for share in shares]
        names = [line.split()[0] for line in printed(table).splitlines() if line.strip().startswith("merging")]
        assert names == ["merging.kept", "merging.metric", "merging.window"]
        assert "from 38 trials" in " ".join(printed(table).split())

    def test_an_objective_that_nothing_changes_has_no_bars(self) -> None:
        none = {"merging.metric": 0.0}
        told = Importance(12, {method: {"accuracy": none, "latency_ratio": none} for method in METHODS})
        (line,) = [line for line in printed(importance_table(told)).splitlines() if "merging.metric" in line]
        assert line.split() == ["merging.metric", *["0%"] * 4]

    def test_blocks_show_their_losses_and_the_longest_bar_is_the_largest_loss(self) -> None:
        known = sensitivity()
        lines = [line for line in printed(sensitivity_table(known, "merging")).splitlines() if "±0" in line]
        assert len(lines) == 11
        for points, line in zip(known.points["merging"], lines, strict=True):
            assert [word for word in line.split() if word.startswith("0.")] == [f"{point.loss:.2g}" for point in points]
        bars = [word for line in lines for word in line.split() if "█" in word]
        assert max(bars, key=len) == lines[0].split()[-1] == "████████"

    def test_blocks_are_told_from_other_parameters(self) -> None:
        shares = {"merging.kept.1": 0.2, "merging.kept.10": 0.1, "merging.metric": 0.4, "merging.kept.0": 0.3}
        assert text.over_depth(shares) == {"merging.kept": [0.3, 0.2, 0.1]}


class TestCommand:
    def invoke(self, *arguments: str):
        return CliRunner().invoke(vittle.cli.app, ["importance", *arguments], catch_exceptions=False)

    def test_it_is_told_from_the_trials_and_kept(self, store: Store, url: str) -> None:
        study = make_study(store, "demo", trials=20)
        run(coordinate(study, store))
        known = sensitivity(study.backbone.fingerprint)
        store.save_sensitivity(known)
        shown = self.invoke("demo", "--storage", url)
        assert shown.exit_code == 0
        assert "merging.kept" in shown.stdout
        assert "block 11" in shown.stdout
        assert "nats of divergence" in shown.stdout
        told = store.importance("demo")
        assert told.trials >= 10
        document = json.loads(self.invoke("--storage", url, "--json").stdout)
        assert document["importance"]["trials"] == told.trials
        for method in METHODS:
            for objective in ("accuracy", "latency_ratio"):
                assert document["importance"]["parameters"][method][objective] == told.grouped(method, objective)
        assert Sensitivity.from_dict(document["sensitivity"]) == known

    def test_too_few_trials_are_one_line(self, store: Store, url: str) -> None:
        make_study(store, "demo", trials=20)
        result = self.invoke("demo", "--storage", url)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.count("\n") == 1
        assert "study demo has too few trials to tell which parameters mattered: it takes 10" in result.stderr
        assert store.importance("demo") is None
        unknown = self.invoke("demo", "--storage", url, "--json")
        assert (unknown.exit_code, json.loads(unknown.stdout)) == (1, {"importance": None, "sensitivity": None})


def test_the_twin_has_what_is_stored_and_null_before_that(shown_store: Store) -> None:
    client = TestClient(create_app(shown_store), base_url="http://127.0.0.1")

    def twin() -> tuple[object, object]:
        shown = [client.get(f"/studies/digits-60{path}.json").json() for path in ("", "/detector")]
        return shown[0]["importance"], shown[1]["sensitivity"]

    assert twin() == (None, None)
    shown_store.save_sensitivity(sensitivity("of another backbone"[:12]))
    assert twin() == (None, None)
    shown_store.save_sensitivity(sensitivity())
    shown_store.save_importance("digits-60", importance())
    told, known = twin()
    assert Sensitivity.from_dict(known) == sensitivity()
    assert told["trials"] == 38
    assert told["methods"] == METHODS
    shares = importance().shares["fanova"]["accuracy"]
    assert told["blocks"]["fanova"]["accuracy"] == {"merging.kept": [shares[f"merging.kept.{block}"] for block in range(11)]}
    assert told["parameters"]["fanova"]["accuracy"] == importance().grouped("fanova", "accuracy")


def lengths(page: Page, chart: str) -> list[list[float]]:
    """How long the bars of each trace are on the page, as shares of the longest of all; the first trace is drawn first."""
    boxes = page.evaluate(
        """chart => [...document.querySelectorAll(`#${chart} .trace.bars`)].map(trace =>
            [...trace.querySelectorAll(".point path")].map(bar => bar.getBoundingClientRect())
                .map(({ width, height }) => [width, height]))""",
        chart,
    )
    axis = 1 if chart == "importance-blocks" else 0
    longest = max(box[axis] for trace in boxes for box in trace)
    return [[box[axis] / longest for box in trace] for trace in boxes]


class TestBrowser:
    @pytest.fixture(autouse=True)
    def known(self, shown_store: Store) -> None:
        assert shown_store.study("digits-60").backbone.fingerprint == FINGERPRINT
        shown_store.save_sensitivity(sensitivity())
        shown_store.save_importance("digits-60", importance())

    def test_bars_are_as_long_as_their_shares_by_either_measure(self, page: Page, address: str) -> None:
        show(page, f"{address}/studies/digits-60")
        expect(page.get_by_role("heading", name="What mattered")).to_be_visible()
        expect(page.locator("#importance-text")).to_contain_text("Told from 38 trials")
        for method in METHODS:
            page.locator(f"input[value={method}]").check(force=True)
            expect(page.locator("#importance-text")).to_contain_text(METHODS[method])
            shares = importance().shares[method]
            blocks = [[shares[name][f"merging.kept.{block}"] for block in range(11)] for name in ("accuracy", "latency_ratio")]
            longest = max(map(max, blocks))
            for drawn, wanted in zip(lengths(page, "importance-blocks"), blocks, strict=True):
                assert drawn == pytest.approx([share / longest for share in wanted], abs=0.02)
            grouped = [importance().grouped(method, name) for name in ("latency_ratio", "accuracy")]
            names = list(grouped[1])[::-1]
            longest = max(max(shares.values()) for shares in grouped)
            for drawn, wanted in zip(lengths(page, "importance-parameters"), grouped, strict=True):
                assert drawn == pytest.approx([wanted[name] / longest for name in names], abs=0.02)

    def test_losses_are_drawn_where_they_are_measured(self, page: Page, address: str) -> None:
        show(page, f"{address}/studies/digits-60/detector")
        expect(page.get_by_role("heading", name="What each block can spare")).to_be_visible()
        drawn = page.evaluate(
            """() => {
                const chart = document.getElementById("sensitivity-chart"), box = chart.getBoundingClientRect();
                const { xaxis: across, yaxis: up } = chart._fullLayout;
                return [...chart.querySelectorAll(".scatterlayer .trace")].map(trace => [...trace.querySelectorAll(".point")]
                    .map(point => point.getBoundingClientRect()).map(({ left, top, width, height }) =>
                        [across.p2l(left + width / 2 - box.left - across._offset),
                            10 ** up.p2l(top + height / 2 - box.top - up._offset)]));
            }"""
        )
        points = sensitivity().points["merging"]
        assert len(drawn) == 2
        for strength, trace in enumerate(drawn):
            assert [x for x, _ in trace] == pytest.approx(range(1, 12), abs=0.05)
            assert [loss for _, loss in trace] == pytest.approx([block[strength].loss for block in points], rel=0.03)
        expect(page.locator("#sensitivity-chart .textpoint", has_text="merging")).to_contain_text(
            ["merging 25%", "merging 50%"]
        )

    def test_a_bar_explains_itself(self, page: Page, address: str) -> None:
        show(page, f"{address}/studies/digits-60")
        chart = page.locator("#importance-blocks")
        chart.scroll_into_view_if_needed()
        where = chart.locator(".point").first.bounding_box()
        page.mouse.move(where["x"] + where["width"] / 2, where["y"] + where["height"] / 2)
        expect(chart.locator(".hoverlayer")).to_contain_text("merging.kept of block 1")
        expect(chart.locator(".hoverlayer")).to_contain_text("for accuracy")

    def test_a_phone_does_not_scroll_sideways(self, page: Page, address: str) -> None:
        page.set_viewport_size({"width": 360, "height": 800})
        for path, drawn in (("", "#importance-blocks .point"), ("/detector", "#sensitivity-chart .point")):
            page.goto(f"{address}/studies/digits-60{path}")
            page.wait_for_selector(drawn)
            assert page.evaluate("() => document.documentElement.scrollWidth") == 360


def test_what_is_not_known_is_not_shown(page: Page, address: str) -> None:
    show(page, f"{address}/studies/digits-60")
    expect(page.locator("#importance")).to_be_hidden()
    page.goto(f"{address}/studies/digits-60/detector")
    expect(page.get_by_role("heading", name="What each block can spare is not known yet")).to_be_visible()
    expect(page.locator("#sensitivity")).to_be_hidden()
