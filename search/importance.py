"""Which parameter matters, asked of Optuna. What the two methods mean is told in `vittle.objectives.parameter_importance`.

100 trials of 17 parameters take about a second of one core, nearly all of it for the forests of fANOVA (Optuna 5.0).
"""

from collections.abc import Sequence

import optuna
from optuna.importance import (
    BaseImportanceEvaluator,
    FanovaImportanceEvaluator,
    PedAnovaImportanceEvaluator,
    get_param_importances,
)
from optuna.trial import create_trial

from vittle.objectives.goals import Goals
from vittle.objectives.measurement import OBJECTIVES
from vittle.objectives.parameter_importance import Importance, ranked
from vittle.search.sampler import distributions
from vittle.spaces.candidate import SearchSpace
from vittle.spaces.errors import VittleError
from vittle.spaces.reduction import Values
from vittle.storage import kinds
from vittle.storage.records import Study, Trial
from vittle.storage.store import Store

FEWEST = 10  # trials, below which nothing can be told
BEST = 0.1  # the share of trials that counts as the best ones, but
FEWEST_BEST = 5  # no fewer than so many


def importance(space: SearchSpace, trials: Sequence[Trial], goals: Goals, seed: int = 0) -> Importance | None:
    """What each parameter of `space` is worth for quality and for the charted cost, from complete and stopped `trials`.

    A trial that the space does not hold is left out.

    Returns:
        The same for the same trials and seed; None where there are fewer than `FEWEST` trials to tell from.
    """
    explained = (goals.quality, goals.charted)
    told = [(values, trial) for trial in trials if (values := _values(space, trial, explained)) is not None]
    if len(told) < FEWEST:
        return None
    best = max(BEST, FEWEST_BEST / len(told))
    methods: dict[str, BaseImportanceEvaluator] = {
        "ped-anova": PedAnovaImportanceEvaluator(target_quantile=best),
        "fanova": FanovaImportanceEvaluator(seed=seed),
    }
    studies = {name: _study(space, name, told) for name in explained}
    shares = {
        method: {name: _shares(study, evaluator) for name, study in studies.items()} for method, evaluator in methods.items()
    }
    return Importance(len(told), shares)


def explain(study: Study, store: Store) -> Importance | None:
    """What each searched parameter is worth by the trials so far; None where they are too few to tell."""
    space = kinds.find(study.kind).space(study)
    found = importance(space, store.trials(study.name), study.goals, study.settings.seed)
    if found is not None:
        store.save_importance(study.name, found)
    return found


def _values(space: SearchSpace, trial: Trial, explained: Sequence[str]) -> Values | None:
    if trial.state not in ("complete", "stopped") or not set(explained) <= set(trial.judged):
        return None
    try:
        return space.encode(trial.candidate)
    except VittleError:
        return None


def _study(space: SearchSpace, objective: str, told: Sequence[tuple[Values, Trial]]) -> optuna.Study:
    study = optuna.create_study(direction=OBJECTIVES[objective].direction)
    searched = distributions(space)
    study.add_trials(
        create_trial(params=dict(values), distributions=searched, value=trial.judged[objective].value) for values, trial in told
    )
    return study


def _shares(study: optuna.Study, evaluator: BaseImportanceEvaluator) -> dict[str, float]:
    names = study.trials[0].distributions
    if len({trial.value for trial in study.trials}) < 2:
        return ranked(dict.fromkeys(names, 0.0))
    shares = get_param_importances(study, evaluator=evaluator)
    return ranked({name: min(1.0, float(share)) for name, share in shares.items()})  # a lone one may round above 1
