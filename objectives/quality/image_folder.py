"""A folder of images: which files are read, which label each has, and what is passed over and told.

Every folder in it is a class, and so are all images below that, at any depth. A label is its class folder's name where all
these names are whole numbers, else its place in a list of names, else its place among the folders in natural order (a2 before
a10), as timm numbers them.
"""

import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from vittle.reductions.data import natural_order
from vittle.spaces.errors import VittleError

SPLITS = {"train", "training", "val", "valid", "validation", "eval", "evaluation", "dev", "test", "testing"}
OF_SYSTEMS = {"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
NAMED = 3  # names that a refusal holds


class PassedOver:
    """What is not read, by reason: how much, and an example."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, str]] = {}

    def add(self, reason: str, name: str, detail: str = "") -> None:
        """One more, and why, in words that may follow a number."""
        count, first = self._found.get(reason, (0, shown(name + detail)))
        self._found[reason] = count + 1, first

    @property
    def notes(self) -> list[str]:
        """One sentence with each reason; none where nothing was passed over."""
        told = [f"{count} {reason} (such as {first})" for reason, (count, first) in self._found.items()]
        return [f"passed over: {', '.join(told)}"] if told else []


class Listing(NamedTuple):
    """What a folder holds.

    Attributes:
        classes: the images below each folder in it, in order.
        loose: the images that lie beside these folders.
    """

    classes: dict[str, list[Path]]
    loose: list[Path]


def shown(name: str) -> str:
    """A file's name as a line can hold it."""
    return name if name.isprintable() else ascii(name)


@lru_cache(maxsize=1)
def suffixes() -> frozenset[str]:
    """How the names of images end that Pillow can read."""
    return frozenset(ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN)


def list_images(root: Path, passed: PassedOver) -> Listing:
    """The images in a folder and below it. Links are followed, and each folder is looked into once.

    Args:
        root: the folder.
        passed: told of what is passed over: hidden or a system's own, no image by its name, no file, seen already.

    Raises:
        VittleError: it cannot be read, or its folders look like splits of a data set.
    """
    try:
        with os.scandir(root):
            pass
    except OSError as error:
        raise VittleError(f"cannot read {root} ({error.strerror}); give --data a folder that can be read") from None
    found = _Walk(root, passed)
    folders, loose = found.look(root)
    _refuse_splits(root, folders)
    # All of them before anything below is looked into, and those that are no links first: they keep what is theirs.
    kept = {folder for folder in sorted(folders, key=Path.is_symlink) if found.first_look(folder)}
    return Listing({folder.name: sorted(found.below(folder)) for folder in folders if folder in kept}, loose)


def label_folders(
    root: Path, folders: Sequence[str], empty: Sequence[str], classes: int, names: Sequence[str] | None, file: str | None
) -> tuple[dict[str, int], list[str]]:
    """The label of each class folder, and what the user should know about them.

    Args:
        root: where they are.
        folders: names of those with images.
        empty: names of those without.
        classes: of the model's head.
        names: of these classes in order, where they were given.
        file: what these names are from.

    Raises:
        VittleError: they do not match the head.
    """
    if names is not None:
        place = {name: label for label, name in enumerate(names)}
        missing = natural_order(name for name in folders if name not in place)
        if missing:
            raise VittleError(
                f"{len(missing)} of {len(folders)} folders in {root} are not in {file}, such as {_named(missing)}; "
                "accepted: folders called as its lines are"
            )
        return {name: place[name] for name in folders}, []
    if all(name.isascii() and name.isdecimal() for name in folders):
        return _numbers(root, folders, classes), []
    counted = natural_order([*folders, *empty])
    if len(counted) != classes:
        counted = natural_order(folders)  # an empty folder may be a class without images, and may be none
    if len(counted) != classes:
        raise VittleError(
            f"{root} has {len(counted)} labelled sub-folders, the model's head has {classes} classes; accepted: one sub-folder "
            "per class, some named by their class's number or in --classes FILE, or images without sub-folders"
        )
    return {name: label for label, name in enumerate(counted)}, _told_order(counted)


def read_class_names(file: str, classes: int) -> list[str]:
    """The names of classes, one a line, in the order of the head.

    Raises:
        VittleError: there is no such file, or it does not name each class once.
    """
    try:
        lines = Path(file).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise VittleError(f"cannot read {file} ({reason}); give --classes a file with one name a line") from None
    names = [line.strip() for line in lines]
    while names and not names[-1]:
        names.pop()
    twice = [name for name, count in Counter(names).items() if count > 1]
    if len(names) != classes or twice or "" in names:
        wrong = f"{len(names)} lines" if len(names) != classes else "an empty line" if "" in names else f"{twice[0]!r} twice"
        raise VittleError(f"{file} has {wrong}; accepted: one name a line for each of the {classes} classes of the head")
    return names


class _Walk:
    def __init__(self, root: Path, passed: PassedOver) -> None:
        self.root, self.passed = root, passed
        self._seen = {_key(root)}

    def look(self, folder: Path) -> tuple[list[Path], list[Path]]:
        """The folders and the images in a folder, by name."""
        folders, images = list[Path](), list[Path]()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            self._pass("not to be opened", folder)
            return [], []
        for entry in entries:
            path = Path(entry.path)
            if entry.name.startswith(".") or entry.name in OF_SYSTEMS:
                self._pass("hidden or a system's own", path)
            elif os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
                folders.append(path)
            elif path.suffix.lower() not in suffixes():
                self._pass("not ending as images do", path)
            elif not os.path.isfile(entry.path):  # a pipe would be waited on for ever
                self._pass("with no file behind", path)
            else:
                images.append(path)
        return folders, images

    def below(self, folder: Path) -> Iterator[Path]:
        """All images in a folder and below it."""
        waiting = [folder]
        while waiting:
            folders, images = self.look(waiting.pop())
            yield from images
            waiting += [inner for inner in folders if self.first_look(inner)]

    def first_look(self, folder: Path) -> bool:
        """Whether nobody has looked into a folder before, by whatever links."""
        key = _key(folder)
        if key in self._seen:
            self._pass("linked a second time", folder)
            return False
        self._seen.add(key)
        return True

    def _pass(self, reason: str, path: Path) -> None:
        self.passed.add(reason, str(path.relative_to(self.root)))


def _key(folder: Path) -> tuple[int, int] | None:
    """What a folder is, whatever links lead to it."""
    try:
        found = os.stat(folder)
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISDIR(found.st_mode) else None


def _refuse_splits(root: Path, folders: Sequence[Path]) -> None:
    """Refuse folders that are all named as splits are, and several that are and have folders of their own."""
    named = [folder for folder in folders if folder.name.lower() in SPLITS]
    nested = [folder for folder in named if any(entry.is_dir() for entry in _entries(folder))]
    if named and (len(named) == len(folders) or len(nested) > 1):
        names = " and ".join(folder.name for folder in named)
        chosen = next((folder for folder in named if folder.name.lower().startswith("val")), named[-1])
        raise VittleError(f"{root} holds {names}, which look like splits of a data set; name one, as in --data {chosen}")


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        return [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
    except OSError:
        return []


def _numbers(root: Path, folders: Sequence[str], classes: int) -> dict[str, int]:
    labels = {name: int(name) for name in folders}
    least, most = min(labels.values()), max(labels.values())
    if most >= classes:
        raise VittleError(
            f"the folders in {root} are the labels {least} to {most}, the model's head has {classes} classes; "
            f"accepted: 0 to {classes - 1}, or names in --classes FILE"
        )
    if len(set(labels.values())) < len(labels):
        raise VittleError(f"two folders in {root} are the same label, such as 1 and 01; accepted: one folder for each")
    return labels


def _told_order(names: Sequence[str]) -> list[str]:
    plain = sorted(names)
    if list(names) == plain:
        return []
    first, other = next(pair for pair in zip(names, plain, strict=True) if pair[0] != pair[1])
    return [
        f"class folders are numbered in natural order, as timm does: {shown(first)} comes before {shown(other)}, which plain "
        "order puts first; --classes FILE gives another order"
    ]


def _named(names: Sequence[str]) -> str:
    return ", ".join(shown(name) for name in names[:NAMED])
