"""What a SQLite file needs: readers that never block a search, and a word where it is no longer the file that was opened."""

import contextlib
import itertools
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
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


class OpenedFile:
    """A SQLite file that is in use. One that is deleted or moved stays open: what is written there nobody finds again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rescuing = False
        self._identity: tuple[int, int] | None = None
        self._told: str | None = None
        self._lock = threading.Lock()

    def opened(self) -> None:
        """Remember which file it is, the first time."""
        self._identity = self._identity or _identity(self._path)

    @contextmanager
    def rescued(self) -> Iterator[None]:
        """Should the file be taken away meanwhile, all that it holds is copied beside its place."""
        self._rescuing = True
        try:
            yield
        finally:
            self._rescuing = False

    def check(self, connection: sqlite3.Connection | None = None) -> None:
        """See whether it is still the file that was opened; a new connection would else make an empty one in its place.

        Args:
            connection: to the file, where there is one.

        Raises:
            StorageError: it is another one, or none; the message says what is kept, and where.
        """
        if self._identity is None or (there := _identity(self._path)) == self._identity:
            return
        with self._lock:
            if self._told is None:
                what = (
                    f"the database {self._path} was deleted or moved"
                    if there is None
                    else f"another file is at {self._path} now"
                )
                self._told = f"{what}, and nothing can be written any more; {self._kept(connection)}"
        raise StorageError(self._told)

    def _kept(self, connection: sqlite3.Connection | None) -> str:
        if self._rescuing and connection is not None:
            copy = next(one for number in itertools.count(1) if not (one := Path(f"{self._path}.rescued{number}")).exists())
            with contextlib.suppress(sqlite3.Error, OSError), contextlib.closing(sqlite3.connect(copy)) as after:
                connection.backup(after)
                return f"all that it held is kept in {copy}; go on with: vittle resume --storage sqlite:///{copy}"
        return "what was written last may be kept nowhere"


def prepare(engine: Engine, file: Path | None) -> OpenedFile | None:
    """Write-ahead logging, a wait in place of `database is locked`, and a look at the file whenever it is used."""
    used = None if file is None else OpenedFile(file)

    @event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = NORMAL")  # a power cut may cost the last trials, never the file
        cursor.close()
        if used is not None:
            used.opened()

    if used is not None:

        @event.listens_for(engine, "do_connect")
        def _before_connecting(*_: Any) -> None:
            used.check()

        @event.listens_for(engine, "checkout")
        def _before_use(connection: Any, *_: Any) -> None:
            used.check(connection)

    return used


def _identity(file: Path) -> tuple[int, int] | None:
    """Which file is at a path, by device and number; None where there is none."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_dev, found.st_ino
