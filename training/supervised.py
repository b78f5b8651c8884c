"""A short supervised training loop for the Vision Transformers that are small enough to be trained here.

It fits the scanned digits that ship with the package in minutes on two cores, and photographs of CIFAR's size on a GPU.
The images stay on the device as bytes; each batch is augmented there, in tensors. The recipe is that of DeiT (Touvron
et al., "Training data-efficient image transformers & distillation through attention", arXiv 2012.12877) cut down to
what a small data set needs: AdamW, warm-up and cosine, label smoothing, gradient clipping, and mixup (Zhang et al.,
"mixup: Beyond Empirical Risk Minimization", arXiv 1710.09412). Departure: mixup's share is uniform in [0, 1], the
Beta(1, 1) of the paper, drawn for each image and not for each batch.

Shapes: `b` images of a batch, `n` images in all, `c` classes, `h` and `w` height and width of an image.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn import functional

from vittle.spaces.errors import VittleError

WARM_UP = 0.1  # share of all steps in which the learning rate rises
GRADIENT_NORM = 1.0  # a batch's gradient is cut down to this length


@dataclass(frozen=True)
class Augmentation:
    """How far a training image may move from the original; all zero leaves it as it is."""

    shift: float = 0.1  # largest shift along each axis, as a share of the side
    rotation: float = 10.0  # largest rotation either way, in degrees
    scale: float = 0.1  # largest relative change of size, for each axis on its own
    flip: bool = False  # mirror every second image, for motifs that have no left and right
    mixup: float = 0.5  # share of the batches whose images are blended with another image

    def __post_init__(self) -> None:
        limits = {"shift": 1.0, "rotation": 180.0, "scale": 0.9, "mixup": 1.0}
        for name, limit in limits.items():
            value = getattr(self, name)
            if not 0 <= value <= limit:
                raise ValueError(f"{name} is {value}, allowed is 0 to {limit:g}")


def move(images: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Shift, turn, scale and mirror each image (b, 3, h, w) by its own random amount; zeros enter at the border."""
    count = len(images)
    angle, width, height, across, down = 2 * torch.rand(5, count, generator=generator) - 1  # (b,) each, in [-1, 1)
    mirrored = torch.rand(count, generator=generator) < (0.5 if augmentation.flip else 0.0)
    angle = angle * math.radians(augmentation.rotation)
    width = (1 + augmentation.scale * width) * torch.where(mirrored, -1.0, 1.0)
    height = 1 + augmentation.scale * height
    side = 2 * augmentation.shift  # affine_grid's coordinates run from -1 to 1
    maps = torch.stack(
        (
            torch.stack((width * angle.cos(), -height * angle.sin(), side * across), dim=1),
            torch.stack((width * angle.sin(), height * angle.cos(), side * down), dim=1),
        ),
        dim=1,
    )  # (b, 2, 3)
    grid = functional.affine_grid(maps.to(images.device), list(images.shape), align_corners=False)  # (b, h, w, 2)
    return functional.grid_sample(images, grid, align_corners=False)


