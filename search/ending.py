"""What becomes of a trial by the verdict of its evaluation: the one place where verdicts are mapped to states and reasons."""

from collections.abc import Mapping

from vittle.objectives.evaluation import Evaluation, Verdict
from vittle.objectives.goals import Goals
from vittle.storage.records import TrialState

STATES: Mapping[Verdict, TrialState] = {
    "going": "running",
    "complete": "complete",
    "over budget": "infeasible",
    "beaten": "stopped",
    "failed": "failed",
}


def ending(evaluation: Evaluation, goals: Goals) -> tuple[TrialState, str | None]:
    """The state of a trial, and the reason for it, where there is one to tell."""
    return STATES[evaluation.verdict], _reason(evaluation, goals)


def _reason(evaluation: Evaluation, goals: Goals) -> str | None:
    measured = evaluation.measurements
    match evaluation.verdict:
        case "over budget":
            return f"{goals.budget.what} is {goals.budget.told(measured)}, the budget {goals.budget}"
        case "beaten":
            seen = measured[goals.quality].n
            return f"trial {evaluation.rival} costs no more and is better, as {seen} {goals.samples} show"
        case _:
            return evaluation.reason
