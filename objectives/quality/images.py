"""The images that schedules are judged on, decoded and cropped once, and their split into search and held-out."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vittle.objectives.quality import rungs
from vittle.reductions import digits
from vittle.reductions.backbone import Preprocessing, open_dataset
from vittle.spaces.errors import VittleError
from vittle.spaces.inputs import EMBEDDED

ACCEPTED = (
    "digits, a folder of images (with or without labelled sub-folders), an .npz with `images` and `labels`, or a timm dataset"
)
SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".webp"}
HELD_OUT_SHARE = 1 / 3

Progress = Callable[[int, int], None]
T = TypeVar("T")


@dataclass(frozen=True)
class Images:
    """Images at the backbone's size.

    Attributes:
        pixels: (n, height, width, 3) uint8.
        labels: (n,) int64, or None where there are none; the backbone's own answers then stand in for them.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64] | None

    def __len__(self) -> int:
        return len(self.pixels)


NAMED = 5  # of the images that cannot be decoded


def left_out(skipped: Sequence[str]) -> list[str]:
    """A sentence that names what could not be decoded; none where everything could."""
    named = f"{', '.join(skipped[:NAMED])}{', ...' if len(skipped) > NAMED else ''}"
    count = f"{len(skipped)} images" if len(skipped) > 1 else "1 image"
    return [f"{count} cannot be decoded and {'are' if len(skipped) > 1 else 'is'} left out: {named}"] if skipped else []


@dataclass(frozen=True)
class Splits:
    """`search` decides between schedules, the first images first; `held_out` confirms those chosen and is never searched on.

    Attributes:
        skipped: what could not be decoded, by name, and is in neither.
    """

    search: Images
    held_out: Images
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainingSplits:
    """`train` is learned from; `validation` decides which of several trained weights are kept; `skipped` as in `Splits`."""

    train: Images
    validation: Images
    skipped: tuple[str, ...] = ()


def load_images(
    source: str,
    preprocessing: Preprocessing,
    classes: int,
    *,
    limit: int = 6000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Splits:
    """Read images, bring them to the backbone's size, and split them.

    Args:
        source: `digits`, an image folder, an .npz file, or `name[:root]` of a dataset that `timm.data.create_dataset` opens.
        preprocessing: the backbone's.
        classes: of the backbone's head.
        limit: the most images to read; more are sampled.
        seed: of the sample and of the split, a third of it held out.
        progress: told (done, total) while images are decoded.

    Raises:
        VittleError: nothing there, too few that can be decoded, or labels that do not match the head.
    """
    if source == EMBEDDED:
        parts = digits.splits()
        search, held_out = (Images(*parts[name]) for name in ("search", "held-out"))
        _check_labels(source, search.labels, classes)
        return Splits(stratified(_fit(search, preprocessing), seed), _fit(held_out, preprocessing))
    path, skipped = Path(source), list[str]()
    if path.suffix == ".npz":
        images = _sample(_read_npz(path, classes), limit, seed)
        images = _fit(images, preprocessing)
    elif path.is_dir():
        images, skipped = _read_folder(path, preprocessing, classes, limit, seed, progress)
    elif path.exists() or path.is_absolute() or source.startswith("."):
        raise VittleError(f"no images at {source}; accepted: {ACCEPTED}")
    else:
        images, skipped = _read_dataset(source, preprocessing, classes, limit, seed, progress)
    if len(images) < 3:
        lost = f", besides {len(skipped)} that cannot be decoded, such as {skipped[0]}" if skipped else ""
        raise VittleError(f"{source} holds {len(images)} images{lost}; at least 3 are needed to search and to hold out")
    count = max(1, round(len(images) * HELD_OUT_SHARE))
    search = stratified(_take(images, slice(count, None)), seed)
    return Splits(search, _take(images, slice(count)), tuple(skipped))


def load_training_images(
    source: str, preprocessing: Preprocessing, classes: int, *, seed: int = 0, progress: Progress | None = None
) -> TrainingSplits:
    """Read images to train on, and others to validate on. The arguments are those of `load_images`.

    Of the digits, "train" and "search": nothing is ever fitted to "held-out". Of any other source, the two parts that
    `load_images` gives.

    Raises:
        VittleError: as `load_images`.
    """
    if source == EMBEDDED:
        parts = digits.splits()
        train, validation = (Images(*parts[name]) for name in ("train", "search"))
        _check_labels(source, train.labels, classes)
        return TrainingSplits(_fit(train, preprocessing), _fit(validation, preprocessing))
    splits = load_images(source, preprocessing, classes, seed=seed, progress=progress)
    return TrainingSplits(splits.search, splits.held_out, splits.skipped)


def stratified(images: Images, seed: int = 0) -> Images:
    """The same images in a fixed order in which every beginning holds each class in proportion."""
    return _take(images, rungs.order(images.labels, len(images), seed))


def _take(images: Images, which: slice | NDArray[np.intp]) -> Images:
    return Images(images.pixels[which], None if images.labels is None else images.labels[which])


def _sample(images: Images, limit: int, seed: int) -> Images:
    return _take(images, _order(len(images), limit, seed))


def _order(n: int, limit: int, seed: int) -> NDArray[np.intp]:
    order: NDArray[np.intp] = np.random.default_rng(seed).permutation(n)[:limit]
    return order


def _read_npz(path: Path, classes: int) -> Images:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in ("images", "labels") if name in archive}
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError)
        raise VittleError(f"{'no file at' if missing else 'cannot read'} {path}; accepted: {ACCEPTED}") from None
    pixels, labels = arrays.get("images"), arrays.get("labels")
    if pixels is None or pixels.ndim != 4 or pixels.shape[-1] != 3 or pixels.dtype != np.uint8:
        found = "nothing" if pixels is None else f"{pixels.dtype} {pixels.shape}"
        raise VittleError(f"{path} has {found} under `images`; accepted: uint8 (n, height, width, 3)")
    if labels is not None and labels.shape != (len(pixels),):
        raise VittleError(f"{path} has {len(pixels)} images and labels of shape {labels.shape}; accepted: one label per image")
    _check_labels(str(path), labels, classes)
    return Images(pixels, None if labels is None else labels.astype(np.int64))


