"""What a search does while its database is away: wait, where a server may come back; else stop in good order."""

import functools
import re
import time
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar, cast

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, SQLAlchemyError

from vittle.spaces.errors import StorageError
from vittle.storage.address import reason, shown

PATIENCE = 300.0  # seconds that a server may be away
AGAIN = 1.0  # seconds between two tries
GONE = ("42P01", "3D000", "3F000")  # what PostgreSQL calls it where there is no such table, database or schema
GONE_SAID = re.compile('no such table|(relation|database|schema) ".*" does not exist')  # by others, and while connecting

P = ParamSpec("P")
T = TypeVar("T")


class _Stored(Protocol):
    engine: Engine


S = TypeVar("S", bound=_Stored)


def patient(act: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """Do what needs a database once it is there: a server that was restarted or out of reach is waited for.

    What is done must be one transaction, and harmless when it is done twice, for the answer to the first may have got lost.

    Raises:
        StorageError: the server is away for too long; or there is no server to wait for, as where a disk is full.
    """

    @functools.wraps(act)
    def waiting(store: S, *args: P.args, **named: P.kwargs) -> T:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return act(store, *args, **named)
            except IntegrityError:
                raise
            except DBAPIError as error:
                if not _may_pass(store.engine, error) or time.monotonic() > end:
                    url = store.engine.url
                    kept = (
                        "what it held is gone with that"
                        if gone(error)
                        else "all that it holds is kept: mend it, then go on with: vittle resume"
                    )
                    raise StorageError(f"storage {shown(url)} cannot be used any more ({reason(error, url)}); {kept}") from None
            time.sleep(AGAIN)

    return cast("Callable[Concatenate[S, P], T]", waiting)


def gone(error: SQLAlchemyError) -> bool:
    """Whether somebody has taken away the tables, or all of the database."""
    return getattr(getattr(error, "orig", None), "sqlstate", None) in GONE or GONE_SAID.search(reason(error)) is not None


def _may_pass(engine: Engine, error: SQLAlchemyError) -> bool:
    """Whether an error is one of a server that is away and may come back."""
    return engine.dialect.name != "sqlite" and isinstance(error, OperationalError) and not gone(error)
