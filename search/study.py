"""A study from start to end: search, then confirm the front. The whole loop is `run`."""

import _thread
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType

from vittle.objectives.backbones.merge_start import detect
from vittle.objectives.backbones.sensitivity import measure
from vittle.objectives.budget import LatencyBudget
from vittle.objectives.latency.profile import LatencyProfile
from vittle.objectives.quality.backbone_pass import BackbonePass
from vittle.objectives.quality.images import Progress, Splits, left_out, load_images
from vittle.reductions.adapters import load_adapters
from vittle.reductions.attention_statistics import Observer
from vittle.reductions.backbone import Backbone, load_backbone
from vittle.reductions.device import check_dtype
from vittle.reductions.vit import check_identity
from vittle.search.coordinator import Coordinator, Knowledge
from vittle.search.feasibility import LAUNCH_SECONDS, copied, find_profile, find_target
from vittle.search.importance import explain
from vittle.search.sampler import check_sampler
from vittle.search.workers import Pool, make_evaluator, object_store, ray_session
from vittle.spaces.errors import StorageError, VittleError
from vittle.spaces.space import Space
from vittle.storage import fronts
from vittle.storage.claim import claimed
from vittle.storage.records import BackboneRecord, Settings, Study, StudyState, Trial, backbone_trial, front, standing
from vittle.storage.store import Store


@dataclass(frozen=True)
class Reporter:
    """Whom to tell of progress.

    Attributes:
        finished: each finished trial.
        confirmed: each confirmed trial, with how many are to come.
        observed: how many images the backbone itself has been looked at with, and of how many.
        profiled: how much of the latency profile is measured, and of how much.
        warned: what went wrong without ending the search.
        ended: why the search ended.
    """

    finished: Callable[[Trial], None] = lambda _: None
    confirmed: Callable[[Trial, int], None] = lambda _trial, _left: None
    observed: Progress = lambda _done, _total: None
    profiled: Progress = lambda _done, _total: None
    warned: Callable[[str], None] = warnings.warn
    ended: Callable[[str], None] = lambda _: None


@dataclass(frozen=True)
class Job:
    """What a search works on, loaded and checked before anything is written."""

    settings: Settings
    backbone: Backbone
    splits: Splits

    @property
    def record(self) -> BackboneRecord:
        backbone = self.backbone
        adapters = {name: one.record for name, one in backbone.adapters.items() if one.verdict()[0]}
        return BackboneRecord(backbone.name, backbone.fingerprint, backbone.classes, backbone.shape, adapters)

    @property
    def notes(self) -> list[str]:
        """What the user should know before the search begins."""
        verdicts = [one.verdict() for one in self.backbone.adapters.values()]
        return [*left_out(self.splits.skipped), *(sentence for worth_it, sentence in verdicts if not worth_it)]


def prepare(settings: Settings, progress: Progress | None = None) -> Job:
    """Load model and images, and refuse whatever is wrong with them.

    Raises:
        VittleError: bad input; nothing has been written.
    """
    LatencyBudget.parse(settings.latency_budget)  # first, because it is wrong most often
    check_dtype(settings.dtype)
    check_sampler(settings.sampler)
    backbone = load_backbone(settings.model, settings.checkpoint)
    if backbone.classes == 0:
        raise VittleError(
            f"model {settings.model!r} has no classifier to judge schedules by; accepted: one with a trained head"
        )
    Space(backbone.shape, settings.reductions)
    backbone = _with_adapters(backbone, settings)
    check_identity(backbone.model)
    splits = load_images(settings.data, backbone.preprocessing, backbone.classes, seed=settings.seed, progress=progress)
    return Job(settings, backbone, splits)


def target_device(job: Job, store: Store, target: str) -> Job:
    """The job with another device's budget, by a part of the device's name or by the key of its profile.

    Raises:
        VittleError: there is no profile of the target, or its predictions are too far off.
    """
    found = find_target(job.backbone, target, job.settings, store)
    return replace(job, settings=job.settings.model_copy(update={"target": found.key}))


