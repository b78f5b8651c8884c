import io
import re

import numpy as np
import pytest
from PIL import Image

from vittle import VittleError
from vittle.objectives.quality.image_digest import ImageDigest
from vittle.objectives.quality.images import load_images
from vittle.reductions.backbone import load_backbone
from vittle.reductions.data import Preprocessing
from vittle.search.inference import InferenceProblem
from vittle.storage.settings import Settings

SMALL = Preprocessing(size=(16, 16), crop=0.9, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)


def save_npz(path, n: int = 30, labels=None, size: int = 16):
    images = np.random.default_rng(0).integers(0, 256, (n, size, size, 3), np.uint8)
    arrays = {"images": images} if labels is None else {"images": images, "labels": labels}
    np.savez(path, **arrays)
    return images


def test_digits_are_split_without_overlap() -> None:
    digits = Preprocessing((32, 32), 1.0, "bicubic", (0.5,) * 3, (0.5,) * 3)
    splits = load_images("digits", digits, 10)
    assert splits.search.pixels.shape[1:] == (32, 32, 3)
    assert len(splits.search) >= 400
    assert len(splits.held_out) >= 400
    seen = {image.tobytes() for image in splits.search.pixels}
    assert sum(image.tobytes() in seen for image in splits.held_out.pixels) == 0


def test_npz_is_split_in_two_thirds_and_one_by_a_fixed_seed(tmp_path) -> None:
    images = save_npz(tmp_path / "a.npz", 30, np.arange(30) % 10)
    splits = load_images(str(tmp_path / "a.npz"), SMALL, 10)
    assert (len(splits.search), len(splits.held_out)) == (20, 10)
    together = np.concatenate([splits.search.pixels, splits.held_out.pixels])
    assert sorted(image.tobytes() for image in together) == sorted(image.tobytes() for image in images)
    by_image = {image.tobytes(): index % 10 for index, image in enumerate(images)}
    assert [by_image[image.tobytes()] for image in splits.search.pixels] == splits.search.labels.tolist()
    again = load_images(str(tmp_path / "a.npz"), SMALL, 10)
    assert np.array_equal(splits.search.pixels, again.search.pixels)


def test_npz_without_labels(tmp_path) -> None:
    save_npz(tmp_path / "a.npz")
    assert load_images(str(tmp_path / "a.npz"), SMALL, 10).search.labels is None


def test_other_sizes_are_resized_and_cropped(tmp_path) -> None:
    save_npz(tmp_path / "a.npz", size=40)
    assert load_images(str(tmp_path / "a.npz"), SMALL, 10).search.pixels.shape[1:] == (16, 16, 3)


def test_a_crop_comes_from_the_centre(tmp_path) -> None:
    wide = np.zeros((64, 128, 3), np.uint8)
    wide[:, 32:96] = 200
    for index in range(3):
        Image.fromarray(wide).save(tmp_path / f"{index}.png")
    pixels = load_images(str(tmp_path), SMALL, 10).search.pixels
    assert pixels.min() > 190


def test_labelled_folders(tmp_path) -> None:
    for label, name in enumerate(["ant", "bee"]):
        (tmp_path / name).mkdir()
        for index in range(6):
            Image.fromarray(np.full((20, 20, 3), 100 * label, np.uint8)).save(tmp_path / name / f"{index}.png")
    progress: list[tuple[int, int]] = []
    splits = load_images(str(tmp_path), SMALL, 2, progress=lambda done, total: progress.append((done, total)))
    assert (splits.search.pixels[:, 0, 0, 0] // 100).tolist() == splits.search.labels.tolist()
    assert progress[-1] == (12, 12)


def test_a_timm_dataset(tmp_path) -> None:
    for name in ("ant", "bee"):
        (tmp_path / "validation" / name).mkdir(parents=True)
        for index in range(3):
            Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / "validation" / name / f"{index}.png")
    splits = load_images(f"folder:{tmp_path}", SMALL, 2)
    assert sorted([*splits.search.labels, *splits.held_out.labels]) == [0, 0, 0, 1, 1, 1]
    (tmp_path / "classes.txt").write_text("cat\nbee\nant\n")
    named = load_images(f"folder:{tmp_path}", SMALL, 3, class_names=str(tmp_path / "classes.txt"))
    assert sorted([*named.search.labels, *named.held_out.labels]) == [1, 1, 1, 2, 2, 2]


