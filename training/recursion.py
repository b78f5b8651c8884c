"""Retrofit a Vision Transformer with a recursion: distil it into a first, a last and one or two shared blocks between them.

See `vittle.spaces.recursion`. No labels are learned from. The recipe has two parts:

    the first quarter   every visit alone: given what the backbone's blocks are given, it learns the change that they make,
                        mean |visit(h) - h'|^2 / mean |h' - h|^2
    the rest            the whole: KL(backbone | recursion) + the last features of the class token and of the patches, and the
                        features after every visit, against those of the backbone as far through, each over its variance

A third of the batches of the second part run every step, for all patches; the others draw how many, and the share of the last
one, so that one training serves the whole range. Who takes part is drawn anew for every image, so that any rule may choose.
AdamW, a short warm-up, a cosine, gradients cut to length 1.

What decides between epochs is how many validation images are answered rightly, hard, at several depths and shares. Routers are
fitted at the end, see `fit_routers`; whether they choose better than chance is asked of a third part of the images.

Departures from MoR (arXiv 2507.10524) and MoR-ViT (arXiv 2507.21761), which train from nothing and learn router and blocks
together, by the products of scores and changes: those routers were no better than chance here. So there is no product, no
balancing loss (expert choice is balanced), no z-loss, and no warm-up of capacities beyond the first quarter.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vittle.reductions.backbone import Backbone
from vittle.reductions.block import classify, pass_attention, pass_mlp
from vittle.reductions.recursion import Recur
from vittle.reductions.recursive_blocks import RecursiveBlocks
from vittle.reductions.tokens import Tokens
from vittle.reductions.verdict import Comparison, Verdict
from vittle.reductions.vit import ReducedViT
from vittle.spaces import costs
from vittle.spaces.errors import VittleError
from vittle.spaces.files import check_writable
from vittle.spaces.recursion import Recursion, Router, falling
from vittle.spaces.schedule import Schedule
from vittle.training import resumable
from vittle.training.judging import Judge, Parts, given, keep
from vittle.training.resumable import Judged
from vittle.training.supervised import Augmentation, batches, channels, check_batch, decaying

EPOCHS = 10
STEPS = 100  # of an epoch, however many images there are
PATIENCE = 4  # epochs without a better one
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.05
BETAS = (0.9, 0.98)
GRADIENT_NORM = 1.0
AUGMENTATION = Augmentation(mixup=0.2)
SHALLOW = 0.4  # of the backbone's blocks between the first and the last one: more took longer to train and gained little
ALONE = 0.25  # of the training, in which every visit learns alone
WARM_UP = 0.05
WHOLE = 0.34  # of the steps after that, how many run everything
LEAST = 0.15  # share of the last step that is trained
FITTED = 256  # images that routers are fitted to
RIDGE = 1e-3  # of the mean square of a channel
UNNAMED = {"name": "in-training"}  # weights that change with every step have no name of their own


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is set before a training begins. See `train`."""

    epochs: int
    patience: int
    shared: int
    steps: int
    learning_rate: float
    batch_size: int
    augmentation: Augmentation
    seed: int
    device: str


