"""The page of one trial: its twin against the store, and what a browser shows of it, pictures included."""

import base64
import io
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from axe_playwright_python.sync_playwright import Axe
from fastapi.testclient import TestClient
from PIL import Image
from playwright.sync_api import BrowserContext, Locator, Page, expect

import illustrators
from browsing import browser, page, serving
from dashboard_study import SHAPE, Synthetic, open_store
from rankings import ranked
from studies_to_show import HOSTILE, HOSTILE_REASON, store
from vittle import Schedule
from vittle.cli.options import illustrate
from vittle.dashboards.app import create_app
from vittle.dashboards.documents import trial_document
from vittle.dashboards.words import words
from vittle.objectives.measurement import Measurement
from vittle.reductions.backbone import load_backbone
from vittle.spaces import costs
from vittle.spaces.table import REDUCTIONS
from vittle.storage.records import BackboneRecord, Settings, Trial
from vittle.storage.store import Store

__all__ = ["browser", "page", "store"]  # fixtures

NAME = "digits-60"
BOTH = {
    "pruning": {"kept": [65, 60, 50, 40, 34, 28, 24, 20, 16, 12, 8, 6]},
    "merging": {"kept": [65, 55, 44, 36, 30, 25, 20, 15, 12, 9, 7, 5]},
}


@pytest.fixture(scope="module")
def client(store: Store) -> TestClient:
    return TestClient(create_app(store), base_url="http://127.0.0.1")


