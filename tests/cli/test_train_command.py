"""`vittle train merge-embedding` as a user meets it, killed and continued included."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from refusals import refusal
from vittle.objectives.quality.images import load_images, load_training_images
from vittle.reductions import digits
from vittle.reductions.backbone import load_backbone
from vittle.reductions.merge_embedding import MergeEmbedding

EPOCHS = 4


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """An .npz with 90 digits: 45 to train on, 15 to validate, 30 for the verdict."""
    images, labels = digits.splits()["train"]
    np.savez(tmp_path / "few.npz", images=images[:90], labels=labels[:90])
    return tmp_path / "few.npz"


def command(few: Path, output: Path, *more: str) -> list[str]:
    given = [
        "--data",
        str(few),
        "--output",
        str(output),
        "--epochs",
        str(EPOCHS),
        "--removed",
        "6",
        "--batch-size",
        "20",
    ]
    return [sys.executable, "-m", "vittle", "train", "merge-embedding", "--device", "cpu", *given, *more]


def test_killed_and_started_again_it_ends_at_the_same_bytes(few: Path, tmp_path: Path) -> None:
    whole, parts, part = tmp_path / "whole", tmp_path / "parts", tmp_path / "parts.part"
    finished = subprocess.run(command(few, whole), capture_output=True, text=True, check=True)
    with subprocess.Popen(command(few, parts), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not (part.exists() and torch.load(part, weights_only=True)["epoch"] >= 1):
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert 1 <= torch.load(part, weights_only=True)["epoch"] < EPOCHS
    assert not parts.exists()
    continued = subprocess.run(command(few, parts), capture_output=True, text=True, check=True)
    assert parts.read_bytes() == whole.read_bytes()
    assert not part.exists()
    assert continued.stdout.replace(str(parts), str(whole)) == finished.stdout
    embedding = MergeEmbedding.load(whole, load_backbone())
    (compared,) = embedding.compared.comparisons
    assert compared.images == 30
    assert f"wrote {whole}: {embedding.name}" in finished.stdout
    assert "46% of the MACs (decoupled merges 6 tokens per block), 30 images:" in finished.stdout
    for right, label in ((compared.right, "decoupled (modular)"), (compared.rival_right, "key")):
        assert f"{label:<19} {right / 30:.2%}" in finished.stdout
    assert embedding.verdict()[1] in finished.stdout.splitlines()


def test_nothing_is_fitted_to_the_held_out_digits() -> None:
    backbone, parts = load_backbone(), digits.splits()
    images = load_training_images("digits", backbone.preprocessing, backbone.classes)
    assert np.array_equal(images.train.pixels, parts["train"][0])
    assert np.array_equal(images.validation.pixels, parts["search"][0])
    assert np.array_equal(images.verdict.pixels, parts["held-out"][0])


def test_other_images_are_split_as_a_search_splits_them(few: Path) -> None:
    backbone = load_backbone()
    images = load_training_images(str(few), backbone.preprocessing, backbone.classes)
    parts = (images.train, images.validation, images.verdict)
    assert [len(part) for part in parts] == [45, 15, 30]
    assert len({image.tobytes() for part in parts for image in part.pixels}) == len({*map(bytes, np.load(few)["images"])})
    searched = load_images(str(few), backbone.preprocessing, backbone.classes)
    assert np.array_equal(images.verdict.pixels, searched.held_out.pixels)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "vit_tiny_patch16_224"], "model 'vit_tiny_patch16_224' needs images; give --data"),
        (["--data", "nowhere.npz"], "no file at nowhere.npz; accepted: digits, a folder of images"),
        (["--data", "wrong.npz"], "wrong.npz run from 90 to 93, the model's head has 10 classes; accepted: "),
        (["--device", "tpu"], "unknown device 'tpu'; accepted: cpu, cuda"),
        (["--removed", "33"], "removed is 33; accepted: 1 to 32 tokens per block"),
        (["--batch-size", "900"], "899 images do not fill one batch of 900; accepted: batches of 1 to 899"),
        (
            ["--output", "no/folder/e"],
            "cannot write no/folder/e: no folder no/folder; give --output a file in an existing folder",
        ),
        (["--output", "taken"], "taken.part is not an interrupted training; remove it to begin anew"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("wrong.npz", images=np.zeros((4, 32, 32, 3), np.uint8), labels=np.arange(4) + 90)
    Path("taken.part").write_text("hello")
    before = sorted(tmp_path.rglob("*"))
    output = [] if "--output" in arguments else ["--output", "e"]
    assert message in refusal(monkeypatch, capsys, "train", "merge-embedding", *output, *arguments)
    assert sorted(tmp_path.rglob("*")) == before
