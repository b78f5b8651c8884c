"""Pages in a browser stay as the study is."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect

from browsing import click, point, serving, show
from dashboard_study import (
    Synthetic,
    open_store,
)
from waiting import wait_until

NAME = "live"
TWIN = f"/studies/{NAME}.json"


@pytest.fixture
def study(tmp_path: Path) -> Synthetic:
    made = Synthetic(open_store(tmp_path), NAME)
    made.fill(16, "running")
    return made


class TestPages:
    def test_changes_are_told_and_nothing_is_asked_in_between(self, browser: BrowserContext, study: Synthetic) -> None:
        with serving(study.store) as address, opened(browser) as page:
            asked: list[str] = []
            show(page, f"{address}/studies/{NAME}")
            page.wait_for_timeout(2500)  # the stream is open, and told what is known already
            page.on("request", lambda sent: asked.append(sent.url))
            page.wait_for_timeout(3000)
            assert asked == []
            slow = [trial for trial in study.store.trials(NAME) if trial.state == "infeasible"]
            chosen = max(slow, key=lambda trial: trial.judged["latency_ratio"].value).number  # no other is drawn near it
            click(page, chosen)
            expect(page.locator("#panel h2")).to_have_text(f"Trial {chosen}")
            zoom(page)
            zoomed = page.evaluate(RANGES)
            new = study.add_best()
            expect(page.locator("#front tr", has_text=f"Trial {new}")).to_contain_text("recommended for 60%", timeout=15000)
            point(page, new)
            assert {url for url in asked if "/studies/" in url} == {f"{address}{TWIN}"}
            assert page.evaluate(RANGES) == zoomed
            expect(page.locator("#panel h2")).to_have_text(f"Trial {chosen}")

    def test_nothing_moves_under_a_button_that_is_down(self, browser: BrowserContext, study: Synthetic) -> None:
        with serving(study.store) as address, opened(browser) as page:
            show(page, f"{address}/studies/{NAME}")
            first = page.locator("#panel h2").text_content()
            box = page.locator("#chart").bounding_box()
            assert box is not None
            page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            page.mouse.down()
            new = study.add_best()
            page.wait_for_timeout(2500)
            assert page.locator("#panel h2").text_content() == first != f"Trial {new}"
            page.mouse.up()
            expect(page.locator("#panel h2")).to_have_text(f"Trial {new}", timeout=15000)

    def test_a_page_finds_a_server_that_was_restarted(self, browser: BrowserContext, study: Synthetic) -> None:
        with opened(browser) as page:
            with serving(study.store) as address:
                show(page, f"{address}/studies/{NAME}")
                page.evaluate("() => { window.sameDocument = true }")
            expect(page.locator("#notice")).to_be_visible(timeout=15000)
            new = study.add_best()
            with serving(study.store, urlsplit(address).port or 0):
                expect(page.locator("#panel h2")).to_have_text(f"Trial {new}", timeout=15000)
                expect(page.locator("#notice")).to_be_hidden()
                page.wait_for_timeout(2500)
                newer = study.add_best(right=448)
                expect(page.locator("#panel h2")).to_have_text(f"Trial {newer}", timeout=15000)
                assert page.evaluate("() => window.sameDocument")

    def test_where_streams_are_blocked_the_page_asks(self, browser: BrowserContext, study: Synthetic) -> None:
        with serving(study.store) as address, opened(browser) as page:
            answers: list[int] = []
            page.route("**/events", lambda route: route.fulfill(status=502))
            page.on("response", lambda answer: answers.append(answer.status) if answer.url.endswith(".json") else None)
            show(page, f"{address}/studies/{NAME}")
            wait_until(lambda: page.wait_for_timeout(200) or answers[:3] == [200, 304, 304])
            new = study.add_best()
            expect(page.locator("#panel h2")).to_have_text(f"Trial {new}", timeout=15000)

    def test_a_hidden_tab_rests(self, browser: BrowserContext, study: Synthetic) -> None:
        server = serving(study.store)
        with server as address, opened(browser) as page:
            show(page, f"{address}/studies/{NAME}")
            streams = server.server.app.state.streams
            wait_until(lambda: streams.open == 1)
            hide(page, hidden=True)
            wait_until(lambda: streams.open == 0)
            shown = page.locator("#panel h2").text_content()
            new = study.add_best()
            page.wait_for_timeout(2500)
            assert page.locator("#panel h2").text_content() == shown
            hide(page, hidden=False)
            expect(page.locator("#panel h2")).to_have_text(f"Trial {new}", timeout=15000)
            wait_until(lambda: streams.open == 1)

    def test_the_list_of_studies_is_up_to_date(self, browser: BrowserContext, study: Synthetic) -> None:
        with serving(study.store) as address, opened(browser) as page:
            page.goto(address)
            row = page.locator("tbody tr", has_text=NAME)
            expect(row).to_contain_text("running")
            page.get_by_role("link", name=NAME).focus()
            study.store.set_state(NAME, "complete")
            expect(row).to_contain_text("complete", timeout=15000)
            expect(page.get_by_role("link", name=NAME)).to_be_focused()
            Synthetic(study.store, "<b>another</b>")
            expect(page.get_by_role("link", name="<b>another</b>")).to_be_visible(timeout=15000)

    def test_what_changes_while_the_list_is_on_its_way_is_shown(self, browser: BrowserContext, study: Synthetic) -> None:
        with serving(study.store) as address, opened(browser) as page:
            reads: list[Route] = []

            def first_late(route: Route) -> None:
                reads.append(route)
                if len(reads) == 2:  # after the page itself
                    answer = route.fetch()
                    study.store.set_state(NAME, "complete")
                    page.wait_for_timeout(3000)  # the stream tells of it meanwhile
                    route.fulfill(response=answer)
                else:
                    route.continue_()

            page.route(f"{address}/", first_late)
            page.goto(address)
            expect(page.locator("tbody tr", has_text=NAME)).to_contain_text("complete", timeout=15000)


RANGES = "() => [chart.layout.xaxis.range, chart.layout.yaxis.range].flat().map(Number)"


def zoom(page: Page) -> None:
    """Draw a rectangle in the middle of the chart."""
    page.wait_for_timeout(350)  # a click and a press in shorter time are a double click
    box = page.locator("#chart").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.2 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 0.6 * box["height"], steps=4)
    page.mouse.up()
    page.wait_for_function("() => chart.layout.xaxis.autorange === false")


def hide(page: Page, *, hidden: bool) -> None:
    """Let the page believe that its tab is in the background, or no more."""
    page.evaluate(
        "hidden => { Object.defineProperty(document, 'hidden', { configurable: true, value: hidden });"
        " document.dispatchEvent(new Event('visibilitychange')); }",
        hidden,
    )


@contextmanager
def opened(browser: BrowserContext) -> Iterator[Page]:
    page = browser.new_page()
    yield page
    page.close()
