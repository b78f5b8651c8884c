"""The door to Ray: Tune workers that evaluate what the coordinator hands out, rung by rung.

Ray's stock `OptunaSearch` leaves a trial running for ever on a missing or NaN metric, never shows a result to a constraint and
cannot resume from a database; `Bridge` takes its place. Workers are reused from trial to trial (a class trainable with
`reuse_actors`), so the backbone and its images are loaded once in each; without that every trial costs a second more.
"""

import contextlib
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

# Read when Ray is imported: no log files per trial, no snapshots of what the database already holds, no usage reports; and
# workers that do not give way to whatever else runs, since what they measure is time.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "1000000")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_worker_niceness", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
import torch
from ray import tune
from ray.tune.search import Searcher

from vittle.objectives.dense import Dense
from vittle.objectives.dominance import beaten_by
from vittle.objectives.evaluate import Evaluator, Seen
from vittle.objectives.images import Splits
from vittle.objectives.measurement import Measurement
from vittle.reductions.backbone import Backbone
from vittle.reductions.prefix import Packed
from vittle.search.coordinator import Assignment, Coordinator, Outcome
from vittle.search.scheduler import OUTCOMES, Dominance
from vittle.spaces.errors import VittleError
from vittle.spaces.schedule import Schedule
from vittle.storage.records import Settings

STORE_SHARE = 0.8  # of Ray's object store that prefixes may fill
WORTH_TELLING = 1.0  # seconds of rungs between two results, each of which takes Tune some 20 ms
WAIT = 0.1  # seconds between two looks at whether all workers are there


