"""Trials side by side: what differs beyond the noise, on which classes and images, and how trials are chosen for it."""

from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import BrowserContext, Page, expect

import illustrators
from browsing import serving, show
from dashboard_study import RECURSIVE, SHAPE, Synthetic, open_store
from rankings import ranked
from studies_to_show import address, client
from vittle import Schedule
from vittle.dashboards.app import create_app
from vittle.dashboards.documents import comparison
from vittle.objectives.fronts.early_stopping import right
from vittle.objectives.measurement import Measurement, exact
from vittle.objectives.quality import paired
from vittle.spaces import costs
from vittle.storage.records import Trial
from vittle.storage.store import Store

__all__ = ["address", "client"]  # fixtures

STUDY = "digits-60"
URL = f"/studies/{STUDY}/compare"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    opened = open_store(tmp_path_factory.mktemp("studies"))
    Synthetic(opened).fill(40)
    return opened


@pytest.fixture
def recursive(tmp_path: Path) -> Store:
    """A study of one trial that merges and one that recurs."""
    opened = open_store(tmp_path)
    study = Synthetic(opened, STUDY)
    merging = {"merging": {"kept": [65, 60, 50, 40, 30, 25, 20, 15, 10, 8, 6, 6]}}
    for schedule in (Schedule.from_dict(merging), RECURSIVE):
        study.add(schedule, "plan")
    return opened


@pytest.fixture(scope="module")
def chosen(store: Store) -> list[Trial]:
    """The backbone, the best trial, the fastest on the front and one that was too slow, so without an accuracy."""
    trials = store.trials(STUDY)
    best = ranked(trials, store.study(STUDY).budget).best()
    assert best is not None
    return [trials[0], best, ranked(trials).front()[0], next(one for one in trials if one.state == "infeasible")]


def query(trials: list[Trial]) -> str:
    return ",".join(str(trial.number) for trial in trials)


def answers(trial: Trial, phase: str) -> np.ndarray:
    known = right(trial.measurements[phase]["accuracy"])
    assert known is not None
    return known


