"""Train a sparsity predictor on a frozen backbone, and keep it where it chooses better keys than a sample of queries does.

Wei et al., "Sparsifiner: Learning Sparse Instance-Dependent Attention for Efficient Vision Transformers", arXiv 2303.13755,
whose first phase this is: the backbone computes dense attention, and the predictor learns what it is. For each block and head,

    loss = cross-entropy from t to softmax(score),    t_j ~ |v_j - mean of v over the part of j| * mean attention that j is paid

where t is what form `keys` wants: how much the output changes if key j is not read but stands in a rest. One predictor serves
every share. The bases of form `queries` are fitted to the first images and not learned.

Departures. No second phase: a mask that is chosen hard has no gradient, and distillation through a soft one gave no clear gain.
AdamW at a constant rate, falling to nothing. Every epoch is judged by hard sparse attention at several shares on images that it
was not trained on, and the best one is kept, the start included. Whether it chooses better than a sample of queries, which
needs no training, and than chance is asked of a third part of the images.

Shapes: b images, h heads, p patches, c channels of a head.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vittle.reductions.attention import weighted_attention
from vittle.reductions.backbone import Backbone
from vittle.reductions.block import embed, pass_attention, pass_mlp
from vittle.reductions.sparsity import Sparsify, apart, attended, parts_of
from vittle.reductions.sparsity_predictor import SparsityPredictor
from vittle.reductions.tokens import Heads
from vittle.reductions.verdict import Comparison, Verdict
from vittle.reductions.vit import ReducedViT
from vittle.spaces import costs
from vittle.spaces.errors import VittleError
from vittle.spaces.files import check_writable
from vittle.spaces.schedule import Schedule
from vittle.spaces.shape import BackboneShape
from vittle.spaces.sparsity import SIDES, Selection, Sparsity
from vittle.training import resumable
from vittle.training.judging import Judge, Parts, given, keep
from vittle.training.resumable import Judged
from vittle.training.supervised import channels, check_batch, pixels

EPOCHS = 8
STEPS = 50  # of an epoch, where there are as many batches
PATIENCE = 4  # epochs without a better one
LEARNING_RATE = 3e-3
SHARES = (0.25, 0.1, 0.05)  # of the keys, at which it is judged
FITTED = 64  # images that the bases are fitted to
RANDOM = "random keys"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is set before a training begins. See `train`."""

    epochs: int
    patience: int
    learning_rate: float
    batch_size: int
    seed: int
    device: str


