"""What the page of a study shows whose kind has no page of its own: its JSON twin, with names from its goals."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from vittle.dashboards import text
from vittle.dashboards.documents import study_document
from vittle.storage.ranking import Ranking
from vittle.storage.records import Study, Trial


def detailed(study: Study, trials: Sequence[Trial]) -> dict[str, Any]:
    """A study with every trial, which of them are on the front, and the best one for the budget."""
    ranking = Ranking.of(trials, study.goals)
    standing = ranking.standing
    front = {trial.number for trial in standing.points}
    return {
        **study_document.listed(study, standing, ranking.confirmation if study.confirming else None),
        "settings": study.settings.model_dump(mode="json"),
        "limit": {"value": study.budget.limit, "objective": study.budget.objective, "text": str(study.budget)},
        "objectives": list(study.goals.objectives),
        "counts": dict(Counter(trial.state for trial in trials)),
        "tied": sorted(ranking.tied_with_best()),
        "seconds_left": study_document.time_left(study, ranking),
        "trials": [listed_trial(study, trial, on_front=trial.number in front) for trial in trials],
    }


def listed_trial(study: Study, trial: Trial, *, on_front: bool) -> dict[str, Any]:
    """A trial among the others of its study; `shown` has a text for each of the study's objectives that was measured."""
    goals, exportable = study.goals, study_document.exportable(study, trial)
    return {
        "number": trial.number,
        "state": trial.state,
        "origin": trial.origin,
        "front": on_front,
        "within_budget": goals.budget.objective in trial.judged and trial.within(goals.budget),
        "confirmed": trial.confirmed,
        "reason": trial.reason,
        "attempts": trial.attempts,
        "seconds": trial.seconds,
        "candidate": trial.candidate.to_dict(),
        "summary": trial.candidate.summary,
        "id": trial.candidate.id,
        "judged": {name: study_document.interval(one) for name, one in trial.judged.items()},
        "shown": {name: text.measured(trial.judged[name]) for name in goals.objectives if name in trial.judged},
        "held_out": study_document.measured(trial.measurements.get("confirmation", {}).get(goals.quality)),
        "export": f"{study_document.trial_url(study.name, trial.number)}.yaml" if exportable else None,
    }
