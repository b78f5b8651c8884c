"""How deep patches go in a recursion and what its router chose by, as the page of a trial draws it."""

import itertools
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import BrowserContext, Page, expect

from browsing import serving
from drawing import accessible, draw_pictures, move_to, unpacked
from studies_to_show import RECURSIVE, pictured
from vittle.cli.options import illustrate
from vittle.dashboards import words
from vittle.storage.store import Store

__all__ = ["pictured"]  # fixtures


@pytest.fixture(scope="module")
def address(pictured: Store) -> Iterator[str]:
    with serving(pictured, illustrate=illustrate) as url:
        yield url


TINTS = """() => [...document.querySelectorAll(".drawn[data-picture=recursion] canvas")].map(canvas => {
    const context = canvas.getContext("2d");
    return Array.from({ length: 64 }, (_, at) => {
        const [x, y] = [(at % 8 + 0.5) / 8, (Math.floor(at / 8) + 0.5) / 8];
        const [red, , blue] = context.getImageData(Math.floor(x * canvas.width), Math.floor(y * canvas.height), 1, 1).data;
        return blue - red;
    });
})"""
BLUE = 0xB2  # blue over red of the colour; pictures of digits are grey


class TestRecursion:
    def open(self, page: Page, address: str, trial: int) -> dict[str, Any]:
        return draw_pictures(page, f"{address}/studies/real/trials/{trial}", ".drawn[data-picture=recursion] canvas")

    @pytest.mark.parametrize("trial", [5, 6, 7, 8])
    def test_the_deeper_a_patch_goes_the_stronger_is_its_colour(self, page: Page, address: str, trial: int) -> None:
        page.emulate_media(color_scheme="light")
        told = self.open(page, address, trial)
        capacities = RECURSIVE[trial - 5][0]
        canvases = page.locator(".drawn[data-picture=recursion] canvas")
        slider, said = page.get_by_role("slider", name="Step"), page.locator(".drawn[data-picture=recursion] output")
        expect(said).to_have_text(f"All {len(capacities)} steps: how deep each patch goes")
        parts = np.array([[block["places"] for block in image["blocks"][1 : 1 + len(capacities)]] for image in told["images"]])
        depths = (parts >= 0).sum(1)

        def share(depth: np.ndarray) -> np.ndarray:
            found: np.ndarray = np.where(depth > 0, 0.12 + 0.73 * (depth - 1) / (len(capacities) - 1), 0)
            return found

        assert depths.max() == len(capacities)
        tints = np.array(page.evaluate(TINTS), float)
        there = parts[:, 0] != -1
        assert tints[there] == pytest.approx(BLUE * share(depths)[there], abs=2)
        for canvas, image, depth, left in zip(canvases.all(), told["images"], depths, there, strict=True):
            found = sorted(set(depth[left].tolist()), reverse=True)
            text = ", ".join(f"{(depth[left] == one).sum()} in {one}" for one in found)
            expect(canvas).to_have_attribute("aria-label", f"Image {image['index']}, patches by steps: {text}")
        expect(page.locator(".depths", has_text="dropped before")).to_have_count(int(not there.all()))
        slider.focus()
        entering = told["tokens"][0] - 1
        for step, capacity in enumerate(capacities, 1):
            page.keyboard.press("ArrowRight")
            count = round(capacity * entering)
            expect(said).to_have_text(f"Step {step} of {len(capacities)}: {count} of {entering} patch tokens take part")
            tints = np.array(page.evaluate(TINTS), float)
            assert ((tints > 10) == (parts[:, step - 1] >= 0)).all()
            patches = int((parts[0, step - 1] >= 0).sum())
            expect(canvases.first).to_have_attribute("aria-label", f"Image 0, step {step}: {patches} of 64 patches take part")
            entering = told["tokens"][step] - 1

    @pytest.mark.parametrize(("trial", "why"), [(5, "The scores of a trained router"), (6, "The norms of the patches")])
    def test_histograms_are_of_the_scores_of_all_images(self, page: Page, address: str, trial: int, why: str) -> None:
        told = self.open(page, address, trial)
        expect(page.locator(".drawn[data-picture=recursion]")).to_contain_text(why)
        rows = page.locator(".scores tr")
        steps = [at for at, visit in enumerate(told["visits"]) if visit["block"] == 1]
        expect(rows).to_have_count(len(steps))
        chosen_in = set()
        for step, (at, row) in enumerate(zip(steps, rows.all(), strict=True), 1):
            of_step = [image["blocks"][at]["told"].get("recursion") for image in told["images"]]
            if None in of_step:
                said = "the same patches as in the step before" if told["visits"][at]["resting"] else "all patches"
                expect(row).to_have_text(f"Step {step}{said}")
                continue
            chosen_in.add(step)
            scores = np.concatenate([one["scores"] for one in of_step])
            chosen = np.concatenate([unpacked(one["chosen"]) for one in of_step]).astype(bool)
            expect(row).to_contain_text(f"{chosen.sum() // len(of_step)} of {len(scores) // len(of_step)} go on")
            heights = row.locator(".bins > div").evaluate_all(
                "bins => bins.map(bin => [...bin.children].map(one => Number(one.style.getPropertyValue('--share'))))"
            )
            places = np.minimum(31, (32 * (scores - scores.min()) / (scores.max() - scores.min())).astype(int))
            counts = np.array([[(~chosen[places == place]).sum(), chosen[places == place].sum()] for place in range(32)])
            assert np.array(heights) == pytest.approx(counts / counts.sum(1).max())
            label = row.locator(".bins").get_attribute("aria-label")
            assert label is not None
            numbers = [float(text.replace("−", "-")) for text in re.findall(r"−?[0-9.]*[0-9]", label)[1:]]
            on, off = (np.sort(one)[len(one) // 2] for one in (scores[chosen], scores[~chosen]))
            assert numbers == pytest.approx([scores.min(), scores.max(), on, off], rel=6e-3)
        assert chosen_in == ({2, 3, 5} if trial == 5 else {2, 3})

    @pytest.mark.parametrize(
        ("trial", "why"), [(7, "There are no scores, only depth."), (8, "All patches take part in every step")]
    )
    def test_where_there_are_no_scores_it_is_said_why(self, page: Page, address: str, trial: int, why: str) -> None:
        self.open(page, address, trial)
        expect(page.locator(".drawn[data-picture=recursion]")).to_contain_text(why)
        expect(page.locator(".bins")).to_have_count(0)

    def test_visits_are_named_by_block_and_step_and_bars_tell_who_rests(self, page: Page, address: str) -> None:
        told = self.open(page, address, 5)
        names = ["1", *(f"2, step {step}" for step in range(1, 6)), "12"]
        expect(page.locator("#blocks tbody th")).to_have_text(names)
        how = page.locator("#blocks tbody tr > :nth-child(3)")
        expect(how.nth(1)).to_have_text("all patches take part")
        expect(how.nth(2)).to_have_text("25.0% of the patches rest those that a trained router scores highest take part")
        expect(how.last).to_contain_text("only the token that is read computes")
        resting = [visit["resting"] for visit in told["visits"]]
        assert resting == [0, 0, 16, 32, 32, 48, 0]
        shares = page.locator("#bars .bars > div").evaluate_all(
            "bars => bars.map(bar => [...bar.querySelectorAll('i')].map(one => Number(one.style.getPropertyValue('--share'))))"
        )
        bars = [([rest] if rest else []) + [count - rest] for count, rest in zip(told["tokens"], resting, strict=True)]
        assert [[round(65 * share) for share in bar] for bar in shares] == bars
        expect(page.locator("#bars .bars > div").nth(3)).to_have_attribute("title", "block 2, step 3: 33 tokens, 32 rest")
        expect(page.locator("#bars")).to_contain_text("Pale: tokens that rest")

    def test_other_pictures_know_steps_and_patches_that_rest(self, page: Page, address: str) -> None:
        self.open(page, address, 6)
        move_to(page, 3)
        text = "After block 2, step 2: 45 of 65 tokens"
        expect(page.locator(".drawn[data-picture=patches] output")).to_have_text(text)
        told = self.open(page, address, 7)
        page.get_by_role("combobox", name="Block").select_option(label="2, step 2")
        places = np.array(told["images"][0]["blocks"][2]["places"])
        canvas = page.get_by_role("slider", name="Patch of image 0")
        canvas.focus()
        seen = set()
        for key in ("ArrowLeft", "ArrowLeft", "ArrowUp", "ArrowUp", "ArrowRight", "ArrowRight"):
            page.keyboard.press(key)
            patch = int(canvas.get_attribute("aria-valuenow") or 0) - 1
            rests = places[patch] == -2
            where = f"Row {patch // 8 + 1}, column {patch % 8 + 1}: "
            expected = f"{where}rests in this step" if rests else rf"{where}the 5 of 19 keys.*"
            expect(canvas).to_have_attribute("aria-valuetext", re.compile(f"^{expected}$"))
            seen.add(bool(rests))
        assert seen == {True, False}

    @pytest.mark.parametrize(
        ("language", "scheme"), list(zip(words.languages(), itertools.cycle(["light", "dark"]), strict=False))
    )
    def test_it_fits_a_phone_and_axe_finds_nothing(
        self, browser: BrowserContext, address: str, scheme: Any, language: str
    ) -> None:
        assert browser.browser is not None
        context = browser.browser.new_context(
            viewport={"width": 390, "height": 800},
            color_scheme=scheme,
            locale=language,
            extra_http_headers={"Accept-Language": language},
        )
        shown = context.new_page()
        self.open(shown, address, 5)
        assert shown.evaluate("() => document.documentElement.scrollWidth") == 390
        accessible(shown)
        shown.set_viewport_size({"width": 1400, "height": 900})
        accessible(shown)
        context.close()