@dataclass(frozen=True, slots=True)
class Right:
    """How many of the verdict's images are answered rightly at one depth and share of the last step."""

    steps: int
    share: float
    macs: float  # of the backbone's
    by_router: dict[Router, int]


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Attributes:
        blocks: of the best epoch.
        images: n, on which the verdict was found.
        backbone: how many of them the backbone answers rightly.
        right: from the most MACs on.
        parameters: weights that run at most, as a share of the backbone's.
        verdict: of the learned routers, against chance.
        best_epoch: 0 where no epoch was better than the start.
        losses: mean training loss of each epoch.
    """

    blocks: RecursiveBlocks
    images: int
    backbone: int
    right: tuple[Right, ...]
    parameters: float
    verdict: Verdict
    best_epoch: int
    losses: tuple[float, ...]


def recurring(blocks: RecursiveBlocks, capacities: Sequence[float], router: Router = "random") -> Schedule:
    """A schedule that runs these weights alone."""
    settings = {"weights": blocks.name, "shared": blocks.width, "capacities": tuple(capacities), "router": router}
    return Schedule((Recursion.model_validate(settings),))


def usual_steps(depth: int, shared: int) -> int:
    """How often blocks recur at most where nobody says."""
    return max(1, round(SHALLOW * (depth - 2) / shared))


def judged(steps: int) -> tuple[tuple[float, ...], ...]:
    """The capacities of the steps at which a recursion is judged, from the most MACs on."""
    rates = ((steps, 1.0), (steps, 0.2), (-(-steps // 2), 0.2), (-(-steps // 3), 1.0))
    return tuple(dict.fromkeys(falling(*rate) for rate in rates))


def train(
    backbone: Backbone,
    parts: Parts,
    *,
    output: Path,
    epochs: int = EPOCHS,
    patience: int = PATIENCE,
    shared: int = 1,
    steps: int | None = None,
    learning_rate: float = LEARNING_RATE,
    batch_size: int = 32,
    augmentation: Augmentation = AUGMENTATION,
    seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
) -> Trained:
    """Train a recursion and write it to `output`; the backbone stays as it is.

    The same call continues what was interrupted (`resumable.py`).

    Args:
        backbone: its model is copied.
        parts: images to learn from, to choose the epoch, and for the verdict. No labels are learned from.
        output: the safetensors file; it appears when training is done.
        epochs: of `STEPS` batches each, at most.
        patience: epochs in a row without a better one, after which it ends.
        shared: blocks whose weights are shared, 1 or 2.
        steps: how often they may recur; by default `SHALLOW` of what makes up for the backbone's blocks.
        learning_rate: at its highest.
        batch_size: images of a batch.
        augmentation: how training images are moved and blended.
        seed: of order, augmentation, depths and who takes part.
        device: cpu or cuda.
        progress: show a bar on stderr.

    Raises:
        VittleError: no classifier to judge by, too few blocks or images, a file that cannot be written, or a .part of another
            training.
    """
    check_writable(output)
    shape = backbone.shape
    if backbone.classes == 0:
        raise VittleError(f"model {backbone.name!r} has no classifier to judge by; accepted: one with a trained head")
    if shape.depth < shared + 2:
        raise VittleError(f"{backbone.name} has {shape.depth} blocks; accepted: {shared + 2} at least, for {shared} shared")
    check_batch(len(parts.train[0]), batch_size)
    chosen = steps or usual_steps(shape.depth, shared)
    recipe = Recipe(epochs, patience, shared, chosen, learning_rate, batch_size, augmentation, seed, device)
    lesson = _Lesson(backbone, parts, recipe)
    rivals = {"backbone": lesson.validation.judge(lesson.model).share}
    course = resumable.run(
        lesson, output, given(backbone, parts, recipe), epochs=epochs, patience=patience, rivals=rivals, progress=progress
    )
    fit_routers(lesson.running((1.0,) * chosen), lesson.module, lesson.fitted)
    lesson.module.metadata = {}
    right, verdict = lesson.compare()
    blocks = keep(lesson.module, output, backbone, recipe, course, verdict=verdict.document())
    whole = costs.parameters(shape, Schedule())
    weights = costs.parameters(shape, recurring(blocks, (1.0,) * chosen))
    ours = int(lesson.judges.right(lesson.model).sum())
    images = len(lesson.judges.answers)
    return Trained(blocks, images, ours, right, weights / whole, verdict, course.best_epoch, tuple(course.losses))


class _Lesson:
    """What `resumable.run` trains."""

    def __init__(self, backbone: Backbone, parts: Parts, recipe: Recipe) -> None:
        self.recipe, self.shape = recipe, backbone.shape
        self.place = place = torch.device(recipe.device)
        self.model = copy.deepcopy(backbone.model).to(place).eval().requires_grad_(False)
        self.teacher = ReducedViT(self.model, Schedule(), form="mask")
        self.centre = channels(backbone.preprocessing.mean, place)
        self.spread = channels(backbone.preprocessing.std, place)
        self.validation, self.judges = (
            Judge(self.model, part, backbone.preprocessing) for part in (parts.validation, parts.verdict)
        )
        self.by_backbone = parts.verdict[1] is None
        self.images = torch.from_numpy(parts.train[0])
        self.fitted = (self.images[:FITTED].to(place).permute(0, 3, 1, 2) / 255 - self.centre) / self.spread
        module = RecursiveBlocks.from_backbone(self.model, shared=recipe.shared, steps=recipe.steps)
        self.module = module.to(place)
        self.module.routers.requires_grad_(False)
        self.module.metadata = dict(UNNAMED)
        learned = [weight for weight in self.module.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(decaying(learned, WEIGHT_DECAY), lr=recipe.learning_rate, betas=BETAS, fused=True)
        self.steps = STEPS
        self.whole = recipe.epochs * self.steps
        self.decay = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._rate)
        self.generator = torch.Generator().manual_seed(recipe.seed)

    def learn(self, stepped: Callable[[], object]) -> float:
        total = torch.zeros((), device=self.place)
        for images in self._batches():
            alone = self.decay.last_epoch < ALONE * self.whole
            with torch.autocast(self.place.type, torch.bfloat16, enabled=self.place.type == "cuda"):
                loss = self._alone(images) if alone else self._together(images)
            self.optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(self.module.parameters(), GRADIENT_NORM)
            self.optimizer.step()
            self.decay.step()
            total += loss.detach()
            stepped()
        return total.item() / self.steps

    def judge(self) -> Judged:
        return self.validation.judge(*map(self.running, judged(self.recipe.steps)))

    def running(self, capacities: Sequence[float], router: Router = "random") -> ReducedViT:
        """The recursion as it is."""
        # The fastest form is measured and each rounds differently: the best epoch must not depend on which it was.
        return ReducedViT(self.model, recurring(self.module, capacities, router), {Recursion.name: self.module}, form="mask")

    def compare(self) -> tuple[tuple[Right, ...], Verdict]:
        """Ask every router for the images that chose nothing."""
        right: list[Right] = []
        comparisons: list[Comparison] = []
        whole = costs.macs(self.shape, Schedule())
        for capacities in judged(self.recipe.steps):
            macs = costs.macs(self.shape, recurring(self.module, capacities)) / whole
            routers: tuple[Router, ...] = ("learned", "random", "norm") if capacities[-1] < 1 else ("random",)
            answers: dict[Router, Any] = {router: self.judges.right(self.running(capacities, router)) for router in routers}
            counts: dict[Router, int] = {router: int(found.sum()) for router, found in answers.items()}
            right.append(Right(len(capacities), capacities[-1], macs, counts))
            if "learned" in answers:
                comparisons.append(Comparison.of(f"{macs:.0%}", answers["learned"], answers["random"]))
        rival = RecursiveBlocks.rival
        return tuple(right), Verdict(rival=rival, comparisons=tuple(comparisons), by_backbone=self.by_backbone)

    def _batches(self) -> Iterator[Tensor]:
        """As many batches (b, 3, h, w) as an epoch has, standardised, of as many passes over the images as they take."""
        images, none = self.images.to(self.place), torch.zeros(len(self.images), 1, device=self.place)
        about = (self.recipe.batch_size, self.recipe.augmentation, self.generator)
        passes = (batches(images, none, *about) for _ in count())
        for batch, _ in islice(chain.from_iterable(passes), self.steps):
            yield (batch - self.centre) / self.spread

    def _alone(self, images: Tensor) -> Tensor:
        """How far every visit is from the change that the backbone's blocks make, of what they are given."""
        with torch.no_grad():
            wanted = list(self.teacher.states(images))
        model = self.running((1.0,) * self.recipe.steps)
        ends = [self._through(row.index + 1, len(model.work)) for row in model.work]
        losses = []
        for begin, end, block in zip([0, *ends], ends, model.blocks, strict=False):
            before, after = wanted[begin], wanted[end]
            _, features = pass_attention(block, block.attn.qkv, before, None, before.shape[1], "mask")
            change = (after - before).square().mean()
            losses.append((pass_mlp(block, features) - after).square().mean() / change)
        return torch.stack(losses).mean()

    def _together(self, images: Tensor) -> Tensor:
        """How far a recursion of some depth is from the backbone."""
        with torch.no_grad():
            wanted = list(self.teacher.states(images))
            answers = self._answers(self.teacher, wanted[-1])
        model = self._drawn()
        found = list(model.states(images))
        given = self._answers(model, found[-1])
        divergence = functional.kl_div(given.log_softmax(-1), answers.softmax(-1), reduction="batchmean")
        prefix = self.shape.prefix
        ends = [_apart(found[-1][:, part], wanted[-1][:, part]) for part in (slice(prefix), slice(prefix, None))]
        visits = len(model.work)
        between = [_apart(found[visit], wanted[self._through(visit, visits)]) for visit in range(1, visits)]
        return divergence + sum(ends) + torch.stack(between).mean()

    def _drawn(self) -> ReducedViT:
        """A recursion of a depth, a share and patches that are drawn."""
        most = self.recipe.steps
        chances = torch.rand(2, generator=self.generator)
        steps = int(torch.randint(min(2, most), most + 1, (), generator=self.generator))
        share = LEAST + (1 - LEAST) * float(chances[1])
        model = self.running((1.0,) * most if chances[0] < WHOLE else falling(steps, share))
        return by_lot(model, self.generator)

    def _through(self, visits: int, of: int) -> int:
        """As many of the backbone's blocks as some visits, of all there are, stand for."""
        if visits in (0, 1):
            return visits
        return self.shape.depth if visits == of else 1 + round((self.shape.depth - 2) * (visits - 1) / (of - 2))

    def _answers(self, model: ReducedViT, features: Tensor) -> Tensor:
        vit: Any = model.backbone
        return classify(vit, Tokens(vit.norm(features)))

    def _rate(self, step: int) -> float:
        """The learning rate at a step, as a share of the highest."""
        done = step / self.whole
        return min(1.0, (step + 1) / max(1, WARM_UP * self.whole)) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def by_lot(model: ReducedViT, generator: torch.Generator) -> ReducedViT:
    """The same model, in which those who take part are drawn anew for every image."""
    for module in model.modules():
        if isinstance(module, Recur):
            drawn: Any = module
            drawn.rule = "drawn" if module.rule == "random" else module.rule
            drawn.scores = lambda tokens, prefix=module.prefix: torch.rand(
                tokens.features.shape[0], tokens.features.shape[1] - prefix, generator=generator
            ).to(tokens.features.device)
    return model


