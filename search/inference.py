"""The inference problem: schedules of a frozen backbone, judged on images and timed on a device."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Self

import torch

from vittle.objectives import evaluator as evaluation
from vittle.objectives.backbones.merge_start import detect
from vittle.objectives.backbones.sensitivity import measure
from vittle.objectives.evaluation import Evaluation
from vittle.objectives.fronts.front import may_enter_front
from vittle.objectives.goals import Measured
from vittle.objectives.latency.profile import LatencyProfile
from vittle.objectives.quality.backbone_pass import BackbonePass
from vittle.objectives.quality.images import Splits, load_images
from vittle.reductions.adapters import load_adapters
from vittle.reductions.attention_statistics import Observer
from vittle.reductions.backbone import Backbone, check_known, load_backbone
from vittle.reductions.vit import check_identity
from vittle.search.feasibility import LAUNCH_SECONDS, copied, find_profile, find_target
from vittle.search.problem import Progress
from vittle.search.reporter import Reporter, first_line
from vittle.search.schedules import Knowledge, ScheduleProblem
from vittle.search.workers import object_store
from vittle.spaces.errors import VittleError
from vittle.spaces.inputs import check_images
from vittle.spaces.schedule import Schedule
from vittle.spaces.space import Space
from vittle.spaces.table import REDUCTIONS
from vittle.storage.records import BackboneRecord, Study
from vittle.storage.settings import Settings
from vittle.storage.store import Store


class InferenceProblem(ScheduleProblem):
    """Schedules of a backbone that is loaded, with its images.

    Args:
        settings: of the study.
        backbone: the backbone.
        splits: its images.
    """

    def __init__(self, settings: Settings, backbone: Backbone, splits: Splits) -> None:
        super().__init__(settings, record(backbone))
        self.backbone = backbone
        self.splits = splits
        self.images = splits.digest
        self.dense: BackbonePass | None = None
        """The backbone's own pass over the search images, which workers go on from."""

    @classmethod
    def load(cls, settings: Settings, progress: Progress | None = None) -> Self:
        """Load model and images, and refuse whatever is wrong with them.

        Raises:
            VittleError: bad input; nothing has been written.
        """
        _check_before_fetching(settings)
        backbone = load_backbone(settings.model, settings.checkpoint, settings.image_size)
        if backbone.classes == 0:
            told = f" ({backbone.notes[0]})" if backbone.notes else ""
            raise VittleError(
                f"model {settings.model!r} has no classifier to judge schedules by{told}; accepted: one with a trained head"
            )
        Space(backbone.shape, settings.reductions)
        backbone = _with_adapters(backbone, settings)
        check_identity(backbone.model)
        splits = load_images(
            settings.data,
            backbone.preprocessing,
            backbone.classes,
            class_names=settings.classes,
            seed=settings.seed,
            progress=progress,
        )
        return cls(settings, backbone, splits)

    def aimed_at(self, target: str, store: Store) -> Self:
        """The problem with another device's budget, by a part of the device's name or by the key of its profile.

        Raises:
            VittleError: there is no profile of the target, or its predictions are too far off, or it predicts no such budget.
        """
        if self.settings.budget.tail:
            raise VittleError(
                f"budget {self.settings.budget} of another device is not known: profiles predict medians, such as 4ms"
            )
        found = find_target(self.backbone, target, self.settings, store)
        return type(self)(self.settings.model_copy(update={"target": found.key}), self.backbone, self.splits)

    @property
    def notes(self) -> list[str]:  # type: ignore[override]
        verdicts = (one.verdict()[1] for one in self.backbone.adapters.values())
        told = (REDUCTIONS[name].settings.advice(self.backbone.shape) for name in self.settings.reductions)
        return [*self.backbone.notes, *self.splits.notes, *verdicts, *(sentence for sentence in told if sentence)]

    def check(self, study: Study, *, other_images: bool = False) -> None:
        if self.backbone.fingerprint != study.backbone.fingerprint:
            raise VittleError(
                f"the weights of {self.settings.model} are not those that study {study.name!r} began with; "
                f"give the same checkpoint, or launch a new study"
            )
        super().check(study, other_images=other_images)

    def prepare(self, store: Store, reporter: Reporter) -> None:
        """Find the latency profile: it is known once for all studies of the backbone, and is timed."""
        self.know(Knowledge(self._find_profile(store, reporter)))

    def _find_profile(self, store: Store, reporter: Reporter) -> LatencyProfile | None:
        """The latency profile to predict with, measured once for each backbone and device; None where everything is measured.

        A search can do without one, so a failure is a warning, unless the budget is another device's.
        """
        settings = self.settings
        if not settings.predict:
            return None
        try:
            return find_profile(
                self.backbone,
                settings,
                store,
                seconds=LAUNCH_SECONDS,
                progress=lambda done, of: reporter.prepared("latency profile", done, of),
            )
        except Exception as error:  # whatever a model or a compiler can raise
            if settings.target is not None:
                raise
            reporter.warned(f"latency cannot be predicted ({first_line(error)}); every trial is measured")
            return None

    def examine(self, store: Store, reporter: Reporter) -> None:
        """Bring the search images through the backbone, keep what schedules go on from, and see what each block is worth.

        A search can do without, so a failure is a warning: each worker then finds the backbone's answers for itself.
        """
        try:
            with copied(self.backbone, self.settings) as backbone:
                self.dense, known = self._look_at(backbone, store, reporter)
        except Exception as error:  # whatever a model can raise: out of memory, a block that does not run, values that overflow
            reason = first_line(error)
            reporter.warned(f"the backbone's blocks cannot be looked at ({reason}); the search goes on without it")
            known = self.known
        self.know(replace(known, merge_start=store.merge_start(self.backbone.fingerprint)))

    def _look_at(self, backbone: Backbone, store: Store, reporter: Reporter) -> tuple[BackbonePass, Knowledge]:
        settings = self.settings
        looking = make_evaluator(settings, backbone, self.splits)
        put, get, limit = object_store(settings.cache)
        images = "" if self.images is None else self.images.id
        observer = _observer(backbone, store, images)
        dense = looking.record(limit, put, get, observer, lambda done, of: reporter.prepared("backbone on images", done, of))
        looking.know(dense, settings.cache)
        if observer is not None:
            _find_start(observer, backbone, images, store, reporter)
        sensitivity = store.sensitivity(backbone.fingerprint)
        if sensitivity is None or not sensitivity.covers(settings.reductions, images):
            sensitivity = measure(
                looking.divergence,
                Space(backbone.shape, settings.reductions).context,
                settings.reductions,
                fingerprint=backbone.fingerprint,
                data=settings.data,
                digest=images,
            )
            store.save_sensitivity(sensitivity)
        return dense, replace(self.known, sensitivity=sensitivity, image_macs=looking.spent, pass_seconds=dense.seconds)

    def evaluator(self) -> "ScheduleEvaluator":
        return ScheduleEvaluator(self)


