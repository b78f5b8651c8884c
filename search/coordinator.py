"""Which schedule next, and what became of the last: the one writer of a study. It knows neither Ray nor threads.

An outcome is committed to the store first and told to the sampler second, so a crash between the two loses nothing.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from vittle.objectives.measurement import Measurement
from vittle.search.sampler import Sampler
from vittle.spaces import costs
from vittle.spaces.reduction import Values
from vittle.spaces.schedule import Schedule
from vittle.spaces.space import Space
from vittle.storage.records import Study, Trial, TrialState
from vittle.storage.store import Store

FRUITLESS = 200  # proposals in a row that are known or hopeless, after which the space counts as exhausted
STARTS = (0.85, 0.7, 0.55, 0.4, 0.3)  # costs of the first schedules, as shares of what the budget allows
HOPELESS = 1.1  # a schedule is not tried where even the best latency per MAC seen so far would put it this far over
SEEN = 5  # trials that have to be measured before their latency per MAC is believed; until then it is the backbone's


@dataclass(frozen=True)
class Outcome:
    """How an evaluation ended. A failure is a reason, never a number."""

    measurements: Mapping[str, Measurement] = field(default_factory=dict)
    failure: str | None = None


@dataclass(frozen=True)
class Assignment:
    """A trial that a worker should evaluate."""

    number: int
    schedule: Schedule


class Coordinator:
    """Hands out trials until the study has as many as it was asked for, or its time is over.

    What an earlier run left running is handed out again, under its own number.
    """

    def __init__(self, study: Study, store: Store, on_finish: Callable[[Trial], None] = lambda _: None) -> None:
        self.study = study
        self._store = store
        self._on_finish = on_finish
        backbone, settings = study.backbone, study.settings
        phase = store.phase(backbone.fingerprint)
        self._space = Space(
            backbone.shape,
            settings.reductions,
            start=phase.start if phase else None,
            adapters=backbone.adapters,
            residuals=settings.residuals,
        )
        self._dense = costs.macs(self._space.shape, Schedule())
        self._known: dict[str, Mapping[str, Measurement]] = {}
        self._tickets: dict[int, int] = {}
        self._trials: dict[int, Trial] = {}
        self._backbone_ms: float | None = None
        self._per_mac: list[float] = []
        self._over = False
        self.broken: str | None = None
        """Why the backbone itself cannot be evaluated, so that no schedule can be either; None while it can."""
        limit = study.settings.time_limit
        self._deadline = None if limit is None else time.monotonic() + limit
        trials = store.trials(study.name)
        finished = [trial for trial in trials if trial.state != "running"]
        # A resumed search must not repeat the random numbers of its beginning.
        self._sampler = Sampler(self._space, study.budget, study.settings.seed + len(finished))
        for trial in finished:
            self._learn(trial)
        self._unfinished = deque(trial for trial in trials if trial.state == "running")
        self._started = sum(1 for trial in trials if trial.origin != "backbone")
        self._has_backbone = any(trial.origin == "backbone" and trial.state != "failed" for trial in trials)
        self._starts: deque[Values] | None = None

    def next(self) -> Assignment | None:
        """The next trial to evaluate, written down as running; None where there is no more to do."""
        assignment = self._next()
        self._over = assignment is None
        return assignment

    def _next(self) -> Assignment | None:
        if self.broken is not None:
            return None
        if self._unfinished:
            trial = self._unfinished.popleft()
            ticket = self._sampler.ask(trial.parameters).ticket if trial.parameters else None
            return self._assign(trial, ticket)
        if not self._has_backbone:
            self._has_backbone = True
            return self._assign(self._start("backbone", Schedule(), {}), None)
        if self._started >= self.study.settings.trials or (self._deadline and time.monotonic() > self._deadline):
            return None
        if self._starts is None:
            self._starts = deque(self._space.starting_points([part * self._allowed_share() for part in STARTS]))
        for _ in range(FRUITLESS):
            origin = "start" if self._starts else "sampler"
            proposal = self._sampler.ask(self._starts.popleft() if self._starts else None)
            schedule = self._space.schedule(proposal.parameters)
            excess = self._share(schedule) * self._latency_per_mac() / (HOPELESS * self._allowed_share()) - 1
            if schedule.id in self._known:
                self._sampler.tell(proposal.ticket, self._known[schedule.id] or None)
            elif excess > 0:
                self._sampler.reject(proposal.ticket, costs.macs(self._space.shape, schedule), excess)
            else:
                self._known[schedule.id] = {}
                self._started += 1
                return self._assign(self._start(origin, schedule, proposal.parameters), proposal.ticket)
        return None

    @property
    def done(self) -> bool:
        """Whether everything that was handed out came back, and there is no more to hand out."""
        return self._over and not self._trials

    def finish(self, number: int, outcome: Outcome) -> None:
        """Commit how a trial ended, then tell the sampler."""
        trial = self._trials.pop(number)
        state: TrialState
        if outcome.failure is not None:
            state, reason = "failed", outcome.failure
        elif "accuracy" in outcome.measurements:
            state, reason = "complete", None
        else:
            over = self.study.budget.excess(outcome.measurements)
            state, reason = "infeasible", f"latency {over:.0%} over {self.study.budget}"
        self._store.finish_trial(self.study.name, number, state, outcome.measurements, reason)
        measured = None if state == "failed" else outcome.measurements
        self._known[trial.schedule.id] = measured or {}
        self._note_latency(trial.schedule, outcome.measurements)
        ticket = self._tickets.pop(number, None)
        if ticket is not None:
            self._sampler.tell(ticket, measured)
        if state == "failed" and trial.origin == "backbone":
            self.broken = reason
        finished = Trial(
            number, state, trial.origin, trial.schedule, trial.parameters, {"search": outcome.measurements}, reason
        )
        self._on_finish(finished)

    def _start(self, origin: str, schedule: Schedule, parameters: Values) -> Trial:
        number = self._store.start_trial(self.study.name, origin, schedule, parameters)
        return Trial(number, "running", origin, schedule, parameters)

    def _assign(self, trial: Trial, ticket: int | None) -> Assignment:
        self._trials[trial.number] = trial
        if ticket is not None:
            self._tickets[trial.number] = ticket
        return Assignment(trial.number, trial.schedule)

    def _allowed_share(self) -> float:
        """The budget as a share of the backbone's latency; all of it while an absolute one cannot be compared yet."""
        budget = self.study.budget
        if budget.relative:
            return min(1.0, budget.limit)
        return 1.0 if self._backbone_ms is None else min(1.0, budget.limit / self._backbone_ms)

    def _share(self, schedule: Schedule) -> float:
        """MACs of a schedule as a share of the backbone's."""
        return costs.macs(self._space.shape, schedule) / self._dense

    def _latency_per_mac(self) -> float:
        """The least latency for its MACs that a trial took, as a multiple of the backbone's.

        Overhead makes this rise as schedules get cheaper, so the least seen is a bound that does not rule out too much.
        """
        return max(1.0, min(self._per_mac)) if len(self._per_mac) >= SEEN else 1.0

    def _note_latency(self, schedule: Schedule, measurements: Mapping[str, Measurement]) -> None:
        if "latency_ms" in measurements:
            self._backbone_ms = measurements["latency_ms"].protocol["backbone_ms"]
            if schedule.reductions:
                self._per_mac.append(measurements["latency_ratio"].value / self._share(schedule))

    def _learn(self, trial: Trial) -> None:
        measured = {} if trial.state == "failed" else trial.measurements.get("search", {})
        self._known[trial.schedule.id] = measured
        self._note_latency(trial.schedule, measured)
        if trial.parameters and measured:
            self._sampler.remember(trial.parameters, measured)
