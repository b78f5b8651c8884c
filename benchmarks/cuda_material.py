"""Models and images for the parts of `cuda.py`: random, so that nothing is downloaded, and alive, so that mistakes show."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import timm
import torch
from safetensors.torch import save
from torch import Tensor, nn

from parts import Task
from vittle.spaces.files import write_at_once


class Material(NamedTuple):
    """What a search needs.

    Attributes:
        model: its timm name.
        checkpoint: the file of its weights.
        images: an .npz file without labels.
        url: of the database that parts share.
        batch: that latency is measured at.
        dtype: that the model computes in.
    """

    model: str
    checkpoint: Path
    images: Path
    url: str
    batch: int
    dtype: str


def material(task: Task) -> Material:
    """The files of a search; made by the first part that asks for them."""
    name, count, batch, dtype = (
        ("test_vit", 48, 4, "float32") if task.small else ("deit_small_patch16_224", 600, 64, "bfloat16")
    )
    there = Material(
        name,
        task.folder / "weights.safetensors",
        task.folder / "images.npz",
        f"sqlite:///{task.folder / 'vittle.db'}",
        batch,
        dtype,
    )
    if not there.images.exists():
        model = lively(name)
        vit: Any = model
        write_at_once(there.checkpoint, save({name: weight.contiguous() for name, weight in model.state_dict().items()}))
        rng = np.random.default_rng(0)
        np.savez(there.images, images=rng.integers(0, 256, (count, *vit.patch_embed.img_size, 3), np.uint8))
    return there


@torch.no_grad()
def lively(name: str, **arguments: Any) -> nn.Module:
    """A timm model with random weights, large enough for every part of it to show in its answers, norms and biases too."""
    torch.manual_seed(0)
    model = timm.create_model(name, **arguments).eval()
    for parameter in model.parameters():
        noise = torch.randn_like(parameter)
        if parameter.ndim == 1:
            parameter.add_(0.1 * noise)
        elif parameter.ndim in (2, 4):
            parameter.copy_(noise / parameter[0].numel() ** 0.5)
    return model


def random_images(model: nn.Module, batch: int) -> Tensor:
    """Random images (b, 3, height, width) of a model's size, type and device."""
    vit: Any = model
    weight = vit.patch_embed.proj.weight
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, *vit.patch_embed.img_size, generator=generator).to(weight.device, weight.dtype)
