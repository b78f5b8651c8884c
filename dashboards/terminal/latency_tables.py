"""Tables of latency for the command line: a profile, what it promises, and what was timed again."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from rich.table import Table
from rich.text import Text

from vittle.dashboards import text
from vittle.dashboards.terminal import tables
from vittle.dashboards.terminal.console import escape
from vittle.objectives.latency.profile import LatencyProfile
from vittle.objectives.measurement import Measurement

ROWS = 14  # token counts that a table of a profile shows
HOLDS = {True: ("yes", "green"), False: ("no", "red"), None: (tables.NOTHING, "")}


class ExampleRow(NamedTuple):
    """A schedule that stands for what can be chosen.

    Attributes:
        name: what it stands for, such as `cheapest`.
        tokens: after each block, without those that rest in it.
        ratio: its `latency_ratio`.
        ms: its `latency_ms`.
        holds: whether it holds the budget; None where none was given.
    """

    name: str
    tokens: Sequence[int]
    ratio: Measurement
    ms: Measurement
    holds: bool | None = None


class RetimedRow(NamedTuple):
    """A trial of a front that was timed again, on another device or at another batch size.

    Attributes:
        number: the trial's.
        accuracy: what it was known to reach, which no device changes.
        before: its latency as stored.
        after: its latency now, the same objective.
        rank_before: its place by latency as stored, 1 is the fastest.
        rank_after: its place now.
        holds_before: whether it held the budget as stored.
        holds_after: whether it does now.
    """

    number: int
    accuracy: Measurement
    before: Measurement
    after: Measurement
    rank_before: int
    rank_after: int
    holds_before: bool
    holds_after: bool


def profile_table(profile: LatencyProfile) -> Table:
    """One line per measured token count, a deep staircase thinned out: what a dense block of it takes."""
    table = tables.table(
        "tokens>", "block ms", "±>", "µs per token>", *(["free"] if profile.flats else []), gives_way=("µs per token",)
    )
    block, ms = profile.block, profile.backbone_ms
    for index in _shown(profile):
        count, share = block.counts[index], block.fitted[index]
        flat = any(low <= count <= high for low, high in profile.flats)
        table.add_row(
            f"{count}",
            Text.assemble(
                f"{text.milliseconds(ms * share).removesuffix(' ms'):>5} ",
                (f"{tables.bar(share / block.fitted[-1]):{tables.BAR}}", "bright_green" if flat else "blue"),
            ),
            Text(f"{ms * (block.high[index] - block.low[index]) / 2:#.2g}", "dim"),
            text.milliseconds(1000 * ms * share / count).removesuffix(" ms"),
            *([Text("═" if flat else "", "bright_green")] if profile.flats else []),
        )
    table.caption = f"{_forms(profile)}; {_where(profile)}; ± is 95%"
    if profile.flats:
        table.caption += "; ═ these tokens cost no more time than the fewest of them"
    if profile.noisy:
        table.caption += f"; ! noisy: {escape(profile.noisy)}"
    return table


def examples_table(rows: Sequence[ExampleRow]) -> Table:
    """What a backbone can be brought down to, one line per schedule, and whether that is enough."""
    budgeted = any(row.holds is not None for row in rows)
    table = tables.table(
        "schedule", "latency>", "ms>", *(["holds"] if budgeted else []), "tokens left", gives_way=("tokens left",)
    )
    for row in rows:
        table.add_row(
            tables.as_is(row.name),
            tables.share(row.ratio),
            tables.milliseconds(row.ms),
            *([Text(*HOLDS[row.holds])] if budgeted else []),
            text.tokens(row.tokens),
        )
    table.caption = "; ".join(
        ["± is 95%", "latency in % of the backbone's and in ms for one batch", *text.marks(row.ratio for row in rows)]
    )
    return table


def profiles_table(profiles: Sequence[LatencyProfile]) -> Table:
    """One line per stored profile."""
    columns = ("key", "backbone", "device", "batch", "ms>", "off by>", "rank>", "used", "when")
    table = tables.table(*columns, gives_way=("rank", "when", "off by", "batch"))
    for profile in profiles:
        checked = bool(profile.checks)
        table.add_row(
            tables.as_is(profile.key),
            tables.as_is(profile.model),
            text.device(profile.environment),
            f"{profile.protocol['batch_size']} {_type(profile)}",
            ("!" if profile.noisy else "") + text.milliseconds(profile.backbone_ms).removesuffix(" ms"),
            text.percent(profile.mape) if checked else tables.NOTHING,
            f"{profile.spearman:.3f}" if checked else tables.NOTHING,
            Text(*HOLDS[profile.trusted]),
            f"{datetime.fromisoformat(profile.measured_at):%d %b %H:%M}" if profile.measured_at else tables.NOTHING,
        )
    table.caption = "ms: the backbone; off by: mean error of predictions for held-out schedules; rank: their rank correlation"
    if any(profile.noisy for profile in profiles):
        table.caption += f"; ! {text.meaning('!')}"
    return table


def retimed_table(rows: Sequence[RetimedRow]) -> Table:
    """One line per trial of a front: its latency as stored (there) and as timed now (here), and what that changes."""
    table = tables.table("trial>", "accuracy>", "there>", "here>", "rank>", "", "holds", gives_way=("accuracy",))
    for row in rows:
        table.add_row(
            f"{row.number}",
            tables.share(row.accuracy),
            _latency(row.before),
            _latency(row.after),
            f"{row.rank_after}",
            _moved(row),
            _held(row),
        )
    moved = sum(row.rank_before != row.rank_after for row in rows)
    ranks = "all ranks as they were" if not moved else f"{moved} of {len(rows)} ranks changed, ↑ faster in comparison"
    marks = text.marks(latency for row in rows for latency in (row.before, row.after))
    table.caption = "; ".join(["there: as stored, here: as timed now", ranks, "± is 95%", *marks])
    return table


def _shown(profile: LatencyProfile) -> list[int]:
    """Which measured counts to show: both ends, those of the widest free stretches, and as many others, evenly apart."""
    counts = profile.block.counts
    last = len(counts) - 1
    wanted = {0, last}
    for low, high in sorted(profile.flats, key=lambda flat: flat[0] - flat[1]):
        ends = wanted | {counts.index(low), counts.index(high)}
        wanted = ends if len(ends) <= ROWS else wanted
    chosen = wanted
    for steps in range(min(ROWS, len(counts)) - 1, 0, -1):
        even = wanted | {round(last * step / steps) for step in range(steps + 1)}
        if len(even) <= ROWS:
            chosen = even
            break
    return sorted(chosen)


def _forms(profile: LatencyProfile) -> str:
    """The fastest form of the backbone, and the others."""
    times = sorted(profile.forms_ms.items(), key=lambda item: item[1])
    (form, _), *others = times
    slower = "".join(f", {name} {text.milliseconds(ms)}" for name, ms in others)
    return f"backbone {text.milliseconds(profile.backbone_ms)} ({form}{slower})"


def _where(profile: LatencyProfile) -> str:
    return f"{text.device(profile.environment)}; batch of {profile.protocol['batch_size']}, {_type(profile)}"


def _type(profile: LatencyProfile) -> str:
    return str(profile.protocol["dtype"]) + (", compiled" if profile.protocol["compiled"] else "")


def _latency(measured: Measurement) -> str:
    return tables.share(measured) if measured.objective == "latency_ratio" else tables.milliseconds(measured)


def _moved(row: RetimedRow) -> Text:
    up = row.rank_before - row.rank_after
    return Text(f"↑{up}", "green") if up > 0 else Text(f"↓{-up}", "red") if up < 0 else Text("=", "dim")


def _held(row: RetimedRow) -> Text:
    now, style = HOLDS[row.holds_after]
    return Text(now, style) if row.holds_before == row.holds_after else Text(f"{HOLDS[row.holds_before][0]} → {now}", style)
