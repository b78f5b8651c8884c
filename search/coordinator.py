"""Which schedule next, and what became of the last: the one writer of a study. It knows neither Ray nor threads.

An outcome is committed to the store first and told to the sampler second, so a crash between the two loses nothing.

Where the backbone's latency profile predicts well, a proposal that it puts over the budget is told to the sampler at once and
never evaluated, token counts are raised to what costs the device no more, and a trial's latency is measured only where the
trial enters the front. Where it does not, or there is none, every trial is measured, and only what is hopeless by its MACs is
ruled out.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vittle.objectives import front as fronts
from vittle.objectives.measurement import Measurement, exact
from vittle.objectives.profile import LatencyProfile
from vittle.objectives.provenance import hardware
from vittle.search.sampler import Sampler
from vittle.spaces import costs
from vittle.spaces.reduction import Values
from vittle.spaces.schedule import Schedule
from vittle.spaces.space import Space
from vittle.storage.records import Study, Trial, TrialState
from vittle.storage.store import Store

FRUITLESS = 200  # proposals in a row that are known or hopeless, after which the space counts as exhausted
STARTS = (0.97, 0.85, 0.7, 0.55, 0.4)  # predicted latencies of the first schedules, as shares of what the budget allows
BLIND_STARTS = (0.85, 0.7, 0.55, 0.4, 0.3)  # the same in MACs, which fall faster than latency
HOPELESS = 1.1  # a schedule is not tried where even the best latency per MAC seen so far would put it this far over
SEEN = 5  # trials that have to be measured before their latency per MAC is believed; until then it is the backbone's


@dataclass(frozen=True)
class Outcome:
    """How an evaluation ended. A failure is a reason, never a number."""

    measurements: Mapping[str, Measurement] = field(default_factory=dict)
    failure: str | None = None


@dataclass(frozen=True)
class Assignment:
    """A trial that a worker should evaluate.

    Attributes:
        number: of the trial.
        schedule: what to evaluate.
        profile: key of the latency profile, if there is one.
        predicted: its latency, where that can be believed.
        rivals: the front so far; the latency of a trial that enters it is measured.
    """

    number: int
    schedule: Schedule
    profile: str | None = None
    predicted: Mapping[str, Measurement] | None = None
    rivals: Sequence[Mapping[str, Measurement]] = ()


class Coordinator:
    """Hands out trials until the study has as many as it was asked for, or its time is over.

    What an earlier run left running is handed out again, under its own number.
    """

    def __init__(
        self,
        study: Study,
        store: Store,
        on_finish: Callable[[Trial], None] = lambda _: None,
        profile: LatencyProfile | None = None,
    ) -> None:
        self.study = study
        self.profile = profile
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
            free=profile.free if profile is not None and profile.trusted else (),
        )
        self._front: list[Mapping[str, Measurement]] = []
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
            self._starts = deque(self._starting_points())
        for _ in range(FRUITLESS):
            origin = "start" if self._starts else "sampler"
            proposal = self._sampler.ask(self._starts.popleft() if self._starts else None)
            schedule = self._space.schedule(proposal.parameters)
            if schedule.id in self._known:
                self._sampler.tell(proposal.ticket, self._known[schedule.id] or None)
            elif (estimate := self._over_budget(schedule)) is not None:
                self._sampler.tell(proposal.ticket, estimate)
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
        self._note(trial.schedule, outcome.measurements)
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
        key = None if self.profile is None else self.profile.key
        return Assignment(trial.number, trial.schedule, key, self._predicted(trial.schedule), list(self._front))

    def _starting_points(self) -> Iterator[Values]:
        allowed = self._allowed_share()
        if not self._predicts:
            return self._space.starting_points([part * allowed for part in BLIND_STARTS])

        def cost(schedule: Schedule) -> float:
            predicted = self._predicted(schedule)
            return predicted["latency_ratio"].value if predicted else self._space.macs_share(schedule)

        return self._space.starting_points([part * allowed for part in STARTS], cost)

    @property
    def _predicts(self) -> bool:
        return self.profile is not None and (self.profile.trusted or self.study.settings.target is not None)

    def _predicted(self, schedule: Schedule) -> Mapping[str, Measurement] | None:
        """The latency of a schedule by the profile; None where it has to be measured, as the backbone's always is here."""
        here = self.study.settings.target is None
        if not self._predicts or (here and not schedule.reductions):
            return None
        assert self.profile is not None
        return self.profile.predict(schedule) if self.profile.knows(schedule) else None

    def _over_budget(self, schedule: Schedule) -> Mapping[str, Measurement] | None:
        """What a schedule is estimated to cost, where that is over the budget for sure; None where it may be within."""
        macs = {"macs": exact("macs", costs.macs(self._space.shape, schedule))}
        predicted = self._predicted(schedule)
        if predicted is not None:
            over = predicted[self.study.budget.objective].low > self.study.budget.limit
            return {**macs, **predicted} if over else None
        ratio = self._space.macs_share(schedule) * self._latency_per_mac() / HOPELESS
        allowed = self._allowed_share()
        if ratio <= allowed:
            return None
        limit = self.study.budget.limit
        return {
            **macs,
            "latency_ratio": exact("latency_ratio", ratio),
            "latency_ms": exact("latency_ms", limit * ratio / allowed),
        }

    def _allowed_share(self) -> float:
        """The budget as a share of the backbone's latency; all of it while an absolute one cannot be compared yet."""
        budget = self.study.budget
        if budget.relative:
            return min(1.0, budget.limit)
        return 1.0 if self._backbone_ms is None else min(1.0, budget.limit / self._backbone_ms)

    def _latency_per_mac(self) -> float:
        """The least latency for its MACs that a trial took, as a multiple of the backbone's.

        Overhead makes this rise as schedules get cheaper, so the least seen is a bound that does not rule out too much.
        """
        return max(1.0, min(self._per_mac)) if len(self._per_mac) >= SEEN else 1.0

    def _note(self, schedule: Schedule, measurements: Mapping[str, Measurement]) -> None:
        if "latency_ms" in measurements:
            self._check_device(measurements["latency_ms"].protocol)
            self._backbone_ms = measurements["latency_ms"].protocol["backbone_ms"]
            if schedule.reductions:
                self._per_mac.append(measurements["latency_ratio"].value / self._space.macs_share(schedule))
        if "accuracy" in measurements and self.study.budget.excess(measurements) <= 0:
            self._front.append(measurements)
            self._front = [self._front[index] for index in fronts.front(self._front)]

    def _check_device(self, protocol: Mapping[str, Any]) -> None:
        """Predict no more where workers turn out to run on another device than the one that the profile is of."""
        if self.profile is None or protocol.get("source") == "predicted" or "device" not in protocol:
            return
        if hardware(protocol) != hardware(self.profile.environment):
            self.profile = None

    def _learn(self, trial: Trial) -> None:
        measured = {} if trial.state == "failed" else trial.measurements.get("search", {})
        self._known[trial.schedule.id] = measured
        self._note(trial.schedule, measured)
        if trial.parameters and measured:
            self._sampler.remember(trial.parameters, measured)
