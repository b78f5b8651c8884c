"""Tables for the command line. Every function returns a table for the caller to print."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import JustifyMethod, OverflowMethod
from rich.table import Table
from rich.text import Text

from vittle.dashboards import text, twins
from vittle.objectives.measurement import LatencyBudget, Measurement
from vittle.objectives.phase import Curve, PhaseChange
from vittle.spaces import costs
from vittle.spaces.shape import BackboneShape
from vittle.storage import records
from vittle.storage.records import Study, Trial

NOTHING = "–"
BAR = 8  # cells of a bar in a table
WIDTHS = {"block": 5, "study": 10, "trials": 8, "started": 12, "origin": 8, "reason": 20}
"""Columns that a narrow terminal must not squeeze away."""
PHASE_COLORS = {"similarity": "blue", "partner": "magenta", "sink": "yellow"}
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


def trial_note(trial: Trial) -> str:
    """What became of a trial, in a few words."""
    if "accuracy" not in trial.judged:
        return f"trial {trial.number} {trial.state}"
    accuracy, latency = trial.judged["accuracy"], trial.judged["latency_ratio"]
    return f"trial {trial.number}: {text.percent(accuracy.value, 2)} at {text.percent(latency.value, 0)} latency"


def phase_table(phase: PhaseChange) -> Table:
    """One line per block with what its attention shows, bars for the three curves that matter most; the start marked."""
    table = _table("block>", "similarity", "partner", "sink", "entropy>", "outlier>")
    spread = phase.curve("similarity")
    for block in range(phase.depth):
        first = block == phase.start
        bars = [_barred(phase.curve(name), block, "bright_green" if first else color) for name, color in PHASE_COLORS.items()]
        bars[0] = Text.assemble(bars[0], (f" ±{(spread.high[block] - spread.low[block]) / 2:.3f}", "dim"))
        table.add_row(
            f"{'▸ ' if first else ''}{block + 1}",
            *bars,
            f"{phase.curve('entropy').values[block]:.2f}",
            f"{phase.curve('outlier').values[block]:.1f}",
            style="bold" if first else "",
        )
    table.caption = "▸ merging may start here; bars run from the lowest to the highest block; ± is 95%"
    return table


def _barred(curve: Curve, block: int, color: str) -> Text:
    lowest, highest = min(curve.values), max(curve.values)
    share = (curve.values[block] - lowest) / (highest - lowest) if highest > lowest else 0.0
    return Text.assemble(f"{curve.values[block]:.3f} ", (f"{_bar(share):{BAR}}", color))


def _bar(share: float) -> str:
    """A bar of eighths of a cell, never empty."""
    eighths = max(1, round(8 * BAR * share))
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


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
        flexible = name == "how"  # takes what the others leave
        table.expand |= flexible
        table.add_column(
            name,
            justify=justify,
            no_wrap=not wraps,
            overflow=overflow,
            min_width=WIDTHS.get(name),
            ratio=1 if flexible else None,
        )
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
