"""The door to Optuna: what to try next, asked and told in memory.

The database of `vittle.storage` is the truth and this study is only the sampler's memory of it: it is rebuilt from finished
trials whenever a search starts, so it can neither be lost nor disagree. How a trial is told decides what is learnt: a schedule
over budget is told COMPLETE, with its constraint violated and its unmeasured accuracy imputed as 0, never PRUNED.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import TPESampler
from optuna.trial import TrialState, create_trial

from vittle.objectives.measurement import OBJECTIVES, SEARCHED, LatencyBudget, Measurement
from vittle.spaces.reduction import Choice, Parameter, Values
from vittle.spaces.space import Space

optuna.logging.set_verbosity(optuna.logging.ERROR)
BUDGET = "latency budget"


@dataclass(frozen=True)
class Proposal:
    """Parameter values to try, and the ticket under which the outcome is told."""

    ticket: int
    parameters: Values


class Sampler:
    """Multi-objective TPE with the latency budget as a constraint."""

    def __init__(self, space: Space, budget: LatencyBudget, seed: int) -> None:
        self._budget = budget
        self._distributions = {parameter.name: _distribution(parameter) for parameter in space.parameters}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # `multivariate` has been one for years
            sampler = TPESampler(multivariate=True, constant_liar=True, seed=seed)
        directions: list[Any] = [OBJECTIVES[name].direction for name in SEARCHED]
        self._study = optuna.create_study(directions=directions, sampler=sampler)
        self._open: dict[int, optuna.Trial] = {}

    def ask(self, parameters: Values | None = None) -> Proposal:
        """Propose values; with `parameters`, register those."""
        if parameters is not None:
            self._study.enqueue_trial(dict(parameters))
        trial = self._study.ask(self._distributions)
        self._open[trial.number] = trial
        return Proposal(trial.number, dict(trial.params))

    def tell(self, ticket: int, measurements: Mapping[str, Measurement] | None) -> None:
        """Report what a proposal measured, or costs by estimate where it was not worth measuring; None where it failed."""
        trial = self._open.pop(ticket)
        if measurements is None:
            self._study.tell(trial, state=TrialState.FAIL)
            return
        trial.set_constraint(BUDGET, self._budget.excess(measurements))
        self._study.tell(trial, _values(measurements))

    def remember(self, parameters: Values, measurements: Mapping[str, Measurement]) -> None:
        """Learn from a trial of an earlier run."""
        self._study.add_trial(
            create_trial(
                params=dict(parameters),
                distributions=self._distributions,
                values=_values(measurements),
                constraints={BUDGET: self._budget.excess(measurements)},
            )
        )


def _values(measurements: Mapping[str, Measurement]) -> list[float]:
    return [measurements[name].value if name in measurements else 0.0 for name in SEARCHED]


def _distribution(parameter: Parameter | Choice) -> BaseDistribution:
    if isinstance(parameter, Choice):
        return CategoricalDistribution(parameter.options)
    if parameter.integer:
        return IntDistribution(int(parameter.low), int(parameter.high), log=parameter.log)
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log)
