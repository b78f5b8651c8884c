"""Train a merge embedding on a frozen backbone ("modular" training), and keep it where it merges better than the keys do.

Lee and Hong, "Learning to Merge Tokens via Decoupled Embedding for Efficient Vision Transformers", arXiv 2412.10569, section 4.
Cross-entropy through the soft grouping of `soft_merging.py`, the same number of tokens merged in each block, AdamW at the
published learning rate (on the digits, higher ones lowered the validation loss no further), a cosine down to 1e-6.

Departures. The paper merges a fixed number of tokens a block (16, which halves the MACs of its models); here each step draws
the number, so that one embedding serves every rate that a search may ask for. Training orders tokens by size and inference
pairs them by position, so a lower loss may merge worse: each epoch is judged by hard merging at several rates on images that it
was not trained on, and the best epoch is kept, the start (epoch 0) included. Images are moved and blended as for a backbone
(`supervised.py`), in place of RandAugment, erasing and CutMix. Whether the best epoch beats the keys is asked of a third part
of the images, which chose nothing (`reductions/verdict.py`), at equal MACs where the paper has equal tokens.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from vittle.reductions.backbone import Backbone
from vittle.reductions.merge_embedding import MergeEmbedding
from vittle.reductions.verdict import Comparison, Verdict
from vittle.reductions.vit import ReducedViT
from vittle.spaces import costs
from vittle.spaces.errors import VittleError
from vittle.spaces.files import check_writable
from vittle.spaces.merging import Merging, most_merged
from vittle.spaces.schedule import Schedule
from vittle.spaces.shape import BackboneShape
from vittle.training import resumable
from vittle.training.judging import Judge, Parts, given, keep, logits
from vittle.training.resumable import Judged
from vittle.training.soft_merging import soft_forward
from vittle.training.supervised import Augmentation, batches, channels, check_batch, decaying

EPOCHS = 30
EPOCHS_ON_DIGITS = 12  # within two minutes on two cores
PATIENCE = 8  # epochs without a better one
LEARNING_RATE = 1e-4
LAST_LEARNING_RATE = 1e-6
WEIGHT_DECAY = 1e-4
GRADIENT_NORM = 5.0
AUGMENTATION = Augmentation()
SHARES = (0.6, 0.4, 0.3, 0.2)  # of the backbone's MACs, at which it is judged; it is trained from the first to the last


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is set before a training begins. See `train`."""

    epochs: int
    patience: int
    removed: tuple[int, ...]
    learning_rate: float
    batch_size: int
    augmentation: Augmentation
    seed: int
    device: str


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Attributes:
        embedding: of the best epoch.
        removed: tokens merged in each block at the rates of the verdict, the most MACs first.
        verdict: against the keys, at as many MACs.
        best_epoch: 0 where no epoch was better than the start.
        losses: mean training loss of each epoch.
    """

    embedding: MergeEmbedding
    removed: tuple[int, ...]
    verdict: Verdict
    best_epoch: int
    losses: tuple[float, ...]


def rate(shape: BackboneShape, share: float) -> int:
    """How many tokens to merge in every block to bring the backbone as near as can be to a share of its MACs.

    At 0.5 it is the published 16 for the usual models of 224 x 224 pixels in patches of 16.
    """
    whole = costs.macs(shape, Schedule())
    counts = range(1, max(1, most_merged(shape.tokens, shape.prefix)) + 1)
    return min(counts, key=lambda removed: abs(costs.macs(shape, constant(shape, removed)) / whole - share))


def constant(shape: BackboneShape, removed: int) -> Schedule:
    """Merge `removed` tokens by their keys in every block, or the half that can merge."""
    whole = Merging(kept=(shape.tokens,) * shape.depth)
    return Schedule((whole.following(shape, lambda _, tokens: tokens - removed) or whole,))


def as_dear(shape: BackboneShape, removed: int, macs: int) -> Schedule:
    """Merge by the keys what comes nearest to `macs`: `removed` tokens in each block, one fewer in some of the first.

    Making the embedding takes MACs, for which the keys could keep more tokens.
    """
    whole = Merging(kept=(shape.tokens,) * shape.depth)

    def sparing(first: int) -> Schedule:
        return Schedule((whole.following(shape, lambda block, tokens: tokens - removed + (block < first)) or whole,))

    return min(map(sparing, range(shape.depth + 1)), key=lambda schedule: abs(costs.macs(shape, schedule) - macs))


def decoupled(schedule: Schedule, embedding: MergeEmbedding) -> Schedule:
    """The same merging, by the embedding in place of the keys."""
    by = {"metric": "decoupled", "embedding": embedding.name, "embedding_width": embedding.width}
    parts = (part.model_copy(update=by) if isinstance(part, Merging) else part for part in schedule.reductions)
    return Schedule(tuple(parts), schedule.tail)


def train(
    backbone: Backbone,
    parts: Parts,
    *,
    output: Path,
    epochs: int = EPOCHS,
    patience: int = PATIENCE,
    removed: int | None = None,
    learning_rate: float = LEARNING_RATE,
    batch_size: int = 32,
    augmentation: Augmentation = AUGMENTATION,
    seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
) -> Trained:
    """Train a merge embedding and write it to `output`; the backbone stays as it is.

    The same call continues what was interrupted (`resumable.py`).

    Args:
        backbone: its model is copied.
        parts: images to learn from, to choose the epoch, and for the verdict.
        output: the safetensors file; it appears when training is done.
        epochs: passes over the training images, at most.
        patience: epochs in a row without a better one, after which it ends.
        removed: tokens merged in each block; by default each step draws a number within `SHARES`.
        learning_rate: at the start.
        batch_size: images of a step.
        augmentation: how training images are moved and blended.
        seed: of order, rates and augmentation.
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
    most = most_merged(shape.tokens, shape.prefix)
    if removed is not None and not 1 <= removed <= most:
        raise VittleError(f"removed is {removed}; accepted: 1 to {most} tokens per block, half of the {shape.patches} patches")
    check_batch(len(parts.train[0]), batch_size)
    rates = (removed,) if removed is not None else tuple(sorted({rate(shape, share) for share in SHARES}))
    recipe = Recipe(epochs, patience, rates, learning_rate, batch_size, augmentation, seed, device)
    lesson = _Lesson(backbone, parts, recipe)
    rivals = {"key": lesson.validation.judge(*lesson.by_key()).share}
    course = resumable.run(
        lesson, output, given(backbone, parts, recipe), epochs=epochs, patience=patience, rivals=rivals, progress=progress
    )
    verdict = lesson.compare()
    embedding = keep(lesson.module, output, backbone, recipe, course, removed=rates, verdict=verdict.document())
    return Trained(embedding, rates, verdict, course.best_epoch, tuple(course.losses))


