"""The embedded default: a small Vision Transformer and the scanned digits that it reads; nothing is downloaded.

The images are the 1,797 test scans of the "Optical Recognition of Handwritten Digits" data set (Alpaydin and Kaynak,
UCI Machine Learning Repository, 1998) that scikit-learn carries: 8 x 8 pixels of 0 to 16, enlarged here to 32 x 32.
The model is timm's ViT with 12 blocks and 64 patches of 4 x 4 pixels, one for each scanned pixel.
"""

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
