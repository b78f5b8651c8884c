"""From files to pixels: what a decoder raises, how much of an image costs memory, and images of more than eight bits."""

import io
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vittle.objectives.quality import decoding
from vittle.objectives.quality.decoding import Decoded, Resized, crop_arrays, decode, full_range
from vittle.reductions.data import Opened, Preprocessing, evaluation_transform

SMALL = Preprocessing(size=(16, 16), crop=0.875, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)


def encoded(image: Image.Image, kind: str = "PNG", **how: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **how)
    return stream.getvalue()


def decoded(*files: bytes, preprocessing: Preprocessing = SMALL) -> Decoded:
    return decode(files, lambda file: Opened(io.BytesIO(file), None), preprocessing)


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


@pytest.mark.parametrize(
    "error", [RuntimeError("decoder\ngave up"), MemoryError(), KeyError("x"), RecursionError("deep"), OSError()]
)
def test_whatever_is_raised_leaves_out_its_image_alone(error: Exception) -> None:
    def open_(number: int) -> Opened:
        if number == 1:
            raise error
        return Opened(io.BytesIO(encoded(noise(20, 20, number))), number)

    found = decode([0, 1, 2], open_, SMALL)
    assert found.places == [0, 2]
    assert found.labels == [0, 2]
    assert len(found.pixels) == 2
    assert list(found.failures) == [1]
    assert found.failures[1]
    assert "\n" not in found.failures[1]


def test_no_image_and_half_of_one() -> None:
    whole = encoded(noise(64, 64))
    found = decoded(b"no image", whole[: len(whole) // 2], whole)
    assert found.places == [2]
    assert found.failures[0] == "no image"
    assert found.sizes == [len(whole)]


def test_a_bomb_is_left_out_and_what_is_large_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    found = decoded(encoded(noise(30, 40)), encoded(noise(60, 40)))  # the first is over the limit, the other twice so
    assert found.places == [0]
    assert "decompression bomb" in found.failures[1]


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "lanczos", "nearest", "box"])
def test_what_is_resized_when_it_is_cropped_has_timms_pixels(mode: str, interpolation: str) -> None:
    for trial in range(12):
        height, width = np.random.default_rng(trial).integers(4, 300, 2)
        size = (48, 48) if trial % 3 else (64, 48)
        wanted = Preprocessing(size, (0.875, 0.95, 1.0)[trial % 3], interpolation, (0.5, 0.4, 0.3), (0.5,) * 3, mode)
        transform, image = evaluation_transform(wanted), noise(int(height), int(width), trial)
        assert np.array_equal(transform(Resized.of(image)), transform(image))


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "lanczos"])
@pytest.mark.parametrize("shape", [(1, 1201), (800, 2), (3, 500), (500, 3), (297, 58), (77, 203), (100, 130), (61, 61)])
def test_what_is_resized_only_where_the_crop_is_has_them_too(
    shape: tuple[int, int], interpolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "WHOLE", 0)
    for size, crop in (((32, 32), 0.9), ((48, 48), 1.0), ((48, 32), 0.875)):
        transform = evaluation_transform(Preprocessing(size, crop, interpolation, (0.5,) * 3, (0.5,) * 3))
        image = noise(*shape)
        ours, timms = (transform(one).astype(int) for one in (Resized.of(image), image))
        assert np.abs(ours - timms).max() <= 1


@pytest.mark.parametrize("shape", [(1, 30_000), (30_000, 1)])
def test_no_image_costs_more_memory_than_its_crop_needs(shape: tuple[int, int]) -> None:
    wanted = Preprocessing((224, 224), 0.9, "bicubic", (0.5,) * 3, (0.5,) * 3)
    seen: list[int] = []
    new = Image.Image._new

    def counting(self: Image.Image, core: object) -> Image.Image:
        seen.append(core.size[0] * core.size[1])  # Pillow's memory is not Python's
        return new(self, core)

    tracemalloc.start()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Image.Image, "_new", counting)
        pixels = evaluation_transform(wanted)(Resized.of(noise(*shape)))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert pixels.shape == (224, 224, 3)
    assert seen
    assert max(seen) <= 224 * 224
    assert most < 2**21


def test_large_images_are_decoded_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "LARGE", 500)
    inside = most = 0
    load = Image.Image.load

    def counted(self: Image.Image) -> object:
        nonlocal inside, most
        if self.size != (40, 30):
            return load(self)
        inside += 1
        most = max(most, inside)
        try:
            return load(self)
        finally:
            inside -= 1

    files = [encoded(noise(30, 40, seed)) for seed in range(16)]
    monkeypatch.setattr(Image.Image, "load", counted)
    assert len(decoded(*files).places) == 16
    assert most == 1


def test_arrays_are_cropped_as_files_are() -> None:
    images = np.stack([np.asarray(noise(40, 60, seed)) for seed in range(3)])
    expected = [evaluation_transform(SMALL)(Image.fromarray(image)) for image in images]
    assert np.array_equal(crop_arrays(images, SMALL), np.stack(expected))


def ramp(image: Image.Image) -> list[int]:
    """The shades of the first row."""
    return np.asarray(full_range(image))[0].astype(int).tolist()


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([0, 257, 32896, 65535], np.uint16, [0, 1, 128, 255]),  # 16 bits: all that they can hold
        ([0, 10, 100, 255], np.uint16, [0, 0, 0, 1]),
        ([0, 10, 100, 255], np.int32, [0, 10, 100, 255]),  # 32 bits: what stands in them
        ([0, 257, 32896, 65535], np.int32, [0, 1, 128, 255]),
        ([-100, 0, 0, 155], np.int32, [0, 100, 100, 255]),
        ([0, 0, 500_000, 1_000_000], np.int32, [0, 0, 128, 255]),
        ([0, 0.25, 0.5, 1], np.float32, [0, 64, 128, 255]),
        ([0, 10, 100, 255], np.float32, [0, 10, 100, 255]),
        ([-1, 0, 0, 1], np.float32, [0, 128, 128, 255]),
        ([0, 400, np.nan, 4000], np.float32, [0, 26, 0, 255]),
    ],
)
def test_more_than_eight_bits_use_the_full_range(values: list[float], kind: type, expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], kind))
    assert ramp(image) == pytest.approx(expected, abs=1)


def test_eight_bits_stay_as_they_are() -> None:
    for mode in ("RGB", "L", "1", "P", "RGBA", "CMYK", "LA"):
        image = noise(8, 8).convert(mode)
        assert full_range(image) is image


def test_an_exif_turn_is_counted_and_not_made(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[decoding.ORIENTATION] = 6
    half = Image.fromarray(np.repeat(np.array([[[0, 0, 0]], [[250, 250, 250]]], np.uint8), 16, 1).repeat(8, 0))
    turned, plain = (decoded(encoded(half, "JPEG", **how), encoded(half)) for how in ({"exif": exif}, {}))
    assert (turned.turned, plain.turned) == (1, 0)
    assert np.array_equal(turned.pixels[0], plain.pixels[0])  # black is still above
    assert turned.pixels[0][:6].max() < 30
