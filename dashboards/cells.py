"""What the command line's tables are made of: columns, bars, and values with their spread."""

from rich import box
from rich.console import JustifyMethod, OverflowMethod
from rich.table import Table
from rich.text import Text

from vittle.dashboards import text
from vittle.objectives.measurement import Measurement

NOTHING = "–"
BAR = 8  # cells of a bar in a table
WIDTHS = {
    "block": 5,
    "study": 10,
    "trials": 8,
    "started": 12,
    "origin": 9,
    "images": 7,
    "reason": 20,
    "key": 12,
    "backbone": 8,
    "device": 9,
    "batch": 7,
    "ms": 4,
    "off by": 6,
    "rank": 5,
    "used": 4,
    "when": 6,
    "accuracy: best": 14,
    "accuracy: all": 13,
    "latency: best": 13,
    "latency: all": 13,
}
"""Columns that a narrow terminal must not squeeze away."""
WRAPPED = ("reason", "backbone", "device", "batch", "when")


def table(*columns: str) -> Table:
    """Columns by name; `>` at the end aligns numbers to the right."""
    made = Table(box=box.SIMPLE_HEAD, caption_justify="left", pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        name = column.removesuffix(">")
        justify: JustifyMethod = "right" if column.endswith(">") else "left"
        wraps = name in WRAPPED
        overflow: OverflowMethod = "fold" if wraps else "ellipsis"
        flexible = name == "how"  # takes what the others leave
        made.expand |= flexible
        made.add_column(
            name,
            justify=justify,
            no_wrap=not wraps,
            overflow=overflow,
            min_width=WIDTHS.get(name),
            ratio=1 if flexible else None,
        )
    return made


def seen(measured: Measurement | None) -> str:
    """How many images: 449, or 64/449 of which all are estimated."""
    if measured is None:
        return NOTHING
    of = text.estimated(measured)
    return f"{measured.n}" if of is None else f"{measured.n}/{of}"


def bar(share: float) -> str:
    """A bar of eighths of a cell, never empty."""
    eighths = max(1, round(8 * BAR * share))
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def as_is(name: str) -> Text:
    """Text from the database, in which nothing is markup."""
    return Text(text.plain(name))


def share(measured: Measurement | None, *, spread: bool = True) -> str:
    """In percent, marked where it is no plain measurement."""
    if measured is None:
        return NOTHING
    # Half the interval's width: intervals of shares near 100 % lean to one side, the pages and JSON show both ends.
    ends = f" ±{50 * (measured.high - measured.low):.1f}" if spread else ""
    return f"{text.mark(measured)}{text.percent(measured.value)}{ends}"


def milliseconds(measured: Measurement | None) -> str:
    """Without the unit, marked where it is no plain measurement."""
    return NOTHING if measured is None else text.mark(measured) + text.milliseconds(measured.value).removesuffix(" ms")


def macs(measured: Measurement | None) -> str:
    """4.61 G or 34.2 M."""
    return NOTHING if measured is None else text.macs(measured.value)
