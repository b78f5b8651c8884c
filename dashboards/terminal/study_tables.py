"""Tables for the command line. Every function returns a table for the caller to print."""

from collections.abc import Iterable, Mapping, Sequence

from rich.table import Table
from rich.text import Text

from vittle.dashboards import text
from vittle.dashboards.documents import study_document
from vittle.dashboards.terminal import tables
from vittle.objectives.backbones.merge_start import BlockCurve, MergeStart
from vittle.objectives.goals import Asked, Goals, Measured
from vittle.objectives.measurement import OBJECTIVES, Measurement
from vittle.spaces import costs
from vittle.spaces.shape import BackboneShape
from vittle.storage.findings import Standing
from vittle.storage.ranking import Ranking
from vittle.storage.records import UNREADABLE, Study, Trial, UnreadableStudy

CURVE_COLORS = {"similarity": "blue", "partner": "magenta", "sink": "yellow"}
SHOWN = ("accuracy", "latency_ratio")  # whose marks are explained
STYLES = {
    "running": "cyan",
    "confirming": "cyan",
    "complete": "green",
    "stopped": "yellow",
    "interrupted": "yellow",
    "infeasible": "yellow",
    "failed": "red",
    UNREADABLE: "red",
}


def studies_table(studies: Iterable[tuple[Study, Standing] | UnreadableStudy]) -> Table:
    """One line per study of any kind: what was asked, how far it is, and the recommended candidate so far."""
    table = tables.table(
        "study", "state", "model", "budget", "trials>", "recommended", "started", gives_way=("started", "model")
    )
    found: list[Measurement] = []
    for one in studies:
        if isinstance(one, UnreadableStudy):
            table.add_row(tables.as_is(one.name), state_text(UNREADABLE), *[tables.NOTHING] * 5)
            continue
        study, (finished, _, best) = one
        found += [] if best is None else _told(study.goals, [best])
        table.add_row(
            tables.as_is(study.name),
            state_text(study.phase),
            tables.as_is(study.kind if study.subject is None else study.subject.name),
            f"{study.budget} on {study.settings.device}" if study.known else tables.NOTHING,
            f"{finished} of {study.settings.trials}",
            _headline(study, best),
            f"{study.created:%d %b %H:%M}",
        )
    table.caption = marks(found)
    return table


def trials_table(trials: Sequence[Trial]) -> Table:
    """One line per trial of an inference study, whatever became of it; with reasons where there are any."""
    reasons = any(trial.reason for trial in trials)
    columns = ("trial>", "state", "accuracy>", "images>", "latency>", "ms>", "MACs>", "origin", "took>")
    table = tables.table(
        *columns, *(["reason"] if reasons else []), gives_way=("took", "origin", "images", "MACs", "ms", "latency")
    )
    for trial in trials:
        judged = trial.judged
        table.add_row(
            str(trial.number),
            state_text(trial.state),
            tables.share(judged.get("accuracy")),
            tables.images_seen(judged.get("accuracy")),
            tables.share(judged.get("latency_ratio"), spread=False),  # the front has it
            tables.milliseconds(judged.get("latency_ms")),
            tables.macs(judged.get("macs")),
            tables.as_is(trial.origin),
            tables.NOTHING if trial.seconds is None else f"{trial.seconds:.1f} s",
            *([tables.as_is(trial.reason or "")] if reasons else []),
        )
    table.caption = marks(trial.judged[name] for trial in trials for name in SHOWN if name in trial.judged)
    return table


def shown_points(ranking: Ranking, asked: Asked) -> list[Trial]:
    """The front within a budget, the cheapest first, with what is recommended should that not be on it."""
    points = {trial.number: trial for trial in ranking.front(asked.budget)}
    choice = ranking.choice(asked)
    points |= {trial.number: trial for trial in choice or () if not trial.is_baseline}
    charted = ranking.goals.charted
    return sorted(points.values(), key=lambda trial: (trial.judged[charted].value, trial.number))


def front_table(points: Sequence[Trial], asked: Asked, ranking: Ranking, *, shape: BackboneShape) -> Table:
    """One line per trial of an inference study's front, the recommended one marked, and the backbone last to compare.

    Args:
        points: the front, in the order to show.
        asked: what a trial is recommended for.
        ranking: all trials of the study.
        shape: the backbone's, which the token counts need.
    """
    columns = ("trial>", "search>", "expected>", "held-out>", "latency>", "ms>", "MACs>", "tokens left", "how")
    table = tables.table(*columns, gives_way=("how", "tokens left", "MACs", "ms"))
    baseline, expected = ranking.baseline, ranking.expected
    signs = best_signs(ranking, asked)
    for trial in points:
        if baseline is None or trial.number != baseline.number:
            _add_front_row(table, trial, expected[trial.number], shape, signs.get(trial.number, ""))
    if baseline is not None:
        table.add_section()
        _add_front_row(table, baseline, expected[baseline.number], shape, signs.get(baseline.number, ""))
    shown = [*points, *([] if baseline is None else [baseline])]
    told = marks(trial.judged[name] for trial in shown for name in SHOWN if name in trial.judged)
    table.caption = (
        f"{signs_told(signs, points, asked, 'most accurate')}; expected, on unseen images, ranks; held-out never chooses; "
        "± is 95%; latency in % of the backbone's; ms of one batch / the backbone's" + (f"; {told}" if told else "")
    )
    return table


