"""Which schedule next, and what became of the last: the one writer of a study. It knows neither Ray nor threads.

An outcome is committed to the store first and told to the sampler second, so a crash between the two loses nothing.

Where the backbone's latency profile predicts well, a proposal that it puts over the budget is told to the sampler at once and
never evaluated, token counts are raised to what costs the device no more, and a trial's latency is measured only where the
trial enters the front. Where it does not, or there is none, every trial is measured, and only what is hopeless by its MACs is
ruled out. A trial is stopped once another one that costs no more is better beyond doubt; what it had shown until then is told
to the sampler.
"""

import itertools
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from vittle.objectives.backbones.sensitivity import Sensitivity
from vittle.objectives.fronts import front as fronts
from vittle.objectives.fronts import hypervolume
from vittle.objectives.fronts.early_stopping import beaten_by
from vittle.objectives.latency.profile import LatencyProfile
from vittle.objectives.measurement import Measurement
from vittle.search.cost_estimates import CostEstimates
from vittle.search.sampler import Sampler
from vittle.search.starts import starts
from vittle.spaces import costs
from vittle.spaces.errors import VittleError
from vittle.spaces.reduction import Start, Values
from vittle.spaces.schedule import Schedule
from vittle.spaces.space import Space
from vittle.storage.fronts import keep
from vittle.storage.records import Study, Trial, TrialState, growth, standing
from vittle.storage.store import Store

FRUITLESS = 200  # proposals in a row that are known or hopeless, after which the space counts as exhausted
STARTING = 0.7  # the most of a study's trials that are not the sampler's
MOST_AT_ONCE = 8  # schedules that a worker is given at once
WORTH_ASKING = 1.5  # seconds of evaluation that make up for handing out and taking back
SHARE_SEEN = 0.3  # of a pass over all images, that a typical trial takes: it starts late, merges, and stops early
LOOK_EVERY = 5  # trials between two looks at whether the front still grows
ATTEMPTS = 3  # begun so often and never ended, a trial is what its workers die of
REPEATED = 3  # failures alike that are worth a word


@dataclass(frozen=True)
class Outcome:
    """How an evaluation ended, or how far it is. A failure is a reason, never a number.

    Attributes:
        measurements: by objective.
        failure: why it failed.
        complete: whether all there is to measure has been.
        beaten_by: the number of the trial that made it pointless to go on.
    """

    measurements: Mapping[str, Measurement] = field(default_factory=dict)
    failure: str | None = None
    complete: bool = True
    beaten_by: int | None = None

    @property
    def ended(self) -> bool:
        return self.complete or self.failure is not None or self.beaten_by is not None


@dataclass(frozen=True)
class Assignment:
    """A trial that a worker should evaluate.

    Attributes:
        number: of the trial.
        schedule: what to evaluate.
        profile: key of the latency profile, if there is one.
        predicted: its latency, where that can be believed.
        rivals: the front so far, by number; the latency of a trial that enters it is measured, one that is beaten is stopped.
    """

    number: int
    schedule: Schedule
    profile: str | None = None
    predicted: Mapping[str, Measurement] | None = None
    rivals: Mapping[int, Mapping[str, Measurement]] = field(default_factory=dict)


@dataclass(frozen=True)
class Knowledge:
    """What is known of a backbone before a search begins.

    Attributes:
        profile: its latency.
        sensitivity: what reducing each of its blocks alone loses.
        image_macs: what finding that out has cost.
        pass_seconds: that a worker takes for all search images; 0 where nobody knows.
    """

    profile: LatencyProfile | None = None
    sensitivity: Sensitivity | None = None
    image_macs: int = 0
    pass_seconds: float = 0.0


def over_time(limit: float) -> str:
    """Why a trial failed that took longer than it may."""
    return f"over its time limit: no result within {limit:g} s"


def _advice(reason: str, reductions: str) -> str:
    """What to do about failures for one reason."""
    if "OutOfMemory" in reason or "MemoryError" in reason:
        return "a smaller --batch-size or --cache leaves more memory"
    if reason.startswith("over its time limit"):
        return "a longer --trial-time-limit lets them end"
    if "died" in reason:
        return "fewer --workers leave more memory to each"
    return f"leave {reductions} out of --reductions, or report it with this model's name"


