"""Where a database is: URLs as users give them, each mistake told in one line, and never shown with what opens them."""

import re
import warnings
from pathlib import Path
from urllib.parse import quote, quote_plus

from platformdirs import user_data_path
from pydantic_core import from_json
from sqlalchemy import URL, Engine, create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SAWarning, SQLAlchemyError

from vittle.spaces.errors import VittleError

ACCEPTED = "a SQLAlchemy URL such as sqlite:///vittle.db or postgresql+psycopg://user:password@host/database"
SECRET = re.compile("pass|pwd|secret|token|key|odbc_connect", re.IGNORECASE)  # in the name of an option of a URL
HARMLESS = re.compile(r"[\w./\\ -]*")  # a path or a word, which can hold no password
POSTGRES = "postgresql+psycopg"  # with the driver that `vittle[postgres]` brings


def default_url() -> str:
    """SQLite in the user's data folder."""
    return f"sqlite:///{user_data_path('vittle') / 'vittle.db'}"


def parse(text: str) -> URL:
    """Read a URL.

    Raises:
        VittleError: it is none; the message shows nothing of it that may be a password.
    """
    try:
        url = make_url(text)
    except SQLAlchemyError:
        raise _refused(text, "is not a database") from None
    except ValueError:
        raise _refused(text, "has a port that is not a number") from None
    if "@" in (url.host or ""):  # what follows the first one was meant to be of the password
        raise _refused(text, "has more than one @; write one in a password as %40")
    if url.drivername == "postgres":
        raise _refused(text, f"is of no database that SQLAlchemy knows; write {POSTGRES}:// for postgres://")
    if not (url.database or "").isprintable():
        raise _refused(text, "has characters in its name that cannot be printed")
    return url


def make_engine(url: URL) -> Engine:
    """Connections to it, none of them made yet.

    Raises:
        VittleError: there is no such dialect, its driver is not installed, or it does not know one of the options.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", SAWarning)  # of options that would be passed over
            # A connection may have died since it was used; documents are most of what is read.
            return create_engine(url, pool_pre_ping=True, json_deserializer=from_json)
    except ImportError as error:
        module = error.name or url.get_driver_name()
        how = f"accepted: {ACCEPTED}"
        if url.get_backend_name() == "postgresql":
            how = f'write {POSTGRES}://, and pip install "vittle[postgres]"'
        raise VittleError(f"storage {shown(url)} needs the Python module {module}; {how}") from None
    except (SQLAlchemyError, TypeError, ValueError, SAWarning) as error:
        raise VittleError(f"storage {shown(url)} is not a database ({reason(error, url)}); accepted: {ACCEPTED}") from None


def shown(url: URL) -> str:
    """A URL for everybody's eyes: without its password, and without its options, which can hold one."""
    return url.set(query={}).render_as_string(hide_password=True)


def secrets(url: URL) -> list[str]:
    """What of a URL nobody should see, as it is and as it is written in URLs."""
    options = [value for name, values in url.normalized_query.items() if SECRET.search(name) for value in values]
    plain = [one for one in (None if url.password is None else str(url.password), *options) if one]
    return list(dict.fromkeys(form for one in plain for form in (one, quote_plus(one), quote(one))))


def hidden(text: str, url: URL) -> str:
    """A text in which none of a URL's secrets stands."""
    for secret in sorted(secrets(url), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def reason(error: BaseException, url: URL | None = None) -> str:
    """What a database or its driver says of an error, in one line without the secrets of its URL."""
    said = (str(getattr(error, "orig", error)).strip().splitlines() or [type(error).__name__])[0]
    said = " ".join(said.partition(" (Background on")[0].split())  # SQLAlchemy's word for where its documentation has more
    return said if url is None else hidden(said, url)


def file_of(url: URL) -> Path | None:
    """The file of a SQLite database; None where it is none, or in memory."""
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:") or url.query.get("uri") == "true":
        return None
    return Path(str(url.database))


def _refused(text: str, why: str) -> VittleError:
    seen = text if HARMLESS.fullmatch(text) else re.split("[:@]", text, maxsplit=1)[0] + ":..."
    return VittleError(f"storage {seen!r} {why}; accepted: {ACCEPTED}")
