"""The door to Ray: Tune workers that evaluate what the coordinator hands out, rung by rung.

Ray's stock `OptunaSearch` leaves a trial running for ever on a missing or NaN metric, never shows a result to a constraint and
cannot resume from a database; `Bridge` takes its place. Workers are reused from trial to trial (a class trainable with
`reuse_actors`), so an evaluator is made once in each; without that every trial costs a second more.
"""

import contextlib
import faulthandler
import functools
import logging
import os
import signal
import tempfile
import threading
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
from ray._private import services
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]
from ray.tune.search import Searcher

from vittle.objectives.evaluation import Evaluation, failed
from vittle.objectives.fronts.early_stopping import judged
from vittle.objectives.goals import Measured
from vittle.search.coordinator import Assignment, Coordinator
from vittle.search.problem import Evaluator, Problem, over_time
from vittle.search.ray_cluster import ACCEPTED, check_address, own_environment, said
from vittle.search.scheduler import RECYCLED, SEEN, EarlyStopping, RollCall
from vittle.spaces.errors import VittleError
from vittle.storage.settings import SearchSettings

STORE_SHARE = 0.8  # of Ray's object store that one study's arrays may fill
WORTH_TELLING = 1.0  # seconds of rungs between two results, each of which takes Tune some 20 ms
WAIT = 0.1  # seconds between two looks at whether all workers are there