class TestTwin:
    def test_numbers_are_those_of_the_trials(self, client: TestClient, chosen: list[Trial]) -> None:
        twin = client.get(f"{URL}.json?trials={query(chosen)}").json()
        assert [trial["number"] for trial in twin["trials"]] == [trial.number for trial in chosen]
        assert [trial["tokens"] for trial in twin["trials"]] == [list(costs.tokens(SHAPE, one.schedule)) for one in chosen]
        rows = {row["name"]: row for row in twin["numbers"]}
        assert list(rows) == list(comparison.NUMBERS)
        for name in ("accuracy", "latency_ratio", "latency_ms", "macs", "memory"):
            measured = [trial.judged.get(name) for trial in chosen]
            assert [one and one["value"] for one in rows[name]["values"]] == [one and one.value for one in measured]
        held_out = [trial.measurements.get("confirmation", {}).get("accuracy") for trial in chosen]
        assert [one and one["low"] for one in rows["held_out"]["values"]] == [one and one.low for one in held_out]
        assert rows["accuracy"]["against"][0] is rows["accuracy"]["against"][3] is None

    def test_accuracies_are_compared_image_by_image(self, client: TestClient, chosen: list[Trial]) -> None:
        first, other = chosen[1], chosen[2]
        twin = client.get(f"{URL}.json?trials={query([first, other])}").json()
        rows = {row["name"]: row["against"][1] for row in twin["numbers"]}
        for name, phase in (("accuracy", "search"), ("held_out", "confirmation")):
            found = paired.difference(answers(other, phase), answers(first, phase))
            assert (rows[name]["value"], rows[name]["low"], rows[name]["high"]) == tuple(found)
        assert rows["latency_ratio"]["verdict"] == "better"
        assert rows["macs"]["low"] == rows["macs"]["value"] == other.judged["macs"].value - first.judged["macs"].value

    def test_images_are_counted_and_named(self, client: TestClient, chosen: list[Trial]) -> None:
        first, other = chosen[1], chosen[2]
        twin = client.get(f"{URL}.json?trials={query([first, other])}").json()
        assert [shared["phase"] for shared in twin["images"]] == ["search", "confirmation"]
        for shared in twin["images"]:
            ours, theirs = (answers(trial, shared["phase"]) for trial in (first, other))
            assert shared["both"] == (ours & theirs).sum()
            assert shared["neither"] == (~ours & ~theirs).sum()
            assert shared["only"] == [list(np.flatnonzero(ours & ~theirs)), list(np.flatnonzero(theirs & ~ours))]
            assert shared["both"] + shared["neither"] + sum(map(len, shared["only"])) == shared["images"] == 449
        assert any(shared["only"][0] for shared in twin["images"])

    def test_a_stopped_trial_is_compared_on_the_images_that_it_saw(self, client: TestClient, store: Store) -> None:
        stopped = next(trial for trial in store.trials(STUDY) if trial.state == "stopped")
        twin = client.get(f"{URL}.json?trials=0,{stopped.number}").json()
        (shared,) = twin["images"]
        assert (shared["phase"], shared["images"]) == ("search", 128)
        (row,) = [row for row in twin["numbers"] if row["name"] == "accuracy"]
        assert row["values"][1]["mark"] == "†"
        (memory,) = [row for row in twin["numbers"] if row["name"] == "memory"]
        assert [one["mark"] for one in memory["values"]] == ["", ""]  # whose memory it is, is no estimate
        seen = answers(stopped, "search"), answers(store.trials(STUDY)[0], "search")[:128]
        assert row["against"][1]["value"] == paired.difference(*seen).value

    def test_classes_are_those_with_the_largest_difference_first(self, client: TestClient, chosen: list[Trial]) -> None:
        backbone, _, other, slow = chosen
        twin = client.get(f"{URL}.json?trials={query([backbone, other])}").json()["classes"]
        worst = other.measurements["confirmation"]["accuracy_drop"].protocol["worst"]
        assert twin["phase"] == "confirmation"
        assert [[row["class"], row["lost"][1], row["images"]] for row in twin["rows"]] == worst
        assert {row["lost"][0] for row in twin["rows"]} == {0.0}  # the backbone is what the loss is against
        assert client.get(f"{URL}.json?trials={query([other, slow])}").json()["classes"]["phase"] == "search"
        assert client.get(f"{URL}.json?trials={query([backbone, slow])}").json()["classes"] is None

    def test_every_class_counts_where_all_of_them_were_kept(self) -> None:
        def judged(number: int, lost: list[int]) -> Trial:
            about = {"worst": [[2, 0.25, 4]], "classes": {"lost": lost, "images": [10, 0, 4]}}
            drop = Measurement("accuracy_drop", 0.1, 0.0, 0.2, 14, about)
            return Trial(number, "complete", "sampler", Schedule(), {}, {"search": {"accuracy_drop": drop}})

        found = comparison.classes([judged(1, [-1, 0, 1]), judged(2, [1, 0, 1])])
        assert found == {"phase": "search", "rows": [{"class": 0, "images": 10, "lost": [-0.1, 0.1]}]}

    def test_without_a_query_the_best_trial_is_compared_with_the_backbone(self, client: TestClient, store: Store) -> None:
        best = ranked(store.trials(STUDY), store.study(STUDY).budget).best()
        assert best is not None
        assert [trial["number"] for trial in client.get(f"{URL}.json").json()["trials"]] == [best.number, 0]

    def test_settings_are_shown_where_they_differ(self, tmp_path: Path) -> None:
        opened = open_store(tmp_path)
        study = Synthetic(opened, STUDY)
        kept = [65, 60, 50, 40, 30, 25, 20, 15, 10, 8, 6, 6]
        for more in ({}, {"metric": "feature"}, {"metric": "feature", "weights": "equal"}):
            study.add(Schedule.from_dict({"tail": "prefix", "merging": {"kept": kept, **more}}), "plan")
        client = TestClient(create_app(opened), base_url="http://127.0.0.1")

        def rows(trials: str) -> dict[str, list[object]]:
            found = client.get(f"{URL}.json?trials={trials}").json()["schedules"]
            return {row["name"]: row["values"] for row in found if row["setting"]}

        assert rows("0,1") == {"merging.metric": ["key", "feature"]}
        assert rows("2,0") == {"merging.metric": ["feature", "key"], "merging.weights": ["equal", "size"]}
        twin = client.get(f"{URL}.json?trials=0,1").json()
        own = {row["name"]: row["values"] for row in twin["schedules"] if not row["setting"]}
        assert own["start"] == [2, 2]
        assert own["last"] == [6, 6]
        assert own["summary"] == ["merging by key", "merging by feature"]

    def test_visits_are_told_where_blocks_run_again(self, recursive: Store) -> None:
        twin = TestClient(create_app(recursive), base_url="http://127.0.0.1").get(f"{URL}.json?trials=0,1").json()
        merging, recursion = twin["trials"]
        assert merging["visits"] is None
        assert [(one["block"], one["step"], one["resting"]) for one in recursion["visits"]] == [
            (0, 0, 0), (1, 0, 0), (1, 1, 16), (1, 2, 32), (1, 3, 32), (11, 0, 0),
        ]  # fmt: skip
        own = {row["name"]: row["values"] for row in twin["schedules"] if not row["setting"]}
        assert (own["start"], own["last"]) == ([2, 1], [6, 65])

    def test_the_language_is_the_readers(self, client: TestClient, chosen: list[Trial]) -> None:
        asked = client.get(f"{URL}.json?trials={query(chosen[:2])}", headers={"accept-language": "ja"}).json()
        (how,) = [row["values"] for row in asked["schedules"] if row["name"] == "summary"]
        assert how == ["削減なし", "キーによるマージ"]