class Coordinator:
    """Hands out trials until the study has what it was asked for, or going on is not worth it.

    What an earlier run left running is handed out again, under its own number.
    """

    def __init__(
        self,
        study: Study,
        store: Store,
        on_finish: Callable[[Trial], None] = lambda _: None,
        known: Knowledge = Knowledge(),
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.study = study
        self._store = store
        self._on_finish = on_finish
        self._warn = warn
        self._failures: Counter[tuple[str, str]] = Counter()
        self._known = known
        backbone, settings, profile = study.backbone, study.settings, known.profile
        phase = store.merge_start(backbone.fingerprint)
        self._space = Space(
            backbone.shape,
            settings.reductions,
            start=phase.start if phase else None,
            adapters=backbone.adapters,
            free=profile.free if profile is not None and profile.trusted else (),
        )
        self._costs = CostEstimates(self._space, study.budget, profile, elsewhere=settings.target is not None)
        self._front: dict[int, Mapping[str, Measurement]] = {}
        self._measured: dict[str, Mapping[str, Measurement]] = {}
        self._tickets: dict[int, int] = {}
        self._trials: dict[int, Trial] = {}
        self._finished: list[Trial] = []
        self._backbone: Trial | None = None
        self.image_macs = known.image_macs
        """MACs of everything that images went through in this study."""
        self.broken: str | None = None
        """Why no schedule can be evaluated; None while one can."""
        self.ended: str | None = None
        """Why nothing more is handed out; None while there is more."""
        limit = settings.time_limit
        self._deadline = None if limit is None else time.monotonic() + limit
        trials = store.trials(study.name)
        finished = [trial for trial in trials if trial.state != "running"]
        self._sampler = Sampler(self._space, study.budget, settings.seed, kind=settings.sampler, trials=settings.trials)
        for trial in finished:
            self._learn(trial)
        self._before = len(self._finished)
        died = "the search died with it" if study.state == "running" else None
        self._unfinished = deque((trial, died) for trial in trials if trial.state == "running")
        self._due = 0
        self._alone: set[int] = set()
        self._since: dict[int, float] = {}
        self._started = sum(1 for trial in trials if trial.origin != "backbone")
        self._has_backbone = any(trial.origin == "backbone" and trial.state != "failed" for trial in trials)
        self._starts: deque[Start] | None = None

    @property
    def profile(self) -> LatencyProfile | None:
        """The latency profile that is predicted by."""
        return self._costs.profile

    def batch(self) -> list[Assignment]:
        """The next trials for one worker, as many as make handing them out worth it; none where there is no more to do."""
        first = self.next()
        if first is None:
            return []
        typical = SHARE_SEEN * self._known.pass_seconds
        most = min(MOST_AT_ONCE, round(WORTH_ASKING / typical)) if typical > 0 and first.schedule.reductions else 1
        left = max(1, (self.study.settings.trials - self._started) // (2 * self.study.settings.workers))
        batch = [first]
        while first.number not in self._alone and len(batch) < min(most, left) and (one := self.next()) is not None:
            batch.append(one)
        return batch

    def next(self) -> Assignment | None:
        """The next trial to evaluate, written down as running; None where there is no more to do."""
        if self.broken is not None:
            self.ended = self.broken
            return None
        if self._unfinished:
            return self._again(*self._unfinished.popleft())
        if not self._has_backbone:
            self._has_backbone = True
            return self._assign(self._start("backbone", Schedule(), {}), None)
        self.ended = self.ended or self._limit()
        return None if self.ended is not None else self._propose()

    def give_up(self, why: str) -> None:
        """Hand out nothing more, because nothing can be evaluated."""
        self.broken = self.ended = why
        self._unfinished.clear()

    def lose(self, numbers: Iterable[int], why: str | None) -> None:
        """Take back trials whose worker is gone: they are handed out again, one by one, until it is clear whose fault it was.

        Args:
            numbers: of the trials that the worker had; those that have ended have ended.
            why: what became of the worker; None where none of these trials can be blamed for it.
        """
        lost = [self._trials[number] for number in sorted(numbers) if number in self._trials]
        limit = self.study.settings.trial_time_limit
        for trial in lost:
            if limit is not None and len(lost) == 1 and why and time.monotonic() - self._since[trial.number] >= limit:
                self.finish(trial.number, Outcome(failure=over_time(limit)))
            else:
                del self._trials[trial.number]
                self._unfinished.append((trial, why))

    def beaten_by(self, number: int, outcome: Outcome) -> int | None:
        """The number of the trial that makes it pointless to go on with another one; None while none does."""
        trial = self._trials.get(number)
        if trial is None or not trial.schedule.reductions or "accuracy" not in outcome.measurements:
            return None
        return beaten_by(outcome.measurements, self._front)

    @property
    def done(self) -> bool:
        """Whether everything that was handed out came back, and there is no more to hand out."""
        return self.ended is not None and not self._trials and not self._unfinished

    def finish(self, number: int, outcome: Outcome) -> None:
        """Commit how a trial ended, then tell the sampler."""
        trial = self._trials.pop(number)
        state, reason = self._verdict(trial, outcome)
        self._store.finish_trial(self.study.name, number, state, outcome.measurements, reason)
        finished = Trial(
            number, state, trial.origin, trial.schedule, trial.parameters, {"search": outcome.measurements}, reason
        )
        self._note(finished)
        ticket = self._tickets.pop(number, None)
        if ticket is not None:
            self._sampler.tell(ticket, None if state == "failed" else outcome.measurements)
        self._keep_front()
        if reason is not None and state == "failed":
            self._failed(trial, reason)
        self._on_finish(finished)

    def _keep_front(self) -> None:
        """Keep the front whenever a twentieth more of the trials is known, so that its cost stays in proportion."""
        in_flight = [*self._trials.values(), *(trial for trial, _ in self._unfinished)]
        finished = self._started - sum(trial.origin != "backbone" for trial in in_flight)
        if self._backbone is not None and finished >= self._due:
            self._due = finished + max(1, finished // 20)
            known = standing([self._backbone, *self._finished], self.study.budget)
            keep(self._store, self.study.name, known._replace(finished=finished))

    def _failed(self, trial: Trial, reason: str) -> None:
        """See whether the backbone can be evaluated at all, and whether one reduction fails again and again."""
        if trial.origin == "backbone":
            self.broken = f"the backbone itself cannot be evaluated ({reason})"
            return
        reductions = ",".join(dict.fromkeys(part.name for part in trial.schedule.reductions))
        kind = (reductions, reason.split(":")[0])
        self._failures[kind] += 1
        if self._failures[kind] == REPEATED:
            self._warn(f"{REPEATED} schedules with {reductions} have failed alike ({reason}); {_advice(reason, reductions)}")

    def _again(self, trial: Trial, why: str | None) -> Assignment | None:
        """Hand out a trial that was begun before, alone, unless it was begun too often."""
        if why is not None and self._store.retry_trial(self.study.name, trial.number) > ATTEMPTS:
            self._trials[trial.number] = trial
            self.finish(trial.number, Outcome(failure=f"{why}, each of {ATTEMPTS} times"))
            return self.next()
        self._alone.add(trial.number)
        return self._assign(
            trial, self._tickets[trial.number] if trial.number in self._tickets else self._registered(trial.schedule)
        )

    def _propose(self) -> Assignment | None:
        if self._starts is None:
            first = itertools.islice(self._first(), max(1, round(STARTING * self.study.settings.trials)))
            self._starts = deque(start for start in first if self._space.schedule(start.values).id not in self._measured)
        for attempt in range(FRUITLESS):
            start = self._starts.popleft() if self._starts else None
            # A resumed search neither repeats the random numbers of its beginning nor draws others than it would have.
            proposal = self._sampler.ask(start.values if start else None, self._started * FRUITLESS + attempt)
            schedule = proposal.schedule
            if schedule.id in self._measured:
                self._sampler.tell(proposal.ticket, self._measured[schedule.id] or None)
            elif (estimate := self._costs.over(schedule)) is not None:
                self._sampler.tell(proposal.ticket, estimate)
            else:
                self._measured[schedule.id] = {}
                self._started += 1
                trial = self._start(start.origin if start else "sampler", schedule, proposal.parameters)
                return self._assign(trial, proposal.ticket)
        self.ended = "no schedule within the budget is left to try"
        return None

    def _first(self) -> Sequence[Start]:
        cost, allowed = self._costs, self._costs.allowed
        profile = cost.profile if cost.predicts else None
        found = starts(self._space, allowed=allowed, cost=cost.share, profile=profile, sensitivity=self._known.sensitivity)
        unique: dict[str, Start] = {}
        for start in found:
            unique.setdefault(self._space.schedule(start.values).id, start)
        return list(unique.values())

    def _limit(self) -> str | None:
        """The limit that the study has reached; None where it has reached none."""
        settings = self.study.settings
        if self._started >= settings.trials:
            return f"all {settings.trials} trials are done"
        if self._deadline and time.monotonic() > self._deadline:
            return "the time is over"
        if settings.image_passes is not None and self.image_passes >= settings.image_passes:
            return f"{settings.image_passes:g} image passes are spent"
        fresh = len(self._finished) - self._before
        if settings.until_flat and fresh and fresh % LOOK_EVERY == 0 and self._flat(fresh):
            return "the front grows no more"
        return None

    @property
    def image_passes(self) -> float:
        """What images went through in this study, in passes of one image through the backbone."""
        return self.image_macs / costs.macs(self._space.shape, Schedule())

    def _flat(self, fresh: int) -> bool:
        patience = max(hypervolume.PATIENCE, len(self._finished) // 4)
        if self._backbone is None or fresh < patience:  # a study that is extended is not flat for what it did before
            return False
        grown = growth([self._backbone, *self._finished], self.study.budget)
        return grown is not None and hypervolume.flat(grown.volumes, grown.spread, patience)

    def _registered(self, schedule: Schedule) -> int | None:
        """The ticket of a schedule that was proposed in an earlier run; None where the sampler has no point for it."""
        if not schedule.reductions:
            return None
        try:
            return self._sampler.ask(self._space.encode(schedule)).ticket
        except VittleError:
            return None

    def _start(self, origin: str, schedule: Schedule, parameters: Values) -> Trial:
        number = self._store.start_trial(self.study.name, origin, schedule, parameters)
        return Trial(number, "running", origin, schedule, parameters)

    def _assign(self, trial: Trial, ticket: int | None) -> Assignment:
        self._trials[trial.number] = trial
        self._since[trial.number] = time.monotonic()
        if ticket is not None:
            self._tickets[trial.number] = ticket
        key = None if self.profile is None else self.profile.key
        return Assignment(trial.number, trial.schedule, key, self._costs.predicted(trial.schedule), dict(self._front))

    def _verdict(self, trial: Trial, outcome: Outcome) -> tuple[TrialState, str | None]:
        if outcome.failure is not None:
            return "failed", outcome.failure
        measured = outcome.measurements
        if "accuracy" not in measured:
            return "infeasible", f"latency {self.study.budget.excess(measured):.0%} over {self.study.budget}"
        if outcome.complete:
            return "complete", None
        rival = outcome.beaten_by if outcome.beaten_by is not None else self.beaten_by(trial.number, outcome)
        return "stopped", f"trial {rival} costs no more and is better, as {measured['accuracy'].n} images show"

    def _note(self, trial: Trial) -> None:
        measured = {} if trial.state == "failed" else trial.measurements.get("search", {})
        self._measured[trial.schedule.id] = measured
        self._costs.note(trial.schedule, measured)
        if "accuracy" not in measured:
            return
        self.image_macs += measured["accuracy"].protocol.get("image_macs", 0)
        if trial.origin == "backbone":
            self._backbone = trial
        else:
            self._finished.append(trial)
        if trial.state == "complete" and self.study.budget.excess(measured) <= 0:
            candidates = {**self._front, trial.number: measured}
            numbers, measurements = list(candidates), list(candidates.values())
            self._front = {numbers[at]: measurements[at] for at in fronts.front(measurements, fronts.compared(measurements))}

    def _learn(self, trial: Trial) -> None:
        self._note(trial)
        measured = self._measured[trial.schedule.id]
        if trial.schedule.reductions and measured:
            self._sampler.remember(trial.schedule, measured)
