"""The page of a latency profile: its JSON twin, the pictures in a real browser, and the marks of what it predicted."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import Page, expect

from browsing import point, serving, show
from dashboard_study import BACKBONE_MS, COUNTS, NOISE, PROFILE, RECURSIVE, SHAPE, Synthetic, latency_profile, open_store
from rankings import ranked
from vittle.dashboards import text
from vittle.dashboards.app import create_app
from vittle.spaces import costs
from vittle.storage.records import Trial
from vittle.storage.store import Store

STUDY = "digits-60"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A study that predicts with a profile, which is not there yet."""
    opened = open_store(tmp_path)
    Synthetic(opened, profile=PROFILE).fill(20)
    return opened


@pytest.fixture
def address(store: Store) -> Iterator[str]:
    with serving(store) as url:
        yield url


def show_profiled(page: Page, address: str, trial: Trial | None = None) -> None:
    show(page, f"{address}/studies/{STUDY}/profile" + (f"?trial={trial.number}" if trial else ""))
    page.wait_for_selector("#profile-block .point")


def entering(trial: Trial) -> list[int]:
    return [SHAPE.tokens, *costs.tokens(SHAPE, trial.schedule)[:-1]]


def places(page: Page, chart: str, name: str) -> tuple[list[float], list[float]]:
    """x and y of the points of a trace as they are on the page, in the units of its axes."""
    x, y = page.evaluate(
        """([id, name]) => {
            const chart = document.getElementById(id), box = chart.getBoundingClientRect();
            const { uid } = chart._fullData.find(one => one.name === name);
            const { xaxis: across, yaxis: up } = chart._fullLayout;
            const boxes = [...chart.querySelectorAll(`.trace${uid} .point`)].map(point => point.getBoundingClientRect());
            return [boxes.map(({ left, width }) => across.p2l(left + width / 2 - box.left - across._offset)),
                boxes.map(({ top, height }) => up.p2l(top + height / 2 - box.top - up._offset))];
        }""",
        [chart, name],
    )
    return x, y