def test_an_image_of_a_timm_dataset_that_cannot_be_decoded_is_no_other_one(tmp_path) -> None:
    (tmp_path / "a").mkdir()
    for number in range(5):
        Image.fromarray(np.full((20, 20, 3), 50 * number, np.uint8)).save(tmp_path / "a" / f"{number}.png")
    (tmp_path / "a" / "2.png").write_bytes(b"no image")
    splits = load_images(f"folder:{tmp_path}", SMALL, 1)
    assert splits.notes == ("passed over: 1 not decodable (such as a/2.png: no image)",)
    seen = [*splits.search.pixels[:, 0, 0, 0], *splits.held_out.pixels[:, 0, 0, 0]]
    assert sorted(seen) == [0, 50, 150, 200]  # timm's own data set would put the third in its place, a second time


def test_at_most_the_limit_is_read(tmp_path) -> None:
    save_npz(tmp_path / "a.npz", 30)
    splits = load_images(str(tmp_path / "a.npz"), SMALL, 10, limit=12)
    assert len(splits.search) + len(splits.held_out) == 12


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.arange(30), "run from 0 to 29, the model's head has 10 classes; accepted: integers from 0 to 9"),
        (np.arange(30) - 1, "run from -1 to 28"),
        (np.linspace(0, 1, 30), "accepted: integers from 0 to 9"),
        (np.arange(7), "30 images and labels of shape"),
    ],
)
def test_labels_that_do_not_match(tmp_path, labels, message: str) -> None:
    save_npz(tmp_path / "a.npz", 30, labels)
    with pytest.raises(VittleError, match=message):
        load_images(str(tmp_path / "a.npz"), SMALL, 10)


def test_folders_that_do_not_match_the_head(tmp_path) -> None:
    (tmp_path / "ant").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "ant" / "0.png")
    with pytest.raises(VittleError, match="has 1 labelled sub-folders, the model's head has 10 classes"):
        load_images(str(tmp_path), SMALL, 10)


def test_nothing_there(tmp_path) -> None:
    with pytest.raises(VittleError, match="no images in"):
        load_images(str(tmp_path), SMALL, 10)
    with pytest.raises(VittleError, match=r"no file at .*\.npz"):
        load_images(str(tmp_path / "a.npz"), SMALL, 10)
    with pytest.raises(VittleError, match="no images at /nowhere"):
        load_images("/nowhere", SMALL, 10)