class TestRefusals:
    @pytest.mark.parametrize(
        ("trials", "status", "said"),
        [
            ("3", 400, "1 trial cannot be compared"),
            ("", 400, "0 trials cannot be compared"),
            ("3,3", 400, "1 trial cannot be compared"),
            ("1,2,3,4,5", 400, "5 trials cannot be compared"),
            ("1,x", 400, "x is not the number of a trial"),
            ("1,-2", 400, "-2 is not the number of a trial"),
            ("1.5,2", 400, "1.5 is not the number of a trial"),
            ("<script>,2", 400, "is not the number of a trial"),
            ("1,999", 404, "no trial 999"),
            ("1,17", 400, "trial 17 is failed and nothing of it was measured"),
            ("9" * 5000 + ",1", 404, "no trial"),
            ("²,1", 400, "² is not the number of a trial"),
        ],
    )
    def test_a_bad_query_is_one_line(self, client: TestClient, trials: str, status: int, said: str) -> None:
        for suffix in ("", ".json"):
            answer = client.get(f"{URL}{suffix}", params={"trials": trials})
            assert answer.status_code == status
            assert said in answer.text
            assert "<script>," not in answer.text or suffix

    def test_an_unknown_study(self, client: TestClient) -> None:
        assert client.get("/studies/nope/compare").status_code == 404

    def test_one_trial_alone_has_nothing_to_be_compared_with(self, tmp_path: Path) -> None:
        opened = open_store(tmp_path)
        Synthetic(opened, STUDY).add(Schedule(), "backbone")
        client = TestClient(create_app(opened), base_url="http://127.0.0.1")
        assert "Nothing to compare yet" in client.get(URL).text
        assert client.get(f"{URL}.json").json() == {"trials": []}


