"""A study that was timed under disturbance says so on its page, with the way to time it again."""

import dataclasses
import re
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from browsing import serving, show
from dashboard_study import NOISE, Synthetic, open_store
from rankings import ranked
from services import TOKEN, make_service
from vittle.objectives.measurement import Measurement
from vittle.storage.store import Store

NAME = "digits 60"
TIMES = ("latency_ratio", "latency_ms")
SAID = "Timed under disturbance: {noisy} of {measured} latencies that the front is chosen by are noisy (last: " + NOISE + ")."


@pytest.fixture
def store(tmp_path: Path) -> Store:
    opened = open_store(tmp_path)
    Synthetic(opened, NAME).fill(12)
    return opened


def mark(store: Store, noisy: bool) -> tuple[int, int]:
    """Make all confirmed latencies noisy, or none; how many there are, and how many the front has."""
    confirmed = [trial for trial in store.trials(NAME) if trial.confirmed]
    for trial in confirmed:
        measured: dict[str, Measurement] = {}
        for name, one in trial.measurements["confirmation"].items():
            about = {key: value for key, value in one.protocol.items() if key != "noisy"}
            measured[name] = dataclasses.replace(
                one, protocol={**about, **({"noisy": NOISE} if noisy and name in TIMES else {})}
            )
        store.confirm_trial(NAME, trial.number, measured)
    ranking = ranked(store.trials(NAME))
    return len(confirmed), len({trial.number for trial in (ranking.baseline, *ranking.front()) if trial is not None})


def test_on_the_plain_dashboard_with_the_command(browser: BrowserContext, store: Store) -> None:
    with serving(store) as address:
        page = browser.new_page()
        show(page, f"{address}/studies/digits%2060")
        banner = page.locator("#disturbed")
        expect(banner).to_be_hidden()
        noisy, measured = mark(store, noisy=True)
        assert noisy > 3
        expect(banner).to_contain_text(SAID.format(noisy=noisy, measured=measured))
        expect(banner.locator("code")).to_have_text("vittle retime 'digits 60'")
        expect(banner.locator("button")).to_have_count(0)
        mark(store, noisy=False)
        expect(banner).to_be_hidden()
        page.close()


def test_on_a_service_with_a_button(browser: BrowserContext, store: Store) -> None:
    mark(store, noisy=True)
    service = make_service(store, often=1000)
    browser.clear_cookies()
    with serving(store, service=service) as address:
        page = browser.new_page()
        page.goto(f"{address}/sign-in?next=/studies/digits%252060")
        page.get_by_label("Token").fill(TOKEN)
        page.keyboard.press("Enter")
        page.wait_for_selector(".scatterlayer .point")
        again = page.locator("#disturbed").get_by_role("button", name="Time again")
        expect(again).to_be_visible(timeout=15000)
        again.click()
        expect(page.get_by_text("Getting ready")).to_be_visible()
        expect(again).to_be_hidden()  # while that runs
        assert service.jobs.submitted == [(NAME, "retime", ["--device=cpu", "--", NAME])]
        page.close()


def test_a_trial_s_page_exports_it_for_the_budget_that_led_there(browser: BrowserContext, store: Store) -> None:
    with serving(store) as address:
        page: Page = browser.new_page()
        show(page, f"{address}/studies/digits%2060")
        expect(page.locator("#panel a.more")).to_have_attribute("href", re.compile(r"/trials/\d+$"))  # for the study's own
        page.evaluate("ask(0.8)")
        expect(page.locator("#budget-value")).to_have_text("80.0%")
        page.locator("#panel a.more").click()
        button = page.locator("#ways a.button")
        expect(button).to_have_text("Export for 80%")
        with page.expect_download() as download:
            button.click()
        assert "\nbudget: 80%\n" in download.value.path().read_text()
        here = page.url
        page.get_by_role("link", name="Previous").click()
        expect(page).to_have_url(re.compile(r"/trials/\d+\?budget=80%25$"))
        page.goto(here.split("?")[0] + "?max_accuracy_drop=0.5%25")
        expect(button).to_have_text("Export for a loss of 0.5 points")
        with page.expect_download() as download:
            button.click()
        assert "\nmax_accuracy_drop: 0.5%\n" in download.value.path().read_text()
        page.goto(here.split("?")[0] + "?budget=%22%3E%3Cb%3E&constructor=1&max_accuracy_drop=x")
        expect(button).to_have_text("Export schedule")
        with page.expect_download() as download:
            button.click()
        assert "\nbudget: 60%\n" in download.value.path().read_text()
        page.close()
