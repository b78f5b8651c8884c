"""What several commands answer: the front of a study, what is recommended of it and why, that nothing fits, what they write."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from vittle.dashboards import text
from vittle.dashboards.terminal import plain_tables, study_tables
from vittle.dashboards.terminal.console import err, escape, out, print_json
from vittle.objectives.budget import LatencyBudget
from vittle.objectives.goals import Asked
from vittle.spaces.files import STANDARD_OUTPUT, write_at_once
from vittle.storage import kinds
from vittle.storage.ranking import Ranking
from vittle.storage.records import Study, Trial
from vittle.storage.settings import Settings


def show_front(study: Study, ranking: Ranking, asked: Asked, as_json: bool) -> None:
    """Print a study's front within a budget with what is recommended, as a table with what it is worth, or as JSON."""
    points = study_tables.shown_points(ranking, asked)
    if as_json:
        print_json([_entry(study, trial, ranking, asked) for trial in points])
        return
    out.print(front_table(study, points, ranking, asked))
    tell_trade(ranking, asked)
    if isinstance(study.settings, Settings):
        for sentence in study_tables.standing(ranking, study.settings.reductions):
            out.print(sentence, highlight=False, soft_wrap=True)
        if ranking.disturbance is not None:
            told = f"{text.disturbance(ranking.disturbance)} Time them again with: vittle retime {shlex.quote(study.name)}"
            out.print(escape(told), highlight=False, soft_wrap=True, style="yellow")


def front_table(study: Study, points: Sequence[Trial], ranking: Ranking, asked: Asked) -> Table:
    """Trials of a study's front as a table; a plain one where its kind has none of its own."""
    if study.kind == Settings.kind:
        return study_tables.front_table(points, asked, ranking, shape=study.backbone.shape)
    return plain_tables.front_table(study, points, asked, ranking)


def tell_trade(ranking: Ranking, asked: Asked, console: Console = out) -> None:
    """Say by which rule a trial is recommended, and what is given for its speed."""
    choice = ranking.choice(asked)
    if choice is None:
        return
    trade = ranking.trade(choice)
    sentences = [text.rule(asked, ranking.goals), *([] if trade is None else [text.trade(trade, ranking.goals)])]
    console.print(escape(text.joined(sentences)), highlight=False, soft_wrap=True)


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


def explain_unmet(study: Study, ranking: Ranking, asked: Asked) -> None:
    """Say that nothing fits what was asked for, and what is the nearest that something does."""
    cheapest = ranking.nearest()
    if cheapest is None:
        told = f"study {study.name} has measured nothing but its baseline yet; continue it with: vittle resume {study.name}"
        err.print(escape(told), highlight=False, soft_wrap=True)
        return
    near, how = ranking.covering(asked.budget, cheapest), "export with" if cheapest.state == "complete" else "launch with"
    offers = ranking.saves(cheapest) and ranking.choice(Asked(asked.budget)) is None
    asks = offers and isinstance(asked.budget, LatencyBudget)
    hint = f": {how} --latency-budget {shlex.quote(str(near))}" if asks else ""
    told = text.unmet(study.name, ranking, asked, cheapest)
    err.print(escape(f"{told}{hint}"), highlight=False, soft_wrap=True)


def _entry(study: Study, trial: Trial, ranking: Ranking, asked: Asked) -> dict[str, Any]:
    """A point of a front as plain values, and whether it is recommended, or the best in quality."""
    recommended, finest = ranking.choice(asked) or (None, None)
    marks = {"recommended": trial is recommended, "most_accurate": trial is finest}
    return {**kinds.front_entry(study, trial, ranking), **marks}