@torch.no_grad()
def fit_routers(model: ReducedViT, blocks: RecursiveBlocks, images: Tensor) -> None:
    """Fit every step's router to how far a step moves a patch, as a share of its length, where all take part.

    Args:
        model: the recursion in which all patches take part in every step.
        blocks: whose routers are fitted, by least squares.
        images: (n, 3, h, w), standardised.
    """
    states = list(model.states(images))
    for step, router in enumerate(blocks.routers):
        visits = [row.index for row in model.work if row.visit.step == step and row.visit.block in range(1, 1 + blocks.width)]
        before, after = (state[:, model.shape.prefix :] for state in (states[visits[0]], states[visits[-1] + 1]))
        wanted = ((after - before).norm(dim=-1) / before.norm(dim=-1)).log().flatten()
        given = functional.layer_norm(before, before.shape[-1:]).flatten(0, 1)  # (n p, d)
        centre, mean = given.mean(0), wanted.mean()
        moments = (given - centre).double().mT @ (given - centre).double()
        moments += RIDGE * moments.diagonal().mean() * torch.eye(len(moments), device=moments.device)
        weight = torch.linalg.solve(moments, (given - centre).double().mT @ (wanted - mean).double()).to(given)
        layer: Any = router
        layer.layer.weight.copy_(weight[None])
        layer.layer.bias.copy_((mean - centre @ weight)[None])


def _apart(found: Tensor, wanted: Tensor) -> Tensor:
    """The mean squared distance, as a share of the variance of what is wanted; 0 where there is nothing."""
    return (found - wanted).square().mean() / wanted.var() if wanted.numel() else found.sum()