class ScheduleEvaluator:
    """Evaluates schedules in a worker; where the budget is another device's, latency is not measured.

    Args:
        problem: of the study.
    """

    def __init__(self, problem: InferenceProblem) -> None:
        self._settings, self._goals = problem.settings, problem.goals
        self._evaluator = make_evaluator(problem.settings, problem.backbone, problem.splits, problem.dense)

    def climb(self, candidate: Schedule, rivals: Mapping[int, Measured], hints: Mapping[str, Any]) -> Iterator[Evaluation]:
        def enters(measured: Measured) -> bool:
            return self._settings.target is None and may_enter_front(measured, list(rivals.values()), self._goals)

        budget = None if candidate.is_baseline else self._settings.budget  # the backbone is always evaluated
        return self._evaluator.climb(
            candidate, budget=budget, profile=hints.get("profile"), predicted=hints.get("predicted"), enters=enters
        )

    def confirm(self, candidate: Schedule) -> Measured:
        if self._settings.target is not None:
            return self._evaluator.judge(candidate, "confirmation")
        return self._evaluator.measure(candidate, "confirmation")


def make_evaluator(
    settings: Settings, backbone: Backbone, splits: Splits, dense: BackbonePass | None = None
) -> evaluation.Evaluator:
    """An evaluator that uses exactly the CPUs that its worker was granted: more threads than cores run many times slower."""
    torch.set_num_threads(settings.cpus_per_worker)
    return evaluation.Evaluator(backbone, splits, known=dense, cache=settings.cache, **settings.stand)


def record(backbone: Backbone) -> BackboneRecord:
    """What is stored of a backbone, with those of its adapters that are worth using, or that a reduction cannot do without."""
    adapters = {
        name: one.record
        for name, one in backbone.adapters.items()
        if REDUCTIONS[name].settings.needs_adapter or one.verdict()[0]
    }
    return BackboneRecord(backbone.name, backbone.fingerprint, backbone.classes, backbone.shape, adapters)


def _check_before_fetching(settings: Settings) -> None:
    """Refuse whatever can be known to be wrong while nothing has been downloaded.

    Raises:
        VittleError: bad input.
    """
    check_images(settings.data)
    load_adapters(settings.adapters)
    # The weights of a checkpoint may have another size than the model's own.
    shape = None if settings.checkpoint else check_known(settings.model, settings.image_size)
    if shape is not None:
        Space(shape, settings.reductions)


def _with_adapters(backbone: Backbone, settings: Settings) -> Backbone:
    return replace(backbone, adapters=load_adapters(settings.adapters, backbone))


def _observer(backbone: Backbone, store: Store, images: str) -> Observer | None:
    """Who looks for the block where merging may start, where nobody has on these images and there are patches to merge."""
    known = store.merge_start(backbone.fingerprint)
    wanted = (known is None or known.digest != images) and backbone.shape.patches > 1
    return Observer(backbone.model) if wanted else None


def _find_start(observer: Observer, backbone: Backbone, images: str, store: Store, reporter: Reporter) -> None:
    """Keep where merging may start, once for each backbone. A search can do without it, so a failure is a warning."""
    try:
        store.save_merge_start(detect(observer.statistics(), backbone.fingerprint, digest=images))
    except VittleError as error:
        reporter.warned(f"where merging may start is not known ({first_line(error)}); the search goes on without it")
