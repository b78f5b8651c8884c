"""The embedded default: a small Vision Transformer and the scanned digits that it reads; nothing is downloaded.

The images are the 1,797 test scans of the "Optical Recognition of Handwritten Digits" data set (Alpaydin and Kaynak,
UCI Machine Learning Repository, 1998) that scikit-learn carries: 8 x 8 pixels of 0 to 16, enlarged here to 32 x 32.
The model is timm's ViT with 12 blocks and 64 patches of 4 x 4 pixels, one for each scanned pixel.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

ARCHITECTURE = "vit_tiny_patch16_224"
ARGUMENTS: dict[str, int] = {
    "img_size": 32,
    "patch_size": 4,
    "embed_dim": 96,
    "depth": 12,
    "num_heads": 3,
    "mlp_ratio": 2,
    "num_classes": 10,
}
MEAN = (0.5, 0.5, 0.5)
STD = (0.5, 0.5, 0.5)
WEIGHTS = Path(__file__).with_name("digits.safetensors")

ENLARGED = 4  # pixels of the image to one of the scan, along each axis
# Chosen on "search" alone, for the accuracy on all tokens and on a random half of them.
EPOCHS = 140
BATCH_SIZE = 32
MIXUP = 0.3
EMBEDDING_EPOCHS = 12  # of a merge embedding: within two minutes on two cores
DROPPED = 0.5  # share of the patch tokens left out at random while training: about half the time


def enlarge(scans: np.ndarray) -> np.ndarray:
    """Bilinear: `scans` (n, 8, 8) of 0 to 16 to bytes (n, 32, 32), in integers alone, the same on every platform."""
    side = scans.shape[1]
    # Eighths of a scan's pixel, where every centre of an enlarged pixel lies; outside the outer centres it is constant.
    centres = np.clip(2 * np.arange(ENLARGED * side) - ENLARGED + 1, 0, 8 * (side - 1))
    weights = np.maximum(0, 8 - np.abs(centres[:, None] - 8 * np.arange(side)))  # (32, 8), each row sums to 8
    blended = weights @ scans.astype(np.int64) @ weights.T  # (n, 32, 32) of 0 to 16 * 8 * 8
    enlarged: np.ndarray = (255 * blended + 512) // 1024  # rounded
    return enlarged.astype(np.uint8)


def splits() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images (n, 32, 32, 3) of bytes and labels (n,) of "train" (899), "search" (449) and "held-out" (449).

    A search chooses by "search"; "held-out" is for the report alone. Each digit has the same share in all three.
    """
    data: Any = load_digits()
    images = np.repeat(enlarge(data.images)[..., None], 3, axis=3)  # (n, 32, 32, 3)
    labels = data.target.astype(np.int64)
    # Shuffled, then ordered by digit, then dealt out in turn. RandomState's stream is frozen, unlike default_rng's.
    order = np.argsort(np.random.RandomState(0).random_sample(len(labels)), kind="stable")
    order = order[np.argsort(labels[order], kind="stable")]
    turn = np.arange(len(labels)) % 4
    members = {"train": order[turn % 2 == 0], "search": order[turn == 1], "held-out": order[turn == 3]}
    return {name: (images[np.sort(chosen)], labels[np.sort(chosen)]) for name, chosen in members.items()}


def train(
    output: Path, create_model: Callable[..., Any], *, epochs: int = EPOCHS, seed: int = 0, progress: bool = True
) -> dict[str, float]:
    """Reproduce the shipped file: fit the model on "train", write `output`, return the accuracy (0 to 1) on each split.

    `create_model` is `timm.create_model`, handed in so that timm stays behind its own door. The accuracies are those
    of the weights as they are written, rounded to float16.
    """
    # Here and not above: whoever only reads the images starts without torch.
    import torch
    from safetensors.torch import save

    from vittle.training.supervised import Augmentation, accuracy, fit

    parts = splits()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = create_model(ARCHITECTURE, pretrained=False, patch_drop_rate=DROPPED, **ARGUMENTS)
    fit(
        model,
        *parts["train"],
        epochs=epochs,
        mean=MEAN,
        std=STD,
        batch_size=BATCH_SIZE,
        augmentation=Augmentation(mixup=MIXUP),
        seed=seed,
        progress=progress,
    )
    weights = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    model.load_state_dict(weights)  # back to float32, rounded
    reached = {name: accuracy(model, *part, mean=MEAN, std=STD) for name, part in parts.items()}
    metadata = {
        "architecture": ARCHITECTURE,
        "arguments": json.dumps(ARGUMENTS),
        "accuracy": json.dumps(reached),
        "command": f"vittle train backbone --output {output.name}",
        "epochs": str(epochs),
        "seed": str(seed),
    }
    output.write_bytes(save(weights, metadata))
    return reached
