"""The dashboard in a real browser: what every test of a page starts with. Fixtures of `dashboards/conftest.py`."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from rich.console import Console

from vittle.dashboards.app import create_app
from vittle.dashboards.documents.pictures import Illustrate
from vittle.dashboards.server import Server
from vittle.dashboards.service.service import Service
from vittle.storage.store import Store

CHROMIUM = Path(os.environ.get("VITTLE_CHROMIUM", "/usr/bin/chromium"))
CHROMIUM_OPTIONS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """One browser for all tests of pages."""
    if not CHROMIUM.exists():
        pytest.fail(f"no browser at {CHROMIUM}: apt-get install chromium, or set VITTLE_CHROMIUM to one")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def browser(chromium: Browser) -> Iterator[BrowserContext]:
    """A window of it with a cache of its own."""
    context = chromium.new_context(viewport={"width": 1400, "height": 1000})
    yield context
    context.close()


@pytest.fixture
def page(browser: BrowserContext, address: str) -> Iterator[Page]:
    """A page that must not ask another host for anything, nor write errors to its console."""
    opened = browser.new_page()
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("dialog", lambda dialog: complaints.append(f"dialog {dialog.message}"))
    opened.on("request", lambda sent: None if sent.url.startswith((address, "data:")) else complaints.append(sent.url))
    yield opened
    opened.close()
    assert complaints == [], complaints


class serving:  # noqa: N801 - reads as a word: with serving(store) as address
    """The application on a free port of this machine, or on one of yours."""

    def __init__(
        self, store: Store, port: int = 0, illustrate: Illustrate | None = None, service: Service | None = None
    ) -> None:
        self.app = create_app(store, illustrate, service)
        self.server = Server(self.app, port=port, lifespan="off", ws="none")
        self.thread = threading.Thread(target=self.server.run, daemon=True)

    def __enter__(self) -> str:
        self.thread.start()
        while not self.server.started:
            self.thread.join(0.01)
            assert self.thread.is_alive()
        return f"http://127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self.app.state.illustrations.close()
        self.server.should_exit = True
        self.thread.join(10)


def show(page: Page, url: str) -> None:
    page.goto(url)
    page.wait_for_selector(".scatterlayer .point")


def point(page: Page, trial: int) -> tuple[float, float]:
    """Where a trial is drawn, in pixels of the page."""
    x, y = page.evaluate(
        """trial => {
            chart.scrollIntoView({ block: "center" });
            const layout = chart._fullLayout, box = chart.getBoundingClientRect();
            const trace = chart._fullData.find(({ customdata }) => customdata?.includes(trial));
            const at = trace.customdata.indexOf(trial);
            const across = layout.xaxis, up = trace.yaxis === "y2" ? layout.yaxis2 : layout.yaxis;
            return [box.left + across._offset + across.l2p(trace.x[at]), box.top + up._offset + up.l2p(trace.y[at])];
        }""",
        trial,
    )
    return x, y


def click(page: Page, trial: int) -> None:
    page.wait_for_timeout(350)  # two clicks in shorter time are one double click
    page.mouse.click(*point(page, trial))


def printed(table: object) -> str:
    console = Console(width=200, force_terminal=False, no_color=True)
    with console.capture() as captured:
        console.print(table)
    return captured.get()
