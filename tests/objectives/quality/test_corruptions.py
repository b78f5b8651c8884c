"""Corrupted images: what is done to them, that it grows with the strength, and that it is the same every time."""

import numpy as np
import pytest

from vittle.objectives.quality.corruptions import STRENGTHS, WORST, Kind, corrupted

CASES = [*((kind, strength) for kind, strengths in STRENGTHS.items() for strength in strengths), *WORST]


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """Images (3, 96, 64, 3) with structure, away from the ends of the range."""
    rows, columns = np.mgrid[:96, :64]
    waves = [127 + 40 * np.sin(rows / (3 + image)) * np.cos(columns / (2 + image)) for image in range(3)]
    return np.stack([np.stack([wave, wave + 10, 255 - wave], -1) for wave in waves]).round().astype(np.uint8)


@pytest.mark.parametrize(("kind", "strength"), CASES)
def test_it_is_the_same_every_time_whichever_others_there_are(pixels: np.ndarray, kind: Kind, strength: float) -> None:
    before = pixels.copy()
    found = corrupted(pixels, kind, strength, [4, 9, 2])
    assert (found.shape, found.dtype) == (pixels.shape, np.uint8)
    assert (corrupted(pixels[[2, 0]], kind, strength, [2, 4]) == found[[2, 0]]).all()
    assert (pixels == before).all()


@pytest.mark.parametrize("kind", STRENGTHS)
def test_the_stronger_it_is_the_further_images_are_from_what_they_were(pixels: np.ndarray, kind: Kind) -> None:
    far = [np.abs(corrupted(pixels, kind, one, [0, 1, 2]).astype(float) - pixels).mean() for one in STRENGTHS[kind]]
    assert far == sorted(far)
    assert far[0] > 0.1


@pytest.mark.parametrize("strength", STRENGTHS["noise"])
def test_noise_has_its_deviation_and_is_another_in_each_image(strength: float) -> None:
    grey = np.full((2, 128, 128, 3), 128, np.uint8)
    noise = corrupted(grey, "noise", strength, [0, 1]).astype(float) - 128
    inside = np.abs(noise) < 126  # the rest was cut off
    expected = np.random.default_rng(7).normal(0, 255 * strength, 200_000)
    assert noise[inside].std() == pytest.approx(expected[np.abs(expected) < 126].std(), rel=0.02)
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("strength", STRENGTHS["contrast"])
def test_contrast_is_cut_around_the_mean_of_each_channel(pixels: np.ndarray, strength: float) -> None:
    found = corrupted(pixels, "contrast", strength, [0, 1, 2]).astype(float)
    mean = pixels.mean((1, 2), keepdims=True)
    assert np.abs(found - (mean + strength * (pixels - mean))).max() <= 0.5


@pytest.mark.parametrize("strength", STRENGTHS["blur"])
def test_a_point_is_blurred_over_a_share_of_the_shorter_side(strength: float) -> None:
    point = np.zeros((1, 301, 201, 3), np.uint8)
    point[0, 140:161, 90:111] = 255  # a square, so that what it becomes is no fraction of a grey level
    found = corrupted(point, "blur", strength, [0])[0, ..., 0].astype(float)
    for axis, length, side in ((1, 301, 21), (0, 201, 21)):
        weights, places = found.sum(axis), np.arange(length)
        variance = (weights * (places - (weights * places).sum() / weights.sum()) ** 2).sum() / weights.sum()
        assert variance == pytest.approx((side**2 - 1) / 12 + (strength * 201) ** 2, rel=0.06)


def test_the_worst_of_a_few_pixels_is_what_is_worked_out_by_hand() -> None:
    levels = np.array([[0, 100, 200], [10, 20, 30]], np.uint8)
    image = np.repeat(levels[None, ..., None], 3, 3)

    def seen(kind: Kind, strength: float) -> list[list[int]]:
        found = corrupted(image, kind, strength, [0])
        assert (found[..., 0] == found[..., 2]).all()
        return found[0, ..., 1].tolist()

    assert seen("blank", 0.5) == [[128] * 3] * 2
    assert seen("exposure", 3) == [[0, 255, 255], [30, 60, 90]]
    assert seen("inversion", 1) == [[255, 155, 55], [245, 235, 225]]
    assert seen("inversion", 0.5) == [[128] * 3] * 2
    assert seen("turned", 2) == [[30, 20, 10], [200, 100, 0]]
    square = np.repeat(levels[None, :, :2, None], 3, 3)
    assert corrupted(square, "turned", 1, [0])[0, ..., 0].tolist() == [[100, 20], [0, 10]]
