"""Train a merge embedding on a frozen backbone ("modular" training), and keep it where it merges better than the keys do.

Lee and Hong, "Learning to Merge Tokens via Decoupled Embedding for Efficient Vision Transformers", arXiv 2412.10569, section 4.
Cross-entropy through the soft grouping of `soft_merging.py`, the same number of tokens merged in each block, AdamW at the
published learning rate (on the digits, higher ones lowered the validation loss no further), a cosine down to 1e-6.

Departures. Training orders tokens by size and inference pairs them by position, so a lower loss may merge worse: each epoch is
judged by hard merging on images that it was not trained on, and the best epoch is kept, the start (epoch 0) included. Images
are moved and blended as for a backbone (`training.py`), in place of RandAugment, erasing and CutMix.
"""

import copy
import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn import functional

from vittle.reductions.backbone import Backbone
from vittle.reductions.merge_embedding import MergeEmbedding
from vittle.reductions.vit import ReducedViT
from vittle.spaces import costs
from vittle.spaces.errors import VittleError
from vittle.spaces.files import check_writable, write_at_once
from vittle.spaces.merging import Merging, most_merged
from vittle.spaces.schedule import Schedule
from vittle.spaces.shape import BackboneShape
from vittle.training.soft_merging import soft_forward
from vittle.training.supervised import Augmentation, batches, channels, check_batch, decaying, pixels

EPOCHS = 30
EPOCHS_ON_DIGITS = 12  # within two minutes on two cores
LEARNING_RATE = 1e-4
LAST_LEARNING_RATE = 1e-6
WEIGHT_DECAY = 1e-4
GRADIENT_NORM = 5.0
JUDGED = 128  # images at once where no gradient is kept
AUGMENTATION = Augmentation()
HALF = 0.5  # share of the backbone's MACs that the default training schedule leaves

LabelledImages = tuple[NDArray[np.uint8], NDArray[np.int64] | None]
"""Images (n, h, w, 3) at the backbone's size, and labels (n,); where there are none the backbone's answers stand in."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is set before a training begins. See `train`."""

    epochs: int
    removed: int
    learning_rate: float
    batch_size: int
    augmentation: Augmentation
    seed: int
    device: str


