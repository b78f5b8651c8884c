"""What the command line's tables are made of: columns, bars, and values with their spread."""

from rich import box
from rich.console import OverflowMethod, RenderableType
from rich.style import StyleType
from rich.table import Table
from rich.text import Text

from vittle.dashboards import text
from vittle.dashboards.plain import plain
from vittle.objectives.measurement import Measurement

NOTHING = "–"
BAR = 8  # cells of a bar in a table
WRAPPED = ("reason", "backbone", "device", "batch", "when")


class NumbersFirst(Table):
    """A table whose numbers are whole in a narrow terminal: what it lacks is taken from its words, the longest first."""

    def add_row(self, *cells: RenderableType | None, style: StyleType | None = None, end_section: bool = False) -> None:
        rendered = [Text(cell) if isinstance(cell, str) else cell for cell in cells]
        for column, cell in zip(self.columns, rendered, strict=True):
            # Only columns that may wrap give way, so words are let wrap and each of their cells is kept to its line.
            if isinstance(cell, Text) and str(column.header) not in WRAPPED:
                cell.no_wrap = True
        super().add_row(*rendered, style=style, end_section=end_section)


def table(*columns: str) -> Table:
    """Columns by name; `>` at the end aligns numbers to the right."""
    made = NumbersFirst(box=box.SIMPLE_HEAD, caption_justify="left", pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        name = column.removesuffix(">")
        numbers = column != name
        overflow: OverflowMethod = "fold" if name in WRAPPED else "ellipsis"
        flexible = name == "how"  # takes what the others leave
        made.expand |= flexible
        made.add_column(
            Text(name, no_wrap=True),
            justify="right" if numbers else "left",
            no_wrap=numbers,
            overflow=overflow,
            ratio=1 if flexible else None,
        )
    return made


def images_seen(measured: Measurement | None) -> str:
    """How many images: 449, or 64/449 of which all are estimated."""
    if measured is None:
        return NOTHING
    of = measured.estimated_of
    return f"{measured.n}" if of is None else f"{measured.n}/{of}"


def bar(share: float) -> str:
    """A bar of eighths of a cell, never empty."""
    eighths = max(1, round(8 * BAR * share))
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def as_is(name: str) -> Text:
    """Text from the database, in which nothing is markup."""
    return Text(plain(name))


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