def _with_adapters(backbone: Backbone, settings: Settings) -> Backbone:
    adapters = load_adapters(settings.adapters, backbone)
    for name in adapters:
        if name not in settings.reductions:
            path = settings.adapters[name]
            raise VittleError(f"{path} is an adapter of {name}, and {name} is not searched; add it to --reductions")
    return replace(backbone, adapters=adapters)


def run(study: Study, job: Job, store: Store, reporter: Reporter, ray_address: str | None = None) -> Study:
    """Run a study, new or resumed, until it has its trials and its front is confirmed.

    A Ctrl-C, a SIGTERM or `vittle stop` ends it as `interrupted`; every finished trial is kept and `resume` goes on from there.
    Where the backbone itself cannot be evaluated, or no worker starts, the study has `failed`, and `ended` says why.

    Raises:
        VittleError: another process runs it.
        StorageError: the database cannot be written to; what is in it stays, and a resumed study goes on from there.
    """
    lost = threading.Event()

    def give_up() -> None:
        lost.set()
        _interrupt()

    with claimed(store, study.name, give_up, _interrupt), _terminable():
        return _run(study, job, store, reporter, ray_address, lost)


def _run(study: Study, job: Job, store: Store, reporter: Reporter, ray_address: str | None, lost: threading.Event) -> Study:
    name = study.name
    store.set_state(name, "running")
    state: StudyState = "interrupted"
    ended: str | None = None
    try:
        # Before Ray starts, so that its processes do not disturb what is timed.
        known = measure_latency(job, store, reporter)
        with ray_session(study.settings, ray_address), _terminable():  # Ray has a way of its own with SIGTERM
            pool, coordinator = search(study, job, store, reporter, known)
            if coordinator.broken is not None:
                state, ended = "failed", coordinator.broken
            elif coordinator.done:
                ended = str(coordinator.ended)
                reporter.ended(ended)
                confirm(study, pool, store, reporter)
                explain_parameters(study, store, reporter)
                state = "complete"
    except KeyboardInterrupt:
        pass
    finally:
        if lost.is_set():
            reporter.warned("nothing was heard of this process for too long, and another one runs the study now")
        elif not isinstance(sys.exception(), StorageError):
            store.set_state(name, state, ended if state in ("complete", "failed") else None)
            fronts.keep(store, name, standing(store.trials(name), study.budget))
    return store.study(name)


def _interrupt() -> None:
    """Interrupt the main thread from another one: by the signal of Ctrl-C, or by SIGTERM's where that one is ignored."""
    heard = callable(signal.getsignal(signal.SIGINT))  # Ray ends the process on SIGTERM while it starts
    _thread.interrupt_main(signal.SIGINT if heard else signal.SIGTERM)


@contextmanager
def _terminable() -> Iterator[None]:
    """A SIGTERM, as schedulers and containers send it, is a Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, frame: FrameType | None) -> None:
        # By hand, since a signal would not arrive where a script or a job runner has its children ignore interrupts.
        handler = signal.getsignal(signal.SIGINT)
        if not callable(handler):
            raise KeyboardInterrupt
        handler(signal.SIGINT, frame)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def measure_latency(job: Job, store: Store, reporter: Reporter) -> Knowledge:
    """What is known of the backbone once for all studies and is timed, so that nothing else may run: its latency."""
    return Knowledge(known_profile(job, store, reporter))


def search(study: Study, job: Job, store: Store, reporter: Reporter, known: Knowledge) -> tuple[Pool, Coordinator]:
    """Look at the backbone's blocks, then evaluate schedules on a running Ray until there is no more to do."""
    dense, known = examine_backbone(job, store, reporter, known)
    pool = Pool(study.settings, job.backbone, job.splits, dense)
    coordinator = Coordinator(study, store, reporter.finished, known, reporter.warned)
    pool.search(coordinator)
    return pool, coordinator


