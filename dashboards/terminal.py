"""Tables for the command line. Every function returns a table for the caller to print."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from vittle.dashboards import text, twins
from vittle.objectives.measurement import LatencyBudget, Measurement
from vittle.spaces import costs
from vittle.spaces.shape import BackboneShape
from vittle.storage import records
from vittle.storage.records import Study, Trial

NOTHING = "–"
STYLES = {
    "running": "cyan",
    "complete": "green",
    "stopped": "yellow",
    "interrupted": "yellow",
    "infeasible": "yellow",
    "failed": "red",
}


def studies_table(studies: Iterable[tuple[Study, Sequence[Trial]]]) -> Table:
    """One line per study with its trials: what was asked, how far it is, and the best schedule so far."""
    table = _table("study", "state", "model", "device", "budget", "trials>", "best so far", "started")
    for study, trials in studies:
        best = records.best(trials, study.budget)
        table.add_row(
            _as_is(study.name),
            _state(study.state),
            _as_is(study.backbone.name),
            _as_is(study.settings.device),
            str(study.budget),
            f"{twins.finished(trials)} of {study.settings.trials}",
            NOTHING if best is None else f"{_accuracy(best)} at {text.percent(best.judged['latency_ratio'].value)} latency",
            f"{text.moment(study.created):%Y-%m-%d %H:%M}",
        )
    return table


def trials_table(trials: Iterable[Trial]) -> Table:
    """One line per trial, whatever became of it."""
    table = _table("trial>", "state", "accuracy>", "latency %>", "latency ms>", "MACs>", "origin", "took>", "reason")
    for trial in trials:
        judged = trial.judged
        table.add_row(
            str(trial.number),
            _state(trial.state),
            _share(judged.get("accuracy")),
            _share(judged.get("latency_ratio")),
            text.milliseconds(judged["latency_ms"].value) if "latency_ms" in judged else NOTHING,
            text.macs(judged["macs"].value) if "macs" in judged else NOTHING,
            _as_is(trial.origin),
            NOTHING if trial.seconds is None else f"{trial.seconds:.1f} s",
            _as_is(trial.reason or ""),
        )
    return table


def front_table(trials: Sequence[Trial], budget: LatencyBudget, reference: Trial | None, *, shape: BackboneShape) -> Table:
    """One line per trial of a front, the best one for the budget marked, and the backbone last for comparison.

    Args:
        trials: the front, in the order to show.
        budget: what the best one has to hold.
        reference: the trial of the backbone itself.
        shape: the backbone's, which the token counts need.
    """
    table = _table(
        "trial>", "accuracy>", "held-out accuracy>", "latency %>", "latency ms>", "MACs>", "tokens after each block", "origin"
    )
    best = records.best(trials, budget)
    for trial in trials:
        if reference is None or trial.number != reference.number:
            _add_front_row(table, trial, shape, is_best=best is not None and trial.number == best.number)
    if reference is not None:
        table.add_section()
        _add_front_row(table, reference, shape, is_best=best is not None and reference.number == best.number)
    holder = f"* best for {budget}" if best is not None else f"none holds {budget} beyond the noise"
    table.caption = f"{holder} · brackets: 95% interval · latency: % of the backbone's, ms of one batch"
    return table


def _add_front_row(table: Table, trial: Trial, shape: BackboneShape, *, is_best: bool) -> None:
    judged = trial.judged
    table.add_row(
        f"* {trial.number}" if is_best else str(trial.number),
        _share(judged.get("accuracy")),
        _share(trial.measurements.get("confirmation", {}).get("accuracy")),
        _share(judged.get("latency_ratio")),
        text.milliseconds(judged["latency_ms"].value) if "latency_ms" in judged else NOTHING,
        text.macs(judged["macs"].value) if "macs" in judged else NOTHING,
        text.tokens(costs.tokens(shape, trial.schedule)),
        _as_is(trial.origin),
        style="bold" if is_best else "",
    )


def _table(*columns: str) -> Table:
    """Columns by name; `>` at the end aligns numbers to the right."""
    table = Table(box=box.SIMPLE_HEAD, caption_justify="left", pad_edge=False)
    for column in columns:
        wraps = column in {"study", "reason", "model"}
        justify = "right" if column.endswith(">") else "left"
        table.add_column(column.removesuffix(">"), justify=justify, no_wrap=not wraps, overflow="fold" if wraps else "ellipsis")
    return table


def _as_is(name: str) -> Text:
    """Text from the database, in which nothing is markup."""
    return Text(text.plain(name))


def _state(state: str) -> Text:
    return Text(state, STYLES.get(state, ""))


def _accuracy(trial: Trial) -> str:
    phase = "confirmation" if trial.confirmed else "search"
    return text.percent(trial.measurements[phase]["accuracy"].value)


def _share(measured: Measurement | None) -> str:
    return NOTHING if measured is None else f"{text.percent(measured.value)} [{text.interval(measured)}]"