class TestVerdicts:
    def test_what_noise_explains_is_the_same(self) -> None:
        one = Measurement("latency_ratio", 0.5, 0.49, 0.51, 20)
        assert comparison.verdict("latency_ratio", comparison.difference(one, one)) == "same"
        other = Measurement("latency_ratio", 0.52, 0.51, 0.53, 20)
        found = comparison.difference(one, other)
        assert found.value == pytest.approx(0.02)
        assert found.high - found.value == pytest.approx(0.01 * 2**0.5)  # two independent errors
        assert comparison.verdict("latency_ratio", found) == "worse"
        assert comparison.verdict("latency_ratio", comparison.difference(other, one)) == "better"
        near = Measurement("latency_ratio", 0.512, 0.502, 0.522, 20)
        assert comparison.verdict("latency_ratio", comparison.difference(one, near)) == "same"

    def test_what_has_no_noise_differs_however_little(self) -> None:
        assert comparison.verdict("macs", comparison.difference(exact("macs", 10), exact("macs", 11))) == "worse"
        assert comparison.verdict("macs", comparison.difference(exact("macs", 10), exact("macs", 10))) == "same"

    def test_pairs_tell_apart_what_single_intervals_do_not(self) -> None:
        ours, theirs = np.ones(400, bool), np.ones(400, bool)
        ours[:20], theirs[:40] = False, False
        pair = [Measurement("accuracy", one.mean(), 0.8, 1.0, 400, {"right": paired.pack(one)}) for one in (ours, theirs)]
        assert comparison.verdict("accuracy", comparison.difference(*pair)) == "worse"
        blind = [Measurement("accuracy", one.value, one.low, one.high, one.n) for one in pair]
        assert comparison.verdict("accuracy", comparison.difference(*blind)) == "same"