def known_profile(job: Job, store: Store, reporter: Reporter) -> LatencyProfile | None:
    """The latency profile to predict with, measured once for each backbone and device; None where everything is measured.

    A search can do without one, so a failure is a warning, unless the budget is another device's.
    """
    settings = job.settings
    if not settings.predict:
        return None
    try:
        return find_profile(job.backbone, settings, store, seconds=LAUNCH_SECONDS, progress=reporter.profiled)
    except Exception as error:  # whatever a model or a compiler can raise
        if settings.target is not None:
            raise
        reporter.warned(f"latency cannot be predicted ({_first_line(error)}); every trial is measured")
        return None


def examine_backbone(job: Job, store: Store, reporter: Reporter, known: Knowledge) -> tuple[BackbonePass | None, Knowledge]:
    """Bring the search images through the backbone, keep what schedules go on from, and see what each block is worth.

    A search can do without, so a failure is a warning: each worker then finds the backbone's answers for itself.
    """
    settings = job.settings
    try:
        with copied(job.backbone, settings) as backbone:
            evaluator = make_evaluator(settings, backbone, job.splits)
            put, get, limit = object_store(settings)
            observer = _observer(backbone, store)
            dense = evaluator.record(limit, put, get, observer, reporter.observed)
            evaluator.know(dense, settings.cache)
            if observer is not None:
                _find_start(observer, backbone, store, reporter)
            sensitivity = store.sensitivity(backbone.fingerprint)
            if sensitivity is None or not sensitivity.covers(settings.reductions, settings.data):
                sensitivity = measure(
                    evaluator.divergence,
                    Space(backbone.shape, settings.reductions).context,
                    settings.reductions,
                    fingerprint=backbone.fingerprint,
                    data=settings.data,
                )
                store.save_sensitivity(sensitivity)
            return dense, replace(known, sensitivity=sensitivity, image_macs=evaluator.spent, pass_seconds=dense.seconds)
    except Exception as error:  # whatever a model can raise: out of memory, a block that does not run, values that overflow
        reporter.warned(f"the backbone's blocks cannot be looked at ({_first_line(error)}); the search goes on without it")
        return None, known


def _observer(backbone: Backbone, store: Store) -> Observer | None:
    """Who looks for the block where merging may start, where nobody has and there are patches to merge."""
    wanted = store.merge_start(backbone.fingerprint) is None and backbone.shape.patches > 1
    return Observer(backbone.model) if wanted else None


def _find_start(observer: Observer, backbone: Backbone, store: Store, reporter: Reporter) -> None:
    """Keep where merging may start, once for each backbone. A search can do without it, so a failure is a warning."""
    try:
        store.save_merge_start(detect(observer.statistics(), backbone.fingerprint))
    except VittleError as error:
        reporter.warned(f"where merging may start is not known ({_first_line(error)}); the search goes on without it")


def explain_parameters(study: Study, store: Store, reporter: Reporter) -> None:
    """Find out and keep which parameters mattered. The study is done without, so a failure is a warning."""
    try:
        explain(study, store)
    except Exception as error:  # whatever a forest that is fitted to a few trials can raise
        reporter.warned(f"which parameters mattered is not known ({_first_line(error)})")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def confirm(study: Study, pool: Pool, store: Store, reporter: Reporter) -> None:
    """Measure the backbone and the front again until every point of the front within the budget has been.

    Confirmed latencies differ a little from those seen in the search, so points may leave the front and others enter it.
    """
    while True:
        trials = store.trials(study.name)
        wanted = [trial for trial in [backbone_trial(trials), *front(trials, study.budget)] if trial and not trial.confirmed]
        if not wanted:
            return
        measured = pool.confirm([trial.schedule for trial in wanted])
        for left, (trial, measurements) in enumerate(zip(wanted, measured, strict=True), start=1 - len(wanted)):
            store.confirm_trial(study.name, trial.number, measurements)
            reporter.confirmed(trial, -left)
