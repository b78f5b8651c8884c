"""A Tune scheduler for several objectives: a trial ends early once it is beaten for good.

Tune's own schedulers rank one number and Optuna's pruners refuse more than one objective. With several there is no ranking to
cut at, but there is dominance: a trial that costs no less than another and is worse beyond doubt can no longer enter the
front. The coordinator knows the front as all workers have found it; workers only know it as of their assignment.

It also sees to it that all workers stand before any of them works, at first and when one has died. An actor takes seconds to
start, and Tune cancels a start whenever another trial ends before it, to hand over that trial's actor: where trials are short,
one worker would do everything. So each begins with an empty trial, which ends when all are there.
"""

import time
from typing import Any

from ray.tune.schedulers import FIFOScheduler

from vittle.search.coordinator import Coordinator, Outcome

OUTCOMES = "outcomes"
"""Key of a result: pairs of a trial's number and its outcome so far; none while the worker waits for the others."""
PATIENCE = 120.0  # seconds that the first worker waits for the last


class Dominance(FIFOScheduler):
    """Stops a Tune trial when every schedule in it that still runs is beaten, or an empty one when all workers are there.

    Args:
        coordinator: of the study.
        workers: how many begin with an empty trial.
    """

    def __init__(self, coordinator: Coordinator, workers: int = 0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._coordinator: Coordinator | None = coordinator
        self._workers = workers
        self._muster()

    def _muster(self) -> None:
        """Wait for all workers, from the next trials on."""
        self._there: set[str] = set()
        self._since: float | None = None
        self._added = self._released = 0

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        del tune_controller, trial
        self._muster()

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        del tune_controller, trial
        self._added += 1

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        del tune_controller
        outcomes: list[tuple[int, Outcome]] = result[OUTCOMES]
        if not outcomes:
            return self._waiting(trial.trial_id)
        climbing = [pair for pair in outcomes if not pair[1].ended]
        if climbing and self._coordinator and all(self._coordinator.beaten_by(*pair) is not None for pair in climbing):
            return self.STOP
        return self.CONTINUE

    def _waiting(self, trial: str) -> str:
        """Whether the empty trial of a worker may end."""
        now = time.monotonic()
        self._since = self._since or now
        self._there.add(trial)
        # One after another: Tune keeps the actor of a trial that ends only where another trial is there to take it.
        taken = self._added >= self._workers + self._released
        if taken and (len(self._there) >= self._workers or now - self._since > PATIENCE):
            self._released += 1
            return self.STOP
        return self.CONTINUE

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_coordinator": None}
