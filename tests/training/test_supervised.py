import json

import numpy as np
import pytest
import timm
import torch
from safetensors import safe_open

from vittle.reductions import digits
from vittle.reductions.backbone import load_backbone
from vittle.training.digits import train as train_digits
from vittle.training.supervised import Augmentation, accuracy, blend, fit, move

HALF = (0.5, 0.5, 0.5)


def small() -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=8, embed_dim=16, depth=1, num_heads=1, num_classes=2
    )


def bright_or_dark(n: int = 64) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(n) % 2
    noise = np.random.default_rng(0).integers(0, 40, (n, 16, 16, 3))
    return (noise + 180 * labels[:, None, None, None]).astype(np.uint8), labels.astype(np.int64)


def test_fitting_learns_and_is_reproducible() -> None:
    images, labels = bright_or_dark()
    runs = []
    for _ in range(2):
        model = small()
        losses = fit(model, images, labels, epochs=8, mean=HALF, std=HALF, batch_size=16, seed=3, progress=False)
        assert losses[-1] < losses[0]
        runs.append((losses, accuracy(model, images, labels, mean=HALF, std=HALF)))
    assert runs[0] == runs[1]
    assert runs[0][1] == 1.0


def test_too_few_images_for_a_batch() -> None:
    with pytest.raises(ValueError, match="8 images do not fill one batch of 16"):
        fit(small(), *bright_or_dark(8), epochs=1, mean=HALF, std=HALF, batch_size=16)


def test_augmentation_moves_by_no_more_than_it_says() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(4, 3, 16, 16)
    still = Augmentation(shift=0, rotation=0, scale=0, mixup=0)
    torch.testing.assert_close(move(images, still, generator), images, atol=1e-5, rtol=1e-5)
    dot = torch.zeros(64, 1, 32, 32)
    dot[:, :, 15:17, 15:17] = 1
    shifted = move(dot, Augmentation(shift=0.25, rotation=0, scale=0), generator)
    rows = (shifted.sum((1, 3)) * torch.arange(32)).sum(1) / shifted.sum((1, 2, 3))
    assert (rows - 15.5).abs().max() <= 8.01
    assert (rows - 15.5).abs().max() > 4
    with pytest.raises(ValueError, match="shift is 2, allowed is 0 to 1"):
        Augmentation(shift=2)


def test_blending_mixes_images_and_targets_alike() -> None:
    images = torch.arange(4.0)[:, None, None, None].expand(4, 3, 2, 2)
    targets = torch.eye(4)
    mixed, labels = blend(images, targets, torch.Generator().manual_seed(0))
    torch.testing.assert_close(mixed[:, 0, 0, 0], labels @ torch.arange(4.0))
    torch.testing.assert_close(labels.sum(1), torch.ones(4))


def test_digits_are_the_scans() -> None:
    from sklearn.datasets import load_digits

    parts = digits.splits()
    assert {name: len(images) for name, (images, _) in parts.items()} == {"train": 899, "search": 449, "held-out": 449}
    everything = np.concatenate([images for images, _ in parts.values()])
    assert len({image.tobytes() for image in everything}) == len({scan.tobytes() for scan in load_digits().images})
    shares = [np.bincount(labels, minlength=10) / len(labels) for _, labels in parts.values()]
    assert np.ptp(shares, axis=0).max() < 0.005
    constant = digits.enlarge(np.full((1, 8, 8), 16.0))
    assert (constant == 255).all()


def test_training_the_backbone_writes_what_can_be_loaded(tmp_path, monkeypatch) -> None:
    parts = {name: (images[:64], labels[:64]) for name, (images, labels) in digits.splits().items()}
    monkeypatch.setattr(digits, "splits", lambda: parts)
    reached = train_digits(tmp_path / "w.safetensors", epochs=1)
    with safe_open(tmp_path / "w.safetensors", "pt") as file:
        assert json.loads(file.metadata()["accuracy"]) == reached
    assert load_backbone("digits", tmp_path / "w.safetensors").fingerprint != load_backbone().fingerprint


def test_the_shipped_weights_are_small_and_say_where_they_come_from() -> None:
    assert digits.WEIGHTS.stat().st_size < 2_000_000
    with safe_open(digits.WEIGHTS, "pt") as file:
        metadata = file.metadata()
    assert metadata["command"] == "vittle train backbone --output digits.safetensors"
    assert json.loads(metadata["arguments"]) == digits.ARGUMENTS
