"""The images that schedules are judged on, read once, and their split into search and held-out.

Reading is timm's: its readers and its evaluation transform, so that accuracy is what timm itself would report on the same
files. Around them is only which images are read, in which order, what is passed over, and which images they were.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vittle.objectives.quality import image_folder, rungs
from vittle.objectives.quality.decoding import Decoded, Progress, crop_arrays, decode
from vittle.objectives.quality.image_digest import ImageDigest
from vittle.objectives.quality.image_folder import PassedOver
from vittle.reductions import digits
from vittle.reductions.data import Dataset, Opened, Preprocessing
from vittle.spaces.errors import VittleError
from vittle.spaces.inputs import ACCEPTED, EMBEDDED, check_images

HELD_OUT_SHARE = 1 / 3
VALIDATION_SHARE = 1 / 4  # of what a training may see


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


@dataclass(frozen=True)
class Read:
    """Images as they were read, in the order in which they were chosen.

    Attributes:
        images: (n,) of them.
        names: (n,) what each is called in its source.
        digest: which they are.
        notes: what the user should know of how they were read.
    """

    images: Images
    names: Sequence[str]
    digest: ImageDigest
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Splits:
    """`search` decides between schedules, the first images first; `held_out` confirms those chosen and is never searched on.

    Attributes:
        notes: what the user should know of how they were read.
        digest: which images they are; None of those that nobody reads again.
    """

    search: Images
    held_out: Images
    notes: tuple[str, ...] = ()
    digest: ImageDigest | None = None


@dataclass(frozen=True)
class TrainingSplits:
    """Images for a training.

    Attributes:
        train: learned from.
        validation: decide which of several trained weights are kept.
        verdict: decide nothing, and say how good what was kept is.
        notes: as in `Splits`.
    """

    train: Images
    validation: Images
    verdict: Images
    notes: tuple[str, ...] = ()


def load_images(
    source: str,
    preprocessing: Preprocessing,
    classes: int,
    *,
    class_names: str | None = None,
    limit: int = 6000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Splits:
    """Read images, bring them to the backbone's size, and split them.

    Args:
        source: `digits`, an image folder, an .npz file, or `name[:root]` of a dataset that `timm.data.create_dataset` opens.
        preprocessing: the backbone's.
        classes: of the backbone's head.
        class_names: a file with their names, one a line, by which folders are labelled.
        limit: the most images to read; more are sampled.
        seed: of the sample and of the split, a third of it held out.
        progress: told (done, total) while images are decoded.

    Raises:
        VittleError: nothing there, too few that can be decoded, or labels that do not match the head.
    """
    if source == EMBEDDED:
        search, held_out = _digits(("search", "held-out"), classes, class_names)
        digest = _digest_of_arrays(search, held_out)
        return Splits(stratified(_fit(search, preprocessing), seed), _fit(held_out, preprocessing), digest=digest)
    read = read_images(source, preprocessing, classes, class_names=class_names, limit=limit, seed=seed, progress=progress)
    if len(read.images) < 3:
        lost = f" ({'; '.join(read.notes)})" if read.notes else ""
        raise VittleError(f"{source} holds {len(read.images)} images{lost}; at least 3 are needed to search and to hold out")
    count = max(1, round(len(read.images) * HELD_OUT_SHARE))
    search = stratified(_take(read.images, slice(count, None)), seed)
    return Splits(search, _take(read.images, slice(count)), read.notes, read.digest)


def load_training_images(
    source: str,
    preprocessing: Preprocessing,
    classes: int,
    *,
    class_names: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> TrainingSplits:
    """Read images to train on, to validate on, and for a verdict. The arguments are those of `load_images`.

    Of the digits, "train", "search" and "held-out": nothing is ever fitted to the last, it is only read. Of any other source,
    the verdict has what `load_images` holds out, and a quarter of the rest validates.

    Raises:
        VittleError: as `load_images`.
    """
    if source == EMBEDDED:
        parts = _digits(("train", "search", "held-out"), classes, class_names)
        train, validation, verdict = (_fit(part, preprocessing) for part in parts)
        return TrainingSplits(train, validation, verdict)
    splits = load_images(source, preprocessing, classes, class_names=class_names, seed=seed, progress=progress)
    count = max(1, round(len(splits.search) * VALIDATION_SHARE))
    train, validation = _take(splits.search, slice(count, None)), _take(splits.search, slice(count))
    return TrainingSplits(train, validation, splits.held_out, splits.notes)


def _digits(names: Sequence[str], classes: int, class_names: str | None) -> list[Images]:
    """Parts of the digits, as they are."""
    _refuse_names(EMBEDDED, class_names)
    parts = digits.splits()
    found = [Images(*parts[name]) for name in names]
    _check_labels(EMBEDDED, found[0].labels, classes)
    return found


def read_images(
    source: str,
    preprocessing: Preprocessing,
    classes: int,
    *,
    class_names: str | None = None,
    limit: int = 6000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Read:
    """Read images of one's own, unsplit; arguments and errors as `load_images` has them."""
    check_images(source)
    path = Path(source)
    if path.suffix.lower() == ".npz":
        _refuse_names(source, class_names)
        return _read_npz(path, preprocessing, classes, limit, seed)
    names = None if class_names is None else image_folder.read_class_names(class_names, classes)
    if path.is_dir():
        return _read_folder(path, preprocessing, classes, names, class_names, limit, seed, progress)
    if path.exists():
        raise VittleError(f"no images at {source}; accepted: {ACCEPTED}")
    return _read_dataset(source, preprocessing, classes, names, limit, seed, progress)