class Worker(tune.Trainable):
    """Evaluates a few candidates at once, all of them a rung further with each step.

    Its actor, and the evaluator in it, outlive a Tune trial.
    """

    def setup(self, config: dict[str, Any], **given: Any) -> None:
        self._problem: Problem[Any] = given["problem"]
        self._evaluator: Evaluator[Any] | None = None
        self._spoilt = False
        self._take(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._take(new_config)
        return True

    def _take(self, config: dict[str, Any]) -> None:
        self._assigned: dict[int, Assignment] = {one.number: one for one in config["assignments"]}
        self._climbs: dict[int, Iterator[Evaluation]] = {}
        self._spent = dict.fromkeys(self._assigned, 0.0)

    def step(self) -> dict[str, Any]:
        self._check_sound()
        if not self._assigned:
            return self._wait()
        seen: dict[int, Evaluation] = {}
        start = time.monotonic()
        while self._assigned and time.monotonic() - start < WORTH_TELLING:
            for number, one in list(self._assigned.items()):
                seen[number] = self._rung(one)
                if seen[number].ended:
                    del self._assigned[number]
                if self._spoilt:  # the others would fail for it, too
                    return {SEEN: list(seen.items()), "done": not self._assigned}
        return {SEEN: list(seen.items()), "done": not self._assigned}

    def _wait(self) -> dict[str, Any]:
        """Get ready, and wait for the other workers."""
        with contextlib.suppress(Exception):  # whatever goes wrong goes wrong again where there is a trial to be told of
            self._ready()
        time.sleep(WAIT)
        return {SEEN: [], "done": False}

    def _rung(self, one: Assignment) -> Evaluation:
        try:
            evaluator = self._ready()
            with self._watched(one.number):
                if one.number not in self._climbs:
                    self._climbs[one.number] = self._begin(one, evaluator)
                seen = next(self._climbs[one.number])
        except Exception as error:  # whatever a model can raise is this trial's failure, not the search's
            self._spoilt = spoils(error)
            return failed(f"{type(error).__name__}: {error}")
        limit = self._problem.settings.trial_time_limit
        if limit is not None and self._spent[one.number] > limit and not seen.ended:
            return failed(over_time(limit))
        # Beaten trials also end here, at once, and not only where Tune's scheduler hears of them.
        return judged(one.candidate, seen, one.rivals, self._problem.goals)

    def _ready(self) -> Evaluator[Any]:
        # Made here and not in `setup`, so that whatever goes wrong has a trial to be told of.
        if self._evaluator is None:
            self._evaluator = self._problem.evaluator()
        return self._evaluator

    @contextmanager
    def _watched(self, number: int) -> Iterator[None]:
        """Count the time of a trial, and end this process where its limit passes while the trial does not come back.

        The watch needs neither Python nor the device to come back; the coordinator is told by Ray that the worker is gone.
        """
        limit, start = self._problem.settings.trial_time_limit, time.monotonic()
        if limit is not None:
            faulthandler.dump_traceback_later(max(0.1, limit - self._spent[number]), exit=True)
        try:
            yield
        finally:
            if limit is not None:
                faulthandler.cancel_dump_traceback_later()
            self._spent[number] += time.monotonic() - start

    def _check_sound(self) -> None:
        """Leave the place to a fresh process where this one's device may be unusable; Tune then starts another."""
        if self._spoilt:
            raise RuntimeError(RECYCLED)

    def _begin(self, one: Assignment, evaluator: Evaluator[Any]) -> Iterator[Evaluation]:
        return evaluator.climb(one.candidate, one.rivals, one.hints)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        del checkpoint_dir


def spoils(error: Exception) -> bool:
    """Whether an error may leave its process without memory, or with a device that fails whatever comes next."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError | torch.AcceleratorError) or "CUDA error" in str(error)


class Bridge(Searcher):
    """Lets Tune draw its trials from a coordinator, and hands every end of a candidate back to it.

    Args:
        coordinator: of the study.
        roll_call: of its workers, whose empty trials come first (see `scheduler`).
    """

    def __init__(self, coordinator: Coordinator, roll_call: RollCall) -> None:
        super().__init__(metric="time_total_s", mode="min")
        self._coordinator: Coordinator | None = coordinator
        self._roll_call = roll_call
        self._numbers: dict[str, set[int]] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        if self._roll_call.claim_empty_trial():
            return {"assignments": []}
        assignments = self._coordinator.batch() if self._coordinator else []
        if not assignments:
            finished: Any = Searcher.FINISHED  # Tune's word for it is a string
            # What is under way may lose its worker, and is to be handed out again then.
            return finished if self._coordinator is None or self._coordinator.done else None
        self._numbers[trial_id] = {one.number for one in assignments}
        return {"assignments": assignments}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        for number, seen in result[SEEN]:
            if seen.ended:
                self._finish(trial_id, number, seen)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        # Also those that the scheduler has stopped; where there is no result, Ctrl-C came before the first step: they stay
        # running, and a resumed search takes them up.
        for number, seen in (result or {}).get(SEEN, []):
            self._finish(trial_id, number, seen)
        del error  # the scheduler hears of it, too, and knows more
        self._numbers.pop(trial_id, None)

    def _finish(self, trial_id: str, number: int, seen: Evaluation) -> None:
        if self._coordinator is not None and number in self._numbers.get(trial_id, ()):
            self._numbers[trial_id].remove(number)
            self._coordinator.finish(number, seen)

    def save(self, checkpoint_path: str) -> None:
        del checkpoint_path  # the database is what a search resumes from

    def restore(self, checkpoint_path: str) -> None:
        del checkpoint_path

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_coordinator": None}  # a database URL with its password is never pickled


class Pool:
    """The workers of one study on a running Ray.

    Args:
        problem: of the study, examined.
    """

    def __init__(self, problem: Problem[Any]) -> None:
        self._problem = problem
        self._settings = problem.settings

    def search(self, coordinator: Coordinator) -> None:
        """Evaluate until the coordinator has no more, or Ctrl-C."""
        settings = self._settings
        resources = {"cpu": settings.cpus_per_worker, "gpu": settings.gpus_per_worker}
        roll_call = RollCall(functools.partial(_room, settings))
        with tempfile.TemporaryDirectory(prefix="vittle-") as folder, _own_interrupts(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Tune warns of its own defaults
            logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what a worker died of is its trials' reason
            tune.Tuner(
                tune.with_resources(tune.with_parameters(Worker, problem=self._problem), resources),
                tune_config=tune.TuneConfig(
                    search_alg=Bridge(coordinator, roll_call),
                    scheduler=EarlyStopping(coordinator, roll_call),
                    num_samples=-1,
                    max_concurrent_trials=settings.workers,
                    reuse_actors=True,
                ),
                run_config=tune.RunConfig(storage_path=folder, verbose=0),
            ).fit()

    def confirm(self, candidates: Iterable[Any]) -> Iterator[Measured]:
        """Measure candidates one after another with care, on data that the search never saw, nothing else running."""
        resources = {"num_cpus": self._settings.cpus_per_worker, "num_gpus": self._settings.gpus_per_worker}
        confirmer: Any = _Confirmer
        actor = confirmer.options(**resources).remote(ray.put(self._problem))
        try:
            for candidate in candidates:
                measured: Measured = ray.get(actor.confirm.remote(candidate))
                yield measured
        finally:
            ray.kill(actor)


@contextmanager
def _own_interrupts() -> Iterator[None]:
    """Tune takes Ctrl-C for itself, and does not give it back."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


@ray.remote
class _Confirmer:
    def __init__(self, problem: Problem[Any]) -> None:
        self._evaluator = problem.evaluator()

    def confirm(self, candidate: Any) -> Measured:
        measured: Measured = self._evaluator.confirm(candidate)
        return measured


def object_store(most: int) -> tuple[Callable[[Any], Any], Callable[[Any], Any], int]:
    """Where arrays are kept so that all workers of a node read them without copies: Ray's object store.

    Args:
        most: bytes that may be kept there.

    Returns:
        How to put something there, how to get it back, and how many bytes fit.
    """
    here = ray.get_runtime_context().get_node_id()
    free = int(STORE_SHARE * _nodes()[here].get("object_store_memory", 0))
    return ray.put, ray.get, min(most, free)


@contextmanager
def ray_session(settings: SearchSettings, address: str | None = None) -> Iterator[None]:
    """A Ray to run on: one that is initialised already, the cluster at `address`, or one of our own that ends with us.

    Raises:
        VittleError: Ray does not start, no cluster answers at the address, or it cannot hold one worker.
    """
    own = not ray.is_initialized()
    if own:
        _start(settings, address)
    try:
        _check_resources(settings)
        yield
    finally:
        if own:
            ray.shutdown()


def _start(settings: SearchSettings, address: str | None) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address is None:
            with own_environment():
                _read_environment()
                cpus = settings.workers * settings.cpus_per_worker
                ray.init(address="local", num_cpus=cpus, include_dashboard=False, **quiet)  # also where a cluster runs here
            return
        _read_environment()
        check_address(services.canonicalize_bootstrap_address(address) if address == "auto" else address)
        ray.init(address=address, **quiet)
    except VittleError:
        raise
    except Exception as error:  # whatever Ray can raise while it starts: of sockets, memory, disks, versions, tokens
        ray.shutdown()
        where = "Ray does not start on this machine" if address is None else f"no Ray at {address}"
        accepted = "" if address is None else f"; accepted: {ACCEPTED}"
        raise VittleError(f"{where} ({said(error)}){accepted}") from None


def _read_environment() -> None:
    """Have Ray read again whether it asks for a token, and for which: it did when it was imported."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def _wanted(settings: SearchSettings) -> dict[str, float]:
    """What a worker needs."""
    return {"CPU": settings.cpus_per_worker, "GPU": settings.gpus_per_worker}


def _room(settings: SearchSettings) -> int:
    """How many of the workers Ray can hold now."""
    wanted = {name: number for name, number in _wanted(settings).items() if number}
    by_node = (min(int(node.get(name, 0) / number) for name, number in wanted.items()) for node in _nodes().values())
    return min(settings.workers, sum(by_node))


def _nodes() -> dict[str, dict[str, float]]:
    """What each node of the cluster has, by its id."""
    nodes: Any = ray.nodes
    return {node["NodeID"]: node["Resources"] for node in nodes() if node["Alive"]}


def _check_resources(settings: SearchSettings) -> None:
    nodes = _nodes().values()
    for name, wanted in _wanted(settings).items():
        most = max((node.get(name, 0) for node in nodes), default=0)
        if wanted > most:
            raise VittleError(
                f"a worker wants {wanted:g} {name}s, Ray has {most:g} on one node; ask for fewer, or for another device"
            )
