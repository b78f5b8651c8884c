"""Top-1 accuracy: the share of images whose highest logit is the label."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vittle.objectives.images import Images
from vittle.objectives.measurement import Measurement, proportion
from vittle.reductions.backbone import Preprocessing

BATCH = 128


def to_input(pixels: NDArray[np.uint8], preprocessing: Preprocessing, device: torch.device) -> Tensor:
    """Pixels (n, height, width, 3) as the backbone's normalised input (n, 3, height, width) on the device."""
    images = torch.tensor(pixels, device=device).permute(0, 3, 1, 2).float().div_(255)
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    return (images - mean).div_(std).contiguous()


@torch.inference_mode()
def predict(
    model: nn.Module,
    pixels: NDArray[np.uint8],
    preprocessing: Preprocessing,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> NDArray[np.int64]:
    """The class of each image, (n,).

    Raises:
        FloatingPointError: logits that are not finite.
    """
    answers = []
    for start in range(0, len(pixels), BATCH):
        logits = model(to_input(pixels[start : start + BATCH], preprocessing, device).to(dtype))
        if not torch.isfinite(logits).all():
            raise FloatingPointError("the model's logits are not finite")
        answers.append(logits.argmax(-1).cpu())
    predicted: NDArray[np.int64] = torch.cat(answers).numpy()
    return predicted


def accuracy(predicted: NDArray[np.int64], expected: NDArray[np.int64], images: Images) -> Measurement:
    """The share of `predicted` (n,) that equals `expected` (n,): labels, or the backbone's answers where there are none."""
    against = "backbone" if images.labels is None else "labels"
    return proportion("accuracy", int((predicted == expected).sum()), len(expected), {"against": against})
