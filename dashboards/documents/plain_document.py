"""What the page of a study shows whose kind has no page of its own: its JSON twin, with names from its goals."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from vittle.dashboards import text
from vittle.dashboards.documents import study_document
from vittle.dashboards.words import ENGLISH, Words
from vittle.storage.ranking import Ranking
from vittle.storage.records import Study, Trial, seconds_left


def detailed(study: Study, trials: Sequence[Trial], speak: Words = ENGLISH) -> dict[str, Any]:
    """A study with every trial, which of them are on the front, and the best one for the budget."""
    ranking = Ranking.of(trials, study.goals)
    standing = ranking.standing
    front = {trial.number for trial in standing.points}
    return {
        **study_document.listed(study, standing),
        "settings": study.settings.model_dump(mode="json"),
        "limit": {"value": study.budget.limit, "objective": study.budget.objective, "text": str(study.budget)},
        "objectives": list(study.goals.objectives),
        "counts": dict(Counter(trial.state for trial in trials)),
        "quality": study.goals.quality,
        "choice": study_document.choice(ranking, speak),
        "tied": sorted(ranking.tied_with_best()),
        "seconds_left": seconds_left(trials, study.settings.trials) if study.state == "running" else None,
        "trials": [listed_trial(study, trial, ranking, on_front=trial.number in front) for trial in trials],
    }


def listed_trial(study: Study, trial: Trial, ranking: Ranking, *, on_front: bool) -> dict[str, Any]:
    """A trial among the others of its study; `shown` has a text for each of the study's objectives that was measured."""
    goals, exportable = study.goals, study_document.exportable(study, trial)
    expected = ranking.expected.get(trial.number, {}).get(goals.quality)
    return {
        "number": trial.number,
        "state": trial.state,
        "origin": trial.origin,
        "front": on_front,
        "within_budget": ranking.within(trial, goals.budget),
        "confirmed": trial.confirmed,
        "reason": trial.reason,
        "attempts": trial.attempts,
        "seconds": trial.seconds,
        "candidate": trial.candidate.to_dict(),
        "summary": trial.candidate.summary,
        "id": trial.candidate.id,
        "judged": {name: study_document.interval(one) for name, one in trial.judged.items()},
        "shown": {name: text.measured(trial.judged[name]) for name in goals.objectives if name in trial.judged},
        "expected": study_document.measured(expected),
        "ranked_by": None if expected is None else text.measured(expected),
        "held_out": study_document.measured(trial.measurements.get("confirmation", {}).get(goals.quality)),
        "export": f"{study_document.trial_url(study.name, trial.number)}.yaml" if exportable else None,
    }
