"""From files to the pixels that a backbone sees: decoded by Pillow, cropped by timm's evaluation transform.

Two things are done beside it. Images of more than eight bits keep their full range, where a plain conversion clips them to
white. And no image costs more memory than its crop needs: what would be resized whole and then cut is resized where it is cut.
"""

import contextlib
import math
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from vittle.reductions.data import Opened, Preprocessing, evaluation_transform
from vittle.spaces.errors import one_line

Progress = Callable[[int, int], None]
T = TypeVar("T")

LARGE = 2**24  # pixels; of images with more one is decoded at a time
ORIENTATION = 0x0112  # the EXIF tag
WHOLE = 2**22  # pixels; what is resized to no more is resized whole
ROWS_MAY_BE_FIRST = int(PIL.__version__.split(".")[0]) >= 13  # where an image loses many more of them than columns
REACH = {"BILINEAR": 1.0, "BICUBIC": 2.0, "LANCZOS": 3.0}  # pixels on each side, of filters that rounding hardly moves
LONGEST = 100  # letters of a reason

_one_large = threading.Lock()


class Decoded(NamedTuple):
    """Images that could be decoded.

    Attributes:
        pixels: (n, height, width, 3) uint8.
        places: (n,) of each among the items that were asked for.
        labels: (n,) as they were read; None where there was none.
        sizes: (n,) in bytes; of what was no file, in pixels.
        failures: why the others could not be, by their place.
        turned: how many carry an EXIF tag that says to turn them.
    """

    pixels: NDArray[np.uint8]
    places: list[int]
    labels: list[int | None]
    sizes: list[int]
    failures: dict[int, str]
    turned: int


def decode(
    items: Sequence[T], open_: Callable[[T], Opened], preprocessing: Preprocessing, progress: Progress | None = None
) -> Decoded:
    """Decode and crop, in several threads; whatever a decoder raises leaves out its image and nothing else.

    Args:
        items: what to decode.
        open_: gives the image of one of them.
        preprocessing: the backbone's.
        progress: told (done, total).
    """
    transform = evaluation_transform(preprocessing)

    def attempt(item: T) -> _One | str:
        try:
            return _decode(open_(item), transform)
        except UnidentifiedImageError:
            return "no image"
        except Exception as error:  # decoders raise whatever they like
            return one_line(error, LONGEST)

    pixels = np.empty((len(items), *preprocessing.size, 3), np.uint8)
    found = Decoded(pixels, [], [], [], {}, 0)
    turned = 0
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter("ignore")  # of what is odd about a file, and does not keep it from being read
        for place, one in enumerate(pool.map(attempt, items)):
            if isinstance(one, str):
                found.failures[place] = one
            else:
                pixels[len(found.places)] = one.pixels
                found.places.append(place)
                found.labels.append(one.label)
                found.sizes.append(one.size)
                turned += one.turned
            if progress is not None:
                progress(place + 1, len(items))
    return found._replace(pixels=pixels[: len(found.places)], turned=turned)