class TestTwin:
    def test_null_until_it_is_stored_and_plain_values_then(self, store: Store) -> None:
        client = TestClient(create_app(store), base_url="http://127.0.0.1")
        assert client.get(f"/studies/{STUDY}/profile.json").json()["profile"] is None
        store.save_profile(dataclasses.replace(latency_profile(), key="of another"))
        assert client.get(f"/studies/{STUDY}/profile.json").json()["profile"] is None
        profile = latency_profile(noisy=NOISE)
        store.save_profile(profile)
        twin = client.get(f"/studies/{STUDY}/profile.json").json()["profile"]
        assert (twin["key"], twin["model"], twin["noisy"]) == (PROFILE, "digits", NOISE)
        assert twin["device"] == "Intel(R) Xeon(R) Gold 6448Y, 2 threads"
        assert (twin["batch_size"], twin["dtype"], twin["compiled"]) == (64, "float32", False)
        assert twin["block"]["counts"] == list(COUNTS)
        assert twin["block"]["fitted"][-1] == pytest.approx(0.08 * BACKBONE_MS)
        for name in ("low", "high", "fitted"):
            assert twin["block"][name] == pytest.approx(BACKBONE_MS * np.array(getattr(profile.block, name)))
        assert twin["flats"] == [[48, 55]]
        assert twin["mape"] == pytest.approx(0.02)
        assert (twin["spearman"], twin["trusted"]) == (profile.spearman, True)
        assert twin["margin"] == profile.margin
        assert twin["checks"] == [dataclasses.asdict(check) for check in profile.checks]
        assert twin["text"] == text.latency(profile)

    def test_a_profile_without_checks_is_json_too(self, store: Store) -> None:
        store.save_profile(latency_profile(checks=0))
        twin = (
            TestClient(create_app(store), base_url="http://127.0.0.1").get(f"/studies/{STUDY}/profile.json").json()["profile"]
        )
        assert [twin[name] for name in ("mape", "spearman", "margin", "trusted")] == [None, None, None, False]

    def test_a_study_that_predicts_nothing_has_none(self, tmp_path: Path) -> None:
        opened = open_store(tmp_path)
        Synthetic(opened, "measured").fill(8)
        opened.save_profile(latency_profile())
        twin = TestClient(create_app(opened), base_url="http://127.0.0.1").get("/studies/measured/profile.json").json()
        assert twin["profile"] is None

    def test_the_blocks_of_a_trial_stand_on_the_staircase(self, store: Store) -> None:
        client = TestClient(create_app(store), base_url="http://127.0.0.1")
        profile, trials = latency_profile(), store.trials(STUDY)
        best = ranked(trials, store.study(STUDY).budget).best()
        assert best is not None
        unknown = client.get(f"/studies/{STUDY}/profile.json").json()["trial"]
        assert {step["ms"] for step in unknown["steps"]} == {None}
        store.save_profile(profile)
        for trial, query in ((best, ""), (trials[0], "?trial=0"), (trials[4], "?trial=4")):
            twin = client.get(f"/studies/{STUDY}/profile.json{query}").json()["trial"]
            assert twin["number"] == trial.number
            counts = entering(trial)
            assert [step["tokens"] for step in twin["steps"]] == sorted(set(counts), reverse=True)
            for step in twin["steps"]:
                assert step["ms"] == pytest.approx(BACKBONE_MS * profile.block.at(step["tokens"]))
                assert step["count"] == counts.count(step["tokens"])
            expected = profile.predict(trial.schedule)["latency_ratio"]
            assert twin["predicted"]["value"] == expected.value
            latency = trial.judged["latency_ratio"]
            assert (twin["measured"] is None) == text.predicted(latency)
            assert twin["measured"] is None or twin["measured"]["value"] == latency.value
        assert client.get(f"/studies/{STUDY}/profile.json?trial=0").json()["trial"]["steps"][0]["blocks"] == "1–12"

    def test_steps_of_a_block_that_recurs_stand_where_the_tokens_that_take_part_are(self, store: Store) -> None:
        number = store.start_trial(STUDY, "plan", RECURSIVE, {})
        client = TestClient(create_app(store), base_url="http://127.0.0.1")
        asked = f"/studies/{STUDY}/profile.json?trial={number}"
        steps = client.get(asked).json()["trial"]["steps"]
        blocks = [(65, 3, "1, 12, 2 (step 1)"), (49, 1, "2 (step 2)"), (33, 2, "2 (steps 3–4)")]
        assert [(step["tokens"], step["count"], step["blocks"]) for step in steps] == blocks
        steps = client.get(asked, headers={"accept-language": "ja"}).json()["trial"]["steps"]
        assert steps[0]["blocks"] == "1, 12, 2（ステップ 1）"

    @pytest.mark.parametrize("number", ["999", "x", "-1", "1e3"])
    def test_a_trial_that_is_not_there_is_one_line(self, store: Store, number: str) -> None:
        client = TestClient(create_app(store), base_url="http://127.0.0.1")
        for suffix in ("", ".json"):
            answer = client.get(f"/studies/{STUDY}/profile{suffix}?trial={number}")
            assert answer.status_code == 404
            assert f"no trial {number} in study" in answer.text

    def test_trials_say_what_was_predicted_and_what_was_disturbed(self, store: Store) -> None:
        twin = TestClient(create_app(store), base_url="http://127.0.0.1").get(f"/studies/{STUDY}.json").json()
        trials = store.trials(STUDY)
        guessed = {trial.number for trial in trials if trial.origin == "sampler" and trial.judged and not trial.confirmed}
        assert {trial["number"] for trial in twin["trials"] if trial["predicted"]} == guessed
        assert len(guessed) > 3
        assert [trial["noisy"] for trial in twin["trials"] if trial["noisy"]] == [NOISE]


def test_the_staircase_is_drawn_with_the_blocks_of_the_chosen_trial_on_it(page: Page, address: str, store: Store) -> None:
    profile = latency_profile()
    store.save_profile(profile)
    trials = store.trials(STUDY)
    best = ranked(trials, store.study(STUDY).budget).best()
    assert best is not None
    show_profiled(page, address)
    expect(page.get_by_role("heading", name="What tokens cost here")).to_be_visible()
    expect(page.locator("#profile-text")).to_have_text(text.latency(profile))
    x, y = places(page, "profile-block", "block")
    assert x == pytest.approx(COUNTS, abs=0.2)
    assert y == pytest.approx(BACKBONE_MS * np.array(profile.block.fitted), abs=0.005)
    free = page.evaluate("() => document.getElementById('profile-block').layout.shapes.map(({ x0, x1 }) => [x0, x1])")
    assert free == [[48, 55]]
    expect(page.locator("#profile-block .shapelayer path")).to_have_count(1)

    other = next(trial for trial in ranked(trials).front() if entering(trial) != entering(best) and trial.number)
    for trial in (best, other):
        if trial is other:
            page.locator("#profile-trial").select_option(f"{other.number}")
        expect(page.locator("#profile-marks")).to_contain_text(f"blocks of trial {trial.number} start")
        x, y = places(page, "profile-block", "chosen")
        there = sorted(set(entering(trial)), reverse=True)
        assert x == pytest.approx(there, abs=0.2)
        assert y == pytest.approx([BACKBONE_MS * profile.block.at(count) for count in there], abs=0.005)


