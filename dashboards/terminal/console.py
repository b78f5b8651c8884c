"""The terminal that the command line writes to: answers on `out`, progress and complaints on `err`."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich import markup
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from vittle.dashboards.plain import plain

out, err = Console(), Console(stderr=True)


def print_json(value: Any) -> None:
    """Plain JSON for another program: no colours, no wrapping."""
    out.out(json.dumps(value, indent=2), highlight=False)  # not by `print`, which says so where nobody reads to the end


def escape(text: str) -> str:
    """Text in which nothing is markup, and nothing that a terminal would obey."""
    return markup.escape(plain(text))


def note(sentences: Iterable[str]) -> None:
    """Tell what the user should know and what stops nothing, on stderr."""
    for sentence in sentences:
        err.print(f"note: {escape(sentence)}", highlight=False, soft_wrap=True)


@contextmanager
def working(what: str) -> Iterator[None]:
    """A spinner while something takes its time."""
    with err.status(what):
        yield


@contextmanager
def progress_bar(
    what: str, total: int | None = None, completed: int = 0, *, transient: bool = False
) -> Iterator[tuple[Progress, Any]]:
    """A bar with a note beside it; the bars, and the id of its first one."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=err, transient=transient) as bar:
        yield bar, bar.add_task(what, total=total, completed=completed, note="")


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that is gone when it is full, and the function that moves it: (done, total)."""
    with progress_bar(what, transient=True) as (bar, task):
        yield lambda done, total: bar.update(task, completed=done, total=total)
