import numpy as np
import pytest
from PIL import Image

from vittle import VittleError
from vittle.objectives.quality.images import left_out, load_images
from vittle.reductions.backbone import Preprocessing, load_backbone
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
    with pytest.raises(VittleError, match="cannot open data 'nosuchset'"):
        load_images("nosuchset", SMALL, 10)


def test_a_file_that_is_no_archive_or_no_image(tmp_path) -> None:
    (tmp_path / "a.npz").write_bytes(b"no archive")
    with pytest.raises(VittleError, match="cannot read"):
        load_images(str(tmp_path / "a.npz"), SMALL, 10)
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "broken.png").write_bytes(b"no image")
    with pytest.raises(VittleError, match=r"holds 0 images, besides 1 that cannot be decoded, such as broken.png; at least 3"):
        load_images(str(folder), SMALL, 10)


def test_images_that_cannot_be_decoded_are_named_and_left_out(tmp_path) -> None:
    for label in ("cats", "dogs"):
        (tmp_path / label).mkdir()
        for number in range(4):
            color = (255, 0, 0) if label == "cats" else (0, 0, 255)
            Image.new("RGB", (40, 40), color).save(tmp_path / label / f"{number}.png")
    whole = (tmp_path / "cats" / "1.png").read_bytes()
    (tmp_path / "cats" / "1.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "dogs" / "3.jpg").write_bytes(b"no image")
    splits = load_images(str(tmp_path), SMALL, 2)
    assert sorted(splits.skipped) == ["cats/1.png", "dogs/3.jpg"]
    assert len(splits.search) + len(splits.held_out) == 7
    for images in (splits.search, splits.held_out):
        assert ((images.pixels[:, 0, 0, 0] == 255) == (images.labels == 0)).all()  # labels stay with their images
    notes = InferenceProblem(Settings(), load_backbone(), splits).notes
    assert notes == [f"2 images cannot be decoded and are left out: {', '.join(splits.skipped)}"]
    assert left_out(["a.png"]) == ["1 image cannot be decoded and is left out: a.png"]
    assert left_out(list("abcdefg")) == ["7 images cannot be decoded and are left out: a, b, c, d, e, ..."]


def test_wrong_arrays(tmp_path) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros((4, 16, 16), np.uint8))
    with pytest.raises(VittleError, match=r"has uint8 \(4, 16, 16\) under `images`"):
        load_images(str(tmp_path / "a.npz"), SMALL, 10)
