"""The door to Optuna: what to try next, asked and told in memory.

The database of `vittle.storage` is the truth and this study is only the sampler's memory of it: it is rebuilt from finished
trials whenever a search starts, so it can neither be lost nor disagree. How a trial is told decides what is learnt: it learns
what the goals are `learned_from` and the costs that are `sampled`, of schedules divergence and latency, and of a stopped trial
as well, since few images tell divergence (see `vittle.objectives.quality.expectation`); a candidate over budget is told
COMPLETE, with its constraint violated and what it loses imputed where that was not measured, never PRUNED.

Many values may stand for one candidate. Whatever is proposed is replaced by the canonical values of its candidate before
anything is learnt from it, so what Optuna knows is one point per candidate.

`auto` is multivariate TPE: Watanabe, "Tree-Structured Parzen Estimator: Understanding Its Algorithm Components and Their
Roles for Better Empirical Performance", arXiv 2304.11127. Optuna 5.0 on two computed laws, 17 parameters, 40 trials of which
some ten were known-good, median hypervolume: TPE 0.171 and 0.292; the Gaussian process 0.156 and 0.307, at 0.3 to 0.6 s a
proposal in place of 5 ms; NSGA-III 0.163 and 0.256, NSGA-II 0.161 and 0.254, chance 0.165 and 0.252.
"""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import (
    BaseGASampler,
    BaseSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    RandomSampler,
    TPESampler,
)
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from vittle.objectives.goals import Goals, Measured
from vittle.spaces.candidate import SearchSpace
from vittle.spaces.errors import VittleError
from vittle.spaces.reduction import Choice, Parameter, Values
from vittle.storage.settings import check_sampler

optuna.logging.set_verbosity(optuna.logging.ERROR)


@dataclass(frozen=True)
class Proposal:
    """A candidate to try with the canonical values that it stands for, and the ticket under which its result is told."""

    ticket: int
    parameters: Values
    candidate: Any


class Sampler:
    """What to try next, with the budget as a constraint.

    Args:
        space: what may be proposed.
        goals: what is to be lowered, and the budget.
        seed: the same seed, asked and told the same, proposes the same.
        kind: one of `SAMPLERS`.
        trials: how many the study is for, which sizes the populations of NSGA.
        clock: seconds that pass.

    Raises:
        VittleError: a kind that does not exist.
    """

    def __init__(
        self,
        space: SearchSpace,
        goals: Goals,
        seed: int,
        *,
        kind: str = "auto",
        trials: int = 40,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        check_sampler(kind)
        self._space, self._goals, self._seed, self._trials, self._clock = space, goals, seed, trials, clock
        self._distributions = distributions(space)
        self.kind = "tpe" if kind == "auto" else kind
        """Which of `SAMPLERS` proposes."""
        self.seconds = 0.0
        """What asking and telling took so far."""
        self._tpe = self._make("tpe", seed)
        self._storage = InMemoryStorage()
        directions: list[Any] = ["minimize"] * (1 + len(goals.sampled))  # what is lost, and the costs
        self._study = optuna.create_study(storage=self._storage, directions=directions, sampler=self._make(self.kind, seed))
        self._number = self._storage.get_study_id_from_name(self._study.study_name)
        self._open: dict[int, optuna.Trial] = {}
        self._proposed: set[str] = set()
        self._least: float | None = None

    def ask(self, values: Values | None = None, turn: int | None = None) -> Proposal:
        """Propose a candidate.

        Args:
            values: of the candidate to propose, if it is known.
            turn: how often it was asked before, where somebody counts: the same turn draws the same random numbers, also in a
                later run that knows only of the trials. A Gaussian process, whose fits build on each other, draws on.
        """
        with self._timed():
            if values is not None:
                self._study.enqueue_trial(dict(values))
            elif turn is not None and self.kind != "gp":
                seed = int(np.random.SeedSequence([self._seed, turn]).generate_state(1)[0])
                self._study.sampler = self._make(self.kind, seed)
            proposal = self._canonical(self._study.ask(self._distributions))
            if values is None and self.kind == "gp" and proposal.candidate.id in self._proposed:
                proposal = self._instead(proposal)
            self._proposed.add(proposal.candidate.id)
            return proposal

    def tell(self, ticket: int, measurements: Measured | None) -> None:
        """Report what a proposal measured, by estimate where it was stopped or not worth measuring; None where it failed."""
        with self._timed():
            trial = self._open.pop(ticket)
            if measurements is None:
                self._study.tell(trial, state=TrialState.FAIL)
                return
            lost = self._goals.lost(measurements)
            if lost is None:  # too dear to be worth measuring: it keeps more than what fits, so it loses the least, or less
                lost = self._least or 0.0
            else:
                self._least = lost if self._least is None else min(lost, self._least)
            budget = self._goals.budget
            trial.set_constraint(f"{budget.what} budget", budget.excess(measurements))
            self._study.tell(trial, [lost, *(measurements[cost].value for cost in self._goals.sampled)])

    def remember(self, candidate: Any, measurements: Measured) -> None:
        """Learn from a trial of an earlier run; a candidate that the space does not hold is passed over."""
        try:
            values = self._space.encode(candidate)
        except VittleError:
            return
        self.tell(self.ask(values).ticket, measurements)

    def _canonical(self, trial: optuna.Trial) -> Proposal:
        """The proposal of a trial, whose values become the canonical ones of its candidate in Optuna's own memory as well."""
        candidate = self._space.candidate(trial.params)
        values = self._space.encode(candidate)
        at = self._storage.get_trial_id_from_study_id_trial_number(self._number, trial.number)
        for name, distribution in self._distributions.items():
            self._storage.set_trial_param(at, name, distribution.to_internal_repr(values[name]), distribution)
        if isinstance(self._study.sampler, BaseGASampler):  # else what it did not propose itself is in no generation
            self._study.sampler.get_trial_generation(self._study, self._storage.get_trial(at))
        self._open[trial.number] = trial
        return Proposal(trial.number, values, candidate)

    def _instead(self, known: Proposal) -> Proposal:
        """TPE's proposal in place of one that is known: told the same again, a Gaussian process proposes the same again."""
        self._study.tell(self._open.pop(known.ticket), state=TrialState.FAIL)
        process, self._study.sampler = self._study.sampler, self._tpe
        try:
            return self._canonical(self._study.ask(self._distributions))
        finally:
            self._study.sampler = process

    def _make(self, kind: str, seed: int) -> BaseSampler:
        population = min(50, max(10, self._trials // 5))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # `multivariate` has been one for years
            match kind:
                case "tpe":
                    return TPESampler(multivariate=True, constant_liar=True, seed=seed)
                case "nsga2":
                    return NSGAIISampler(population_size=population, seed=seed)
                case "nsga3":
                    return NSGAIIISampler(population_size=population, seed=seed)
                case "gp":
                    return GPSampler(seed=seed)
                case _:
                    return RandomSampler(seed=seed)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        start = self._clock()
        try:
            yield
        finally:
            self.seconds += self._clock() - start


def distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """The parameters of a space in Optuna's terms."""
    return {parameter.name: _distribution(parameter) for parameter in space.parameters}


def _distribution(parameter: Parameter | Choice) -> BaseDistribution:
    if isinstance(parameter, Choice):
        return CategoricalDistribution(parameter.options)
    if parameter.integer:
        return IntDistribution(int(parameter.low), int(parameter.high), log=parameter.log)
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log)