class Worker(tune.Trainable):
    """Evaluates a few schedules at once, all of them a rung further with each step.

    Its actor, and the backbone and images in it, outlive a Tune trial.
    """

    def setup(self, config: dict[str, Any], **built: Any) -> None:
        self._settings: Settings = built["settings"]
        self._built = built
        self._evaluator: Evaluator | None = None
        self._take(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._take(new_config)
        return True

    def _take(self, config: dict[str, Any]) -> None:
        self._assigned: dict[int, Assignment] = {one.number: one for one in config["assignments"]}
        self._climbs: dict[int, Iterator[Seen]] = {}

    def step(self) -> dict[str, Any]:
        if not self._assigned:
            return self._wait()
        outcomes: dict[int, Outcome] = {}
        start = time.monotonic()
        while self._assigned and time.monotonic() - start < WORTH_TELLING:
            for number, one in list(self._assigned.items()):
                outcomes[number] = self._rung(one)
                if outcomes[number].ended:
                    del self._assigned[number]
        return {OUTCOMES: list(outcomes.items()), "done": not self._assigned}

    def _wait(self) -> dict[str, Any]:
        """Get ready, and wait for the other workers."""
        with contextlib.suppress(Exception):  # whatever goes wrong goes wrong again where there is a trial to be told of
            self._ready()
        time.sleep(WAIT)
        return {OUTCOMES: [], "done": False}

    def _rung(self, one: Assignment) -> Outcome:
        try:
            if one.number not in self._climbs:
                self._climbs[one.number] = self._begin(one)
            seen = next(self._climbs[one.number])
        except Exception as error:  # whatever a model can raise is this trial's failure, not the search's
            return Outcome(failure=f"{type(error).__name__}: {error}")
        # Beaten trials also end here, at once, and not only where Tune's scheduler hears of them.
        judged = not seen.complete and one.schedule.reductions
        rival = beaten_by(seen.measurements, one.rivals) if judged else None
        return Outcome(seen.measurements, complete=seen.complete, beaten_by=rival)

    def _ready(self) -> Evaluator:
        # Made here and not in `setup`, so that whatever goes wrong has a trial to be told of.
        if self._evaluator is None:
            self._evaluator = make_evaluator(**self._built)
        return self._evaluator

    def _begin(self, one: Assignment) -> Iterator[Seen]:
        settings = self._settings
        return self._ready().climb(
            one.schedule,
            budget=settings.budget if one.schedule.reductions else None,  # the backbone is always evaluated
            profile=one.profile,
            predicted=one.predicted,
            rivals=list(one.rivals.values()) if settings.target is None else None,
        )

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        del checkpoint_dir


class Bridge(Searcher):
    """Lets Tune draw its trials from a coordinator, and hands every end of a schedule back to it.

    Args:
        coordinator: of the study.
        workers: how many empty trials come first (see `scheduler`).
    """

    def __init__(self, coordinator: Coordinator, workers: int = 0) -> None:
        super().__init__(metric="time_total_s", mode="min")
        self._coordinator: Coordinator | None = coordinator
        self._workers = self._empty = workers
        self._numbers: dict[str, set[int]] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        if self._empty:
            self._empty -= 1
            return {"assignments": []}
        assignments = self._coordinator.batch() if self._coordinator else []
        if not assignments:
            finished: Any = Searcher.FINISHED  # Tune's word for it is a string
            return finished  # type: ignore[no-any-return]
        self._numbers[trial_id] = {one.number for one in assignments}
        return {"assignments": assignments}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        for number, outcome in result[OUTCOMES]:
            if outcome.ended:
                self._finish(trial_id, number, outcome)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        # Also those that the scheduler has stopped; where there is no result, Ctrl-C came before the first step: they stay
        # running, and a resumed search takes them up.
        for number, outcome in (result or {}).get(OUTCOMES, []):
            self._finish(trial_id, number, outcome)
        left = self._numbers.pop(trial_id, set())
        if error and self._coordinator is not None:
            self._empty = self._workers  # another one has to start, and all wait for it
            for number in left:
                self._coordinator.finish(number, Outcome(failure="its worker died"))

    def _finish(self, trial_id: str, number: int, outcome: Outcome) -> None:
        if self._coordinator is not None and number in self._numbers.get(trial_id, ()):
            self._numbers[trial_id].remove(number)
            self._coordinator.finish(number, outcome)

    def save(self, checkpoint_path: str) -> None:
        del checkpoint_path  # the database is what a search resumes from

    def restore(self, checkpoint_path: str) -> None:
        del checkpoint_path

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_coordinator": None}  # a database URL with its password is never pickled


class Pool:
    """The workers of one study on a running Ray.

    Args:
        settings: of the study.
        backbone: the backbone.
        splits: its images.
        dense: the backbone's own pass over the search images, which workers go on from.
    """

    def __init__(self, settings: Settings, backbone: Backbone, splits: Splits, dense: Dense | None = None) -> None:
        self._settings = settings
        self._backbone = backbone
        self._splits = splits
        self._dense = dense

    def search(self, coordinator: Coordinator) -> None:
        """Evaluate until the coordinator has no more, or Ctrl-C."""
        settings = self._settings
        built = {"settings": settings, "backbone": self._backbone, "splits": self._splits, "dense": self._dense}
        resources = {"cpu": settings.cpus_per_worker, "gpu": settings.gpus_per_worker}
        workers = min(settings.workers, _room(settings))
        waiting = workers if workers > 1 else 0
        with tempfile.TemporaryDirectory(prefix="vittle-") as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Tune warns of its own defaults
            tune.Tuner(
                tune.with_resources(tune.with_parameters(Worker, **built), resources),
                tune_config=tune.TuneConfig(
                    search_alg=Bridge(coordinator, waiting),
                    scheduler=Dominance(coordinator, waiting),
                    num_samples=-1,
                    max_concurrent_trials=settings.workers,
                    reuse_actors=True,
                ),
                run_config=tune.RunConfig(storage_path=folder, verbose=0),
            ).fit()

    def confirm(self, schedules: Iterable[Schedule]) -> Iterator[dict[str, Measurement]]:
        """Measure schedules one after another with care, on images that the search never saw, nothing else running.

        Where the budget is another device's, accuracy alone is measured.
        """
        resources = {"num_cpus": self._settings.cpus_per_worker, "num_gpus": self._settings.gpus_per_worker}
        confirmer: Any = _Confirmer
        actor = confirmer.options(**resources).remote(self._settings, ray.put(self._backbone), ray.put(self._splits))
        try:
            for schedule in schedules:
                measured: dict[str, Measurement] = ray.get(actor.measure.remote(schedule.to_dict()))
                yield measured
        finally:
            ray.kill(actor)


@ray.remote
class _Confirmer:
    def __init__(self, settings: Settings, backbone: Backbone, splits: Splits) -> None:
        self._evaluator = make_evaluator(settings, backbone, splits)
        self._judges_only = settings.target is not None

    def measure(self, schedule: dict[str, Any]) -> dict[str, Measurement]:
        confirmed = Schedule.from_dict(schedule)
        if self._judges_only:
            return self._evaluator.judge(confirmed, "confirmation")
        return self._evaluator.measure(confirmed, "confirmation")


def make_evaluator(settings: Settings, backbone: Backbone, splits: Splits, dense: Dense | None = None) -> Evaluator:
    """An evaluator that uses exactly the CPUs that its worker was granted: more threads than cores run many times slower."""
    torch.set_num_threads(settings.cpus_per_worker)
    return Evaluator(backbone, splits, known=dense, cache=settings.cache, **settings.stand)


def shelf(settings: Settings) -> tuple[Callable[[Packed], Any], Callable[[Any], Packed], int]:
    """Where a dense pass keeps its prefixes so that all workers of a node read them without copies: Ray's object store.

    Returns:
        How to put one there, how to get it back, and how many bytes fit.
    """
    room: Any = ray.cluster_resources
    free = int(STORE_SHARE * room().get("object_store_memory", 0))
    return ray.put, ray.get, min(settings.cache, free)


@contextmanager
def ray_session(settings: Settings, address: str | None = None) -> Iterator[None]:
    """A Ray to run on: one that is initialised already, the cluster at `address`, or one of our own that ends with us.

    Raises:
        VittleError: no cluster answers at the address, or it cannot hold one worker.
    """
    own = not ray.is_initialized()
    if own:
        quiet: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
        cpus = settings.workers * settings.cpus_per_worker
        try:
            if address is None:
                ray.init(num_cpus=cpus, **quiet)
            else:
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = (str(error).splitlines() or ["no answer"])[0]
            raise VittleError(f"no Ray at {address} ({reason}); accepted: a cluster's address such as 10.0.0.1:6379") from None
    try:
        _check_resources(settings)
        yield
    finally:
        if own:
            ray.shutdown()


def _wanted(settings: Settings) -> dict[str, float]:
    """What a worker needs."""
    return {"CPU": settings.cpus_per_worker, "GPU": settings.gpus_per_worker}


def _room(settings: Settings) -> int:
    """How many workers Ray can hold."""
    cluster_resources: Any = ray.cluster_resources
    there = cluster_resources()
    return min(int(there.get(name, 0) / wanted) for name, wanted in _wanted(settings).items() if wanted)


def _check_resources(settings: Settings) -> None:
    cluster_resources: Any = ray.cluster_resources
    there = cluster_resources()
    for name, wanted in _wanted(settings).items():
        if wanted > there.get(name, 0):
            raise VittleError(
                f"a worker wants {wanted:g} {name}s, Ray has {there.get(name, 0):g}; ask for fewer, or for another device"
            )
