"""Folders as people have them: which files are read, which labels they get, and what is told."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vittle import VittleError
from vittle.objectives.quality.images import Read, read_images
from vittle.reductions.data import Preprocessing

SMALL = Preprocessing(size=(16, 16), crop=0.9, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)


def draw(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((20, 24, 3), value, np.uint8)).save(path)


def folder(root: Path, classes: list[str], each: int = 2) -> Path:
    for name in classes:
        for number in range(each):
            draw(root / name / f"{number}.png", number)
    return root


def read(root: Path, classes: int, **how: str) -> Read:
    return read_images(str(root), SMALL, classes, **how)


def labels(found: Read) -> dict[str, int]:
    """The label of each class folder; all its images have it."""
    assert found.images.labels is not None
    pairs = {(name.split(os.sep)[0], label) for name, label in zip(found.names, found.images.labels.tolist(), strict=True)}
    by_folder = dict(pairs)
    assert len(by_folder) == len(pairs)
    return by_folder


def test_whole_numbers_are_the_labels(tmp_path: Path) -> None:
    found = read(folder(tmp_path, [str(label) for label in range(12)]), 12)
    assert labels(found) == {str(label): label for label in range(12)}
    assert found.notes == ()


def test_numbers_may_be_some_of_the_classes(tmp_path: Path) -> None:
    assert labels(read(folder(tmp_path, ["3", "07", "10"]), 1000)) == {"3": 3, "07": 7, "10": 10}


def test_numbers_that_the_head_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(
        VittleError, match="are the labels 1 to 10, the model's head has 10 classes; accepted: 0 to 9, or names"
    ):
        read(folder(tmp_path / "from one", [str(label) for label in range(1, 11)], 1), 10)
    with pytest.raises(VittleError, match="the same label, such as 1 and 01; accepted: one folder for each"):
        read(folder(tmp_path / "twice", ["1", "01"]), 10)


def test_other_names_are_numbered_as_timm_does_and_it_is_told_where_that_matters(tmp_path: Path) -> None:
    found = read(folder(tmp_path, ["a1", "a10", "a2"]), 3)
    assert labels(found) == {"a1": 0, "a2": 1, "a10": 2}
    assert found.notes == (
        "class folders are numbered in natural order, as timm does: a2 comes before a10, which plain order puts first; "
        "--classes FILE gives another order",
    )


def test_names_in_the_order_of_the_head(tmp_path: Path) -> None:
    file = tmp_path / "classes.txt"
    file.write_text("zebra\nTiger\nante lope \n\n", encoding="utf-8-sig")
    found = read(folder(tmp_path / "images", ["Tiger", "zebra"]), 3, class_names=str(file))
    assert labels(found) == {"zebra": 0, "Tiger": 1}
    assert found.notes == ()
    with pytest.raises(VittleError, match=r"1 of 3 folders in \S+ are not in \S+, such as ostrich; accepted: folders called"):
        read(folder(tmp_path / "images", ["ostrich"]), 3, class_names=str(file))
    with pytest.raises(VittleError, match="has 3 lines; accepted: one name a line for each of the 10 classes"):
        read(tmp_path / "images", 10, class_names=str(file))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\na", "'a' twice; accepted"),
        ("\na", "an empty line; accepted"),
        (None, "No such file or directory"),
        (b"\xff\xfe\xff", "it is not text"),
    ],
)
def test_names_that_are_none(tmp_path: Path, text: str | bytes | None, message: str) -> None:
    file = tmp_path / "classes.txt"
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(VittleError, match=message):
        read(folder(tmp_path / "images", ["a"]), 2, class_names=str(file))


def test_names_label_nothing_where_there_are_no_folders(tmp_path: Path) -> None:
    draw(tmp_path / "images" / "0.png")
    (tmp_path / "classes.txt").write_text("a\nb\n")
    with pytest.raises(VittleError, match="accepted with --classes: a folder of images with sub-folders"):
        read(tmp_path / "images", 2, class_names=str(tmp_path / "classes.txt"))


@pytest.mark.parametrize("names", [["train", "val"], ["Train", "Validation", "test"], ["val"]])
def test_splits_are_refused(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        folder(tmp_path / name, ["cat", "dog"])
    with pytest.raises(
        VittleError, match=" and ".join(sorted(names)) + r", which look like splits of a data set; name one"
    ) as told:
        read(tmp_path, len(names))
    assert f"--data {tmp_path / next(name for name in names if name.lower().startswith('val'))}" in str(told.value)


def test_a_class_may_be_called_as_a_split_is(tmp_path: Path) -> None:
    folder(tmp_path, ["bus", "car"])
    folder(tmp_path / "train", ["steam", "diesel"])
    assert labels(read(tmp_path, 3)) == {"bus": 0, "car": 1, "train": 2}


@pytest.mark.parametrize("suffix", ["tif", "gif", "avif", "jfif", "JPEG", "webp", "bmp", "pgm", "jp2", "tga", "qoi"])
def test_whatever_pillow_reads_is_read(tmp_path: Path, suffix: str) -> None:
    kinds = {"jfif": "JPEG", "pgm": "PPM"}
    (tmp_path / "a").mkdir()
    picture = Image.fromarray(np.tile(np.arange(0, 200, 10, np.uint8), (20, 1)))
    picture.convert("L" if suffix == "pgm" else "RGB").save(tmp_path / "a" / f"0.{suffix}", kinds.get(suffix))
    found = read(folder(tmp_path, ["b"]), 2)
    assert sorted(found.names) == [f"a/0.{suffix}", "b/0.png", "b/1.png"]
    assert found.notes == ()
    shades = found.images.pixels[found.names.index(f"a/0.{suffix}")][8, :, 0].astype(int)
    assert shades[0] < 30
    assert shades[-1] > 150


def test_links_are_followed_and_each_folder_is_read_once(tmp_path: Path) -> None:
    root = folder(tmp_path / "images", ["a", "b"])
    folder(tmp_path, ["elsewhere"], 5)
    (root / "a" / "more").symlink_to(tmp_path / "elsewhere")
    (root / "b" / "round").symlink_to("..")
    (root / "b" / "as a").symlink_to("../a")
    (root / "c").symlink_to(tmp_path / "elsewhere")
    (root / "b" / "gone").symlink_to("nowhere.png")
    (root / "b" / "self.png").symlink_to("self.png")
    found = read(root, 3)
    assert len(found.names) == len({(root / name).resolve() for name in found.names}) == 9
    assert labels(found) == {"a": 0, "b": 1, "c": 2}  # a class folder keeps what is in it
    assert "4 linked a second time (such as " not in found.notes[0]
    assert "3 linked a second time (such as a/more)" in found.notes[0]


def test_what_is_passed_over_is_told_once_with_a_count_and_an_example(tmp_path: Path) -> None:
    root = folder(tmp_path, ["a", "b"])
    (root / "a" / ".ipynb_checkpoints").mkdir()
    shutil.copy(root / "a" / "0.png", root / "a" / ".ipynb_checkpoints" / "0-checkpoint.png")
    folder(root / "__MACOSX", ["a"])
    (root / "@eaDir").mkdir()
    (root / "empty").mkdir()
    for name in ("a", "b"):
        (root / name / "._0.png").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X")
        (root / name / ".DS_Store").write_bytes(b"\0")
    (root / "b" / "deep").mkdir()
    (root / "b" / "deep" / "notes.txt").write_text("words")
    os.mkfifo(root / "b" / "pipe.png")
    draw(root / "loose.png")
    found = read(root, 2)
    assert sorted(found.names) == ["a/0.png", "a/1.png", "b/0.png", "b/1.png"]
    assert labels(found) == {"a": 0, "b": 1}
    assert found.notes == (
        "passed over: 7 hidden or a system's own (such as @eaDir), 1 with no file behind (such as b/pipe.png), "
        "1 not ending as images do (such as b/deep/notes.txt), 1 without an image (such as empty), "
        "1 beside the class folders (such as loose.png)",
    )


def test_an_empty_folder_is_a_class_where_it_is_counted_as_one(tmp_path: Path) -> None:
    root = folder(tmp_path, ["a", "c"])
    (root / "b").mkdir()
    assert labels(read(root, 3)) == {"a": 0, "c": 2}
    assert labels(read(root, 2)) == {"a": 0, "c": 1}
    with pytest.raises(VittleError, match="has 2 labelled sub-folders, the model's head has 4 classes"):
        read(root, 4)


def test_a_name_that_no_terminal_can_show_is_told_in_letters(tmp_path: Path) -> None:
    folder(tmp_path, ["a", "b"])
    (tmp_path / "a" / "two\nlines.txt").write_text("")
    (note,) = read(tmp_path, 2).notes
    assert r"'a/two\nlines.txt'" in note
    assert "\n" not in note


def test_images_without_folders_have_no_labels(tmp_path: Path) -> None:
    for number in range(3):
        draw(tmp_path / f"{number}.png")
    found = read(tmp_path, 10)
    assert found.images.labels is None
    assert len(found.images) == 3
