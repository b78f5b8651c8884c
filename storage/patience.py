"""What a search does while its database is away: wait, where a server may come back; else stop in good order."""

import functools
import time
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar, cast

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, SQLAlchemyError

from vittle.spaces.errors import StorageError

PATIENCE = 300.0  # seconds that a server may be away
AGAIN = 1.0  # seconds between two tries

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
                served = store.engine.dialect.name != "sqlite" and isinstance(error, OperationalError)
                if not served or time.monotonic() > end:
                    shown = store.engine.url.render_as_string(hide_password=True)
                    raise StorageError(
                        f"storage {shown} cannot be used any more ({reason(error)}); all that it holds is kept: "
                        "mend it, then go on with: vittle resume"
                    ) from None
            time.sleep(AGAIN)

    return cast("Callable[Concatenate[S, P], T]", waiting)


def reason(error: SQLAlchemyError) -> str:
    """What a database or its driver says of an error, in one line."""
    return str(getattr(error, "orig", error)).strip().splitlines()[0]
