"""What a schedule's answers are worth on images: top-1, what it loses against the backbone on the same images, KL divergence.

`accuracy` is the share of images whose highest logit is the label; where there are no labels, the backbone's answer. Of a
schedule that has seen only some of the images it is an estimate for all of them, the backbone's accuracy on all less what the
schedule loses on those, which varies far less than the plain share (see `paired`). `accuracy_drop` is that loss, and
`divergence` is KL(backbone || schedule) of the answers in nats, which needs no labels and varies least.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vittle.objectives.measurement import NORMAL_95, Measurement, proportion
from vittle.objectives.quality import paired
from vittle.reductions.data import Preprocessing

BATCH = 128
WORST = 5  # classes that a measurement names
CLASSES = 1000  # at most, for it to keep what is lost in each


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
    batches = (pixels[start : start + BATCH] for start in range(0, len(pixels), BATCH))
    answers = [finite(model(to_input(batch, preprocessing, device).to(dtype))) for batch in batches]
    predicted: NDArray[np.int64] = np.concatenate(answers).argmax(-1)
    return predicted


def finite(logits: Tensor) -> NDArray[np.float32]:
    """Logits (b, classes) as an array.

    Raises:
        FloatingPointError: logits that are not finite.
    """
    values: NDArray[np.float32] = logits.float().cpu().numpy()
    if not np.isfinite(values).all():
        raise FloatingPointError("the model's logits are not finite")
    return values


@dataclass(frozen=True)
class BackboneAnswers:
    """What answers are compared with.

    Attributes:
        logits: (n, classes) of the backbone.
        expected: (n,) the right answers.
        right: (n,) which of the backbone's answers are.
        labelled: whether the right answers are labels, or the backbone's own.
    """

    logits: NDArray[np.float32]
    expected: NDArray[np.int64]
    right: NDArray[np.bool_]
    labelled: bool

    @classmethod
    def of(cls, logits: NDArray[np.float32], labels: NDArray[np.int64] | None) -> Self:
        answers = logits.argmax(-1)
        expected = answers if labels is None else labels
        return cls(logits, expected, answers == expected, labels is not None)


def judge(logits: NDArray[np.float32], reference: BackboneAnswers, about: Mapping[str, Any]) -> dict[str, Measurement]:
    """`accuracy`, `accuracy_drop` and `divergence` of answers to the first m of a reference's n images.

    Args:
        logits: (m, classes).
        reference: of all n.
        about: what else belongs into the protocol of the accuracy.
    """
    m, n = len(logits), len(reference.right)
    right = logits.argmax(-1) == reference.expected[:m]
    protocol = {"against": "labels" if reference.labelled else "backbone", "right": paired.pack(right), **about}
    if m == n:
        accuracy = proportion("accuracy", int(right.sum()), n, protocol)
    else:
        accuracy = Measurement("accuracy", *paired.estimate(right, reference.right), m, {**protocol, "of": n})
    lost = paired.difference(reference.right[:m], right)
    by_class = losses(right, reference) if reference.labelled else {}
    apart = divergence(reference.logits[:m], logits)
    spread = NORMAL_95 * float(apart.std()) / np.sqrt(m)
    mean = float(apart.mean())
    return {
        "accuracy": accuracy,
        "accuracy_drop": Measurement("accuracy_drop", *lost, m, by_class),
        "divergence": Measurement(
            "divergence", mean, max(0.0, mean - spread), mean + spread, m, {"each": paired.pack_divergence(apart)}
        ),
    }


def divergence(reference: NDArray[np.float32], logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """KL(reference || answer) of each image (n,) from logits (n, classes), in nats."""
    wanted, given = (_log_softmax(values.astype(np.float64)) for values in (reference, logits))
    apart: NDArray[np.float64] = (np.exp(wanted) * (wanted - given)).sum(-1).clip(min=0)
    return apart


def losses(right: NDArray[np.bool_], reference: BackboneAnswers) -> dict[str, Any]:
    """What is lost in each class against the backbone on the same m images.

    `worst` has the classes that lose most, as [class, share lost, images]; `classes`, where the model's head has no more than
    `CLASSES`, how many answers each one has `lost`, negative where it gained, and of how many `images`.
    """
    labels, before = reference.expected[: len(right)], reference.right[: len(right)]
    classes = reference.logits.shape[1]
    images = np.bincount(labels, minlength=classes)
    lost = np.bincount(labels, before, classes).astype(int) - np.bincount(labels, right, classes).astype(int)
    shares = lost / np.maximum(1, images)
    order = np.lexsort((np.arange(classes), -shares))[:WORST]
    worst = [[int(index), float(shares[index]), int(images[index])] for index in order if shares[index] > 0]
    return {"worst": worst} | ({"classes": {"lost": lost.tolist(), "images": images.tolist()}} if classes <= CLASSES else {})


def _log_softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = values - values.max(-1, keepdims=True)
    normal: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return normal
