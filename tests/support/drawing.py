"""Pictures of a trial on its page, and what they were drawn from."""

import base64
import json
from typing import Any

import numpy as np
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect


def draw_pictures(page: Page, url: str, canvas: str = ".images canvas") -> dict[str, Any]:
    """Open a trial's page, scroll to its pictures, and return what they were drawn from once such a canvas is there."""
    with page.expect_response(lambda answer: "images.json" in answer.url, timeout=120000) as told:
        page.goto(url)
        page.locator(".pictures").first.scroll_into_view_if_needed()
    page.wait_for_selector(canvas)
    document: dict[str, Any] = json.loads(told.value.body())
    return document


def move_to(page: Page, block: int) -> None:
    slider = page.get_by_role("slider", name="Block")
    slider.focus()
    page.keyboard.press("Home")
    for _ in range(block):
        page.keyboard.press("ArrowRight")
    expect(slider).to_have_value(str(block))


def accessible(page: Page) -> None:
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def unpacked(packed: dict[str, Any]) -> np.ndarray:
    kind = {"uint8": "u1", "int16": "<i2"}[packed["type"]]
    return np.frombuffer(base64.b64decode(packed["data"]), kind).reshape(packed["shape"])
