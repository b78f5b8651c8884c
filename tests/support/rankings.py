"""The trials of an inference study compared, as its own budget would have it or another one."""

from collections.abc import Iterable

from vittle.objectives.budget import LatencyBudget
from vittle.objectives.goals import inference_goals
from vittle.storage.ranking import Ranking
from vittle.storage.records import Trial

BUDGET = LatencyBudget.parse("60%")


def ranked(trials: Iterable[Trial], budget: LatencyBudget = BUDGET) -> Ranking:
    """The trials by the goals of a study with that budget."""
    return Ranking.of(trials, inference_goals(budget))