def stratified(images: Images, seed: int = 0) -> Images:
    """The same images in a fixed order in which every beginning holds each class in proportion."""
    return _take(images, rungs.order(images.labels, len(images), seed))


def _take(images: Images, which: slice | NDArray[np.intp]) -> Images:
    return Images(images.pixels[which], None if images.labels is None else images.labels[which])


def _order(n: int, limit: int, seed: int) -> NDArray[np.intp]:
    order: NDArray[np.intp] = np.random.default_rng(seed).permutation(n)[:limit]
    return order


def _refuse_names(source: str, class_names: str | None) -> None:
    if class_names is not None:
        raise VittleError(f"{source} has labels of its own; accepted with --classes: a folder of images with sub-folders")


def _read_npz(path: Path, preprocessing: Preprocessing, classes: int, limit: int, seed: int) -> Read:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in ("images", "labels") if name in archive}
    except Exception as error:  # of a file that is cut, empty or something else, numpy and zipfile raise whatever they meet
        missing = isinstance(error, FileNotFoundError)
        raise VittleError(f"{'no file at' if missing else 'cannot read'} {path}; accepted: {ACCEPTED}") from None
    pixels, labels = arrays.get("images"), arrays.get("labels")
    if pixels is None or pixels.ndim != 4 or pixels.shape[-1] != 3 or pixels.dtype != np.uint8 or 0 in pixels.shape:
        found = "nothing" if pixels is None else f"{pixels.dtype} {pixels.shape}"
        raise VittleError(f"{path} has {found} under `images`; accepted: uint8 (n, height, width, 3)")
    if labels is not None and labels.shape != (len(pixels),):
        raise VittleError(f"{path} has {len(pixels)} images and labels of shape {labels.shape}; accepted: one label per image")
    _check_labels(str(path), labels, classes)
    order = _order(len(pixels), limit, seed)
    chosen = _take(Images(pixels, None if labels is None else labels.astype(np.int64)), order)
    digest = _digest_of_arrays(chosen)
    return Read(_fit(chosen, preprocessing), [f"image {index}" for index in order.tolist()], digest)


def _check_labels(source: str, labels: NDArray[Any] | None, classes: int) -> None:
    if labels is None or len(labels) == 0:
        return
    accepted = f"accepted: integers from 0 to {classes - 1}"
    if not np.issubdtype(labels.dtype, np.number):
        raise VittleError(f"the labels of {source} are no numbers, such as {str(labels[0])[:40]!r}; {accepted}")
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= classes:
        raise VittleError(
            f"the labels of {source} run from {labels.min()} to {labels.max()}, "
            f"the model's head has {classes} classes; {accepted}"
        )


