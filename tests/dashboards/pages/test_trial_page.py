"""The page of one trial in a browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import BrowserContext, Locator, Page, expect

from browsing import serving
from dashboard_study import SHAPE, Synthetic, open_store
from studies_to_show import HOSTILE, HOSTILE_REASON, one_of, store
from vittle import Schedule
from vittle.dashboards import text
from vittle.objectives.measurement import Measurement
from vittle.spaces import costs
from vittle.storage.store import Store

__all__ = ["store"]  # fixtures

NAME = "digits-60"


@pytest.fixture(scope="module")
def synthetic(store: Store) -> Iterator[str]:
    with serving(store) as url:
        yield url


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

        nothing = ["0.0%", "0.0–0.1", "-0.1%"]  # has no sign
        assert page.evaluate("[percent(-0.0004), interval({ low: -0.0004, high: 0.0006 }), percent(-0.0006)]") == nothing
        assert [text.percent(-0.0004), text.percent(-0.004, 0), text.percent(-0.0006)] == ["0.0%", "0%", "-0.1%"]

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