def _check_labels(source: str, labels: NDArray[Any] | None, classes: int) -> None:
    if labels is None or len(labels) == 0:
        return
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= classes:
        raise VittleError(
            f"the labels of {source} run from {labels.min()} to {labels.max()}, "
            f"the model's head has {classes} classes; accepted: integers from 0 to {classes - 1}"
        )


def _read_folder(
    path: Path, preprocessing: Preprocessing, classes: int, limit: int, seed: int, progress: Progress | None
) -> tuple[Images, list[str]]:
    """The images, and the names of those that cannot be decoded."""
    folders = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    labelled = [(file, label) for label, folder in enumerate(folders) for file in _files(folder)]
    loose = [(file, -1) for file in _files(path)] if not labelled else []
    files = labelled or loose
    if not files:
        raise VittleError(f"no images in {path}; accepted: files ending in {', '.join(sorted(SUFFIXES))}")
    if labelled and len(folders) != classes:
        raise VittleError(
            f"{path} has {len(folders)} labelled sub-folders, the model's head has {classes} classes; "
            f"accepted: one sub-folder per class, or images without sub-folders"
        )
    chosen = [files[index] for index in _order(len(files), limit, seed)]
    pixels, kept = _decode([file for file, _ in chosen], _open, preprocessing, progress)
    labels = np.array([label for _, label in chosen], np.int64)[kept] if labelled else None
    return Images(pixels, labels), [str(file.relative_to(path)) for file, _ in _left_out(chosen, kept)]


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)


def _open(file: Path) -> Image.Image:
    with Image.open(file) as image:
        return image.convert("RGB")


def _read_dataset(
    source: str, preprocessing: Preprocessing, classes: int, limit: int, seed: int, progress: Progress | None
) -> tuple[Images, list[str]]:
    """The images, and the numbers of those that cannot be decoded."""
    dataset = open_dataset(source, ACCEPTED)
    chosen = [int(index) for index in _order(len(dataset), limit, seed)]
    labels: dict[int, int] = {}

    def read(index: int) -> Image.Image:
        image, label = dataset[index]
        labels[index] = int(label)
        rgb: Image.Image = image.convert("RGB")
        return rgb

    pixels, kept = _decode(chosen, read, preprocessing, progress)
    ordered = np.array([labels[chosen[place]] for place in kept], np.int64)
    _check_labels(source, ordered, classes)
    return Images(pixels, ordered), [f"image {index}" for index in _left_out(chosen, kept)]


def _decode(
    items: Sequence[T], read: Callable[[T], Image.Image], preprocessing: Preprocessing, progress: Progress | None
) -> tuple[NDArray[np.uint8], list[int]]:
    """The pixels of all that can be decoded, and their places among the items."""

    def attempt(item: T) -> NDArray[np.uint8] | None:
        try:
            return _crop(read(item), preprocessing)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):  # what Pillow raises for files that are broken
            return None

    pixels, kept = np.empty((len(items), *preprocessing.size, 3), np.uint8), list[int]()
    with ThreadPoolExecutor() as pool:
        for place, image in enumerate(pool.map(attempt, items)):
            if image is not None:
                pixels[len(kept)] = image
                kept.append(place)
            if progress is not None:
                progress(place + 1, len(items))
    return pixels[: len(kept)], kept


def _left_out(items: Sequence[T], kept: Sequence[int]) -> list[T]:
    there = set(kept)
    return [item for place, item in enumerate(items) if place not in there]


def _fit(images: Images, preprocessing: Preprocessing) -> Images:
    if images.pixels.shape[1:3] == preprocessing.size:
        return images
    pixels = np.stack([_crop(Image.fromarray(image), preprocessing) for image in images.pixels])
    return Images(pixels, images.labels)


def _crop(image: Image.Image, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Resize so that the crop covers `preprocessing.crop` of the image, then cut it out of the centre: (height, width, 3)."""
    height, width = preprocessing.size
    scale = max(height / image.height, width / image.width) / preprocessing.crop
    resample = Image.Resampling[preprocessing.interpolation.upper()]
    resized = image.resize((max(width, round(image.width * scale)), max(height, round(image.height * scale))), resample)
    left, top = (resized.width - width) // 2, (resized.height - height) // 2
    return np.asarray(resized.crop((left, top, left + width, top + height)))
