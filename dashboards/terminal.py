"""Tables for the command line. Every function returns a table for the caller to print."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import JustifyMethod, OverflowMethod
from rich.table import Table
from rich.text import Text

from vittle.dashboards import text, twins
from vittle.objectives.measurement import LatencyBudget, Measurement
from vittle.spaces import costs
from vittle.spaces.shape import BackboneShape
from vittle.storage import records
from vittle.storage.records import Study, Trial

NOTHING = "–"
WIDTHS = {"study": 10, "trials": 8, "started": 12, "origin": 8, "reason": 20, "how": 14}
"""Columns that a narrow terminal must not squeeze away."""
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
    table = _table("study", "state", "model", "budget", "trials>", "best so far", "started")
    for study, trials in studies:
        table.add_row(
            _as_is(study.name),
            _state(study.state),
            _as_is(study.backbone.name),
            f"{study.budget} on {study.settings.device}",
            f"{twins.finished(trials)} of {study.settings.trials}",
            _headline(records.best(trials, study.budget)),
            f"{study.created:%d %b %H:%M}",
        )
    return table


def trials_table(trials: Iterable[Trial]) -> Table:
    """One line per trial, whatever became of it."""
    table = _table("trial>", "state", "accuracy>", "latency>", "ms>", "MACs>", "origin", "took>", "reason")
    for trial in trials:
        judged = trial.judged
        table.add_row(
            str(trial.number),
            _state(trial.state),
            _share(judged.get("accuracy")),
            _share(judged.get("latency_ratio")),
            _milliseconds(judged.get("latency_ms")),
            _macs(judged.get("macs")),
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
    table = _table("trial>", "accuracy>", "held-out>", "latency>", "ms>", "MACs>", "tokens left", "how")
    best = records.best(trials, budget)
    for trial in trials:
        if reference is None or trial.number != reference.number:
            _add_front_row(table, trial, shape, is_best=best is not None and trial.number == best.number)
    if reference is not None:
        table.add_section()
        _add_front_row(table, reference, shape, is_best=best is not None and reference.number == best.number)
    holder = f"* best for {budget}" if best is not None else f"none holds {budget} beyond the noise"
    table.caption = f"{holder}; ± is 95%; latency in % of the backbone's and in ms for one batch"
    return table


def _add_front_row(table: Table, trial: Trial, shape: BackboneShape, *, is_best: bool) -> None:
    judged = trial.judged
    table.add_row(
        f"* {trial.number}" if is_best else str(trial.number),
        _share(judged.get("accuracy")),
        _share(trial.measurements.get("confirmation", {}).get("accuracy"), spread=False),
        _share(judged.get("latency_ratio")),
        _milliseconds(judged.get("latency_ms")),
        _macs(judged.get("macs")),
        text.tokens(costs.tokens(shape, trial.schedule)),
        _as_is(trial.schedule.summary),
        style="bold" if is_best else "",
    )


def _table(*columns: str) -> Table:
    """Columns by name; `>` at the end aligns numbers to the right."""
    table = Table(box=box.SIMPLE_HEAD, caption_justify="left", pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        name = column.removesuffix(">")
        justify: JustifyMethod = "right" if column.endswith(">") else "left"
        wraps = name == "reason"
        overflow: OverflowMethod = "fold" if wraps else "ellipsis"
        table.add_column(name, justify=justify, no_wrap=not wraps, overflow=overflow, min_width=WIDTHS.get(name))
    return table


def _as_is(name: str) -> Text:
    """Text from the database, in which nothing is markup."""
    return Text(text.plain(name))


def _state(state: str) -> Text:
    return Text(state, STYLES.get(state, ""))


def _headline(best: Trial | None) -> str:
    if best is None:
        return NOTHING
    accuracy, latency = twins.quoted(best), best.judged["latency_ratio"]
    return f"{text.percent(accuracy.value)} at {text.percent(latency.value)}"


def _share(measured: Measurement | None, *, spread: bool = True) -> str:
    if measured is None:
        return NOTHING
    # Half the interval's width: intervals of shares near 100 % lean to one side, the pages and JSON show both ends.
    return text.percent(measured.value) + (f" ±{50 * (measured.high - measured.low):.1f}" if spread else "")


def _milliseconds(measured: Measurement | None) -> str:
    return NOTHING if measured is None else text.milliseconds(measured.value).removesuffix(" ms")


def _macs(measured: Measurement | None) -> str:
    return NOTHING if measured is None else text.macs(measured.value)
