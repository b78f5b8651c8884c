"""What a SQLite file needs: readers that never block a search, and a word where it is no longer the file that was opened."""

import os
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, event
from sqlalchemy.engine import make_url

from vittle.spaces.errors import StorageError, VittleError
from vittle.storage import address

BUSY_SECONDS = 60


def check_folder(file: Path, url: URL, *, create: bool) -> None:
    """See whether a file is there, or may be made; the folder of the default one is made.

    Raises:
        VittleError: there is no such file, or no folder to make it in.
    """
    if not create and not file.exists():
        raise VittleError(f"no database at {file}; make one with: vittle launch")
    if create and not file.parent.exists():
        if url != make_url(address.default_url()):
            shown = address.shown(url)
            raise VittleError(f"cannot open storage {shown}: no folder {file.parent}; accepted: {address.ACCEPTED}")
        file.parent.mkdir(parents=True)


def prepare(engine: Engine, file: Path | None) -> None:
    """Write-ahead logging, a wait in place of `database is locked`, and a look at the file whenever it is used.

    A file that is deleted stays open: without the look a search would go on writing to what nobody can find again, and a new
    connection would make an empty file in its place.
    """
    opened: list[tuple[int, int]] = []

    @event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = NORMAL")  # a power cut may cost the last trials, never the file
        cursor.close()
        if file is not None and not opened and (there := _identity(file)) is not None:
            opened.append(there)

    if file is None:
        return

    @event.listens_for(engine, "do_connect")
    def _before_connecting(*_: Any) -> None:
        _check_same(file, opened)

    @event.listens_for(engine, "checkout")
    def _before_use(*_: Any) -> None:
        _check_same(file, opened)


def _check_same(file: Path, opened: list[tuple[int, int]]) -> None:
    if not opened or (there := _identity(file)) == opened[0]:
        return
    what = f"the database {file} was deleted or moved" if there is None else f"another file is at {file} now"
    raise StorageError(f"{what}, so nothing can be written any more; what it held is kept only where that file may have been moved")


def _identity(file: Path) -> tuple[int, int] | None:
    """Which file is at a path, by device and number; None where there is none."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_dev, found.st_ino
