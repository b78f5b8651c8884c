"""A Tune scheduler for several objectives: a trial ends early once it is beaten for good.

Tune's own schedulers rank one number and Optuna's pruners refuse more than one objective. With several there is no ranking to
cut at, but there is dominance: a trial that costs no less than another and is worse beyond doubt can no longer enter the
front. The coordinator knows the front as all workers have found it; workers only know it as of their assignment.

It also sees to it that all workers stand before any of them works, at first and when one has died. An actor takes seconds to
start, and Tune cancels a start whenever another trial ends before it, to hand over that trial's actor: where trials are short,
one worker would do everything. So each begins with an empty trial, which ends when all are there.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune.schedulers import FIFOScheduler

from vittle.objectives.evaluation import Evaluation
from vittle.search.coordinator import Coordinator

SEEN = "seen"
"""Key of a result: pairs of a trial's number and its evaluation so far; none while the worker waits for the others."""
RECYCLED = "this worker is to be replaced by a fresh one"
STILLBORN = 3  # workers, for each that is wanted, of which nothing was heard before they died
PATIENCE = 120.0  # seconds that the first worker waits for the last


class RollCall:
    """Who is there, while workers wait for each other in empty trials.

    Args:
        room: how many workers Ray can hold now.
    """

    def __init__(self, room: Callable[[], int] = lambda: 1) -> None:
        self._room = room
        self.call()

    def call(self) -> None:
        """Wait for all workers, from the next trials on; a single one waits for nobody."""
        workers = self._room()
        self.workers = self._to_come = workers if workers > 1 else 0
        self._there: set[str] = set()
        self._since: float | None = None
        self._taken = True

    def claim_empty_trial(self) -> bool:
        """Whether the next trial is to be an empty one, which is then one fewer to come."""
        self._to_come -= 1
        return self._to_come >= 0

    def add(self) -> None:
        """Hear of a trial, empty or not."""
        self._taken = True

    def may_go(self, trial: str, *, ending: bool) -> bool:
        """Whether the empty trial of a worker may end; `ending` says that no more trials come."""
        now = time.monotonic()
        self._since = self._since or now
        self._there.add(trial)
        # One after another: Tune keeps the actor of a trial that ends only where another trial is there to take it.
        if ending or (self._taken and (len(self._there) >= self.workers or now - self._since > PATIENCE)):
            self._taken = False
            return True
        return False


class EarlyStopping(FIFOScheduler):
    """Stops a Tune trial when every candidate in it that still runs is beaten, or an empty one when all workers are there.

    Args:
        coordinator: of the study.
        roll_call: of its workers.
    """

    def __init__(self, coordinator: Coordinator, roll_call: RollCall) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._coordinator: Coordinator | None = coordinator
        self._roll_call = roll_call
        self._stillborn = 0

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """A worker is gone: what it had is handed out again, and all wait for the one that takes its place."""
        del tune_controller
        if self._coordinator is not None:
            cause, numbers = _cause(_error(trial)), [one.number for one in trial.config["assignments"]]
            self._coordinator.lose(numbers, cause)
            self._stillborn += cause is not None and not numbers
            if self._stillborn >= STILLBORN * self._roll_call.workers > 0:
                self._coordinator.give_up(f"no worker gets ready: {cause}")
        self._roll_call.call()

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        del tune_controller, trial
        self._roll_call.add()

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        del tune_controller
        seen: list[tuple[int, Evaluation]] = result[SEEN]
        self._stillborn = 0
        if not seen:
            ending = self._coordinator is None or self._coordinator.ended is not None
            return self.STOP if self._roll_call.may_go(trial.trial_id, ending=ending) else self.CONTINUE
        climbing = [pair for pair in seen if not pair[1].ended]
        if climbing and self._coordinator and all(self._coordinator.judge(*pair).ended for pair in climbing):
            return self.STOP
        return self.CONTINUE

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_coordinator": None}


def _error(trial: Any) -> str:
    """What Ray says of the end of a Tune trial."""
    file = trial.error_file
    return Path(file).read_text(errors="replace") if file and Path(file).exists() else ""


def _cause(text: str) -> str | None:
    """What a worker's trials are told of its end; None where it went by itself to make room for a fresh one."""
    if RECYCLED in text:
        return None
    if "creation task" in text:
        return f"its worker could not start ({text.strip().splitlines()[-1]})"
    return "its worker died for want of memory" if "low on memory" in text else "its worker died"
