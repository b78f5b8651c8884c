"""What the trainings of adapters are tested with: random images for a small model, and what is asked of what they write."""

import numpy as np
import torch
from torch import nn

from models import make_model
from vittle.reductions.backbone import Backbone, describe_backbone
from vittle.training.judging import LabelledImages, Parts


def small() -> Backbone:
    return describe_backbone(make_model("plain"), "tiny")


def random_images(n: int, seed: int = 0) -> LabelledImages:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 64, 64, 3), np.uint8), rng.integers(0, 10, n)


PARTS = Parts(random_images(16), random_images(12, 1), random_images(10, 2))


def same(ours: nn.Module, theirs: nn.Module) -> bool:
    """Whether their weights are equal."""
    pairs = zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def inputs(images: np.ndarray) -> torch.Tensor:
    """Images (n, 64, 64, 3) as the small model is given them."""
    return (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5


def answers(model: nn.Module, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(inputs(images)).argmax(1).numpy()
