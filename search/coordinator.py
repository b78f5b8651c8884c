"""Which candidate next, and what became of the last: the one writer of a study. It knows neither Ray nor threads.

What a trial measured is committed to the store first and told to the sampler second, so a crash between the two loses nothing.

A proposal that the problem estimates to be over the budget is told to the sampler at once and never evaluated. A trial is
stopped once another one that costs no more is better beyond doubt; what it had shown until then is told to the sampler.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vittle.objectives.evaluation import Evaluation, failed
from vittle.objectives.fronts import early_stopping
from vittle.objectives.goals import Measured
from vittle.search.ending import ending
from vittle.search.failures import Failures
from vittle.search.in_flight import InFlight
from vittle.search.limits import Limits
from vittle.search.problem import Problem, over_time
from vittle.search.results import Results
from vittle.search.retries import given_up
from vittle.search.sampler import Sampler
from vittle.spaces.candidate import Candidate
from vittle.spaces.errors import VittleError
from vittle.spaces.reduction import Start, Values
from vittle.storage.fronts import keep
from vittle.storage.records import Study, Trial
from vittle.storage.store import Store

FRUITLESS = 200  # proposals in a row that are known or hopeless, after which the space counts as exhausted
STARTING = 0.7  # the most of a study's trials that are not the sampler's
MOST_AT_ONCE = 8  # candidates that a worker is given at once
WORTH_ASKING = 1.5  # seconds of evaluation that make up for handing out and taking back


@dataclass(frozen=True)
class Assignment:
    """A trial that a worker should evaluate.

    Attributes:
        number: of the trial.
        candidate: what to evaluate.
        hints: what the problem tells its evaluator of the candidate.
        rivals: what the front so far measured, by number; a trial that is beaten by it is stopped.
    """

    number: int
    candidate: Any  # of the kind that the problem's evaluator takes
    hints: Mapping[str, Any] = field(default_factory=dict)
    rivals: Mapping[int, Measured] = field(default_factory=dict)


class Coordinator:
    """Hands out trials until the study has what it was asked for, or going on is not worth it.

    What an earlier run left unfinished is handed out again, under its own number.

    Args:
        study: to search.
        problem: of the study, examined.
        store: of the study.
        on_finish: told of each trial that has ended.
        warn: told of what goes wrong without ending the search.
    """

    def __init__(
        self,
        study: Study,
        problem: Problem[Any],
        store: Store,
        on_finish: Callable[[Trial], None] = lambda _: None,
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.study = study
        self.problem = problem
        self.work = problem.work_before
        """What this study has spent, as its problem counts it."""
        self.broken: str | None = None
        """Why no candidate can be evaluated; None while one can."""
        self.ended: str | None = None
        """Why nothing more is handed out; None while there is more."""
        self._store = store
        self._on_finish = on_finish
        settings, goals = study.settings, study.goals
        self._sampler = Sampler(problem.space, goals, settings.seed, kind=settings.sampler, trials=settings.trials)
        self._results = Results(goals)
        self._failures = Failures(problem, warn)
        trials = store.trials(study.name)
        for trial in trials:
            if not trial.ended:
                self._results.expect(trial.candidate.id)  # it is handed out again, and nothing else that is the same
            elif trial.readable:
                self._learn(trial)
        self._limits = Limits(settings, self._results.judged)
        left = [trial for trial in trials if not trial.ended]
        self._in_flight = InFlight((one, "the search died with it" if one.state == "running" else None) for one in left)
        self._alone: set[int] = set()
        self._started = sum(1 for trial in trials if not trial.is_baseline)
        self._has_baseline = any(trial.is_baseline and trial.state != "failed" for trial in trials)
        self._starts: deque[Start] | None = None
        self._front_due = 0

    @property
    def done(self) -> bool:
        """Whether everything that was handed out came back, and there is no more to hand out."""
        return self.ended is not None and not self._in_flight

    def batch(self) -> list[Assignment]:
        """The next trials for one worker, as many as make handing them out worth it; none where there is no more to do."""
        first = self.next()
        if first is None:
            return []
        typical = self.problem.trial_seconds
        most = min(MOST_AT_ONCE, round(WORTH_ASKING / typical)) if typical > 0 and not first.candidate.is_baseline else 1
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
        if (again := self._in_flight.next_again()) is not None:
            return self._retry(*again)
        if not self._has_baseline:
            self._has_baseline = True
            return self._assign(self._start(self.problem.baseline_origin, self.problem.baseline, {}), None)
        if self.ended is None:
            self.ended = self._limits.reached(self._started, self.problem.exhausted(self.work), self._results)
        return None if self.ended is not None else self._propose()

    def judge(self, number: int, seen: Evaluation) -> Evaluation:
        """What a worker has seen of a trial, as `beaten` where the front as it is now makes it pointless to go on."""
        trial = self._in_flight.find(number)
        return seen if trial is None else early_stopping.judged(trial.candidate, seen, self._results.front, self.study.goals)

    def finish(self, number: int, evaluation: Evaluation) -> None:
        """Commit how a trial ended, then tell the sampler. One that is still going is handed out again."""
        evaluation = self.judge(number, evaluation)
        if not evaluation.ended:
            self._in_flight.give_back(number, None)
            return
        trial, ticket = self._in_flight.end(number)
        measured = evaluation.measurements
        state, reason = ending(evaluation, self.study.goals)
        self._store.finish_trial(self.study.name, number, state, measured, reason)
        finished = Trial(number, state, trial.origin, trial.candidate, trial.parameters, {"search": measured}, reason)
        self._note(finished)
        if ticket is not None:
            self._sampler.tell(ticket, None if state == "failed" else measured)
        self._keep_front()
        if evaluation.verdict == "failed":
            self._failed(trial, str(reason))
        self._on_finish(finished)

    def lose(self, numbers: Iterable[int], why: str | None) -> None:
        """Take back trials whose worker is gone: they are handed out again, one by one, until it is clear whose fault it was.

        Args:
            numbers: of the trials that the worker had; those that have ended have ended.
            why: what became of the worker; None where none of these trials can be blamed for it.
        """
        lost = [number for number in sorted(numbers) if self._in_flight.find(number) is not None]
        limit = self.study.settings.trial_time_limit
        for number in lost:
            if limit is not None and len(lost) == 1 and why and self._in_flight.seconds(number) >= limit:
                self.finish(number, failed(over_time(limit)))
            else:
                self._in_flight.give_back(number, why)

    def give_up(self, why: str) -> None:
        """Hand out nothing more, because nothing can be evaluated."""
        self.broken = self.ended = why
        self._in_flight.forget_waiting()

    def _retry(self, trial: Trial, why: str | None) -> Assignment | None:
        """Hand out a trial that was begun before, alone, unless it was begun too often."""
        attempts = self._store.retry_trial(self.study.name, trial.number, counted=why is not None)
        if (reason := given_up(why, attempts)) is not None:
            self._in_flight.hand_out(trial, None)
            self.finish(trial.number, failed(reason))
            return self.next()
        self._alone.add(trial.number)
        ticket = self._in_flight.ticket(trial.number)
        return self._assign(trial, self._registered(trial.candidate) if ticket is None else ticket)

    def _propose(self) -> Assignment | None:
        if self._starts is None:
            self._starts = self._first()
        for attempt in range(FRUITLESS):
            start = self._starts.popleft() if self._starts else None
            # A resumed search neither repeats the random numbers of its beginning nor draws others than it would have.
            proposal = self._sampler.ask(start.values if start else None, self._started * FRUITLESS + attempt)
            candidate = proposal.candidate
            if candidate.id in self._results:
                self._sampler.tell(proposal.ticket, self._results.of(candidate.id))
            elif (estimate := self.problem.estimate(candidate)) is not None:
                self._sampler.tell(proposal.ticket, estimate)
            else:
                self._results.expect(candidate.id)
                self._started += 1
                trial = self._start(start.origin if start else "sampler", candidate, proposal.parameters)
                return self._assign(trial, proposal.ticket)
        self.ended = f"no {self.problem.noun} within the budget is left to try"
        return None

    def _first(self) -> deque[Start]:
        """The problem's starts, each candidate once and none that is known, so many as leave trials for the sampler."""
        space = self.problem.space
        unique: dict[str, Start] = {}
        for start in self.problem.starts():
            unique.setdefault(space.candidate(start.values).id, start)
        first = itertools.islice(unique.items(), max(1, round(STARTING * self.study.settings.trials)))
        return deque(start for candidate, start in first if candidate not in self._results)

    def _registered(self, candidate: Candidate) -> int | None:
        """The ticket of a candidate that was proposed in an earlier run; None where the sampler has no point for it."""
        if candidate.is_baseline:
            return None
        try:
            return self._sampler.ask(self.problem.space.encode(candidate)).ticket
        except VittleError:
            return None

    def _start(self, origin: str, candidate: Candidate, parameters: Values) -> Trial:
        number = self._store.start_trial(self.study.name, origin, candidate, parameters)
        return Trial(number, "running", origin, candidate, parameters)

    def _assign(self, trial: Trial, ticket: int | None) -> Assignment:
        self._in_flight.hand_out(trial, ticket)
        return Assignment(trial.number, trial.candidate, self.problem.hints(trial.candidate), dict(self._results.front))

    def _learn(self, trial: Trial) -> None:
        """Learn of a trial of an earlier run."""
        measured = self._note(trial)
        if measured and not trial.candidate.is_baseline:
            self._sampler.remember(trial.candidate, measured)

    def _note(self, trial: Trial) -> Measured:
        measured = self._results.add(trial)
        self.problem.note(trial.candidate, measured)
        self.work += self.problem.work(measured)
        return measured

    def _keep_front(self) -> None:
        """Keep the front whenever a twentieth more of the trials is known, so that its cost stays in proportion."""
        finished = self._started - sum(not trial.is_baseline for trial in self._in_flight.trials)
        ranking = self._results.ranking
        if ranking is not None and finished >= self._front_due:
            self._front_due = finished + max(1, finished // 20)
            keep(self._store, self.study.name, ranking.standing._replace(finished=finished))

    def _failed(self, trial: Trial, reason: str) -> None:
        """See whether the baseline can be evaluated at all, and whether others fail alike."""
        if trial.is_baseline:
            self.broken = f"the {self.problem.baseline_origin} itself cannot be evaluated ({reason})"
        else:
            self._failures.add(trial, reason)