def test_blocks_that_stand_together_are_counted_and_named(page: Page, address: str, store: Store) -> None:
    store.save_profile(latency_profile())
    backbone = store.trials(STUDY)[0]
    show_profiled(page, address, backbone)
    chart = page.locator("#profile-block")
    expect(chart.locator(".textpoint")).to_have_text("12×")
    chart.scroll_into_view_if_needed()
    x, y = page.evaluate(
        """() => {
            const chart = document.getElementById("profile-block");
            const { uid } = chart._fullData.find(({ name }) => name === "chosen");
            const { left, top, width, height } = chart.querySelector(`.trace${uid} .point`).getBoundingClientRect();
            return [left + width / 2, top + height / 2];
        }"""
    )
    page.mouse.move(x, y)
    expect(chart.locator(".hoverlayer")).to_contain_text("Blocks 1–12 of trial 0 start")
    expect(chart.locator(".hoverlayer")).to_contain_text("65 tokens0.656 ms a block (0.623–0.689), 10.1 µs a token")


def test_checks_are_drawn_against_the_diagonal(page: Page, address: str, store: Store) -> None:
    profile = latency_profile()
    store.save_profile(profile)
    show_profiled(page, address)
    x, y = places(page, "profile-checks", "checks")
    assert x == pytest.approx([100 * check.predicted for check in profile.checks], abs=0.3)
    assert y == pytest.approx([100 * check.measured for check in profile.checks], abs=0.3)
    expect(page.locator("#profile-checks .yerror")).to_have_count(len(profile.checks))
    ends = page.evaluate(
        "() => (({ xaxis, yaxis }) => [xaxis.range, yaxis.range])(document.getElementById('profile-checks')._fullLayout)"
    )
    assert ends[0] == ends[1]  # or the diagonal would not be where both are the same


def test_no_stretch_is_shaded_and_no_check_drawn_where_there_is_none(page: Page, address: str, store: Store) -> None:
    store.save_profile(latency_profile(flat=False, checks=0, noisy=NOISE))
    show_profiled(page, address)
    expect(page.locator("#profile-checked")).to_be_hidden()
    expect(page.locator("#profile-block .shapelayer path")).to_have_count(0)
    expect(page.locator("#profile-marks")).not_to_contain_text("Green")
    expect(page.locator("#profile-text")).to_contain_text("every latency is measured")
    expect(page.locator("#profile-about")).to_contain_text(f"Noisy: {NOISE}.")
    wide, card = page.locator("#profile-block").bounding_box(), page.locator("#profile > .card").bounding_box()
    assert wide is not None
    assert card is not None
    assert wide["width"] > 0.9 * card["width"]


def test_it_appears_while_a_search_runs(page: Page, address: str, store: Store) -> None:
    store.set_state(STUDY, "running")
    page.goto(f"{address}/studies/{STUDY}/profile")
    expect(page.get_by_role("heading", name="No latency profile yet")).to_be_visible()
    expect(page.locator("#missing code")).to_have_text("vittle profile --model digits --batch-size 64")
    expect(page.locator("#profile")).to_be_hidden()
    store.save_profile(latency_profile())
    expect(page.locator("#profile")).to_be_visible(timeout=15000)
    expect(page.locator("#missing")).to_be_hidden()
    expect(page.locator("#profile-checks .point")).to_have_count(12)


def test_free_tokens_and_forms_of_the_backbone_are_listed(page: Page, address: str, store: Store) -> None:
    store.save_profile(latency_profile())
    show_profiled(page, address)
    expect(page.locator("#free li")).to_have_text(["48 to 55: 7 tokens more for the same time"])
    expect(page.locator("#forms dt")).to_have_text(["Fused attention", "Eager attention"])
    expect(page.locator("#forms .value")).to_have_text(["8.20 ms", "8.90 ms"])
    expect(page.locator("#forms .note")).to_have_text(["the fastest", "1.09× the fastest"])


