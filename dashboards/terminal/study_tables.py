"""Tables for the command line. Every function returns a table for the caller to print."""

from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from vittle.dashboards import text
from vittle.dashboards.documents import study_document
from vittle.dashboards.terminal import tables
from vittle.objectives.backbones.merge_start import BlockCurve, MergeStart
from vittle.objectives.budget import LatencyBudget
from vittle.objectives.quality.expectation import Measured
from vittle.spaces import costs
from vittle.spaces.shape import BackboneShape
from vittle.storage import records
from vittle.storage.records import Standing, Study, Trial

CURVE_COLORS = {"similarity": "blue", "partner": "magenta", "sink": "yellow"}
STYLES = {
    "running": "cyan",
    "complete": "green",
    "stopped": "yellow",
    "interrupted": "yellow",
    "infeasible": "yellow",
    "failed": "red",
}


def studies_table(studies: Iterable[tuple[Study, Standing]]) -> Table:
    """One line per study: what was asked, how far it is, and the best schedule so far."""
    table = tables.table("study", "state", "model", "budget", "trials>", "best so far", "started")
    found = []
    for study, (finished, _, best) in studies:
        found += [] if best is None else [best]
        table.add_row(
            tables.as_is(study.name),
            _state(study.state),
            tables.as_is(study.backbone.name),
            f"{study.budget} on {study.settings.device}",
            f"{finished} of {study.settings.trials}",
            _headline(best),
            f"{study.created:%d %b %H:%M}",
        )
    table.caption = _marks(found)
    return table


def trials_table(trials: Sequence[Trial]) -> Table:
    """One line per trial, whatever became of it; with reasons where there are any."""
    reasons = any(trial.reason for trial in trials)
    columns = ("trial>", "state", "accuracy>", "images>", "latency>", "ms>", "MACs>", "origin", "took>")
    table = tables.table(*columns, *(["reason"] if reasons else []))
    for trial in trials:
        judged = trial.judged
        table.add_row(
            str(trial.number),
            _state(trial.state),
            tables.share(judged.get("accuracy")),
            tables.seen(judged.get("accuracy")),
            tables.share(judged.get("latency_ratio"), spread=False),  # the front has it
            tables.milliseconds(judged.get("latency_ms")),
            tables.macs(judged.get("macs")),
            tables.as_is(trial.origin),
            tables.NOTHING if trial.seconds is None else f"{trial.seconds:.1f} s",
            *([tables.as_is(trial.reason or "")] if reasons else []),
        )
    table.caption = _marks(trials)
    return table


def front_table(points: Sequence[Trial], budget: LatencyBudget, trials: Sequence[Trial], *, shape: BackboneShape) -> Table:
    """One line per trial of a front, the best one for the budget marked, and the backbone last for comparison.

    Args:
        points: the front, in the order to show.
        budget: what the best one has to hold.
        trials: all of the study.
        shape: the backbone's, which the token counts need.
    """
    table = tables.table("trial>", "accuracy>", "expected>", "held-out>", "latency>", "ms>", "MACs>", "tokens left", "how")
    reference, expected = records.backbone_trial(trials), records.expectations(trials)
    best, tied = records.best(trials, budget), records.tied_with_best(trials, budget)
    signs = {**dict.fromkeys(tied, "≈ "), **({best.number: "* "} if best is not None else {})}
    for trial in points:
        if reference is None or trial.number != reference.number:
            _add_front_row(table, trial, expected[trial.number], shape, signs.get(trial.number, ""))
    if reference is not None:
        table.add_section()
        _add_front_row(table, reference, expected[reference.number], shape, signs.get(reference.number, ""))
    holder = f"* best for {budget}" if best is not None else f"none holds {budget} beyond the noise"
    holder += "; ≈ no different from it beyond the noise" if tied & {trial.number for trial in points} else ""
    marks = _marks([*points, *([] if reference is None else [reference])])
    table.caption = (
        f"{holder}; ± is 95%; expected on images not seen; latency in % of the backbone's and in ms for one batch"
        + (f"; {marks}" if marks else "")
    )
    return table


def trial_note(trial: Trial) -> str:
    """What became of a trial, in a few words."""
    if "accuracy" not in trial.judged:
        return f"trial {trial.number} {trial.state}"
    accuracy, latency = trial.judged["accuracy"], trial.judged["latency_ratio"]
    taken = text.mark(latency) + text.percent(latency.value, 0)
    stopped = ", stopped" if trial.state == "stopped" else ""
    return f"trial {trial.number}: {text.mark(accuracy)}{text.percent(accuracy.value, 2)} at {taken} latency{stopped}"


def standing(trials: Sequence[Trial], budget: LatencyBudget) -> list[str]:
    """What the front is worth on other images, and what more trials would add: a sentence for each that is known."""
    curse, grown = records.optimism(trials, budget), records.growth(trials, budget)
    return [*([] if curse is None else [text.optimism(curse)]), *([] if grown is None else [text.outlook(grown)])]


def merge_start_table(phase: MergeStart) -> Table:
    """One line per block with what its attention shows, bars for the three curves that matter most; the start marked."""
    table = tables.table("block>", "similarity", "partner", "sink", "entropy>", "outlier>")
    spread = phase.curve("similarity")
    for block in range(phase.depth):
        first = block == phase.start
        bars = [_barred(phase.curve(name), block, "bright_green" if first else color) for name, color in CURVE_COLORS.items()]
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


def _barred(curve: BlockCurve, block: int, color: str) -> Text:
    lowest, highest = min(curve.values), max(curve.values)
    share = (curve.values[block] - lowest) / (highest - lowest) if highest > lowest else 0.0
    return Text.assemble(f"{curve.values[block]:.3f} ", (f"{tables.bar(share):{tables.BAR}}", color))


def _add_front_row(table: Table, trial: Trial, expected: Measured, shape: BackboneShape, sign: str) -> None:
    judged = trial.judged
    table.add_row(
        f"{sign}{trial.number}",
        tables.share(judged.get("accuracy")),
        tables.share(expected["accuracy"], spread=False),
        tables.share(trial.measurements.get("confirmation", {}).get("accuracy"), spread=False),
        tables.share(judged.get("latency_ratio")),
        tables.milliseconds(judged.get("latency_ms")),
        tables.macs(judged.get("macs")),
        text.tokens(costs.tokens(shape, trial.schedule)),
        tables.as_is(trial.schedule.summary if trial.origin == "backbone" else f"{trial.origin}: {trial.schedule.summary}"),
        style="bold" if sign.startswith("*") else "",
    )


def _marks(trials: Sequence[Trial]) -> str | None:
    """What the marks at the accuracies and latencies of these trials mean; None where none is marked."""
    marked = [trial.judged[name] for trial in trials for name in ("accuracy", "latency_ratio") if name in trial.judged]
    return "; ".join(text.marks(marked)) or None


def _state(state: str) -> Text:
    return Text(state, STYLES.get(state, ""))


def _headline(best: Trial | None) -> str:
    if best is None:
        return tables.NOTHING
    accuracy, latency = study_document.quoted(best), best.judged["latency_ratio"]
    return f"{text.percent(accuracy.value)} at {tables.share(latency, spread=False)}"