def blend(images: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mix each of `images` (b, 3, h, w), and its row of `targets` (b, c), with its neighbour in the shuffled batch."""
    share = torch.rand(len(images), 1, generator=generator).to(images.device)  # (b, 1)
    mixed = torch.lerp(images, images.roll(1, 0), share[:, :, None, None])
    return mixed, torch.lerp(targets, targets.roll(1, 0), share)


def pixels(images: Tensor) -> Tensor:
    """Bytes (b, h, w, 3) to numbers from 0 to 1, (b, 3, h, w)."""
    return images.permute(0, 3, 1, 2).float() / 255


def channels(values: Sequence[float], device: torch.device) -> Tensor:
    """A number for each channel, (3, 1, 1), to be broadcast over images."""
    return torch.tensor(values, device=device).view(3, 1, 1)


def batches(
    images: Tensor, targets: Tensor, batch_size: int, augmentation: Augmentation, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch: shuffled batches (b, 3, h, w) of 0 to 1 and their targets (b, c), augmented and at times blended.

    Args:
        images: (n, h, w, 3) of bytes.
        targets: (n, c), a distribution over classes for each image.
        batch_size: an incomplete batch is left out; the next epoch shuffles anew.
        generator: the only source of randomness, so that its state is the state of the whole epoch.
    """
    steps = len(images) // batch_size
    order = torch.randperm(len(images), generator=generator)[: steps * batch_size].to(images.device)
    for chosen in order.view(steps, batch_size):
        batch, wanted = move(pixels(images[chosen]), augmentation, generator), targets[chosen]
        if torch.rand((), generator=generator) < augmentation.mixup:
            batch, wanted = blend(batch, wanted, generator)
        yield batch, wanted


def decaying(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer in which matrices decay; norms, biases and the like do not."""
    listed = list(parameters)
    return [
        {"params": [p for p in listed if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in listed if p.ndim <= 1], "weight_decay": 0.0},
    ]


def check_batch(images: int, batch_size: int) -> None:
    """Refuse a batch that `images` do not fill.

    Raises:
        VittleError: with both numbers.
    """
    if images < batch_size:
        raise VittleError(f"{images} images do not fill one batch of {batch_size}; accepted: batches of 1 to {images}")


def fit(
    model: nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    epochs: int,
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.05,
    label_smoothing: float = 0.1,
    augmentation: Augmentation = Augmentation(),
    seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
) -> tuple[float, ...]:
    """Train `model` in place on `images` (n, h, w, 3) of bytes and `labels` (n,); return the mean loss of each epoch.

    The same seed on the same machine and number of threads gives the same weights. The model's own randomness (dropout,
    stochastic depth) is seeded as well; the caller's random state is left as it was.
    """
    check_batch(len(images), batch_size)
    place = torch.device(device)
    on_gpu = place.type == "cuda"
    centre, spread = channels(mean, place), channels(std, place)
    stored = torch.from_numpy(images).to(place)  # (n, h, w, 3)
    one_hot = functional.one_hot(torch.from_numpy(labels).to(place)).float()  # (n, c)
    steps = len(images) // batch_size
    model.to(place).train()
    optimizer = torch.optim.AdamW(decaying(model.parameters(), weight_decay), lr=learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=epochs * steps, pct_start=WARM_UP, cycle_momentum=False
    )
    generator = torch.Generator().manual_seed(seed)
    columns = (TextColumn("epoch"), MofNCompleteColumn(), BarColumn(), TextColumn("loss {task.fields[loss]}"))
    losses: list[float] = []
    with (
        torch.random.fork_rng(devices=[place] if on_gpu else []),
        Progress(*columns, TimeRemainingColumn(), disable=not progress) as bar,
    ):
        torch.manual_seed(seed)
        task = bar.add_task("epoch", total=epochs, loss="-")
        for _ in range(epochs):
            total = torch.zeros((), device=place)
            for batch, targets in batches(stored, one_hot, batch_size, augmentation, generator):
                with torch.autocast(place.type, torch.bfloat16, enabled=on_gpu):
                    logits = model((batch - centre) / spread)  # (b, c)
                    loss = functional.cross_entropy(logits, targets, label_smoothing=label_smoothing)
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_NORM)
                optimizer.step()
                schedule.step()
                total += loss.detach()
            losses.append(total.item() / steps)
            bar.update(task, advance=1, loss=f"{losses[-1]:.3f}")
    return tuple(losses)


@torch.inference_mode()
def accuracy(
    model: nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int = 256,
    device: str = "cpu",
) -> float:
    """The share, 0 to 1, of `images` (n, h, w, 3) of bytes whose largest logit is that of their label (n,)."""
    place = torch.device(device)
    centre, spread = channels(mean, place), channels(std, place)
    model.to(place).eval()
    correct = 0
    for start in range(0, len(images), batch_size):
        batch = torch.from_numpy(images[start : start + batch_size]).to(place)  # (b, h, w, 3)
        logits = model((pixels(batch) - centre) / spread)  # (b, c)
        correct += int((logits.argmax(dim=1).cpu().numpy() == labels[start : start + batch_size]).sum())
    return correct / len(images)
