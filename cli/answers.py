"""What several commands answer: the front of a study, that nothing in it fits, and what they write."""

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from vittle.dashboards.terminal import plain_tables, study_tables
from vittle.dashboards.terminal.console import err, escape, out, print_json
from vittle.objectives.budget import Budget, LatencyBudget
from vittle.spaces.files import STANDARD_OUTPUT, write_at_once
from vittle.storage import kinds
from vittle.storage.ranking import Ranking
from vittle.storage.records import Study, Trial
from vittle.storage.settings import Settings


def show_front(study: Study, ranking: Ranking, budget: Budget, as_json: bool) -> None:
    """Print a study's front within a budget, as a table with what it is worth, or as JSON."""
    points = ranking.front(budget)
    if as_json:
        print_json([kinds.front_entry(study, trial) for trial in points])
        return
    out.print(front_table(study, points, ranking, budget))
    if study.kind == Settings.kind:
        for sentence in study_tables.standing(ranking):
            out.print(sentence, highlight=False, soft_wrap=True)


def front_table(study: Study, points: Sequence[Trial], ranking: Ranking, budget: Budget) -> Table:
    """Trials of a study's front as a table; a plain one where its kind has none of its own."""
    if study.kind == Settings.kind:
        return study_tables.front_table(points, budget, ranking, shape=study.backbone.shape)
    return plain_tables.front_table(study, points, budget, ranking)


def write_output(output: Path, content: bytes, what: str) -> Console:
    """Write what `--output` asks for, a file or for `-` standard output, and say `what` was written.

    Returns:
        Where it was said, and where to say more: never where the content went.

    Raises:
        VittleError: it cannot be written there.
    """
    if output == STANDARD_OUTPUT:
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
        place, console = "standard output", err
    else:
        write_at_once(output, content, "give --output a file in an existing folder")
        place, console = str(output), out
    console.print(f"wrote {escape(place + what)}", highlight=False, soft_wrap=True)
    return console


def explain_unmet(study: Study, ranking: Ranking, budget: Budget) -> None:
    """Say that nothing fits a budget, and which one is the nearest that something does."""
    cheapest = ranking.nearest()
    if cheapest is None:
        name = escape(study.name)
        err.print(f"study {name} has measured nothing yet; continue it with: vittle resume {name}", highlight=False)
        return
    near = budget.covering(cheapest.judged)
    how = "export with" if cheapest.state == "complete" else "launch with"
    hint = f": {how} --latency-budget {near}" if isinstance(budget, LatencyBudget) else ""
    err.print(
        f"nothing in study {escape(study.name)} fits {budget}; the nearest feasible budget is {near} "
        f"(trial {cheapest.number}){hint}",
        highlight=False,
        soft_wrap=True,
    )