def test_a_folder_with_nothing_that_can_be_decoded(tmp_path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    told = r"holds 0 images \(passed over: 1 not decodable \(such as broken.png: no image\)\); at least 3"
    with pytest.raises(VittleError, match=told):
        load_images(str(tmp_path), SMALL, 10)


def test_images_that_cannot_be_decoded_are_left_out_and_told(tmp_path) -> None:
    for label in ("cats", "dogs"):
        (tmp_path / label).mkdir()
        for number in range(4):
            color = (255, 0, 0) if label == "cats" else (0, 0, 255)
            Image.new("RGB", (40, 40), color).save(tmp_path / label / f"{number}.png")
    whole = (tmp_path / "cats" / "1.png").read_bytes()
    (tmp_path / "cats" / "1.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "dogs" / "3.jpg").write_bytes(b"no image")
    splits = load_images(str(tmp_path), SMALL, 2)
    (told,) = splits.notes
    assert re.fullmatch(r"passed over: 2 not decodable \(such as (cats/1.png: .+|dogs/3.jpg: no image)\)", told)
    assert len(splits.search) + len(splits.held_out) == 7
    for images in (splits.search, splits.held_out):
        assert ((images.pixels[:, 0, 0, 0] == 255) == (images.labels == 0)).all()  # labels stay with their images
    assert InferenceProblem(Settings(), load_backbone(), splits).notes == [told]


def cut(whole: bytes) -> bytes:
    return whole[: len(whole) // 2]


def array(whole: bytes) -> bytes:
    del whole
    stream = io.BytesIO()
    np.save(stream, np.zeros((20, 16, 16, 3), np.uint8))
    return stream.getvalue()


@pytest.mark.parametrize("damage", [cut, array, lambda _: b"", lambda _: b"no archive", lambda whole: whole[:-60] + bytes(60)])
def test_an_archive_that_is_none(tmp_path, damage) -> None:
    save_npz(tmp_path / "a.npz")
    (tmp_path / "a.npz").write_bytes(damage((tmp_path / "a.npz").read_bytes()))
    with pytest.raises(VittleError, match=r"^cannot read \S+a.npz; accepted: digits, a folder [^\n]+$"):
        load_images(str(tmp_path / "a.npz"), SMALL, 10)


@pytest.mark.parametrize("shape", [(0, 16, 16, 3), (20, 0, 16, 3), (20, 16, 0, 3), (4, 16, 16)])
def test_arrays_without_images_or_pixels(tmp_path, shape: tuple[int, ...]) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros(shape, np.uint8), labels=np.zeros(shape[0], int))
    with pytest.raises(VittleError, match=rf"has uint8 {re.escape(str(shape))} under `images`; accepted: uint8 \(n, height"):
        load_images(str(tmp_path / "a.npz"), SMALL, 10)


def test_words_are_no_labels_of_arrays(tmp_path) -> None:
    save_npz(tmp_path / "a.npz", labels=np.array(["cat", "dog"] * 15))
    with pytest.raises(VittleError, match="the labels of .* are no numbers, such as 'cat'; accepted: integers from 0 to 9"):
        load_images(str(tmp_path / "a.npz"), SMALL, 10)


def test_what_has_labels_of_its_own_takes_no_names(tmp_path) -> None:
    save_npz(tmp_path / "a.npz")
    (tmp_path / "classes.txt").write_text("a\nb\n")
    for source in ("digits", str(tmp_path / "a.npz")):
        with pytest.raises(VittleError, match="has labels of its own; accepted with --classes: a folder"):
            load_images(source, SMALL, 2, class_names=str(tmp_path / "classes.txt"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("imagenet/val", "no images at imagenet/val; accepted: digits"),
        ("nosuchset", "no images at nosuchset; accepted: digits"),
        ("tfds/mnist:/data", "data 'tfds/mnist:/data' is a stream, of which nothing can be held out; accepted: digits"),
        ("torch/cifar10:/nowhere", "cannot open data 'torch/cifar10:/nowhere' .Dataset not found"),
    ],
)
def test_data_sets_that_are_not_there(source: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(VittleError, match=message) as refused:
        load_images(source, SMALL, 10)
    assert "\n" not in str(refused.value)
    assert capsys.readouterr().out == ""


def digest(source: object, **how: object) -> ImageDigest:
    found = load_images(str(source), SMALL, 2, **how).digest
    assert found is not None
    return found


def test_which_images_they_were_is_told_by_names_sizes_and_labels(tmp_path) -> None:
    def draw(folder: str, label: str, number: int, size: int = 20) -> None:
        (tmp_path / folder / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((size, size, 3), number, np.uint8)).save(tmp_path / folder / label / f"{number}.png")

    for folder in ("here", "there", "fewer", "renamed", "bigger"):
        for label in ("a", "b"):
            for number in range(4):
                draw(folder, label, number)
    before = digest(tmp_path / "here")
    assert digest(tmp_path / "there") == before  # wherever they are
    (tmp_path / "fewer" / "a" / "0.png").unlink()
    (tmp_path / "renamed" / "a" / "0.png").rename(tmp_path / "renamed" / "a" / "9.png")
    draw("bigger", "b", 3, size=64)
    (tmp_path / "classes.txt").write_text("b\na\n")
    assert before.change_from(before) is None
    assert digest(tmp_path / "fewer").change_from(before) == "there are 7 where there were 8"
    assert digest(tmp_path / "renamed").change_from(before) == "as many, but others or in another order"
    assert digest(tmp_path / "bigger").change_from(before) == "files have the same names and other sizes"
    turned = digest(tmp_path / "here", class_names=str(tmp_path / "classes.txt"))
    assert turned.change_from(before) in ("they have other labels", "as many, but others or in another order")
    assert len({one.id for one in (before, turned, digest(tmp_path / "bigger"), digest(tmp_path / "renamed"))}) == 4


def test_of_arrays_every_pixel_tells(tmp_path) -> None:
    images = save_npz(tmp_path / "a.npz", labels=np.arange(30) % 2)
    before = digest(tmp_path / "a.npz")
    images[7, 3, 3, 0] ^= 1
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(30) % 2)
    assert digest(tmp_path / "a.npz").change_from(before) == "as many, but others or in another order"
    np.savez(tmp_path / "a.npz", images=images, labels=(np.arange(30) + 1) % 2)
    assert "labels" in str(digest(tmp_path / "a.npz").change_from(digest_of(images)))


def digest_of(images: np.ndarray) -> ImageDigest:
    order = np.random.default_rng(0).permutation(len(images))
    chosen = images[order]
    labels = (np.arange(len(images)) % 2)[order]
    return ImageDigest.of(len(images), (one.tobytes() for one in chosen), (one.nbytes for one in chosen), labels.tolist())
