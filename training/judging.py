"""Images that judge what is trained: who answers them rightly. No gradient is kept, and nothing is learned from them."""

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from vittle.reductions.backbone import Backbone
from vittle.reductions.data import Preprocessing
from vittle.reductions.trained_adapter import TrainedAdapter
from vittle.training.resumable import Course, Judged, part_of
from vittle.training.supervised import channels, pixels

Adapter = TypeVar("Adapter", bound=TrainedAdapter)

AT_ONCE = 128  # images

LabelledImages = tuple[NDArray[np.uint8], NDArray[np.int64] | None]
"""Images (n, h, w, 3) at the backbone's size, and labels (n,); where there are none the backbone's answers stand in."""


class Parts(NamedTuple):
    """Images in three parts: what is learned from, what chooses the epoch, and what decides nothing and gives the verdict."""

    train: LabelledImages
    validation: LabelledImages
    verdict: LabelledImages


class Judge:
    """Some images with their right answers.

    Attributes:
        answers: (n,) the labels or, where there are none, what the backbone answers.
    """

    def __init__(self, model: nn.Module, images: LabelledImages, preprocessing: Preprocessing) -> None:
        """`model` is the backbone, which lies where judging is to run, and `preprocessing` its own."""
        self._preprocessing = preprocessing
        self._images, labels = images
        self.answers = self._logits(model).argmax(-1) if labels is None else torch.from_numpy(labels)

    def right(self, model: nn.Module) -> NDArray[np.bool_]:
        """(n,) which images a model answers rightly."""
        found: NDArray[np.bool_] = (self._logits(model).argmax(-1) == self.answers).numpy()
        return found

    def judge(self, *models: nn.Module) -> Judged:
        """Several models together: each is asked for every image."""
        correct, losses = 0, 0.0
        for model in models:
            found = self._logits(model)
            correct += int((found.argmax(-1) == self.answers).sum())
            losses += functional.cross_entropy(found, self.answers).item()
        return Judged(correct, len(models) * len(self.answers), losses / len(models))

    def _logits(self, model: nn.Module) -> Tensor:
        return logits(model, self._images, self._preprocessing)


@torch.no_grad()
def logits(model: nn.Module, images: NDArray[np.uint8], preprocessing: Preprocessing) -> Tensor:
    """Answers (n, classes) to images (n, h, w, 3), on the CPU wherever the model lies."""
    place = next(model.parameters()).device
    centre, spread = channels(preprocessing.mean, place), channels(preprocessing.std, place)
    found = []
    for start in range(0, len(images), AT_ONCE):
        batch = torch.from_numpy(images[start : start + AT_ONCE]).to(place)
        found.append(model((pixels(batch) - centre) / spread).float().cpu())
    return torch.cat(found)


def digest(*arrays: NDArray[Any] | None) -> str:
    """Twelve hexadecimal digits that say which arrays they are."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(b"none" if array is None else f"{array.shape} {array.dtype}".encode())
        found.update(b"" if array is None else np.ascontiguousarray(array).data)
    return found.hexdigest()[:12]


def given(backbone: Backbone, parts: Parts, recipe: Any) -> dict[str, Any]:
    """What a training was given, its recipe a dataclass, by which one that is continued is told from another."""
    images = digest(*(array for part in parts for array in part))
    settings = {name.replace("_", " "): value for name, value in asdict(recipe).items()}
    return {"backbone": backbone.fingerprint, "images": images, **settings}


def keep(adapter: Adapter, output: Path, backbone: Backbone, recipe: Any, course: Course, **found: Any) -> Adapter:
    """Write trained weights with what is known of their training, and remove what was needed to go on with it.

    Args:
        adapter: the weights of the best epoch.
        output: the file to write.
        backbone: that they were trained for.
        recipe: of the training, a dataclass.
        course: of the training.
        **found: what else the file should say, such as its verdict.

    Returns:
        The adapter, on the CPU and with the file's metadata.

    Raises:
        VittleError: the file cannot be written.
    """
    adapter.cpu().requires_grad_(False)
    about = {name: getattr(recipe, name) for name in ("epochs", "patience", "learning_rate", "batch_size", "seed")}
    about |= {"backbone": backbone.fingerprint, "model": backbone.name, "best_epoch": course.best_epoch, **found}
    adapter.save(output, about)
    adapter.metadata = type(adapter).load(output).metadata
    part_of(output).unlink()
    return adapter