def _read_folder(
    path: Path,
    preprocessing: Preprocessing,
    classes: int,
    names: Sequence[str] | None,
    class_names: str | None,
    limit: int,
    seed: int,
    progress: Progress | None,
) -> Read:
    passed, notes = PassedOver(), list[str]()
    listing = image_folder.list_images(path, passed)
    folders = [name for name, images in listing.classes.items() if images]
    if folders:
        empty = [name for name in listing.classes if name not in folders]
        labels, notes = image_folder.label_folders(path, folders, empty, classes, names, class_names)
        ordered = sorted(folders, key=labels.__getitem__)
        files: list[tuple[Path, int | None]] = [(file, labels[name]) for name in ordered for file in listing.classes[name]]
        for name in empty:
            passed.add("without an image", name)
        for file in listing.loose:
            passed.add("beside the class folders", file.name)
    else:
        _refuse_names(str(path), class_names)
        files = [(file, None) for file in listing.loose]
    if not files:
        there = f" ({'; '.join(passed.notes)})" if passed.notes else ""
        raise VittleError(f"no images in {path}{there}; accepted: files that Pillow reads, such as .jpg, .png and .webp")
    chosen = [files[index] for index in _order(len(files), limit, seed)]
    decoded = decode([file for file, _ in chosen], lambda file: Opened(file.open("rb"), None), preprocessing, progress)
    relative = [str(file.relative_to(path)) for file, _ in chosen]
    given = [chosen[place][1] for place in decoded.places]
    return _read(decoded, relative, given if folders else None, passed, notes)


def _read_dataset(
    source: str,
    preprocessing: Preprocessing,
    classes: int,
    names: Sequence[str] | None,
    limit: int,
    seed: int,
    progress: Progress | None,
) -> Read:
    mapped = None if names is None else {name: label for label, name in enumerate(names)}
    dataset = Dataset(source, mapped)
    chosen = [int(index) for index in _order(len(dataset), limit, seed)]
    decoded = decode(chosen, dataset.open, preprocessing, progress)
    read = _read(decoded, [dataset.name(index) for index in chosen], decoded.labels, PassedOver(), [])
    _check_labels(source, read.images.labels, classes)
    return read


def _read(
    decoded: Decoded, names: Sequence[str], labels: Sequence[int | None] | None, passed: PassedOver, notes: Sequence[str]
) -> Read:
    """What was decoded of images with these names, with the label of each one that was."""
    for place, reason in decoded.failures.items():
        passed.add("not decodable", names[place], f": {reason}")
    kept = [names[place] for place in decoded.places]
    known = None if labels is None or None in labels else [int(label) for label in labels if label is not None]
    digest = ImageDigest.of(len(kept), map(os.fsencode, kept), decoded.sizes, known)
    images = Images(decoded.pixels, None if known is None else np.array(known, np.int64))
    turned = [f"images with an EXIF tag to turn them, which timm does not heed: {decoded.turned}"] if decoded.turned else []
    return Read(images, kept, digest, (*notes, *passed.notes, *turned))


def _digest_of_arrays(*parts: Images) -> ImageDigest:
    images = sum(map(len, parts))
    pixels = (image.tobytes() for part in parts for image in part.pixels)
    sizes = (image.nbytes for part in parts for image in part.pixels)
    labelled = [part.labels.tolist() for part in parts if part.labels is not None]
    return ImageDigest.of(images, pixels, sizes, [label for labels in labelled for label in labels] if labelled else None)


def _fit(images: Images, preprocessing: Preprocessing) -> Images:
    """Arrays of the backbone's size are taken as they are: somebody has prepared them."""
    if images.pixels.shape[1:3] == preprocessing.size:
        return images
    return Images(crop_arrays(images.pixels, preprocessing), images.labels)