def best_signs(ranking: Ranking, asked: Asked) -> dict[int, str]:
    """What stands before the numbers of the recommended trial, of the best in quality, and of those like the first."""
    choice = ranking.choice(asked)
    if choice is None:
        return {}
    tied = dict.fromkeys(ranking.tied_with(choice.recommended, asked.budget), "≈ ")
    return {**tied, choice.finest.number: "+ ", choice.recommended.number: "* "}


def signs_told(signs: Mapping[int, str], points: Sequence[Trial], asked: Asked, finest: str) -> str:
    """What the signs before the numbers of these trials mean.

    Args:
        signs: by number.
        points: the trials that are shown.
        asked: what one is recommended for.
        finest: what the best one in quality is, in two words.
    """
    there = {signs.get(trial.number) for trial in points}
    holder = f"* recommended for {asked.budget}" if "* " in signs.values() else f"none holds {asked.budget} beyond the noise"
    more = (f"; + {finest}" if "+ " in there else "") + ("; ≈ no different from * beyond the noise" if "≈ " in there else "")
    return holder + more


def trial_note(trial: Trial, goals: Goals) -> str:
    """What became of a trial, in a few words."""
    if goals.quality not in trial.judged:
        return f"trial {trial.number} {trial.state}"
    quality, cost = text.measured(trial.judged[goals.quality], 2), text.measured(trial.judged[goals.charted], 0)
    of = f" {goals.budget.what}" if OBJECTIVES[goals.charted].unit == "share" else ""
    stopped = ", stopped" if trial.state == "stopped" else ""
    return f"trial {trial.number}: {quality} at {cost}{of}{stopped}"


def standing(ranking: Ranking, searched: Sequence[str]) -> list[str]:
    """What the front is worth on other images, what more trials would add, what never paid: a sentence for each known."""
    curse, grown, unpaid = ranking.optimism(), ranking.growth(), ranking.unpaid(searched)
    known = [
        None if curse is None else text.optimism(curse),
        None if grown is None else text.outlook(grown),
        text.unpaid(unpaid),
    ]
    return [sentence for sentence in known if sentence]


def merge_start_table(found: MergeStart) -> Table:
    """One line per block with what its attention shows, bars for the three curves that matter most; the start marked."""
    columns = ("block>", "similarity", "partner", "sink", "entropy>", "outlier>")
    table = tables.table(*columns, gives_way=("outlier", "entropy", "sink"))
    spread = found.curve("similarity")
    for block in range(found.depth):
        first = block == found.start
        bars = [_barred(found.curve(name), block, "bright_green" if first else color) for name, color in CURVE_COLORS.items()]
        bars[0] = Text.assemble(bars[0], (f" ±{(spread.high[block] - spread.low[block]) / 2:.3f}", "dim"))
        table.add_row(
            f"{'▸ ' if first else ''}{block + 1}",
            *bars,
            f"{found.curve('entropy').values[block]:.2f}",
            f"{found.curve('outlier').values[block]:.1f}",
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
        tables.beside_backbone(judged.get("latency_ms")),
        tables.macs(judged.get("macs")),
        text.tokens(costs.computed(shape, trial.schedule)),
        tables.as_is(trial.schedule.summary if trial.is_baseline else f"{trial.origin}: {trial.schedule.summary}"),
        style="bold" if sign.startswith("*") else "",
    )


def marks(measured: Iterable[Measurement]) -> str | None:
    """What the marks at these values mean; None where none is marked."""
    return "; ".join(text.marks(measured)) or None


def _told(goals: Goals, trials: Sequence[Trial]) -> list[Measurement]:
    """The qualities and charted costs of trials."""
    return [trial.judged[name] for trial in trials for name in (goals.quality, goals.charted) if name in trial.judged]


def state_text(state: str) -> Text:
    """A state in its colour."""
    return Text(state, STYLES.get(state, ""))


def _headline(study: Study, best: Trial | None) -> str:
    if best is None:
        return tables.NOTHING
    quality, cost = study_document.quoted(study, best), best.judged[study.goals.charted]
    return f"{text.measured(quality)} at {text.measured(cost)}"