class _Lesson:
    """What `resumable.run` trains."""

    def __init__(self, backbone: Backbone, parts: Parts, recipe: Recipe) -> None:
        self.recipe, self.shape = recipe, backbone.shape
        self.place = place = torch.device(recipe.device)
        self.model = copy.deepcopy(backbone.model).to(place).eval().requires_grad_(False)
        self.centre = channels(backbone.preprocessing.mean, place)
        self.spread = channels(backbone.preprocessing.std, place)
        self.validation, self.judges = (
            Judge(self.model, part, backbone.preprocessing) for part in (parts.validation, parts.verdict)
        )
        images, labels = parts.train
        self.images = torch.from_numpy(images)
        if labels is None:
            self.targets = logits(self.model, images, backbone.preprocessing).softmax(-1)  # (n, classes)
        else:
            self.targets = functional.one_hot(torch.from_numpy(labels), backbone.classes).float()
        self.by_backbone = parts.verdict[1] is None
        self.module = MergeEmbedding.from_keys(self.model, seed=recipe.seed).to(place)
        self.steps = len(self.images) // recipe.batch_size
        groups = decaying(self.module.parameters(), WEIGHT_DECAY)
        self.optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=True)
        steps = recipe.epochs * self.steps
        self.decay = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, steps, LAST_LEARNING_RATE)
        self.generator = torch.Generator().manual_seed(recipe.seed)

    def learn(self, stepped: Callable[[], object]) -> float:
        total = torch.zeros((), device=self.place)
        images, targets = self.images.to(self.place), self.targets.to(self.place)
        lowest, highest = min(self.recipe.removed), max(self.recipe.removed)
        by_block = {removed: _by_block(self.shape, removed) for removed in range(lowest, highest + 1)}
        for batch, wanted in batches(images, targets, self.recipe.batch_size, self.recipe.augmentation, self.generator):
            removed = int(torch.randint(lowest, highest + 1, (), generator=self.generator))
            with torch.autocast(self.place.type, torch.bfloat16, enabled=self.place.type == "cuda"):
                answers = soft_forward(self.model, self.module, (batch - self.centre) / self.spread, by_block[removed])
                loss = functional.cross_entropy(answers, wanted)
            self.optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(self.module.parameters(), GRADIENT_NORM)
            self.optimizer.step()
            self.decay.step()
            total += loss.detach()
            stepped()
        return total.item() / self.steps

    def judge(self) -> Judged:
        return self.validation.judge(*self.by_embedding())

    def by_key(self) -> list[ReducedViT]:
        """The backbone that merges by the keys, at each rate."""
        return [self._merging(constant(self.shape, removed)) for removed in self.recipe.removed]

    def by_embedding(self) -> list[ReducedViT]:
        """The backbone that merges by the embedding as it is, at each rate."""
        return [self._merging(decoupled(constant(self.shape, removed), self.module)) for removed in self.recipe.removed]

    def compare(self) -> Verdict:
        """Ask both for the images that chose nothing; the keys may keep as many tokens as make them as dear."""
        comparisons = [self._compare(removed) for removed in self.recipe.removed]
        return Verdict(rival=MergeEmbedding.rival, comparisons=tuple(comparisons), by_backbone=self.by_backbone)

    def _compare(self, removed: int) -> Comparison:
        learned = decoupled(constant(self.shape, removed), self.module)
        macs = costs.macs(self.shape, learned)
        both = (self._merging(one) for one in (learned, as_dear(self.shape, removed, macs)))
        share = macs / costs.macs(self.shape, Schedule())
        return Comparison.of(f"{share:.0%}", *(self.judges.right(model) for model in both))

    def _merging(self, schedule: Schedule) -> ReducedViT:
        # The fastest form is measured and each rounds differently: the best epoch must not depend on which it was.
        return ReducedViT(self.model, schedule, {Merging.name: self.module}, form="mask")


def _by_block(shape: BackboneShape, removed: int) -> Sequence[int]:
    """How many tokens go in each block."""
    going = [row.entering - row.leaving for row in costs.work(shape, constant(shape, removed))]
    if shape.reads_prefix_only:
        going[-1] = 0  # nobody reads what merges there
    return going