class TestBrowser:
    def test_trials_ticked_in_the_front_are_compared(self, page: Page, address: str, store: Store) -> None:
        show(page, f"{address}/studies/{STUDY}")
        numbers = [trial.number for trial in ranked(store.trials(STUDY)).front()][:3]
        expect(page.get_by_role("link", name="Compare", exact=True)).to_have_count(1)  # the tab alone
        before = page.locator("#panel h2").inner_text()
        for number in numbers:
            page.get_by_label(f"Compare trial {number}", exact=True).check()
        assert page.locator("#panel h2").inner_text() == before  # a tick is not a choice
        page.get_by_role("button", name=f"Trial {numbers[0]}", exact=True).click()  # the table is drawn again
        for number in numbers:
            expect(page.get_by_label(f"Compare trial {number}", exact=True)).to_be_checked()
        page.locator("#compare-link").click()
        expect(page).to_have_url(f"{address}{URL}?trials={','.join(map(str, sorted(numbers)))}")
        expect(page.locator("#numbers thead a")).to_have_text([f"Trial {number}" for number in sorted(numbers)])

    def test_no_more_than_four_can_be_ticked(self, page: Page, address: str) -> None:
        show(page, f"{address}/studies/{STUDY}")
        boxes = page.locator("#front input[type=checkbox]")
        assert boxes.count() > 4
        for place in range(4):
            boxes.nth(place).check()
        expect(boxes.nth(4)).to_be_disabled()
        boxes.nth(0).uncheck()
        expect(boxes.nth(4)).to_be_enabled()

    def test_differences_are_said_and_drawn(self, page: Page, address: str, chosen: list[Trial]) -> None:
        first, other = chosen[1], chosen[2]
        page.goto(f"{address}{URL}?trials={query([first, other])}")
        row = page.locator("#numbers tr", has_text="MACs per image")
        expect(row.locator(".verdict")).to_have_class("verdict better")
        share = other.judged["macs"].value / first.judged["macs"].value - 1
        expect(row.locator(".verdict")).to_contain_text(f"{share:+.1%}".replace("-", "−"))
        expect(row.locator(".verdict .unseen")).to_have_text("better than the reference beyond the noise")
        expect(page.locator("#tokens-chart .point")).to_have_count(24)
        lines = page.evaluate("() => document.getElementById('tokens-chart').data.map(({ y }) => y)")
        assert lines == [list(costs.tokens(SHAPE, trial.schedule)) for trial in (first, other)]
        drawn = "document.getElementById('tokens-chart').data"
        looks = page.evaluate(f"() => {drawn}.map(({{ line, marker }}) => [line.color, line.dash, marker.symbol])")
        assert all(one != two for one, two in zip(*looks, strict=True))  # shapes say what colours say

    def test_tokens_that_rest_are_not_drawn_and_steps_are_named(self, browser: BrowserContext, recursive: Store) -> None:
        with serving(recursive) as url:
            page = browser.new_page()
            page.goto(f"{url}{URL}?trials=0,1")
            expect(page.locator("#tokens-chart .point")).to_have_count(12 + 6)
            data = "document.getElementById('tokens-chart').data"
            x, y, text = page.evaluate(f"() => [{data}[1].x, {data}[1].y, {data}[1].text]")
            assert (x, y) == ([1, 2, 3, 4, 5, 6], [65, 65, 49, 33, 33, 65])
            assert text[1] == "Trial 1<br>65 tokens after block 2, step 1"
            assert text[2] == "Trial 1<br>block 2, step 2: 49 tokens, 16 rest"
            assert text[5] == "Trial 1<br>65 tokens after block 12"
            assert page.evaluate(f"() => {data}[0].text[2]") == "Trial 0<br>50 tokens after block 3"
            expect(page.locator("#tokens-chart .xtitle")).to_contain_text("tokens that rest in one are not counted")
            page.close()

    def test_images_that_one_alone_gets_right_are_listed(self, page: Page, address: str, chosen: list[Trial]) -> None:
        first, other = chosen[1], chosen[2]
        page.goto(f"{address}{URL}?trials={query([first, other])}")
        ours, theirs = (answers(trial, "search") for trial in (first, other))
        lost = np.flatnonzero(ours & ~theirs)
        shown = page.locator(".disagreement").first
        expect(shown.locator(".counts dd").nth(1)).to_have_text(f"{len(lost)}")
        side = shown.locator("details").first
        side.locator("summary").click()
        expect(side.locator(".indices")).to_have_text(", ".join(map(str, lost)))

    def test_other_trials_can_be_chosen_on_the_page(self, page: Page, address: str, chosen: list[Trial]) -> None:
        backbone, best, fast, _ = chosen
        page.goto(f"{address}{URL}?trials={query([best, backbone])}")
        selects = page.locator("select[name=trial]")
        expect(selects).to_have_count(4)
        selects.nth(2).select_option(f"{fast.number}")
        expect(page).to_have_url(f"{address}{URL}?trials={query([best, backbone, fast])}")
        expect(page.locator("#numbers thead a")).to_have_count(3)
        page.goto(f"{address}{URL}?trials={query([best, backbone])}")
        selects.nth(1).select_option(f"{best.number}")
        expect(page.locator("#compare-refused")).to_have_text("Choose two different trials.")

    def test_the_pages_of_a_study_lead_to_each_other(self, page: Page, address: str) -> None:
        show(page, f"{address}/studies/{STUDY}")
        tabs = page.get_by_role("navigation", name="Pages of this study")
        for name, path in (("Latency profile", "/profile"), ("Detector", "/detector"), ("Compare", "/compare"), ("Front", "")):
            tabs.get_by_role("link", name=name).click()
            expect(page).to_have_url(f"{address}/studies/{STUDY}{path}")
            expect(tabs.locator("[aria-current=page]")).to_have_text(name)

    def test_a_phone_does_not_scroll_sideways(self, page: Page, address: str, chosen: list[Trial]) -> None:
        page.set_viewport_size({"width": 360, "height": 800})
        page.goto(f"{address}{URL}?trials={query(chosen)}")
        page.wait_for_selector("#tokens-chart .point")
        assert page.evaluate("() => document.documentElement.scrollWidth") == 360


def test_images_are_drawn_for_both_trials_where_pictures_can_be_made(
    browser: BrowserContext, store: Store, chosen: list[Trial]
) -> None:
    first, other = chosen[1], chosen[2]
    lost = np.flatnonzero(answers(first, "search") & ~answers(other, "search"))
    with serving(store, illustrate=illustrators.drawn) as address:
        page = browser.new_page()
        page.goto(f"{address}{URL}?trials={query([first, other])}")
        side = page.locator(".disagreement").first.locator("details").first
        side.locator("summary").click()
        expect(side.locator("h4")).to_have_text([f"Trial {first.number}", f"Trial {other.number}"])
        shown = min(len(lost), 6)
        expect(side.locator("canvas")).to_have_count(2 * shown)
        expect(side.locator("figcaption b").first).to_have_text(f"Image {lost[0]}")
        page.locator(".disagreement").nth(1).locator("details").first.locator("summary").click()
        expect(page.locator(".disagreement").nth(1).locator("canvas")).to_have_count(0)  # no search saw these
        page.close()
