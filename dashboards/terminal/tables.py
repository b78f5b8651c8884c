"""What the command line's tables are made of: columns, bars, and values with their spread."""

import copy
from collections.abc import Sequence
from dataclasses import replace

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement as Width
from rich.style import StyleType
from rich.table import Column, Table
from rich.text import Text

from vittle.dashboards import text
from vittle.dashboards.plain import plain
from vittle.objectives.measurement import Measurement

NOTHING = "–"
UNLIMITED = 10_000  # cells of a terminal in which everything has room
BAR = 8  # cells of a bar in a table
# The fewest cells that a column of words may be narrowed down to. Its cells wrap, or are cut.
WRAPPED = {"reason": 16, "study": 10, "model": 10, "backbone": 12, "device": 12, "batch": 9, "budget": 8, "best so far": 11}
WRAPPED |= {"started": 8, "when": 8}
CUT = {"how": 20}


class FittedTable(Table):
    """A table that fits any terminal, with every header and every number whole.

    What it lacks in width is taken from columns of words, the longest first: they wrap, and `how` is cut. If that is not
    enough, whole columns give way in the table's own order, then from the right, and the caption names them.
    """

    gives_way: Sequence[str] = ()

    def add_row(self, *cells: RenderableType | None, style: StyleType | None = None, end_section: bool = False) -> None:
        rendered = [Text(cell) if isinstance(cell, str) else cell for cell in cells]
        super().add_row(*rendered, style=style, end_section=end_section)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        whole = Width.get(console, options.update(max_width=UNLIMITED), self).maximum
        frame = -(-(whole - sum(map(_natural, self.columns))) // len(self.columns))  # cells around each column
        kept = self._kept(options.max_width, frame)
        shown = copy.copy(self)
        shown.columns = [
            replace(column, _index=index, width=width)
            for index, (column, width) in enumerate(
                zip(kept, _widths(kept, options.max_width - frame * len(kept)), strict=True)
            )
        ]
        left_out = [_name(column) for column in self.columns if column not in kept]
        if left_out:
            told = f"no room for {', '.join(left_out)}; --json has all"
            shown.caption = f"{self.caption}; {told}" if self.caption else told
        yield from Table.__rich_console__(shown, console, options)

    def _kept(self, room: int, frame: int) -> list[Column]:
        """The columns that there is room for."""
        kept = list(self.columns)
        first = [column for name in self.gives_way for column in kept if _name(column) == name]
        for column in [*first, *(one for one in reversed(kept[1:]) if one not in first)]:
            if sum(_least(one) + frame for one in kept) <= room:
                break
            kept.remove(column)
        return kept


def table(*columns: str, gives_way: Sequence[str] = ()) -> FittedTable:
    """Columns by name; `>` at the end aligns numbers to the right. Those in `gives_way` are left out first, in that order."""
    made = FittedTable(box=box.SIMPLE_HEAD, caption_justify="left", pad_edge=False, padding=(0, 1, 0, 0))
    made.gives_way = gives_way
    for column in columns:
        name = column.removesuffix(">")
        made.add_column(
            Text(name, no_wrap=True),
            justify="right" if name != column else "left",
            no_wrap=name not in WRAPPED,
            overflow="fold" if name in WRAPPED else "ellipsis",
        )
    return made


def _name(column: Column) -> str:
    return str(column.header)


def _natural(column: Column) -> int:
    """The cells that a column takes where there is room for all of it."""
    return max(cell.cell_len for cell in (column.header, *column.cells) if isinstance(cell, Text))


def _least(column: Column) -> int:
    """The fewest cells that a column may be narrowed down to, its name always whole."""
    name, natural = _name(column), _natural(column)
    return min(natural, max(len(name), {**WRAPPED, **CUT}.get(name, natural)))


def _widths(columns: Sequence[Column], room: int) -> list[int]:
    """A width for each column: the widest of those that can is narrowed until there is room, and `how` takes what is left."""
    widths, least = list(map(_natural, columns)), list(map(_least, columns))
    while sum(widths) > room and widths != least:
        narrowed = max((place for place in range(len(widths)) if widths[place] > least[place]), key=widths.__getitem__)
        widths[narrowed] -= 1
    spare = max(0, room - sum(widths))
    return [width + spare if _name(column) in CUT else width for column, width in zip(columns, widths, strict=True)]


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


def beside_backbone(measured: Measurement | None) -> str:
    """A time in milliseconds over the backbone's, which was measured in turn: 42.0/71.9."""
    reference = None if measured is None else measured.protocol.get("backbone_ms")
    over = "" if reference is None else f"/{text.milliseconds(reference).removesuffix(' ms')}"
    return milliseconds(measured) + over


def macs(measured: Measurement | None) -> str:
    """4.61 G or 34.2 M."""
    return NOTHING if measured is None else text.macs(measured.value)
