"""A study from start to end: search, then confirm the front. The whole loop is `run`, whatever the problem."""

import _thread
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from vittle.search.coordinator import Coordinator
from vittle.search.importance import explain
from vittle.search.problem import Problem
from vittle.search.reporter import Reporter, first_line
from vittle.search.workers import Pool, ray_session
from vittle.spaces.errors import StorageError
from vittle.storage import fronts
from vittle.storage.claim import claimed
from vittle.storage.ranking import Ranking
from vittle.storage.records import Study, StudyState
from vittle.storage.store import Store


def run(study: Study, problem: Problem[Any], store: Store, reporter: Reporter, ray_address: str | None = None) -> Study:
    """Run a study, new or resumed, until it has its trials and its front is confirmed.

    A Ctrl-C, a SIGTERM or `vittle stop` ends it as `interrupted`; every finished trial is kept and `resume` goes on from there.
    Where the baseline itself cannot be evaluated, or no worker starts, the study has `failed`, and `ended` says why.

    Raises:
        VittleError: another process runs it.
        StorageError: the database cannot be written to; what is in it stays, and a resumed study goes on from there.
    """
    lost = threading.Event()

    def give_up() -> None:
        lost.set()
        _interrupt()

    with claimed(store, study.name, give_up, _interrupt), _terminable():
        return _run(study, problem, store, reporter, ray_address, lost)


def _run(
    study: Study, problem: Problem[Any], store: Store, reporter: Reporter, ray_address: str | None, lost: threading.Event
) -> Study:
    name = study.name
    store.set_state(name, "running")
    state: StudyState = "interrupted"
    ended: str | None = None
    try:
        problem.prepare(store, reporter)  # before Ray starts, so that its processes do not disturb what is timed
        with ray_session(study.settings, ray_address), _terminable():  # Ray has a way of its own with SIGTERM
            coordinator = search(study, problem, store, reporter)
            if coordinator.broken is not None:
                state, ended = "failed", coordinator.broken
            elif coordinator.done:
                ended = str(coordinator.ended)
                reporter.ended(ended)
                store.set_state(name, "running", ended)  # whoever looks sees that what comes now is the confirmation
                confirm(study, problem, store, reporter)
                explain_parameters(study, store, reporter)
                state = "complete"
    except KeyboardInterrupt:
        pass
    finally:
        if lost.is_set():
            reporter.warned("nothing was heard of this process for too long, and another one runs the study now")
        elif not isinstance(sys.exception(), StorageError):
            store.set_state(name, state, ended if state in ("complete", "failed") else None)
            fronts.keep(store, name, Ranking.of(store.trials(name), study.goals).standing)
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


def search(study: Study, problem: Problem[Any], store: Store, reporter: Reporter) -> Coordinator:
    """Evaluate candidates on a running Ray until there is no more to do."""
    problem.examine(store, reporter)
    coordinator = Coordinator(study, problem, store, reporter.finished, reporter.warned)
    Pool(problem).search(coordinator)
    return coordinator


def explain_parameters(study: Study, store: Store, reporter: Reporter) -> None:
    """Find out and keep which parameters mattered. The study is done without, so a failure is a warning."""
    try:
        explain(study, store)
    except Exception as error:  # whatever a forest that is fitted to a few trials can raise
        reporter.warned(f"which parameters mattered is not known ({first_line(error)})")


def confirm(study: Study, problem: Problem[Any], store: Store, reporter: Reporter) -> None:
    """Measure the baseline and the front again until every point of the front within the budget has been.

    Confirmed costs differ a little from those seen in the search, so points may leave the front and others enter it.
    """
    pool = Pool(problem)
    while wanted := Ranking.of(store.trials(study.name), study.goals).unconfirmed:
        reporter.confirming(len(wanted))
        measured = pool.confirm([trial.candidate for trial in wanted])
        for left, (trial, measurements) in enumerate(zip(wanted, measured, strict=True), start=1 - len(wanted)):
            store.confirm_trial(study.name, trial.number, measurements)
            reporter.confirmed(trial, -left)