def test_the_fastest_form_is_the_fastest_that_was_measured(page: Page, address: str, store: Store) -> None:
    profile = latency_profile()
    store.save_profile(
        dataclasses.replace(profile, forms_ms={"fused": 9.5, "eager": 9.27}, backbone_ms=8.2)
    )  # which is of a calmer minute
    show_profiled(page, address)
    expect(page.locator("#forms dt")).to_have_text(["Eager attention", "Fused attention"])
    expect(page.locator("#forms .note")).to_have_text(["the fastest", "1.02× the fastest"])


def test_predicted_and_noisy_latencies_are_marked_in_panel_table_and_hover(page: Page, address: str, store: Store) -> None:
    trials = store.trials(STUDY)
    (noisy,) = [trial for trial in trials if "latency_ratio" in trial.judged and text.noise(trial.judged["latency_ratio"])]
    guesses = [trial for trial in trials if trial.state == "infeasible" and trial.profile]
    guess = max(guesses, key=lambda trial: trial.judged["latency_ratio"].value)  # no other is drawn near it
    measured = trials[0]
    for trial, sign, said in (
        (guess, "~", "predicted from the latency profile"),
        (noisy, "!", f"noisy: {NOISE}"),
        (measured, "", "float32, 20 rounds"),
    ):
        page.goto("about:blank")
        show(page, f"{address}/studies/{STUDY}#trial-{trial.number}")
        panel = page.locator("#panel")
        value = panel.locator("dt:text-is('Latency') + dd")
        expect(value).to_have_text(f"{sign}{trial.judged['latency_ratio'].value:.1%}")
        expect(panel).to_contain_text(said)
        page.mouse.move(*point(page, trial.number))
        expect(page.locator("#chart .hoverlayer")).to_contain_text(f"latency {sign}{trial.judged['latency_ratio'].value:.1%}")
    row = page.locator("#front tr", has_text=f"Trial {noisy.number}")
    expect(row.locator(".mark")).to_have_text(["!", "!"])  # its share and its milliseconds
    expect(page.locator("#front .mark")).to_have_count(2)
    expect(page.locator("#marks")).to_be_visible()
    expect(page.locator("#marks")).to_have_text("! noisy: something disturbed the measurement")


def test_the_marks_are_explained_only_where_there_are_any(page: Page, address: str, store: Store) -> None:
    Synthetic(store, "measured").fill(8)
    show(page, f"{address}/studies/measured")
    expect(page.locator("#front tr")).not_to_have_count(0)
    expect(page.locator("#marks")).to_be_hidden()
    expect(page.locator(".mark")).to_have_count(0)


def test_throughput_and_memory_are_shown_where_measured(page: Page, address: str, store: Store) -> None:
    trials = store.trials(STUDY)
    guess = next(trial for trial in trials if trial.state == "infeasible" and trial.profile)
    for trial in (trials[0], guess):
        page.goto("about:blank")
        show(page, f"{address}/studies/{STUDY}#trial-{trial.number}")
        panel = page.locator("#panel")
        sign = "~" if trial is guess else ""
        expect(panel.locator("dt:text-is('Per batch of 64') ~ dd.note")).to_have_text(
            f"{sign}{trial.judged['throughput'].value:,.0f} images/s"
        )
        memory = panel.locator("dt:text-is('Peak memory') + dd")
        if trial is guess:
            expect(memory).to_have_count(0)
        else:
            expect(memory).to_have_text(f"{trial.judged['memory'].value:.0f} MB")


def test_a_phone_does_not_scroll_sideways(page: Page, address: str, store: Store) -> None:
    store.save_profile(latency_profile())
    page.set_viewport_size({"width": 360, "height": 800})
    show_profiled(page, address)
    page.wait_for_selector("#profile-checks .point")
    assert page.evaluate("() => document.documentElement.scrollWidth") == 360
    above, below = (page.locator(f"#profile-{name}").bounding_box() for name in ("block", "checks"))
    assert above is not None
    assert below is not None
    assert below["y"] >= above["y"] + above["height"]
    assert below["x"] + below["width"] <= 360
