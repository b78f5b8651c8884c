"""The detector page: its JSON twin, and where merging may start as a real browser draws it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import Page, expect

from browsing import serving, show
from dashboard_study import FINGERPRINT, Synthetic, made_merge_start, open_store
from vittle.dashboards.app import create_app
from vittle.objectives.backbones.merge_start import STATISTICS, MergeStart
from vittle.storage.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    opened = open_store(tmp_path)
    Synthetic(opened).fill(8)
    return opened


@pytest.fixture
def address(store: Store) -> Iterator[str]:
    with serving(store) as url:
        yield url


def test_the_twin_has_what_is_stored_and_null_before_that(store: Store) -> None:
    client = TestClient(create_app(store), base_url="http://127.0.0.1")
    assert client.get("/studies/digits-60/detector.json").json()["merge_start"] is None
    store.save_merge_start(made_merge_start("of another backbone"[:12]))
    assert client.get("/studies/digits-60/detector.json").json()["merge_start"] is None
    store.save_merge_start(made_merge_start())
    twin = client.get("/studies/digits-60/detector.json").json()["merge_start"]
    assert twin.pop("text").startswith("Merging may start in block 6 of 12")
    assert twin.pop("meanings") == STATISTICS
    assert MergeStart.from_dict(twin) == made_merge_start()


def drawn(page: Page, name: str) -> tuple[list[float], list[float]]:
    """x and y of a trace as it is on the page, in the units of its axes."""
    x, y = page.evaluate(
        """name => {
            const chart = document.getElementById("merge-start-chart"), box = chart.getBoundingClientRect();
            const trace = chart._fullData.findIndex(one => one.name === name);
            const { xaxis: across, [chart._fullData[trace].yaxis.replace("y", "yaxis")]: up } = chart._fullLayout;
            const points = [...chart.querySelectorAll(`.trace${chart._fullData[trace].uid} .point`)];
            const boxes = points.map(point => point.getBoundingClientRect());
            return [boxes.map(({ left, width }) => across.p2l(left + width / 2 - box.left - across._offset)),
                boxes.map(({ top, height }) => up.p2l(top + height / 2 - box.top - up._offset))];
        }""",
        name,
    )
    return x, y


def largest(page: Page, name: str) -> int:
    """The index of the largest point of a trace."""
    widths: list[float] = page.evaluate(
        """name => {
            const chart = document.getElementById("merge-start-chart");
            const { uid } = chart._fullData.find(one => one.name === name);
            return [...chart.querySelectorAll(`.trace${uid} .point`)].map(point => point.getBoundingClientRect().width);
        }""",
        name,
    )
    return widths.index(max(widths))


def test_the_curves_and_the_start_are_where_they_belong(page: Page, address: str, store: Store) -> None:
    phase = made_merge_start()
    store.save_merge_start(phase)
    show(page, f"{address}/studies/digits-60/detector")
    expect(page.get_by_role("heading", name="Where merging may start")).to_be_visible()
    expect(page.locator("#merge-start-text")).to_contain_text("block 6 of 12, after 5 dense blocks (95% interval: block 5 to 6")
    for name in STATISTICS:
        x, y = drawn(page, name)
        assert x == pytest.approx(range(1, 13), abs=0.05)
        values = phase.curve(name).values
        assert y == pytest.approx(values, abs=0.02 * (max(values) - min(values)))
        assert largest(page, name) == phase.start
    expect(page.locator("#merge-start-chart .shapelayer text")).to_have_text("start: block 6")
    shapes = page.evaluate("() => document.getElementById('merge-start-chart').layout.shapes.map(({ x0, x1 }) => [x0, x1])")
    assert shapes == [[4.75, 6.25], [6, 6]]


def test_a_point_explains_itself(page: Page, address: str, store: Store) -> None:
    store.save_merge_start(made_merge_start())
    show(page, f"{address}/studies/digits-60/detector")
    chart = page.locator("#merge-start-chart")
    chart.scroll_into_view_if_needed()
    where = chart.locator(".point").nth(2).bounding_box()
    assert where is not None
    page.mouse.move(where["x"] + where["width"] / 2, where["y"] + where["height"] / 2)
    expect(chart.locator(".hoverlayer")).to_contain_text("Block 3")
    expect(chart.locator(".hoverlayer")).to_contain_text(STATISTICS["similarity"])


def test_a_rule_of_thumb_is_not_shown_as_a_finding(page: Page, address: str, store: Store) -> None:
    store.save_merge_start(made_merge_start(rising=False))
    show(page, f"{address}/studies/digits-60/detector")
    expect(page.locator("#merge-start-text")).to_contain_text("By rule of thumb")
    expect(page.locator("#merge-start-chart .shapelayer text")).to_have_text("rule of thumb: block 3")
    expect(page.locator("#merge-start-chart .shapelayer rect, #merge-start-chart .shapelayer path")).to_have_count(
        1
    )  # no interval


def test_the_picture_appears_while_a_search_runs(page: Page, address: str, store: Store) -> None:
    store.set_state("digits-60", "running")
    page.goto(f"{address}/studies/digits-60/detector")
    expect(page.get_by_role("heading", name="The detector has not looked at this backbone yet")).to_be_visible()
    expect(page.locator("#merge-start-missing code")).to_have_text("vittle profile --model digits")
    expect(page.locator("#merge-start")).to_be_hidden()
    assert store.study("digits-60").backbone.fingerprint == FINGERPRINT
    store.save_merge_start(made_merge_start())
    expect(page.locator("#merge-start")).to_be_visible(timeout=15000)
    expect(page.locator("#merge-start-missing")).to_be_hidden()
    expect(page.locator("#merge-start-chart .point")).to_have_count(60)


def test_a_phone_does_not_scroll_sideways(page: Page, address: str, store: Store) -> None:
    store.save_merge_start(made_merge_start())
    page.set_viewport_size({"width": 360, "height": 800})
    show(page, f"{address}/studies/digits-60/detector")
    page.wait_for_selector("#merge-start-chart .point")
    assert page.evaluate("() => document.documentElement.scrollWidth") == 360
    last = page.locator("#merge-start-chart .point").last.bounding_box()
    assert last is not None
    assert last["x"] + last["width"] < 360
