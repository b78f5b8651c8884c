"""Every page by axe-core's rules, light and dark, wide and narrow, in every language; and no English is left in another."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import axe_playwright_python
import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from browsing import serving
from dashboard_study import (
    NOISE,
    PROFILE,
    Synthetic,
    importance,
    latency_profile,
    made_merge_start,
    open_store,
    sensitivity,
)
from vittle.dashboards import words

AXE = Path(axe_playwright_python.__file__).parent / "axe.min.js"
LOOKS = [(scheme, width) for scheme in ("light", "dark") for width in (1400, 360)]
FULL, RUNNING, FAILED, INTERRUPTED = "digits-60", "digits-4ms", "digits-failed", "digits-25"
PAGES = {  # with what is there once a page is drawn
    "/": "td",
    f"/studies/{FULL}": "#importance-parameters .point",
    f"/studies/{RUNNING}": "#chart .point",
    f"/studies/{FAILED}": "#panel h2",
    f"/studies/{INTERRUPTED}": "#chart .point",
    f"/studies/{FULL}/profile": "#profile-checks .point",
    f"/studies/{RUNNING}/profile": "#missing",
    f"/studies/{FULL}/detector": "#sensitivity-chart .point",
    f"/studies/{FULL}/compare": "#tokens-chart .point",
    f"/studies/{FULL}/compare?trials=0,1,2,3": "#tokens-chart .point",
    f"/studies/{FAILED}/compare": ".blank",
    f"/studies/{FULL}/trials/8": "#bars .bars",
    f"/studies/{FULL}/trials/17": "#log li",
    "/studies/nope": ".blank",
    f"/studies/{FULL}/compare?trials=1": ".blank",
}

# Names, units and what the database holds are the same in every language; so is what a person types.
DIED = "OutOfMemoryError: the worker was ended by the system"
NAMES = (NOISE, DIED, "Intel(R) Xeon(R) Gold 6448Y", "vittle launch", FULL, RUNNING, FAILED, INTERRUPTED)
SAME = "code, pre, kbd, [translate=no]"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Studies in every state, with all that there is to know of one of them."""
    opened = open_store(tmp_path_factory.mktemp("studies"))
    opened.save_merge_start(made_merge_start())
    opened.save_profile(latency_profile())
    opened.save_sensitivity(sensitivity())
    Synthetic(opened, FULL, profile=PROFILE).fill(40)
    opened.save_importance(FULL, importance())
    Synthetic(opened, RUNNING, budget="4ms", seed=3).fill(20, "running")
    Synthetic(opened, INTERRUPTED, budget="25%", seed=5).fill(12, "interrupted")
    Synthetic(opened, FAILED)
    opened.set_state(FAILED, "failed", DIED)
    with serving(opened) as url:
        yield url


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(open_store(tmp_path_factory.mktemp("empty"))) as url:
        yield url


@pytest.fixture(scope="module", params=words.languages())
def reader(request: pytest.FixtureRequest, browser: BrowserContext) -> Iterator[Page]:
    """A page in one of the languages; axe-core is put in from outside, which no policy of a page bars."""
    started = browser.browser
    assert isinstance(started, Browser)
    context = started.new_context(locale=request.param, extra_http_headers={"Accept-Language": request.param})
    context.add_init_script(path=AXE)
    yield context.new_page()
    context.close()


def violations(page: Page) -> list[dict[str, Any]]:
    found = page.evaluate("() => axe.run(document, { resultTypes: ['violations'] })")
    return [
        {
            "rule": one["id"],
            "help": one["help"],
            "nodes": [(node["html"][:160], node["failureSummary"]) for node in one["nodes"][:3]],
        }
        for one in found["violations"]
    ]


def assert_accessible(page: Page, url: str, drawn: str) -> None:
    page.set_viewport_size({"width": 1280, "height": 720})
    page.goto(url)
    page.wait_for_selector(drawn, state="attached")
    if page.evaluate("() => document.documentElement.lang") != "en":
        assert english(page) == []
    found = {}
    for scheme, width in LOOKS:
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        page.set_viewport_size({"width": width, "height": 900})
        found[f"{scheme}, {width} px"] = violations(page)
    seen = {look: one for look, one in found.items() if one}
    assert not seen, json.dumps(seen, indent=1, ensure_ascii=False)


@pytest.mark.parametrize("path", PAGES)
def test_a_page_has_no_violations_and_no_english_in_another_language(reader: Page, address: str, path: str) -> None:
    assert_accessible(reader, f"{address}{path}", PAGES[path])


def test_an_empty_list_has_no_violations(reader: Page, empty: str) -> None:
    assert_accessible(reader, empty, ".blank")


def test_axe_sees_what_is_wrong(reader: Page, address: str) -> None:
    """A check that finds nothing has to be able to find something."""
    reader.goto(address)
    assert reader.evaluate("() => document.documentElement.lang") in words.languages()
    reader.evaluate("() => document.querySelector('main').append(document.createElement('button'))")
    assert [one["rule"] for one in violations(reader)] == ["button-name"]


def english(page: Page) -> list[str]:
    """The visible texts, names and titles of a page in which three words in Latin letters follow each other."""
    texts: list[str] = page.evaluate(
        """same => {
            const found = [];
            const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
            while (walker.nextNode()) {
                const { parentElement: parent, textContent: text } = walker.currentNode;
                if (text.trim() && !parent.closest(`script, noscript, ${same}`) && parent.checkVisibility()) found.push(text);
            }
            for (const node of document.querySelectorAll("[title], [aria-label]"))
                if (node.checkVisibility()) found.push(node.title, node.ariaLabel ?? "");
            return found.map(text => text.replace(/\\s+/g, " ").trim());
        }""",
        SAME,
    )
    return [text for text in texts if latin(text)]


def latin(text: str) -> bool:
    for name in NAMES:
        text = text.replace(name, "")
    return re.search(r"[A-Za-z][A-Za-z'’-]+(?:[ ,;:]+[A-Za-z][A-Za-z'’-]*){2,}", text) is not None


def test_english_is_told_from_names() -> None:
    assert latin("Choose a point for its schedule.")
    assert latin("精度 no other trial is better")
    assert not latin("トライアル 3 は float32 です")
    assert not latin("Intel(R) Xeon(R) Gold 6448Y, 2 threads")
    assert not latin(f"ノイズあり：{NOISE}。")