class Right(NamedTuple):
    """How many of the verdict's images are answered rightly at one share of the keys."""

    share: float
    macs: float  # of the backbone's, with the trained scorer
    trained: int
    sampled: int
    random: int


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Attributes:
        predictor: of the best epoch.
        images: n, on which the verdicts were found.
        right: by share, the largest first.
        verdict: against a sample of queries.
        against_chance: against random keys.
        best_epoch: 0 where no epoch was better than the start.
        losses: mean training loss of each epoch.
    """

    predictor: SparsityPredictor
    images: int
    right: tuple[Right, ...]
    verdict: Verdict
    against_chance: Verdict
    best_epoch: int
    losses: tuple[float, ...]


def sparse(shape: BackboneShape, share: float, selection: Selection = "sampled", predictor: str | None = None) -> Schedule:
    """Read a share of the keys in every block, with the other settings at their defaults."""
    settings = Sparsity(shares=(share,) * shape.depth, selection=selection, predictor=predictor)
    return Schedule((settings,), "prefix" if shape.reads_prefix_only else "full")


def train(
    backbone: Backbone,
    parts: Parts,
    *,
    output: Path,
    epochs: int = EPOCHS,
    patience: int = PATIENCE,
    learning_rate: float = LEARNING_RATE,
    batch_size: int = 32,
    seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
) -> Trained:
    """Train a sparsity predictor and write it to `output`; the backbone stays as it is.

    The same call continues what was interrupted (`resumable.py`).

    Args:
        backbone: its model is copied.
        parts: images to learn from, to choose the epoch, and for the verdict. No labels are learned from.
        output: the safetensors file; it appears when training is done.
        epochs: of at most `STEPS` steps each, at most.
        patience: epochs in a row without a better one, after which it ends.
        learning_rate: at the start.
        batch_size: images of a step.
        seed: of the order of images and of the weights at the start.
        device: cpu or cuda.
        progress: show a bar on stderr.

    Raises:
        VittleError: no classifier to judge by, too few images or patches, a file that cannot be written, or a .part of another
            training.
    """
    check_writable(output)
    shape = backbone.shape
    if backbone.classes == 0:
        raise VittleError(f"model {backbone.name!r} has no classifier to judge by; accepted: one with a trained head")
    if not costs.work(shape, sparse(shape, min(SHARES)))[0].acts:
        raise VittleError(f"model {backbone.name!r} has {shape.patches} patches, too few to leave any unread")
    check_batch(len(parts.train[0]), batch_size)
    recipe = Recipe(epochs, patience, learning_rate, batch_size, seed, device)
    lesson = _Lesson(backbone, parts, recipe)
    rivals = {"sampled": lesson.validation.judge(*lesson.sampled()).share}
    course = resumable.run(
        lesson, output, given(backbone, parts, recipe), epochs=epochs, patience=patience, rivals=rivals, progress=progress
    )
    right, verdict, against_chance = lesson.compare()
    predictor = keep(
        lesson.module, output, backbone, recipe, course, verdict=verdict.document(), against_chance=against_chance.document()
    )
    return Trained(predictor, len(parts.verdict[0]), right, verdict, against_chance, course.best_epoch, tuple(course.losses))


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
        self.images = torch.from_numpy(parts.train[0])
        self.by_backbone = parts.verdict[1] is None
        self.parts = parts_of(self.shape.grid, SIDES[Sparsity.model_fields["rests"].default]).to(place)
        self.generator = torch.Generator().manual_seed(recipe.seed)
        self.module = SparsityPredictor.for_backbone(self.shape).to(place)
        for block, heads in zip(self._blocks(), self._attention(self.images[:FITTED]), strict=True):
            block.begin(heads.queries, heads.keys, heads.scale, self.generator)
        self.steps = min(len(self.images) // recipe.batch_size, STEPS)
        learned = [weight for weight in self.module.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(learned, lr=recipe.learning_rate, fused=True)
        self.decay = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, recipe.epochs * self.steps)

    def learn(self, stepped: Callable[[], object]) -> float:
        total = torch.zeros((), device=self.place)
        order = torch.randperm(len(self.images), generator=self.generator)[: self.steps * self.recipe.batch_size]
        for chosen in order.view(self.steps, -1):
            losses = [
                _cross_entropy(block.scores(heads.keys), self._wanted(heads))
                for block, heads in zip(self._blocks(), self._attention(self.images[chosen]), strict=True)
            ]
            loss = torch.stack(losses).mean()
            self.optimizer.zero_grad()
            torch.autograd.backward(loss)
            self.optimizer.step()
            self.decay.step()
            total += loss.detach()
            stepped()
        return total.item() / self.steps

    def judge(self) -> Judged:
        return self.validation.judge(*self.trained())

    def trained(self) -> list[ReducedViT]:
        """The backbone that reads the keys chosen by the predictor as it is, at each share."""
        schedules = (sparse(self.shape, share, "trained", self.module.name) for share in SHARES)
        return [ReducedViT(self.model, schedule, {Sparsity.name: self.module}, form="mask") for schedule in schedules]

    def sampled(self) -> list[ReducedViT]:
        """The backbone that reads the keys chosen by a sample of queries."""
        return [ReducedViT(self.model, sparse(self.shape, share), form="mask") for share in SHARES]

    def compare(self) -> tuple[tuple[Right, ...], Verdict, Verdict]:
        """Ask all of them for the images that chose nothing."""
        right: list[Right] = []
        against: tuple[list[Comparison], list[Comparison]] = [], []
        whole = costs.macs(self.shape, Schedule())
        chance = (at_random(model, self.recipe.seed) for model in self.sampled())
        for share, *models in zip(SHARES, self.trained(), self.sampled(), chance, strict=True):
            ours, *theirs = (self.judges.right(model) for model in models)
            macs = costs.macs(self.shape, models[0].schedule) / whole
            right.append(Right(share, macs, *(int(one.sum()) for one in (ours, *theirs))))
            for found, other in zip(against, theirs, strict=True):
                found.append(Comparison.of(f"{share:.0%}", ours, other))
        rivals = (SparsityPredictor.rival, RANDOM)
        verdict, against_chance = (
            Verdict(rival=rival, share="of the keys", comparisons=tuple(found), by_backbone=self.by_backbone)
            for rival, found in zip(rivals, against, strict=True)
        )
        return tuple(right), verdict, against_chance

    def _blocks(self) -> Sequence[Any]:
        blocks: Any = self.module.blocks
        return blocks  # type: ignore[no-any-return]

    def _wanted(self, heads: Heads) -> Tensor:
        """What the scores (b, h, p) should be in proportion to."""
        everyone = torch.arange(heads.queries.shape[2], device=self.place)
        wanted = attended(heads, everyone) * apart(heads.values, self.parts)
        return wanted / wanted.sum(-1, keepdim=True)

    def _attention(self, images: Tensor) -> Iterator[Heads]:
        """Queries, keys and values of the patches, block by block, of images (b, height, width, 3)."""
        batch = (pixels(images.to(self.place)) - self.centre) / self.spread
        return patches_attending(self.model, batch, self.shape.prefix)


def patches_attending(model: nn.Module, images: Tensor, prefix: int) -> Iterator[Heads]:
    """What the core of each block of a timm Vision Transformer is given of the patches of images (b, 3, height, width)."""
    vit: Any = model
    seen: list[Heads] = []

    def core(heads: Heads) -> Tensor:
        seen.append(heads)
        return weighted_attention(heads.queries, heads.keys, heads.values, None, scale=heads.scale, dropout=0.0, form="mask")

    with torch.no_grad():
        features = embed(vit, images)
    for block in vit.blocks:
        with torch.no_grad():
            _, features = pass_attention(block, block.attn.qkv, features, None, features.shape[1], "mask", core)
            features = pass_mlp(block, features)
        heads = seen.pop()
        queries, keys, values = (one[:, :, prefix:] for one in heads[:3])
        yield Heads(queries, keys, values, None, heads.scale, heads.form)


def at_random(model: ReducedViT, seed: int) -> ReducedViT:
    """The same model, with keys that are drawn anew for every image: what choosing is worth."""
    place = next(model.parameters()).device
    generator = torch.Generator(place).manual_seed(seed)
    for module in model.modules():
        if isinstance(module, Sparsify):
            drawn: Any = module
            drawn.scores = lambda heads: torch.rand(heads.keys.shape[:3], generator=generator, device=place)
    return model


def _cross_entropy(scores: Tensor, wanted: Tensor) -> Tensor:
    """From what is wanted, both (b, h, p), which adds up to 1."""
    return -(wanted * scores.log_softmax(-1)).sum(-1).mean()
