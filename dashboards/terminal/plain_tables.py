"""Tables of a study of any kind, with columns from its goals: for kinds that have no tables of their own."""

from collections.abc import Sequence

from rich.table import Table

from vittle.dashboards import text
from vittle.dashboards.terminal import study_tables, tables
from vittle.objectives.goals import Asked
from vittle.objectives.measurement import Measurement
from vittle.storage.ranking import Ranking
from vittle.storage.records import Study, Trial


def trials_table(study: Study, trials: Sequence[Trial]) -> Table:
    """One line per trial, whatever became of it; with reasons where there are any."""
    reasons, names = any(trial.reason for trial in trials), study.goals.objectives
    columns = ("trial>", "state", *(f"{name}>" for name in names), "origin", "took>")
    table = tables.table(*columns, *(["reason"] if reasons else []), "how")
    for trial in trials:
        table.add_row(
            str(trial.number),
            study_tables.state_text(trial.state),
            *(_value(trial.judged.get(name)) for name in names),
            tables.as_is(trial.origin),
            tables.NOTHING if trial.seconds is None else f"{trial.seconds:.1f} s",
            *([tables.as_is(trial.reason or "")] if reasons else []),
            tables.as_is(trial.candidate.summary),
        )
    table.caption = study_tables.marks(one for trial in trials for one in trial.judged.values())
    return table


def front_table(study: Study, points: Sequence[Trial], asked: Asked, ranking: Ranking) -> Table:
    """One line per trial of a front, the recommended one marked, and the baseline last for comparison."""
    names, quality = study.goals.objectives, study.goals.quality
    table = tables.table(
        "trial>", f"{quality}>", "expected>", "held-out>", *(f"{name}>" for name in names[1:]), "origin", "how"
    )
    signs, baseline = study_tables.best_signs(ranking, asked), ranking.baseline
    shown = [*(trial for trial in points if not trial.is_baseline), *([] if baseline is None else [baseline])]
    for trial in shown:
        if trial.is_baseline:
            table.add_section()
        sign = signs.get(trial.number, "")
        table.add_row(
            f"{sign}{trial.number}",
            _value(trial.judged.get(quality)),
            _value(ranking.expected[trial.number].get(quality)),
            _value(trial.measurements.get("confirmation", {}).get(quality)),
            *(_value(trial.judged.get(name)) for name in names[1:]),
            tables.as_is(trial.origin),
            tables.as_is(trial.candidate.summary),
            style="bold" if sign.startswith("*") else "",
        )
    table.caption = (
        study_tables.signs_told(signs, points, asked, f"best in {quality}") + "; expected ranks, held-out never chooses"
    )
    return table


def _value(one: Measurement | None) -> str:
    return tables.NOTHING if one is None else text.measured(one)
