"""What several commands answer: the front of a study, and that nothing in it fits."""

from vittle.dashboards.terminal import study_tables
from vittle.dashboards.terminal.console import err, out, print_json
from vittle.objectives.budget import LatencyBudget
from vittle.storage import export as exports
from vittle.storage import records
from vittle.storage.records import Study, Trial


def show_front(study: Study, trials: list[Trial], budget: LatencyBudget, as_json: bool) -> None:
    """Print a study's front within a budget, as a table with what it is worth, or as JSON."""
    points = records.front(trials, budget)
    if as_json:
        print_json([exports.front_entry(trial) for trial in points])
    else:
        out.print(study_tables.front_table(points, budget, trials, shape=study.backbone.shape))
        for sentence in study_tables.standing(trials, budget):
            out.print(sentence, highlight=False, soft_wrap=True)


def explain_unmet(study: Study, trials: list[Trial], budget: LatencyBudget) -> None:
    """Say that nothing fits a budget, and which one is the nearest that something does."""
    fastest = records.nearest(trials)
    if fastest is None:
        err.print(f"study {study.name} has measured nothing yet; continue it with: vittle resume {study.name}", highlight=False)
        return
    near = budget.covering(fastest.judged)
    how = "export with" if fastest.state == "complete" else "launch with"
    err.print(
        f"nothing in study {study.name} fits {budget}; the nearest feasible budget is {near} (trial {fastest.number}): "
        f"{how} --latency-budget {near}",
        highlight=False,
        soft_wrap=True,
    )
