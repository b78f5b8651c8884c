"""What a trial does to images, as its page draws it."""

import base64
import io
import itertools
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import BrowserContext, Page, expect

import illustrators
from browsing import serving
from drawing import accessible, draw_pictures, move_to, unpacked
from studies_to_show import pictured, store
from vittle.cli.options import illustrate
from vittle.dashboards import words
from vittle.storage.store import Store

__all__ = ["pictured", "store"]  # fixtures

NAME = "digits-60"


@pytest.fixture(scope="module")
def address(pictured: Store) -> Iterator[str]:
    with serving(pictured, illustrate=illustrate) as url:
        yield url


PIXELS = """([rows, columns]) => [...document.querySelectorAll(".images canvas")].map(canvas => {
    const context = canvas.getContext("2d");
    return Array.from({ length: rows * columns }, (_, at) => {
        const [x, y] = [(at % columns + 0.625) / columns, (Math.floor(at / columns) + 0.625) / rows];
        return [...context.getImageData(Math.floor(x * canvas.width), Math.floor(y * canvas.height), 1, 1).data].slice(0, 3);
    });
})"""


def decoded(picture: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.partition(",")[2])))).astype(float)


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


HEAT = """([figure, rows, columns]) => {
    const canvas = document.querySelectorAll(".reading canvas")[figure], context = canvas.getContext("2d");
    return Array.from({ length: rows * columns }, (_, at) => {
        const [x, y] = [(at % columns + 0.5) / columns, (Math.floor(at / columns) + 0.5) / rows];
        return [...context.getImageData(Math.floor(x * canvas.width), Math.floor(y * canvas.height), 1, 1).data].slice(0, 3);
    });
}"""


def shares_of(block: dict[str, Any], head: int, patch: int) -> dict[int, float]:
    """What a patch pays to each patch token that it reads in a block and head, by the document."""
    told = block["told"]["sparsity"]
    place = unpacked(told["asked"]).tolist().index(block["places"][patch])
    weights = (unpacked(told["weights"])[head, place] / 255) ** 2
    return dict(zip(unpacked(told["positions"])[head].tolist(), weights.tolist(), strict=True))


def turn(page: Page, block: int, head: int) -> None:
    for name, number in (("Block", block), ("Head", head)):
        page.get_by_role("combobox", name=name).select_option(label=f"{number + 1}")


