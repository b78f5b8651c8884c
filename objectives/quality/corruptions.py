"""Images that are blurred, noisy or pale, the same ones every time: what a schedule meets outside its data set.

After Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions", arXiv 1903.12261, with three of
their kinds at three strengths each:

    blur        Gaussian, its standard deviation as a share of the image's shorter side
    noise       Gaussian, in each channel of each pixel, its standard deviation as a share of the range of values
    contrast    the share that is left of each channel's distance from its mean over the image

And what a service meets at worst, for those who watch it:

    blank       nothing but one level, as a share of the range of values
    exposure    values multiplied, and cut off where they are too bright
    inversion   the share of the way to the negative
    turned      by so many quarters to the left; an image that is not square is squeezed back into its shape
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Kind = Literal["blur", "noise", "contrast", "blank", "exposure", "inversion", "turned"]

STRENGTHS: Mapping[Kind, tuple[float, ...]] = {
    "blur": (0.01, 0.02, 0.04),
    "noise": (0.08, 0.18, 0.38),
    "contrast": (0.4, 0.2, 0.1),
}
WORST: tuple[tuple[Kind, float], ...] = (
    ("blank", 0.0),
    ("blank", 0.5),
    ("noise", 0.3),
    ("noise", 1.0),
    ("turned", 1),
    ("exposure", 3.0),
    ("inversion", 1.0),
    ("blur", 0.04),
    ("contrast", 0.2),
)
SEED = 0x5EED


def corrupted(pixels: NDArray[np.uint8], kind: Kind, strength: float, indices: Sequence[int]) -> NDArray[np.uint8]:
    """Images (n, height, width, 3) as they look then.

    Args:
        pixels: of the images.
        kind: what happens to them.
        strength: how much of it, as the kind counts it.
        indices: of the images (n,): each has noise of its own, whichever others there are.
    """
    made = [_corrupted(one, kind, strength, index) for one, index in zip(pixels, indices, strict=True)]
    return np.stack(made)


def _corrupted(pixels: NDArray[np.uint8], kind: Kind, strength: float, index: int) -> NDArray[np.uint8]:
    """One image (height, width, 3)."""
    if kind == "blur":
        deviation = strength * min(pixels.shape[:2])
        return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(deviation)))
    if kind == "turned":
        height, width = pixels.shape[:2]
        turned = Image.fromarray(np.rot90(pixels, int(strength)).copy())
        return np.asarray(turned if turned.size == (width, height) else turned.resize((width, height)))
    values = pixels.astype(np.float64)
    match kind:
        case "noise":
            values += np.random.default_rng((SEED, index)).normal(0, 255 * strength, pixels.shape)
        case "contrast":
            mean = values.mean((0, 1))
            values = mean + strength * (values - mean)
        case "blank":
            values[:] = 255 * strength
        case "exposure":
            values *= strength
        case "inversion":
            values += strength * (255 - 2 * values)
    return values.round().clip(0, 255).astype(np.uint8)
