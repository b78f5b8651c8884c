"""A Tune scheduler for several objectives: a trial ends early once it is beaten for good.

Tune's own schedulers rank one number and Optuna's pruners refuse more than one objective. With several there is no ranking to
cut at, but there is dominance: a trial that costs no less than another and is worse beyond doubt can no longer enter the
front. The coordinator knows the front as all workers have found it; workers only know it as of their assignment.
"""

from typing import Any

from ray.tune.schedulers import FIFOScheduler

from vittle.search.coordinator import Coordinator, Outcome

OUTCOMES = "outcomes"
"""Key of a result: pairs of a trial's number and its outcome so far."""


class Dominance(FIFOScheduler):
    """Stops a Tune trial when every schedule in it that still runs is beaten."""

    def __init__(self, coordinator: Coordinator) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._coordinator: Coordinator | None = coordinator

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        del tune_controller, trial
        outcomes: list[tuple[int, Outcome]] = result[OUTCOMES]
        climbing = [pair for pair in outcomes if not pair[1].ended]
        if climbing and self._coordinator and all(self._coordinator.beaten_by(*pair) is not None for pair in climbing):
            return self.STOP
        return self.CONTINUE

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_coordinator": None}