class TestSparsity:
    def open(self, page: Page, address: str, trial: int) -> dict[str, Any]:
        return draw_pictures(page, f"{address}/studies/real/trials/{trial}", ".reading canvas")

    @pytest.mark.parametrize("trial", [3, 4])
    def test_a_patch_that_is_pointed_at_shows_what_it_reads(self, page: Page, address: str, trial: int) -> None:
        page.emulate_media(color_scheme="light")
        told = self.open(page, address, trial)
        canvas = page.locator(".reading canvas").nth(1)
        seen = []
        for block, head, patch in ((2, 0, 9), (2, 2, 9), (5, 2, 9), (5, 2, 44)):
            turn(page, block, head)
            canvas.scroll_into_view_if_needed()
            box = canvas.bounding_box()
            assert box is not None
            one = told["images"][1]["blocks"][block]
            patch = patch if one["places"][patch] >= 0 else next(at for at in range(64) if one["places"][at] >= 0)
            place = {"x": (patch % 8 + 0.5) / 8 * box["width"], "y": (patch // 8 + 0.5) / 8 * box["height"]}
            canvas.hover(position=place)
            shares = shares_of(one, head, patch)
            places = np.array(one["places"])
            pixels = np.array(page.evaluate(HEAT, [1, 8, 8]), float)
            warm = pixels[:, 0] - pixels[:, 2]  # red over blue; pictures of digits are grey
            read = np.isin(places, list(shares))
            assert (warm[read] > 4).all()
            assert (warm[(places >= 0) & ~read] == 0).all()
            assert (warm[places < 0] <= 0).all()
            paid = np.array([shares.get(place, 0) for place in places.tolist()])
            assert warm[read] == pytest.approx(213 * (0.06 + 0.79 * np.sqrt(paid[read] / paid.max())), abs=3)
            text = canvas.get_attribute("aria-valuetext")
            assert text is not None
            assert text.startswith(
                f"Row {patch // 8 + 1}, column {patch % 8 + 1}: the {len(shares)} of {places.max() + 1} keys"
            )
            assert f"have {100 * sum(shares.values()):.1f}% of its attention" in text
            assert text.endswith(f"the most, {100 * paid.max():.1f}%")
            expect(page.locator(".reading .reads").nth(1)).to_have_text(text)
            seen.append(pixels)
        assert not any(np.array_equal(one, other) for one, other in itertools.pairwise(seen))

    def test_patches_are_reached_by_keyboard_and_there_is_a_text_for_each(self, page: Page, address: str) -> None:
        self.open(page, address, 3)
        canvas = page.get_by_role("slider", name="Patch of image 2")
        other = page.get_by_role("slider", name="Patch of image 3")
        before = other.get_attribute("aria-valuetext")
        canvas.focus()
        for key, row, column in (("ArrowUp", 4, 5), ("ArrowLeft", 4, 4), ("ArrowDown", 5, 4), ("ArrowRight", 5, 5)):
            page.keyboard.press(key)
            expect(canvas).to_have_attribute("aria-valuetext", re.compile(rf"^Row {row}, column {column}: the 16 of 64 keys"))
            expect(canvas).to_have_attribute("aria-valuenow", f"{8 * row + column - 8}")
        for _ in range(10):
            page.keyboard.press("ArrowUp")
        expect(canvas).to_have_attribute("aria-valuenow", "5")  # and no further
        assert other.get_attribute("aria-valuetext") == before

    @pytest.mark.parametrize("trial", [3, 4])
    def test_numbers_are_those_of_the_document(self, page: Page, address: str, trial: int) -> None:
        told = self.open(page, address, trial)
        blocks = [at for at, block in enumerate(told["images"][0]["blocks"]) if "sparsity" in block["told"]]
        assert blocks == (list(range(12)) if trial == 3 else list(range(2, 11)))

        def mean(name: str, block: int, head: int) -> float:
            return float(np.mean([image["blocks"][block]["told"]["sparsity"][name][head] for image in told["images"]]))

        for block, head in ((blocks[1], 0), (blocks[-1], 2)):
            turn(page, block, head)
            values = [f"{100 * mean(name, block, head):.1f}%" for name in ("recall", "mass")]
            expect(page.locator(".rates dd:not(.hint)")).to_have_text(values)
            rows = page.locator(".drift tbody tr")
            expect(rows).to_have_count(10)
            for one, cells in zip(told["drift"], rows.all(), strict=True):
                measured = one["measured"]["sparsity"]
                shown = cells.locator("td").all_inner_texts()
                expected = [measured["recall"][block], measured["mass"][block]]
                expected += [np.mean([value for value in measured[name] if value is not None]) for name in ("recall", "mass")]
                assert [float(text.split("%")[0]) for text in shown] == pytest.approx(
                    [100 * value for value in expected], abs=0.051
                )
        page.locator("summary", has_text="Every block and head").click()
        cells = page.locator(".heads tbody td").all_inner_texts()
        assert len(cells) == 3 * len(blocks)
        every = [[100 * mean(name, block, head) for name in ("recall", "mass")] for block in blocks for head in range(3)]
        assert np.array([[float(value) for value in cell.split(" · ")] for cell in cells]) == pytest.approx(
            np.array(every), abs=0.51
        )

    def test_each_query_may_have_keys_of_its_own_and_the_nearest_patch_that_is_told_answers(
        self, page: Page, address: str
    ) -> None:
        self.open(page, address, 3)

        def packed(kind: str, values: list[Any]) -> dict[str, Any]:
            array = np.array(values, {"uint8": "u1", "int16": "<i2"}[kind])
            return {"type": kind, "shape": list(array.shape), "data": base64.b64encode(array.tobytes()).decode()}

        stream = io.BytesIO()
        Image.fromarray(np.full((8, 12, 3), 128, np.uint8)).save(stream, "PNG")
        picture = f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
        # Six patches, of which the last was dropped and two are one token; two of the four tokens can be asked.
        sparsity = {
            "recall": [0.5], "mass": [0.75], "asked": packed("int16", [0, 3]),
            "positions": packed("int16", [[[1, 2], [0, 3]]]), "weights": packed("uint8", [[[51, 204], [0, 255]]]),
        }  # fmt: skip
        block = {"groups": [0] * 6, "sizes": [6], "told": {"sparsity": sparsity}, "places": [0, 1, 1, 2, 3, -1]}
        image = {"index": 0, "label": None, "picture": picture, "backbone": 1, "schedule": 1, "agree": True, "blocks": [block]}
        drift = [{"kind": None, "strength": 0, "measured": {"sparsity": {"recall": [0.5], "mass": [0.75]}}}]
        told = {
            "grid": [2, 3],
            "patch": [4, 4],
            "tokens": [7],
            "whole": 7,
            "prefix": 1,
            "blocks": 1,
            "images": [image],
            "drift": drift,
        }
        page.evaluate("told => PICTURES.sparsity(document.querySelector('.drawn'), told)", told)
        canvas = page.get_by_role("slider", name="Patch of image 0")
        expect(page.locator(".reading canvas")).to_have_count(1)
        first = "Row 1, column 1: the 2 of 4 keys that it reads have 68.0% of its attention, row 2, column 1 the most, 64.0%"
        second = "Row 2, column 2: the 2 of 4 keys that it reads have 100.0% of its attention, row 2, column 2 the most, 100.0%"
        expect(canvas).to_have_attribute("aria-valuetext", second)
        canvas.focus()
        for key, text in (
            ("ArrowRight", "Row 2, column 3: dropped before this block"),
            ("ArrowUp", second),  # row 1, column 3: its token is not told, and this one is nearer than the first
            ("ArrowLeft", first),  # as near to both: the first one answers
            ("ArrowLeft", first),
            ("ArrowDown", first),
        ):
            page.keyboard.press(key)
            expect(canvas).to_have_attribute("aria-valuetext", text)
        expect(page.locator(".drawn")).to_contain_text("2 of 4 patches can be asked")

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
        self.open(shown, address, 4)
        shown.locator("summary").last.click()
        assert shown.evaluate("() => document.documentElement.scrollWidth") == 390
        accessible(shown)
        shown.set_viewport_size({"width": 1400, "height": 900})
        accessible(shown)
        context.close()