def crop_arrays(pixels: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Images (n, h, w, 3) as the backbone sees them, (n, height, width, 3)."""
    transform = evaluation_transform(preprocessing)
    cropped = np.empty((len(pixels), *preprocessing.size, 3), np.uint8)
    for place, image in enumerate(pixels):
        cropped[place] = transform(Resized.of(Image.fromarray(image)))
    return cropped


def full_range(image: Image.Image) -> Image.Image:
    """An image of more than eight bits in eight, black to white; others as they are.

    Of 16 bits all values count, as a viewer shows them. Of 32 bits and of floats the file does not say what is white: values
    of 0 to 255 stay, floats of 0 to 1 are multiplied by 255, 32 bits up to 65,535 are 16 bits, and of others the least is black
    and the most is white.
    """
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image
    values = np.nan_to_num(np.asarray(image, np.float32 if image.mode == "F" else np.float64))
    least, most = float(values.min()), float(values.max())
    if image.mode.startswith("I;16"):
        least, most = 0.0, 65535.0
    elif least >= 0 and most <= (1 if image.mode == "F" else 255):
        least, most = 0.0, 1.0 if image.mode == "F" else 255.0
    elif least >= 0 and most <= (255 if image.mode == "F" else 65535):
        least, most = 0.0, 255.0 if image.mode == "F" else 65535.0
    scaled = (values - least) * (255 / (most - least) if most > least else 0)
    return Image.fromarray(np.rint(scaled).astype(np.uint8))


class Resized(Image.Image):
    """An RGB image that is resized when it is cropped: whole where that is little, else only where the crop is.

    To timm's transform it is an image like any other. Where anything else is asked of it than its size and a crop, it is
    resized whole, as Pillow's own files are read when they are first asked for.
    """

    def __init__(self, source: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> None:
        super().__init__()
        self._mode, self._size = "RGB", size
        self._source, self._resample = source, resample

    @classmethod
    def of(cls, image: Image.Image) -> "Resized":
        """An image of any mode in its own size."""
        return cls(image, image.size, Image.Resampling.NEAREST)

    def load(self) -> Any:
        if self._im is None:
            self.im = _rgb(self._source).resize(self._size, self._resample).im
        return super().load()

    def resize(self, size: Any, resample: int | None = None, *args: Any, **kwargs: Any) -> Image.Image:
        if self.size != self._source.size or resample is None or args or kwargs:
            return super().resize(size, resample, *args, **kwargs)
        return Resized(self._source, (size[0], size[1]), Image.Resampling(resample))

    def crop(self, box: Any = None) -> Image.Image:
        if box is None or self.width * self.height <= WHOLE or self._resample.name not in REACH:
            return super().crop(box)
        left, top, right, bottom = box
        columns = _needed(left, right, self.width, self._source.width, REACH[self._resample.name])
        rows = _needed(top, bottom, self.height, self._source.height, REACH[self._resample.name])
        part = _rgb(self._source.crop((columns.first, rows.first, columns.last, rows.last)))
        # One axis at a time, in the order in which Pillow does it: between the two it rounds.
        for axis in (1, 0) if self._rows_first else (0, 1):
            if axis:
                part = part.resize((part.width, bottom - top), self._resample, (0, rows.start, part.width, rows.stop))
            else:
                part = part.resize((right - left, part.height), self._resample, (columns.start, 0, columns.stop, part.height))
        return part

    @property
    def _rows_first(self) -> bool:
        fewer_columns, fewer_rows = (before - after for before, after in zip(self._source.size, self.size, strict=True))
        return ROWS_MAY_BE_FIRST and fewer_rows > max(0, 2 * fewer_columns)


class _Needed(NamedTuple):
    """Of one side of an image, the pixels that a crop is made of, and where within them the crop begins and ends."""

    first: int
    last: int
    start: float
    stop: float


def _needed(start: int, stop: int, resized: int, side: int, reach: float) -> _Needed:
    scale = side / resized
    margin = reach * max(1.0, scale) + 1
    first = max(0, math.floor(start * scale - margin))
    last = min(side, math.ceil(stop * scale + margin))
    return _Needed(first, last, start * scale - first, min(stop * scale - first, last - first))


def _rgb(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")


class _One(NamedTuple):
    pixels: NDArray[np.uint8]
    label: int | None
    size: int
    turned: bool


def _decode(opened: Opened, transform: Callable[[Image.Image], NDArray[np.uint8]]) -> _One:
    given, label = opened
    if isinstance(given, Image.Image):
        return _One(transform(Resized.of(full_range(given))), label, given.width * given.height, False)
    with given, Image.open(given) as image:
        size = given.seek(0, 2)
        with _one_large if image.width * image.height > LARGE else contextlib.nullcontext():
            image.load()
            turned = image.getexif().get(ORIENTATION, 1) not in (0, 1)
            return _One(transform(Resized.of(full_range(image))), label, size, turned)