@pytest.fixture(scope="module")
def pictured(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The embedded model and its images, with three trials that nobody has measured."""
    opened = open_store(tmp_path_factory.mktemp("pictured"))
    backbone = load_backbone()
    record = BackboneRecord(backbone.name, backbone.fingerprint, backbone.classes, backbone.shape)
    opened.create_study("real", Settings(), record)
    documents: list[dict[str, Any]] = [{}, {"tail": "prefix", "merging": BOTH["merging"]}, {"tail": "full", **BOTH}]
    for document in documents:
        opened.start_trial("real", "sampler", Schedule.from_dict(document), {})
    return opened


@pytest.fixture(scope="module")
def address(pictured: Store) -> Iterator[str]:
    with serving(pictured, illustrate=illustrate) as url:
        yield url


@pytest.fixture(scope="module")
def synthetic(store: Store) -> Iterator[str]:
    with serving(store) as url:
        yield url


def one_of(store: Store, state: str, name: str = NAME) -> Trial:
    return next(trial for trial in store.trials(name) if trial.state == state and trial.schedule.reductions)


class TestTwin:
    def test_every_trial_is_as_it_is_stored(self, client: TestClient, store: Store) -> None:
        trials, study = store.trials(NAME), store.study(NAME)
        best = ranked(trials, study.budget).best()
        assert best is not None
        listed = client.get(f"/studies/{NAME}.json").json()["trials"]
        for trial, entry in zip(trials, listed, strict=True):
            twin = client.get(f"/studies/{NAME}/trials/{trial.number}.json").json()
            assert {name: twin[name] for name in entry} == entry
            assert twin["url"] == f"/studies/{NAME}/trials/{trial.number}"
            assert datetime.fromisoformat(twin["started"]).tzinfo is not None
            assert (twin["finished"] is None) == (trial.state == "running")
            assert Schedule.from_dict(yaml.safe_load(twin["yaml"])) == trial.schedule
            assert twin["best"] == (trial.number == best.number)
            compare = f"/studies/{NAME}/compare?trials={best.number},{trial.number}"
            assert twin["compare"] == (None if trial.number == best.number else compare)
            assert sorted(twin["phases"]) == sorted(trial.measurements)
            for phase, measured in trial.measurements.items():
                ratio = measured.get("latency_ratio")
                samples = twin["samples"][phase]
                assert ratio is not None
                assert samples["ratios"] == ratio.protocol["samples"]
                assert samples["p50"] == ratio.value
                assert samples["p95"] == pytest.approx(np.quantile(samples["ratios"], 0.95))
                assert len(samples["ratios"]) == samples["rounds"]
                assert twin["environment"][phase]["device"] == ratio.protocol["device"]
                self.check_classes(twin, phase, measured.get("accuracy_drop"))

    @staticmethod
    def check_classes(twin: dict[str, Any], phase: str, drop: Measurement | None) -> None:
        if drop is None:
            assert phase not in twin["classes"]
            return
        rows = twin["classes"][phase]["rows"]
        kept = drop.protocol["classes"]
        assert twin["classes"][phase]["whole"]
        assert {row["class"]: row["images"] for row in rows} == {at: n for at, n in enumerate(kept["images"]) if n}
        assert {row["class"]: row["lost"] * row["images"] for row in rows} == pytest.approx(
            {at: lost for at, lost in enumerate(kept["lost"]) if kept["images"][at]}
        )
        shares = [row["lost"] for row in rows]
        assert shares == sorted(shares, reverse=True)
        total = sum(row["lost"] * row["images"] for row in rows) / sum(row["images"] for row in rows)
        assert total == pytest.approx(drop.value)

    def test_blocks_add_up_to_the_schedule_and_its_cost(self, client: TestClient, pictured: Store, store: Store) -> None:
        asked = [(client, NAME, trial) for trial in store.trials(NAME)]
        real = TestClient(create_app(pictured), base_url="http://127.0.0.1")
        asked += [(real, "real", trial) for trial in pictured.trials("real")]
        dense = SHAPE.block_macs(queries=65, keys=65, mlp=65)
        for whom, name, trial in asked:
            twin = whom.get(f"/studies/{name}/trials/{trial.number}.json").json()
            left = 65
            for block in twin["blocks"]:
                assert block["entering"] == left
                for act in block["acts"]:
                    left -= act["removed"]
                    assert act["left"] == left
                left = min(left, block["queries"])
                assert block["leaving"] == left
            assert [block["leaving"] for block in twin["blocks"]] == twin["tokens"]
            spent = sum(block["macs_share"] for block in twin["blocks"]) * dense + SHAPE.embed_macs + SHAPE.head_macs
            assert spent == pytest.approx(costs.macs(SHAPE, trial.schedule))
            assert twin["macs_share"] == pytest.approx(spent / costs.macs(SHAPE, Schedule()))
        acts = [act for block in twin["blocks"] for act in block["acts"]]
        assert [(act["reduction"], act["rule"]) for act in acts[:2]] == [("pruning", "pruning"), ("merging", "bipartite")]

    def test_windows_are_named_where_they_act(self) -> None:
        document = {"merging": {"kept": [65, 61, 57, *[40] * 9], "window": 4, "global_from": 3, "matching": "energy"}}
        study = type("", (), {"backbone": type("", (), {"shape": SHAPE})})
        blocks = trial_document.blocks(study, Schedule.from_dict(document))  # type: ignore[arg-type]
        rules = [act["rule"] for block in blocks for act in block["acts"]]
        assert rules == ["windows", "windows", "energy"]

    def test_there_are_words_for_every_reduction_and_rule(self) -> None:
        catalog = words().catalog["reductions"]
        assert set(catalog) == set(REDUCTIONS)
        rules = {rule for one in catalog.values() for rule in one["rules"]}
        assert rules == {"bipartite", "energy", "importance", "windows", "pruning"}

    def test_neighbours(self, client: TestClient, store: Store) -> None:
        last = len(store.trials(NAME)) - 1
        for number, before, after in ((0, None, 1), (5, 4, 6), (last, last - 1, None)):
            twin = client.get(f"/studies/{NAME}/trials/{number}.json").json()
            urls = [None if one is None else f"/studies/{NAME}/trials/{one}" for one in (before, after)]
            assert [twin["previous"], twin["next"]] == urls

    def test_the_log_is_in_order_of_time(self, client: TestClient, store: Store) -> None:
        confirmed = next(trial for trial in store.trials(NAME) if trial.confirmed and trial.number)
        twin = client.get(f"/studies/{NAME}/trials/{confirmed.number}.json").json()
        happened = [one["what"] for one in twin["log"]]
        assert happened == ["started", "seen", "ended", "confirmation"]
        times = [one["at"] for one in twin["log"] if one["at"]]
        assert times == sorted(times)
        assert len(times) == 3
        assert twin["log"][1] == {"what": "seen", "at": None, "rungs": [32, 64, 128, 256, 449], "total": 449}
        stopped = one_of(store, "stopped")
        log = client.get(f"/studies/{NAME}/trials/{stopped.number}.json").json()["log"]
        assert [one["what"] for one in log] == ["started", "seen", "ended"]
        assert log[1]["rungs"] == [32, 64, 128]
        assert (log[2]["state"], log[2]["reason"]) == ("stopped", stopped.reason)

    def test_a_trial_that_was_begun_again_timed_elsewhere_and_measured_late(self, tmp_path: Path) -> None:
        opened = open_store(tmp_path)
        study = Synthetic(opened, "one")
        schedule = study.proposal()
        number = opened.start_trial("one", "sampler", schedule, {})
        opened.retry_trial("one", number)
        opened.finish_trial("one", number, "failed", reason="worker lost")
        opened.finish_trial("one", number, "complete", study.latency(schedule, 5))
        opened.keep_again("one", number, "device:0123456789ab", study.latency(schedule, 15))
        twin = TestClient(create_app(opened), base_url="http://127.0.0.1").get(f"/studies/one/trials/{number}.json").json()
        assert twin["phases"] == ["device:0123456789ab", "late"]
        assert twin["devices"]["device:0123456789ab"] == "Intel(R) Xeon(R) Gold 6448Y, 2 threads"
        assert {one["what"] for one in twin["log"]} == {"started", "again", "ended", "device", "late"}
        assert next(one["count"] for one in twin["log"] if one["what"] == "again") == 2

    def test_a_trial_from_before_rounds_and_classes_were_kept(self, tmp_path: Path) -> None:
        opened = open_store(tmp_path)
        study = Synthetic(opened, "one")
        schedule = study.proposal()
        measured = {**study.latency(schedule, 5), **study.judge(schedule, "search")}
        for one in measured.values():
            for name in ("samples", "classes", "measured_at"):
                dict.pop(one.protocol, name, None)  # type: ignore[arg-type]
        number = opened.start_trial("one", "sampler", schedule, {})
        opened.finish_trial("one", number, "complete", measured)
        twin = TestClient(create_app(opened), base_url="http://127.0.0.1").get(f"/studies/one/trials/{number}.json").json()
        assert (twin["samples"]["search"]["ratios"], twin["samples"]["search"]["rounds"]) == (None, 5)
        assert not twin["classes"]["search"]["whole"]
        rows = twin["classes"]["search"]["rows"]
        assert [[row["class"], row["lost"], row["images"]] for row in rows] == measured["accuracy_drop"].protocol["worst"]

    def test_a_predicted_latency_has_no_rounds(self, tmp_path: Path) -> None:
        opened = open_store(tmp_path)
        study = Synthetic(opened, "one", profile="c4d91be07a35")
        number = study.add(Schedule.from_dict({"merging": {"kept": [60] * 12}}), "sampler")
        twin = TestClient(create_app(opened), base_url="http://127.0.0.1").get(f"/studies/one/trials/{number}.json").json()
        assert twin["predicted"]
        assert twin["samples"] == {}

    @pytest.mark.parametrize("number", ["999", "-1", "x", "1.5", "0.json.json"])
    def test_another_trial_is_a_404_in_one_line(self, client: TestClient, number: str) -> None:
        for ending in ("", ".json"):
            answer = client.get(f"/studies/{NAME}/trials/{number}{ending}")
            assert answer.status_code == 404
            assert "it has 41 trials" in answer.text

    def test_a_page_without_pictures_says_how_to_get_them(self, client: TestClient) -> None:
        text = client.get(f"/studies/{NAME}/trials/3").text
        assert "<code>vittle dashboard</code>" in text
        assert 'class="drawn"' not in text
        assert client.get(f"/studies/{NAME}/trials/3/images.json").json()["images"] == []


def opened(page: Page, url: str) -> None:
    page.goto(url)
    page.wait_for_selector("#blocks td")


def accessible(page: Page) -> None:
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def cells(table: Locator) -> list[list[str]]:
    shown: list[list[str]] = table.locator("tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.children].map(cell => cell.innerText.trim().replace(/\\s+/g, ' ')))"
    )
    return shown


class TestPage:
    @pytest.fixture
    def page(self, browser: BrowserContext, synthetic: str) -> Iterator[Page]:
        """As `browsing.page` is, at the synthetic studies."""
        shown, complaints = browser.new_page(), list[str]()
        shown.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        shown.on("pageerror", lambda error: complaints.append(str(error)))
        shown.on("dialog", lambda dialog: complaints.append(dialog.message))
        shown.on("request", lambda sent: None if sent.url.startswith((synthetic, "data:")) else complaints.append(sent.url))
        yield shown
        shown.close()
        assert complaints == []

    def test_a_confirmed_trial(self, page: Page, synthetic: str, store: Store) -> None:
        trials = store.trials(NAME)
        trial = next(one for one in trials if one.confirmed and one.number)
        opened(page, f"{synthetic}/studies/{NAME}/trials/{trial.number}")
        page.wait_for_selector("#samples-chart .scatterlayer .point")
        expect(page.get_by_role("heading", level=1)).to_have_text(f"Trial {trial.number}")
        tokens = costs.tokens(SHAPE, trial.schedule)
        heights = page.locator("#bars i").evaluate_all("bars => bars.map(bar => bar.getBoundingClientRect().height)")
        assert [height / heights[0] for height in heights] == pytest.approx([n / tokens[0] for n in tokens], abs=0.01)

        rows = cells(page.locator("#blocks"))
        assert [row[0] for row in rows] == [str(block) for block in range(1, 13)]
        assert [row[3] for row in rows] == [str(count) for count in tokens]
        entering = [SHAPE.tokens, *tokens[:-1]]
        for (block, before, how, after, _), count in zip(rows[:-1], entering, strict=False):
            assert before == str(count)
            removed = count - int(after)
            assert how.startswith(f"{removed} merged") if removed else how == "–", block
        assert "only the token that is read computes" in rows[-1][2]

        measured = {row[0]: row[1:] for row in cells(page.locator("#measured"))}
        for name, (searched, confirmed) in {"Accuracy": measured["Accuracy"], "Latency": measured["Latency"]}.items():
            objective = "accuracy" if name == "Accuracy" else "latency_ratio"
            for shown, phase in ((searched, "search"), (confirmed, "confirmation")):
                one = trial.measurements[phase][objective]
                assert shown.startswith(f"{one.value:.1%}")
                assert f"{100 * one.low:.1f}–{100 * one.high:.1f}" in shown

        drawn = page.evaluate("() => byId('samples-chart').data.map(({ x }) => [...x])")
        kept = [trial.measurements[phase]["latency_ratio"].protocol["samples"] for phase in ("search", "confirmation")]
        assert drawn == [pytest.approx([100 * ratio for ratio in ratios]) for ratios in kept]
        drop = trial.measurements["confirmation"]["accuracy_drop"].protocol["classes"]
        classes = cells(page.locator("#classes"))
        assert len(classes) == 10
        for label, lost, n in classes:
            at = int(label)
            assert (n, lost) == (str(drop["images"][at]), f"{drop['lost'][at] / drop['images'][at]:.1%}")
        assert ["Device", *["Intel(R) Xeon(R) Gold 6448Y"] * 2] in cells(page.locator("#environment"))
        expect(page.locator("#log li")).to_have_count(4)
        assert Schedule.from_dict(yaml.safe_load(page.locator("#schedule").inner_text())) == trial.schedule
        accessible(page)

        with page.expect_download() as download:
            page.get_by_role("link", name="Export schedule").click()
        assert Schedule.load(download.value.path()) == trial.schedule
        page.get_by_role("link", name="Next").click()
        expect(page.get_by_role("heading", level=1)).to_have_text(f"Trial {trial.number + 1}")
        page.get_by_role("link", name="In the study").click()
        expect(page.locator("#panel h2")).to_have_text(f"Trial {trial.number + 1}")
        page.locator("#panel a.more").click()
        expect(page.get_by_role("heading", level=1)).to_have_text(f"Trial {trial.number + 1}")

    @pytest.mark.parametrize("state", ["stopped", "infeasible", "failed"])
    def test_how_a_trial_ended_is_said(self, page: Page, synthetic: str, store: Store, state: str) -> None:
        trial = one_of(store, state)
        opened(page, f"{synthetic}/studies/{NAME}/trials/{trial.number}")
        expect(page.locator("#reason")).to_have_text(str(trial.reason))
        expect(page.locator("#log")).to_contain_text(str(trial.reason))
        expect(page.locator("#state")).to_have_class(f"state {state}")
        expect(page.locator("#kind")).to_be_hidden()
        expect(page.locator("#measured .value")).to_have_count(len(trial.measurements.get("search", {})))
        if state == "failed":
            for name in ("measured", "samples", "classes-text", "environment"):
                assert page.locator(f"#{name}").inner_text().strip()
        if state == "stopped":
            expect(page.locator("#marks")).to_contain_text("† estimated from the images seen")
            expect(page.locator("#measured")).to_contain_text("128 of 449 images")
        accessible(page)

    def test_a_hostile_trial_is_text(self, page: Page, synthetic: str, store: Store) -> None:
        trial = store.trials(HOSTILE)[-1]
        page.goto(f"{synthetic}/studies/{HOSTILE.replace('/', '%2F')}/trials/{trial.number}")
        expect(page.locator("#reason")).to_have_text(HOSTILE_REASON)
        expect(page.locator("#facts")).to_contain_text("<i>sampler</i>")
        assert page.locator("main img, main b:text('bold'), main i:text('sampler')").count() == 0

    def test_a_phone_does_not_scroll_sideways(self, page: Page, synthetic: str, store: Store) -> None:
        page.set_viewport_size({"width": 360, "height": 800})
        confirmed = next(one for one in store.trials(NAME) if one.confirmed and one.number)
        for trial in (confirmed, one_of(store, "failed"), one_of(store, "stopped")):
            opened(page, f"{synthetic}/studies/{NAME}/trials/{trial.number}")
            assert page.evaluate("() => document.documentElement.scrollWidth") == 360

    def test_a_running_trial_is_followed_to_its_end(self, browser: BrowserContext, tmp_path: Path) -> None:
        running = open_store(tmp_path)
        study = Synthetic(running, "live")
        study.add(Schedule(), "backbone")
        schedule = study.proposal()
        number = running.start_trial("live", "sampler", schedule, {})
        with serving(running) as url:
            shown = browser.new_page()
            opened(shown, f"{url}/studies/live/trials/{number}")
            expect(shown.locator("#measured")).to_contain_text("It is being evaluated")
            expect(shown.locator("#state")).to_have_text("running")
            measured = {**study.latency(schedule, 5), **study.judge(schedule, "search")}
            running.finish_trial("live", number, "complete", measured)
            expect(shown.locator("#state")).to_have_text("complete", timeout=15000)
            expect(shown.locator("#measured")).to_contain_text(f"{measured['accuracy'].value:.1%}")
            expect(shown.locator("#samples-chart .point")).to_have_count(5)
            shown.close()

    def test_a_hostile_class_is_text(self, browser: BrowserContext, tmp_path: Path) -> None:
        opened_store = open_store(tmp_path)
        study = Synthetic(opened_store, "one")
        schedule = study.proposal()
        drop = Measurement("accuracy_drop", 0.1, 0.0, 0.2, 30, {"worst": [["<img src=x onerror=alert(3)>", 0.5, 30]]})
        number = opened_store.start_trial("one", "sampler", schedule, {})
        measured = {**study.latency(schedule, 5), **study.judge(schedule, "search"), "accuracy_drop": drop}
        opened_store.finish_trial("one", number, "complete", measured)
        with serving(opened_store) as url:
            shown = browser.new_page()
            opened(shown, f"{url}/studies/one/trials/{number}")
            assert cells(shown.locator("#classes")) == [["<img src=x onerror=alert(3)>", "50.0%", "30"]]
            expect(shown.locator("#classes-text")).to_contain_text("Only the classes that lose most were kept.")
            assert shown.locator("main img").count() == 0
            shown.close()


# Of every patch a pixel near its centre, in the middle of one of the pixels of the picture.
PIXELS = """([rows, columns]) => [...document.querySelectorAll(".images canvas")].map(canvas => {
    const context = canvas.getContext("2d");
    return Array.from({ length: rows * columns }, (_, at) => {
        const [x, y] = [(at % columns + 0.625) / columns, (Math.floor(at / columns) + 0.625) / rows];
        return [...context.getImageData(Math.floor(x * canvas.width), Math.floor(y * canvas.height), 1, 1).data].slice(0, 3);
    });
})"""


def decoded(picture: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.partition(",")[2])))).astype(float)


def draw_pictures(page: Page, url: str) -> dict[str, Any]:
    """Open a trial's page, scroll to its pictures, and return what they were drawn from."""
    with page.expect_response(lambda answer: "images.json" in answer.url, timeout=120000) as told:
        page.goto(url)
        page.locator(".pictures").scroll_into_view_if_needed()
    page.wait_for_selector(".images canvas")
    document: dict[str, Any] = json.loads(told.value.body())
    return document


def move_to(page: Page, block: int) -> None:
    slider = page.get_by_role("slider", name="Block")
    slider.focus()
    page.keyboard.press("Home")
    for _ in range(block):
        page.keyboard.press("ArrowRight")
    expect(slider).to_have_value(str(block))


class TestPatches:
    @pytest.mark.parametrize("trial", [1, 2])
    def test_canvases_show_the_groups_of_every_block(self, page: Page, address: str, trial: int) -> None:
        told = draw_pictures(page, f"{address}/studies/real/trials/{trial}")
        assert len(told["images"]) == 6
        expect(page.locator(".images figure")).to_have_count(6)
        last = len(told["tokens"])
        for block in (1, 5, 8, last):
            move_to(page, block)
            expect(page.locator(".blockbar output")).to_contain_text(
                f"After block {block} of 12: {told['tokens'][block - 1]} of 65 tokens"
            )
            for image, pixels in zip(told["images"], page.evaluate(PIXELS, [8, 8]), strict=True):
                picture = decoded(image["picture"]).reshape(8, 4, 8, 4, 3).transpose(0, 2, 1, 3, 4).reshape(64, 16, 3)
                groups = np.array(image["blocks"][min(block, told["blocks"]) - 1]["groups"])
                for patch, (group, pixel) in enumerate(zip(groups, pixels, strict=True)):
                    if group < 0:
                        assert all(0x9A <= channel <= 0xDE for channel in pixel)  # grey, hatched
                    elif (groups == group).sum() > 1:
                        assert pixel == pytest.approx(picture[groups == group].mean((0, 1)), abs=1)
                    else:
                        assert pixel == pytest.approx(picture[patch][10], abs=1)  # the picture itself
        assert ((groups < 0).any()) == (trial == 2)
        if told["blocks"] < last:
            expect(page.locator(".blockbar output")).to_contain_text("drawn as before it")
        canvas = page.locator(".images canvas").first
        sizes, gone = (
            told["images"][0]["blocks"][-1]["sizes"],
            int((np.array(told["images"][0]["blocks"][-1]["groups"]) < 0).sum()),
        )
        expect(canvas).to_have_attribute(
            "aria-label", f"Image 0 after block {last}: {len(sizes)} groups of patches, {gone} patches dropped"
        )
        move_to(page, 0)
        for image, pixels in zip(told["images"], page.evaluate(PIXELS, [8, 8]), strict=True):
            centres = decoded(image["picture"])[2::4, 2::4].reshape(64, 3)
            assert np.abs(np.array(pixels) - centres).max() <= 1
        accessible(page)

    def test_the_untouched_model_is_drawn_as_it_is(self, page: Page, address: str) -> None:
        told = draw_pictures(page, f"{address}/studies/real/trials/0")
        move_to(page, 7)
        for image, pixels in zip(told["images"], page.evaluate(PIXELS, [8, 8]), strict=True):
            assert np.abs(np.array(pixels) - decoded(image["picture"])[2::4, 2::4].reshape(64, 3)).max() <= 1

    def test_captions_say_what_the_models_answer(self, page: Page, address: str) -> None:
        told = draw_pictures(page, f"{address}/studies/real/trials/2")
        for image, caption in zip(told["images"], page.locator("figcaption").all_inner_texts(), strict=True):
            assert f"Image {image['index']} of class {image['label']}" in caption
            agree = f"✓ both answer {image['schedule']}"
            assert (agree if image["agree"] else f"✕ backbone {image['backbone']}, schedule {image['schedule']}") in caption

    def test_other_images_are_asked_for(self, page: Page, address: str) -> None:
        draw_pictures(page, f"{address}/studies/real/trials/1")
        shown = page.locator(".images figcaption b")
        page.get_by_role("button", name="Next images").click()
        expect(shown).to_have_text([f"Image {index}" for index in range(6, 12)], timeout=60000)
        page.get_by_label("Images").fill("40, 3")
        page.keyboard.press("Enter")
        expect(shown).to_have_text(["Image 40", "Image 3"], timeout=60000)
        page.get_by_label("Images").fill("100000")
        page.keyboard.press("Enter")
        reason = "There are no pictures: no image 100000; accepted: 0 to 448"
        expect(page.locator(".waiting")).to_have_text(reason, timeout=60000)

    def test_it_plays_through_the_blocks(self, page: Page, address: str) -> None:
        draw_pictures(page, f"{address}/studies/real/trials/1")
        move_to(page, 10)
        page.get_by_role("button", name="Play").click()
        expect(page.get_by_role("button", name="Pause")).to_be_visible()
        expect(page.get_by_role("slider", name="Block")).to_have_value("12")
        expect(page.get_by_role("button", name="Play")).to_be_visible()

    def test_pictures_are_as_fine_as_the_screen(self, browser: BrowserContext, address: str) -> None:
        assert browser.browser is not None
        context = browser.browser.new_context(
            viewport={"width": 360, "height": 800}, device_scale_factor=3, color_scheme="dark"
        )
        shown = context.new_page()
        draw_pictures(shown, f"{address}/studies/real/trials/2")
        assert shown.evaluate("() => document.documentElement.scrollWidth") == 360
        sizes = shown.evaluate("() => [...document.querySelectorAll('canvas')].map(one => [one.width, one.clientWidth])")
        assert [width for width, _ in sizes] == pytest.approx([3 * shown_width for _, shown_width in sizes], abs=2)
        accessible(shown)
        context.close()

    def test_a_grid_need_not_be_square_nor_end_with_the_picture(self, page: Page, address: str) -> None:
        draw_pictures(page, f"{address}/studies/real/trials/1")
        places = page.evaluate("() => patchPlaces({ grid: [2, 3], patch: [4, 6] }, { width: 16, height: 7 })")
        assert [list(place.values()) for place in places] == [
            [0, 0, 6, 4], [6, 0, 12, 4], [12, 0, 16, 4], [0, 4, 6, 7], [6, 4, 12, 7], [12, 4, 16, 7],
        ]  # fmt: skip
        stream = io.BytesIO()
        picture = np.zeros((7, 16, 3), np.uint8)
        picture[:, 12:] = [200, 40, 10]
        picture[4:, :12] = [0, 0, 250]
        Image.fromarray(picture).save(stream, "PNG")
        url = f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
        image = {"index": 0, "label": None, "picture": url, "backbone": 1, "schedule": 1, "agree": True,
                 "blocks": [{"groups": [0, 1, 2, 3, -1, 2], "sizes": [1, 1, 2, 1]}]}  # fmt: skip
        told = {"grid": [2, 3], "patch": [4, 6], "tokens": [5], "whole": 7, "prefix": 1, "blocks": 1, "images": [image]}
        page.evaluate("told => PICTURES.patches(document.querySelector('.drawn'), told)", told)
        expect(page.locator(".images figure")).to_have_count(1)
        (pixels,) = page.evaluate(PIXELS, [2, 3])
        assert pixels[2] == pixels[5] == [200, 40, 10]
        assert pixels[0] == [0, 0, 0]
        assert pixels[3] == [0, 0, 250]
        assert pixels[4] not in ([0, 0, 0], [0, 0, 250])

    def test_a_model_that_is_not_here_is_said_as_text(self, browser: BrowserContext, store: Store) -> None:
        with serving(store, illustrate=illustrators.refusing) as url:
            shown = browser.new_page()
            shown.goto(f"{url}/studies/{NAME}/trials/3")
            shown.locator(".pictures").scroll_into_view_if_needed()
            waiting = shown.locator(".waiting")
            expect(waiting).to_contain_text(
                "There are no pictures: the pictures cannot be computed (MemoryError: not enough)", timeout=60000
            )
            shown.get_by_label("Images").fill("0")
            shown.keyboard.press("Enter")
            expect(waiting).to_have_text("There are no pictures: no images at <b>/nowhere</b>; accepted: a folder")
            expect(shown.locator("#measured .value")).not_to_have_count(0)  # and everything else is there
            shown.close()
