"""The service in a real browser: signing in, launching, and the buttons of a study."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import BrowserContext, Page, expect

from browsing import serving
from dashboard_study import Synthetic, open_store
from services import TOKEN, FakeJobs, make_service
from vittle.dashboards.service.service import Service
from vittle.storage.claim import claimed
from vittle.storage.store import Store


@pytest.fixture
def store(tmp_path) -> Store:
    opened = open_store(tmp_path)
    Synthetic(opened, "digits-60").fill(12)
    return opened


@pytest.fixture
def service(store) -> Service:
    return make_service(store, often=1000)


@pytest.fixture
def address(service, browser: BrowserContext) -> Iterator[str]:
    browser.clear_cookies()
    with serving(service.store, service=service) as found:
        yield found


def sign_in(page: Page, address: str, then: str) -> None:
    page.goto(f"{address}/sign-in?next={then}")
    page.get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{address}{then}")


def begin(store: Store, jobs: FakeJobs) -> None:
    """What the last job would do first."""
    name, _, _ = jobs.submitted[-1]
    Synthetic(store, name).fill(5)


def test_from_signing_in_to_the_page_of_a_new_study_by_keyboard(page: Page, address: str, service: Any, store: Store) -> None:
    page.goto(address)
    page.get_by_role("link", name="New search").click()
    expect(page.get_by_text("To launch a search, sign in first.")).to_be_visible()
    page.get_by_role("main").get_by_role("link", name="Sign in").click()
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_have_text("Enter the token.")
    page.get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{address}/launch")
    assert page.get_by_label("Name of the study").input_value() == "digits-1"

    page.get_by_label("Name of the study").fill("a/b")
    page.get_by_label("Latency budget").fill("fast")
    page.get_by_label("Trials").fill("0")
    page.get_by_label("Merging").uncheck()
    page.get_by_role("button", name="Launch").press("Enter")
    for wrong in ("Up to 100 letters", "Milliseconds such as 4ms", "A whole number from 1 to 1000.", "Choose at least one."):
        expect(page.locator(".wrong", has_text=wrong)).to_be_visible()
    expect(page.get_by_label("Name of the study")).to_be_focused()
    assert service.jobs.submitted == []

    page.get_by_label("Name of the study").fill("mine")
    page.get_by_label("Latency budget").fill("55%")
    page.get_by_label("Trials").fill("7")
    page.get_by_label("Merging").check()
    page.get_by_label("Pruning").check()
    page.get_by_text("More settings").click()
    page.get_by_label("Time limit, minutes").fill("5")
    page.get_by_label("Name of the study").press("Enter")
    expect(page.get_by_text("Getting ready")).to_be_visible()
    expect(page.locator("#jobs-list li")).to_contain_text("mine")
    ((study, action, arguments),) = service.jobs.submitted
    assert (study, action) == ("mine", "launch")
    wanted = {"--latency-budget=55%", "--trials=7", "--reductions=pruning,merging", "--time-limit=300s", "--until-flat"}
    assert wanted <= set(arguments)
    begin(store, service.jobs)
    page.wait_for_url(f"{address}/studies/mine")
    expect(page.get_by_role("heading", level=1)).to_have_text("mine")


def test_a_launch_that_fails_says_why_and_can_be_sent_again(page: Page, address: str, service: Any) -> None:
    sign_in(page, address, "/launch")
    page.get_by_role("button", name="Launch").click()
    expect(page.get_by_text("Getting ready")).to_be_visible()
    expect(page.locator("#jobs-list li")).to_have_count(1)
    service.jobs.written = "loading\nerror: nothing fits <b>1%</b>\n"
    service.jobs.end("failed")
    expect(page.locator("#launch-told")).to_have_text("error: nothing fits <b>1%</b>")
    expect(page.get_by_role("button", name="Launch")).to_be_enabled()
    page.locator("#jobs-list summary").click()
    expect(page.locator("#jobs-list pre")).to_have_text(re.compile(r"loading\s+error: nothing fits <b>1%</b>"))


def test_a_study_has_the_buttons_that_would_be_accepted(page: Page, address: str, service: Any, store: Store) -> None:
    sign_in(page, address, "/studies/digits-60")
    buttons = page.locator("#actions button:visible")
    expect(buttons).to_have_text(["Extend", "Time again"])
    page.get_by_label("More trials").fill("5")
    page.get_by_role("button", name="Extend").click()
    expect(page.get_by_text("Getting ready")).to_be_visible()
    expect(buttons).to_have_text(["Stop"])
    assert service.jobs.submitted[-1] == ("digits-60", "extend", ["--trials=5", "--", "digits-60"])
    with claimed(store, "digits-60"):
        store.set_state("digits-60", "running")
        expect(buttons).to_have_text(["Stop"])
        page.get_by_role("button", name="Stop").click()
        expect(page.get_by_text("Stopping")).to_be_visible()
        with store.transaction() as session:
            assert store.row(session, "digits-60").stop is not None
        store.set_state("digits-60", "interrupted")
        service.jobs.end("interrupted")
    expect(buttons).to_have_text(["Resume", "Extend", "Time again"])
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("link", name="Sign in")).to_be_visible()
    expect(buttons).to_have_count(0)


def test_a_job_is_stopped_before_its_study_is_there(page: Page, address: str, service: Any) -> None:
    page.goto(f"{address}/launch")
    service.jobs.submit("mine", "launch", [])
    expect(page.locator("#jobs-list button")).to_have_count(0)  # not by whoever comes along
    sign_in(page, address, "/launch")
    page.get_by_role("button", name="Launch").click()
    expect(page.get_by_text("Getting ready")).to_be_visible()
    page.get_by_role("button", name="Stop the job of digits-1").press("Enter")
    expect(page.locator("#launch-told")).to_have_text("interrupted")
    expect(page.get_by_role("button", name="Launch")).to_be_enabled()
    states = {job.study: job.state for job in service.jobs.jobs}
    assert states == {"digits-1": "interrupted", "mine": "running"}
    expect(page.locator("#jobs-list li", has_text="digits-1")).to_contain_text("interrupted")


@pytest.mark.parametrize("path", ["/sign-in", "/launch", "/studies/digits-60"])
def test_the_pages_are_accessible(page: Page, address: str, path: str) -> None:
    sign_in(page, address, "/launch")
    page.goto(address + path)
    page.wait_for_load_state("networkidle")
    found = Axe().run(page)
    mine = [one for one in found.response["violations"] if path != "/studies/digits-60" or "actions" in str(one["nodes"])]
    assert [(one["id"], [node["target"] for node in one["nodes"]]) for one in mine] == []


def test_a_phone_in_japanese(page: Page, address: str) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.set_extra_http_headers({"Accept-Language": "ja"})
    page.goto(f"{address}/sign-in?next=/launch")
    page.get_by_label("トークン").fill(TOKEN)
    page.get_by_role("button", name="サインイン").click()
    page.wait_for_url(f"{address}/launch")
    expect(page.get_by_role("heading", level=1)).to_have_text("新しい探索")
    page.get_by_label("レイテンシ予算").fill("速く")
    page.get_by_role("button", name="探索を開始").click()
    expect(page.locator("#latency_budget-wrong")).to_contain_text("4ms のようなミリ秒")
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
