"""The `vittle train` commands of adapters as a user meets them, killed and continued included."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from refusals import refusal
from vittle.objectives.quality.images import load_images, load_training_images
from vittle.reductions import digits
from vittle.reductions.backbone import load_backbone
from vittle.reductions.merge_embedding import MergeEmbedding
from vittle.reductions.recursive_blocks import RecursiveBlocks
from vittle.reductions.sparsity_predictor import SparsityPredictor
from vittle.reductions.trained_adapter import TrainedAdapter
from vittle.training.sparsity import SHARES

EPOCHS = 4


class Training(NamedTuple):
    """What is trained by one of the commands.

    Attributes:
        options: under which some epoch is better than the start, or the same weights would mean little.
        adapter: what it writes.
        ours: what its answers are called.
        theirs: those of what it is compared with.
        rates: how the lines of those begin that it is judged at.
    """

    options: tuple[str, ...]
    adapter: type[TrainedAdapter]
    ours: str
    theirs: str
    rates: tuple[str, ...]


TRAININGS = {
    "merge-embedding": Training(
        ("--removed", "6", "--batch-size", "20"),
        MergeEmbedding,
        "decoupled (modular)",
        "key",
        ("46% of the MACs (decoupled merges 6 tokens per block)",),
    ),
    "recursion": Training(
        ("--batch-size", "4", "--steps", "2", "--epochs", "2"),
        RecursiveBlocks,
        "router learned",
        "router random",
        ("2 steps, the last for 20% of the patches",),
    ),
    "sparsity": Training(
        ("--batch-size", "5", "--seed", "1"),
        SparsityPredictor,
        "trained",
        "sampled",
        tuple(f"{share:.0%} of the keys, " for share in SHARES),
    ),
}


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """An .npz with 90 digits: 45 to train on, 15 to validate, 30 for the verdict. So noisy that there is something to learn."""
    images, labels = digits.splits()["train"]
    noise = np.random.default_rng(0).normal(0, 60, images[:90].shape)
    np.savez(tmp_path / "few.npz", images=(images[:90] + noise).clip(0, 255).astype(np.uint8), labels=labels[:90])
    return tmp_path / "few.npz"


def command(name: str, few: Path, output: Path) -> list[str]:
    given = {"--data": few, "--output": output, "--epochs": EPOCHS, "--device": "cpu"}
    options = [str(word) for pair in given.items() for word in pair]
    return [sys.executable, "-m", "vittle", "train", name, *options, *TRAININGS[name].options]


@pytest.mark.parametrize("name", TRAININGS)
def test_killed_and_started_again_it_ends_at_the_same_bytes(few: Path, tmp_path: Path, name: str) -> None:
    training = TRAININGS[name]
    whole, parts, part = tmp_path / "whole", tmp_path / "parts", tmp_path / "parts.part"
    finished = subprocess.run(command(name, few, whole), capture_output=True, text=True, check=True)
    with subprocess.Popen(command(name, few, parts), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not (part.exists() and torch.load(part, weights_only=True)["epoch"] >= 1):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert 1 <= torch.load(part, weights_only=True)["epoch"] < EPOCHS
    assert not parts.exists()
    continued = subprocess.run(command(name, few, parts), capture_output=True, text=True, check=True)
    assert parts.read_bytes() == whole.read_bytes()
    assert not part.exists()
    assert continued.stdout.replace(str(parts), str(whole)) == finished.stdout
    adapter = training.adapter.load(whole, load_backbone())
    assert adapter.metadata["best_epoch"] > 0
    said = finished.stdout.splitlines()
    assert f"wrote {whole}: {adapter.name}" in said
    assert adapter.verdict()[1] in said
    judged = [line for line in said if line.endswith(", 30 images:") and line.startswith(training.rates)]
    for compared, rate, line in zip(adapter.compared.comparisons, training.rates, judged, strict=True):
        assert compared.images == 30
        assert line.startswith(rate)
        ours, theirs = said[said.index(line) + 1 :][:2]
        assert ours.startswith(f"  {training.ours:<19} {compared.right / 30:.2%}")
        assert theirs.startswith(f"  {training.theirs:<19} {compared.rival_right / 30:.2%}")


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


@pytest.mark.parametrize("name", TRAININGS)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "vit_tiny_patch16_224"], "model 'vit_tiny_patch16_224' needs images; give --data"),
        (["--data", "nowhere.npz"], "no file at nowhere.npz; accepted: digits, a folder of images"),
        (["--data", "wrong.npz"], "wrong.npz run from 90 to 93, the model's head has 10 classes; accepted: "),
        (["--device", "tpu"], "unknown device 'tpu'; accepted: cpu, cuda"),
        (["--batch-size", "900"], "899 images do not fill one batch of 900; accepted: batches of 1 to 899"),
        (
            ["--output", "no/folder/e"],
            "cannot write no/folder/e: no folder no/folder; give --output a file in an existing folder",
        ),
        (["--output", "taken"], "taken.part is not an interrupted training; remove it to begin anew"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
    name: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("wrong.npz", images=np.zeros((4, 32, 32, 3), np.uint8), labels=np.arange(4) + 90)
    Path("taken.part").write_text("hello")
    before = sorted(tmp_path.rglob("*"))
    output = [] if "--output" in arguments else ["--output", "e"]
    assert message in refusal(monkeypatch, capsys, "train", name, *output, *arguments)
    assert sorted(tmp_path.rglob("*")) == before


def test_more_than_can_merge_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = str(tmp_path / "e")
    message = "removed is 33; accepted: 1 to 32 tokens per block"
    assert message in refusal(monkeypatch, capsys, "train", "merge-embedding", "--output", output, "--removed", "33")
    assert not any(tmp_path.iterdir())
