"""What a search knows of its trials: what each measured, the front so far, and what all of it has cost."""

from collections.abc import Mapping

from vittle.objectives.fronts import front as fronts
from vittle.objectives.goals import Goals, Measured
from vittle.storage.ranking import Ranking
from vittle.storage.records import Trial


class Results:
    """The finished trials of one search.

    Args:
        goals: of the study.
    """

    def __init__(self, goals: Goals) -> None:
        self._goals = goals
        self._known: dict[str, Measured] = {}
        self._judged: list[Trial] = []
        self._baseline: Trial | None = None
        self.front: Mapping[int, Measured] = {}
        """What the trials of the front within the budget measured, by number."""

    def add(self, trial: Trial) -> Measured:
        """Learn of a finished trial, and return what it measured: nothing where it failed."""
        measured = {} if trial.state == "failed" else trial.measurements.get("search", {})
        self._known[trial.candidate.id] = measured
        if trial.state not in ("complete", "stopped"):
            return measured
        if trial.is_baseline:
            self._baseline = trial
        else:
            self._judged.append(trial)
        if trial.state == "complete" and self._goals.budget.excess(measured) <= 0:
            candidates = {**self.front, trial.number: measured}
            numbers, measurements = list(candidates), list(candidates.values())
            places = fronts.front(measurements, self._goals, self._goals.compared(measurements))
            self.front = {numbers[at]: measurements[at] for at in places}
        return measured

    def expect(self, candidate: str) -> None:
        """Note that a candidate with that id is being evaluated, so that it is not proposed again."""
        self._known[candidate] = {}

    def __contains__(self, candidate: str) -> bool:
        """Whether a candidate with that id has been evaluated, or is being."""
        return candidate in self._known

    def of(self, candidate: str) -> Measured | None:
        """What a candidate that is in here measured; None where nothing is known of it, or not yet."""
        return self._known[candidate] or None

    @property
    def judged(self) -> int:
        """How many trials tell of quality, the baseline apart."""
        return len(self._judged)

    @property
    def ranking(self) -> Ranking | None:
        """The trials that tell of quality, compared; None while the baseline has not been evaluated."""
        return None if self._baseline is None else Ranking.of([self._baseline, *self._judged], self._goals)