class Judged(NamedTuple):
    """How hard merging does on the validation images; the loss decides between equal counts."""

    correct: int
    loss: float  # mean cross-entropy

    def better_than(self, other: "Judged") -> bool:
        return (self.correct, -self.loss) > (other.correct, -other.loss)


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Attributes:
        embedding: of the best epoch.
        schedule: the hard merging that judged it.
        images: n, validation images.
        decoupled: how many of them the backbone answers rightly when it merges by the embedding.
        key: the same when it merges by the keys.
        best_epoch: 0 where no epoch was better than the start.
        losses: mean training loss of each epoch.
    """

    embedding: MergeEmbedding
    schedule: Schedule
    images: int
    decoupled: int
    key: int
    best_epoch: int
    losses: tuple[float, ...]

    @property
    def beats_key(self) -> bool:
        return self.decoupled > self.key


def halving(shape: BackboneShape) -> int:
    """The fewest tokens to merge in every block that bring the backbone to half of its MACs, or as near as merging can.

    It is the published 16 for the usual models of 224 x 224 pixels in patches of 16.
    """
    most = max(1, most_merged(shape.tokens, shape.prefix))
    limit = HALF * costs.macs(shape, Schedule())
    return next((removed for removed in range(1, most) if costs.macs(shape, constant(shape, removed)) <= limit), most)


def constant(shape: BackboneShape, removed: int) -> Schedule:
    """Merge `removed` tokens by their keys in every block, or the half that can merge."""
    whole = Merging(kept=(shape.tokens,) * shape.depth)
    return Schedule((whole.following(shape, lambda _, tokens: tokens - removed) or whole,))


def decoupled(schedule: Schedule, embedding: MergeEmbedding) -> Schedule:
    """The same merging, by the embedding in place of the keys."""
    by = {"metric": "decoupled", "embedding": embedding.name, "embedding_width": embedding.width}
    parts = (part.model_copy(update=by) if isinstance(part, Merging) else part for part in schedule.reductions)
    return Schedule(tuple(parts), schedule.tail)


def train(
    backbone: Backbone,
    train: LabelledImages,
    validation: LabelledImages,
    *,
    output: Path,
    epochs: int = EPOCHS,
    removed: int | None = None,
    learning_rate: float = LEARNING_RATE,
    batch_size: int = 32,
    augmentation: Augmentation = AUGMENTATION,
    seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
) -> Trained:
    """Train a merge embedding and write it to `output`; the backbone stays as it is.

    After every epoch all that is needed to go on is in `output` + ".part", so the same call continues where it was
    interrupted. On the CPU, with the same number of threads, it ends at the same weights as if it had not been.

    Args:
        backbone: its model is copied.
        train: images to learn from.
        validation: images that decide which epoch is kept.
        output: the safetensors file; it appears when training is done.
        epochs: passes over the training images.
        removed: tokens merged in each block; by default as many as halve the MACs.
        learning_rate: at the start.
        batch_size: images of a step.
        augmentation: how training images are moved and blended.
        seed: of order and augmentation.
        device: cpu or cuda.
        progress: show a bar on stderr.

    Raises:
        VittleError: no classifier, too few images, a number of tokens that cannot merge, a file that cannot be written, or a
            .part of another training.
    """
    check_writable(output)
    if backbone.classes == 0:
        raise VittleError(f"model {backbone.name!r} has no classifier to learn from; accepted: one with a trained head")
    shape = backbone.shape
    removed = halving(shape) if removed is None else removed
    most = most_merged(shape.tokens, shape.prefix)
    if not 1 <= removed <= most:
        raise VittleError(f"removed is {removed}; accepted: 1 to {most} tokens per block, half of the {shape.patches} patches")
    check_batch(len(train[0]), batch_size)
    recipe = Recipe(epochs, removed, learning_rate, batch_size, augmentation, seed, device)
    settings = {
        "backbone": backbone.fingerprint,
        "images": _digest(*train, *validation),
        **{name.replace("_", " "): value for name, value in asdict(recipe).items()},
    }
    session = _Session(backbone, train, validation, recipe)
    part = output.with_name(output.name + ".part")
    if part.exists():
        session.restore(_read(part, settings))
    else:
        session.judge_start()
        write_at_once(part, session.snapshot(settings))
    steps = epochs * session.steps
    columns = (TextColumn("epoch {task.fields[epoch]}"), BarColumn(), TextColumn("{task.fields[note]}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not progress) as bar:
        task = bar.add_task("", total=steps, completed=session.epoch * session.steps, epoch=session.epoch, note=session.note())
        while session.epoch < epochs:
            bar.update(task, epoch=f"{session.epoch + 1}/{epochs}")
            session.run_epoch(lambda: bar.advance(task))
            write_at_once(part, session.snapshot(settings))
            bar.update(task, note=session.note())
    trained = session.result()
    about = {
        "backbone": backbone.fingerprint,
        "model": backbone.name,
        "removed": removed,
        "epochs": epochs,
        "best_epoch": trained.best_epoch,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "seed": seed,
        "validation": {
            "images": trained.images,
            "against": "backbone" if validation[1] is None else "labels",
            "decoupled": trained.decoupled,
            "key": trained.key,
        },
    }
    trained.embedding.save(output, about)
    trained.embedding.metadata = MergeEmbedding.load(output).metadata
    part.unlink()
    return trained


class _Session:
    """A training between two epochs: everything that changes is in `snapshot`."""

    def __init__(self, backbone: Backbone, train: LabelledImages, validation: LabelledImages, recipe: Recipe) -> None:
        self.recipe = recipe
        self.place = place = torch.device(recipe.device)
        shape, preprocessing = backbone.shape, backbone.preprocessing
        self.model = copy.deepcopy(backbone.model).to(place).eval().requires_grad_(False)
        self.centre, self.spread = channels(preprocessing.mean, place), channels(preprocessing.std, place)
        self.schedule = constant(shape, recipe.removed)
        self.removed = [row.entering - row.leaving for row in costs.work(shape, self.schedule)]
        if shape.reads_prefix_only:
            self.removed[-1] = 0  # nobody reads what merges there
        self.images = torch.from_numpy(train[0])
        if train[1] is None:
            self.targets = self._logits(self.model, self.images).softmax(-1)  # (n, classes)
        else:
            self.targets = functional.one_hot(torch.from_numpy(train[1]), backbone.classes).float()
        self.judges = torch.from_numpy(validation[0])
        answers = torch.from_numpy(validation[1]) if validation[1] is not None else None
        self.answers = self._logits(self.model, self.judges).argmax(-1) if answers is None else answers  # (n,)
        self.embedding = MergeEmbedding.from_keys(self.model, seed=recipe.seed).to(place)
        self.steps = len(self.images) // recipe.batch_size
        groups = decaying(self.embedding.parameters(), WEIGHT_DECAY)
        self.optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=True)
        steps = recipe.epochs * self.steps
        self.cosine = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, steps, LAST_LEARNING_RATE)
        self.generator = torch.Generator().manual_seed(recipe.seed)
        self.epoch = 0
        self.losses: list[float] = []

    def judge_start(self) -> None:
        self.key = self._judge(self.schedule).correct
        self.latest = self.best = self._judge_embedding()
        self.best_epoch = 0
        self.best_weights = copy.deepcopy(self.embedding.state_dict())

    def run_epoch(self, stepped: Callable[[], object]) -> None:
        total = torch.zeros((), device=self.place)
        images, targets = self.images.to(self.place), self.targets.to(self.place)
        for batch, wanted in batches(images, targets, self.recipe.batch_size, self.recipe.augmentation, self.generator):
            with torch.autocast(self.place.type, torch.bfloat16, enabled=self.place.type == "cuda"):
                logits = soft_forward(self.model, self.embedding, (batch - self.centre) / self.spread, self.removed)
                loss = functional.cross_entropy(logits, wanted)
            self.optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(self.embedding.parameters(), GRADIENT_NORM)
            self.optimizer.step()
            self.cosine.step()
            total += loss.detach()
            stepped()
        self.epoch += 1
        self.losses.append(total.item() / self.steps)
        self.latest = self._judge_embedding()
        if self.latest.better_than(self.best):
            self.best, self.best_epoch = self.latest, self.epoch
            self.best_weights = copy.deepcopy(self.embedding.state_dict())

    def note(self) -> str:
        n = len(self.answers)
        loss = f"loss {self.losses[-1]:.3f}  " if self.losses else ""
        return f"{loss}hard {self.latest.correct / n:.2%}  best {self.best.correct / n:.2%}  key {self.key / n:.2%}"

    def result(self) -> Trained:
        self.embedding.load_state_dict(self.best_weights)
        embedding = self.embedding.cpu().requires_grad_(False)
        counts = (len(self.answers), self.best.correct, self.key, self.best_epoch)
        return Trained(embedding, self.schedule, *counts, tuple(self.losses))

    def snapshot(self, settings: Mapping[str, Any]) -> bytes:
        file = io.BytesIO()
        document = {
            "settings": dict(settings),
            "epoch": self.epoch,
            "losses": self.losses,
            "key": self.key,
            "latest": tuple(self.latest),
            "best": tuple(self.best),
            "best_epoch": self.best_epoch,
            "best_weights": self.best_weights,
            "embedding": self.embedding.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "cosine": self.cosine.state_dict(),
            "generator": self.generator.get_state(),
        }
        torch.save(document, file)
        return file.getvalue()

    def restore(self, document: Mapping[str, Any]) -> None:
        self.epoch, self.losses, self.key = document["epoch"], document["losses"], document["key"]
        self.latest, self.best = Judged(*document["latest"]), Judged(*document["best"])
        self.best_epoch, self.best_weights = document["best_epoch"], document["best_weights"]
        self.embedding.load_state_dict(document["embedding"])
        self.optimizer.load_state_dict(document["optimizer"])
        self.cosine.load_state_dict(document["cosine"])
        self.generator.set_state(document["generator"])

    def _judge_embedding(self) -> Judged:
        return self._judge(decoupled(self.schedule, self.embedding))

    def _judge(self, schedule: Schedule) -> Judged:
        # The fastest form is measured and each rounds differently: the best epoch must not depend on which it was.
        model = ReducedViT(self.model, schedule, {Merging.name: self.embedding}, form="mask")
        logits = self._logits(model, self.judges)
        correct = int((logits.argmax(-1) == self.answers).sum())
        return Judged(correct, functional.cross_entropy(logits, self.answers).item())

    @torch.no_grad()
    def _logits(self, model: nn.Module, images: Tensor) -> Tensor:
        """Answers (n, classes) to images (n, h, w, 3) of bytes, on the CPU."""
        answers = []
        for start in range(0, len(images), JUDGED):
            batch = images[start : start + JUDGED].to(self.place)
            answers.append(model((pixels(batch) - self.centre) / self.spread).float().cpu())
        return torch.cat(answers)


def _read(part: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What is needed to go on.

    Raises:
        VittleError: a file of another training, or none at all.
    """
    try:
        document: dict[str, Any] = torch.load(part, map_location="cpu", weights_only=True)
        theirs = document["settings"]
    except (OSError, RuntimeError, UnpicklingError, KeyError, TypeError, EOFError):
        raise VittleError(f"{part} is not an interrupted training; remove it to begin anew") from None
    for name, ours in settings.items():
        if theirs.get(name) != ours:
            raise VittleError(
                f"{part} is of a training with another {name} ({theirs.get(name)}, here {ours}); "
                "give the same to continue it, or remove the file to begin anew"
            )
    return document


def _digest(*arrays: NDArray[Any] | None) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(b"none" if array is None else f"{array.shape} {array.dtype}".encode())
        digest.update(b"" if array is None else np.ascontiguousarray(array).data)
    return digest.hexdigest()[:12]
