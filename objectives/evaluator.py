"""One schedule judged on one backbone: MACs by arithmetic, latency by the clock or predicted, accuracy by images.

A worker makes one `Evaluator` and keeps it: the backbone and its images are loaded once and only the schedule changes. Images
come in rungs, each of which doubles those seen so far, so that whoever watches can stop a schedule that is beaten; and blocks
before a schedule's first change are not computed again where the backbone's own pass has kept them.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vittle.objectives.backbones.merge_start_measurement import IMAGES as OBSERVED
from vittle.objectives.budget import Budget
from vittle.objectives.evaluation import Evaluation
from vittle.objectives.goals import Measured
from vittle.objectives.latency import device_lock
from vittle.objectives.latency.stand import EFFORTS, Stand
from vittle.objectives.measurement import Measurement, Phase, exact
from vittle.objectives.quality import backbone_pass, rungs
from vittle.objectives.quality.accuracy import BATCH, BackboneAnswers, divergence, finite, judge, to_input
from vittle.objectives.quality.backbone_pass import ActivationCache, BackbonePass
from vittle.objectives.quality.decoding import Progress
from vittle.objectives.quality.images import Images, Splits
from vittle.reductions.activations import Activations, Packed, walk
from vittle.reductions.attention_statistics import Observer
from vittle.reductions.backbone import Backbone
from vittle.reductions.device import DTYPES
from vittle.reductions.vit import ReducedViT, check_identity
from vittle.spaces import costs
from vittle.spaces.schedule import Schedule


def make_stand(
    backbone: Backbone, *, device: str, batch_size: int, dtype: str = "float32", compiled: bool = False,
    pixels: NDArray[np.uint8] | None = None,
) -> Stand:  # fmt: skip
    """A place to time a backbone's schedules; the backbone's model goes to the device and type.

    Args:
        backbone: checked here to be understood, in its own precision.
        device: `cpu` or `cuda`.
        batch_size: images of one batch.
        dtype: of weights and activations, one of `DTYPES`.
        compiled: time through `torch.compile`.
        pixels: images to fill the batch with, as often as it takes; noise where there are none.

    Raises:
        UnsupportedBackboneError: an empty schedule would change the backbone's output.
    """
    where = torch.device(device)
    model = backbone.model.to(where)
    if next(model.parameters()).dtype == torch.float32:
        check_identity(model)
    model.to(DTYPES[dtype])
    if pixels is None:
        size = (batch_size, *backbone.preprocessing.size, 3)
        pixels = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    repeated = np.resize(pixels, (batch_size, *pixels.shape[1:]))
    return Stand(model, to_input(repeated, backbone.preprocessing, where).to(DTYPES[dtype]), compiled=compiled)


class Evaluator:
    """A backbone and its images at a stand; other arguments as `make_stand` has them.

    Args:
        backbone: the backbone.
        splits: the images to search on, in the order in which they are to be seen, and those to confirm on.
        known: the backbone's own pass over the search images; made when it is first needed where none is given.
        cache: bytes of activations that stay on a GPU.
        **where: of `make_stand`.

    Raises:
        UnsupportedBackboneError: an empty schedule would change the backbone's output.
    """

    def __init__(
        self, backbone: Backbone, splits: Splits, *, known: BackbonePass | None = None, cache: int = 0, **where: Any
    ) -> None:
        self.backbone = backbone
        self.stand = make_stand(backbone, pixels=splits.search.pixels, **where)
        self.model = backbone.model
        self.adapters = {name: adapter.to(self.stand.images) for name, adapter in backbone.adapters.items()}
        self.images: Mapping[Phase, Images] = {"search": splits.search, "confirmation": splits.held_out}
        self._about = {} if splits.digest is None else {"images": splits.digest.id}
        searched, held_out = len(splits.search), len(splits.held_out)
        self.rungs: Mapping[Phase, Sequence[Sequence[slice]]] = {
            "search": rungs.batches(searched, rungs.sizes(searched), BATCH),
            "confirmation": rungs.batches(held_out, (held_out,), BATCH),
        }
        self.spent = 0
        """MACs of everything that images went through so far, as `costs.macs` counts them."""
        self.seconds = 0.0
        """Seconds of that."""
        self._references: dict[Phase, BackboneAnswers] = {}
        self._cache: ActivationCache | None = None
        if known is not None:
            self.know(known, cache)

    def record(
        self,
        limit: int = 0,
        keep: Callable[[Packed], Any] = lambda packed: packed,
        fetch: Callable[[Any], Packed] = lambda kept: kept,
        observer: Observer | None = None,
        progress: Progress = lambda _done, _total: None,
    ) -> BackbonePass:
        """Bring the search images through the backbone once, and keep what schedules can go on from.

        Args:
            limit: bytes of activations to keep.
            keep: where to put each of them.
            fetch: from what `keep` gives back to the activations.
            observer: sees the first of them.
            progress: told (done, total) images.
        """
        batches = [batch for rung in self.rungs["search"] for batch in rung]
        images = [batch.stop - batch.start for batch in batches]
        wanted = set(backbone_pass.places(self.backbone.shape, images, self.stand.images.element_size(), limit))
        model = ReducedViT(self.model, Schedule())
        kept, logits, start = {}, [], time.perf_counter()
        with device_lock.shared(self.stand.device):
            for index, batch in enumerate(batches):
                see = {} if observer is None or (index and batch.stop > OBSERVED) else {"see": observer.see}
                for block, part in enumerate(walk(model, self._input("search", batch), **see)):
                    if not isinstance(part, Activations):
                        logits.append(finite(part))
                    elif (index, block) in wanted:
                        kept[index, block] = keep(part.pack())
                progress(batch.stop, sum(images))
        seconds = time.perf_counter() - start
        self._count(costs.macs(self.backbone.shape, Schedule()) * sum(images), seconds)
        return BackbonePass(np.concatenate(logits), kept, fetch, seconds)

    def know(self, known: BackbonePass, cache: int = 0) -> None:
        """Go on from a pass that was made before; `cache` bytes of it stay on a GPU."""
        self._references["search"] = BackboneAnswers.of(known.logits, self.images["search"].labels)
        self._cache = ActivationCache(known, self.stand.device, cache)

    def climb(
        self,
        schedule: Schedule,
        *,
        budget: Budget | None = None,
        profile: str | None = None,
        predicted: Measured | None = None,
        enters: Callable[[Measured], bool] = lambda _: True,
    ) -> Iterator[Evaluation]:
        """Measure a schedule on the search images, cheapest objective first, rung by rung; the last one is no longer going.

        Args:
            schedule: for the backbone.
            budget: a schedule whose measured latency exceeds it is not evaluated further.
            profile: key of the latency profile that is known of the backbone, for the protocol.
            predicted: its latency, which stands in for the measured one unless the schedule enters the front.
            enters: whether one with these measurements may enter the front, so that its latency has to be measured.

        Raises:
            FloatingPointError: logits that are not finite.
        """
        model = ReducedViT(self.model, schedule, self.adapters)
        measured = {**self._sizes(schedule), **(predicted or {})}
        if predicted is None:
            measured |= self.stand.measure(model, EFFORTS["search"], {"profile": profile} if profile else None)
            if budget is not None and budget.excess(measured) > 0:
                yield Evaluation(measured, "over budget")
                return
        for judged, last in self._judged(model, "search"):
            measured |= judged
            if not last:
                yield Evaluation(dict(measured), "going")
        if predicted is not None and enters(measured):
            about = {"profile": profile, "predicted": predicted["latency_ratio"].value}
            measured |= self.stand.measure(model, EFFORTS["search"], about)
        yield Evaluation(measured, "complete")

    def measure(self, schedule: Schedule, phase: Phase = "search", **how: Any) -> dict[str, Measurement]:
        """Measure a schedule to the end; arguments and errors as `climb` has them, with which the search does it."""
        if phase == "search":
            return dict(list(self.climb(schedule, **how))[-1].measurements)
        model = ReducedViT(self.model, schedule, self.adapters)
        return {**self._sizes(schedule), **self.stand.measure(model, EFFORTS[phase]), **self.judge(schedule, phase)}

    def judge(self, schedule: Schedule, phase: Phase) -> dict[str, Measurement]:
        """What its answers are worth, and no more.

        Raises:
            FloatingPointError: logits that are not finite.
        """
        return list(self._judged(ReducedViT(self.model, schedule, self.adapters), phase))[-1][0]

    def divergence(self, schedule: Schedule) -> NDArray[np.float64]:
        """KL divergence of its answers from the backbone's, in nats, for each image of the first rung, (m,).

        Raises:
            FloatingPointError: logits that are not finite.
        """
        reference = self._reference("search").logits
        logits = self._answers(ReducedViT(self.model, schedule, self.adapters), "search", self.rungs["search"][0])
        return divergence(reference[: len(logits)], logits)

    def _sizes(self, schedule: Schedule) -> dict[str, Measurement]:
        """What arithmetic says of a schedule."""
        shape = self.backbone.shape
        counted = {"macs": costs.macs(shape, schedule), "parameters": costs.parameters(shape, schedule)}
        return {name: exact(name, value) for name, value in counted.items()}

    def _judged(self, model: ReducedViT, phase: Phase) -> Iterator[tuple[dict[str, Measurement], bool]]:
        """What is known after each rung, and whether it is the last one."""
        ladder, before = self.rungs[phase], (self.spent, self.seconds)
        reference = self._reference(phase)
        effort = self._since(*before)
        if not model.schedule.reductions and model.schedule.tail == "full":
            yield judge(reference.logits, reference, {**effort, **self._about}), True
            return
        logits, done = reference.logits[:0], 0
        for rung, batches in enumerate(ladder, start=1):
            before = self.spent, self.seconds  # other schedules climb in between
            logits = np.concatenate([logits, self._answers(model, phase, batches, done)])
            done += len(batches)
            effort = {name: more + effort[name] for name, more in self._since(*before).items()}
            yield judge(logits, reference, {**effort, **self._about}), rung == len(ladder)

    def _since(self, spent: int, seconds: float) -> dict[str, float]:
        return {"image_macs": self.spent - spent, "seconds": self.seconds - seconds}

    def _reference(self, phase: Phase) -> BackboneAnswers:
        if phase not in self._references and phase == "search":
            self.know(self.record())
        elif phase not in self._references:
            (batches,) = self.rungs[phase]
            logits = self._answers(ReducedViT(self.model, Schedule()), phase, batches)
            self._references[phase] = BackboneAnswers.of(logits, self.images[phase].labels)
        return self._references[phase]

    def _answers(self, model: ReducedViT, phase: Phase, batches: Sequence[slice], first: int = 0) -> NDArray[np.float32]:
        """Logits (m, classes) of batches, of which the first has that number among all of the phase."""
        # Nothing in here may ask for the lease again: whoever waits to measure comes between, and both would wait for ever.
        with device_lock.shared(self.stand.device):
            return np.concatenate([self._answer(model, phase, index, batch) for index, batch in enumerate(batches, first)])

    @torch.inference_mode()
    def _answer(self, model: ReducedViT, phase: Phase, index: int, batch: slice) -> NDArray[np.float32]:
        """Logits (b, classes) of a batch, from where the dense pass has brought it."""
        start = time.perf_counter()
        shape, macs = self.backbone.shape, costs.macs(self.backbone.shape, model.schedule)
        known = self._cache.nearest(index, model.resumable) if phase == "search" and self._cache else None
        if known is None:
            answers = finite(model(self._input(phase, batch)))
        else:
            block, activations = known
            answers = finite(activations.resume(model, block))
            macs -= costs.dense_macs_through(shape, block)
        self._count(macs * len(answers), time.perf_counter() - start)
        return answers

    def _input(self, phase: Phase, batch: slice) -> torch.Tensor:
        like = self.stand.images
        return to_input(self.images[phase].pixels[batch], self.backbone.preprocessing, like.device).to(like.dtype)

    def _count(self, macs: int, seconds: float) -> None:
        self.spent += macs
        self.seconds += seconds
