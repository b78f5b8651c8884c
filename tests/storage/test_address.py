"""URLs of databases: each mistake is one line, and no line shows a password."""

import sys

import pytest
from sqlalchemy import make_url

from refusals import refusal
from vittle import VittleError
from vittle.storage import address
from vittle.storage.store import Store

ACCEPTED = "; accepted: a SQLAlchemy URL such as sqlite:///vittle.db or postgresql+psycopg://user:password@host/database"


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("nonsense", "storage 'nonsense' is not a database"),
        ("studies/vittle.db", "storage 'studies/vittle.db' is not a database"),
        ("postgres://me:SECRET@host/db", "write postgresql+psycopg:// for postgres://"),
        ("postgresql+psycopg://me:SECRET@host:port/db", "has a port that is not a number"),
        ("postgresql+psycopg://me:SECRET@127.0.0.1:99999/db", "invalid port number"),
        ("postgresql+psycopg://me:pass@SECRET@host/db", "has more than one @; write one in a password as %40"),
        ("postgresql+psycopg://me:SECRET", "has a port that is not a number"),
        (
            "postgresql+psycopg://127.0.0.1:1/db?user=me&password=SECRET",
            "cannot open storage postgresql+psycopg://127.0.0.1:1/db (",
        ),
        ("postgresql+psycopg://me:SECRET@127.0.0.1:1/db?sslmode=often", "invalid sslmode value"),
        ("postgresql+psycopg://me:SECRET@127.0.0.1:1/db?nonsense=1", 'invalid connection option "nonsense"'),
        ("postgresql+psycopg://me:SECRET@127.0.0.1:1/db\n", "characters in its name that cannot be printed"),
        ("postgresql+nothing://me:SECRET@host/db", "storage postgresql+nothing://me:***@host/db is not a database"),
        ("oracle9://me:SECRET@host/db", "storage oracle9://me:***@host/db is not a database"),
        ("mysql+pymysql://me:SECRET@host/db", "storage mysql+pymysql://me:***@host/db needs the Python module pymysql"),
        ("sqlite://me:SECRET@host/vittle.db", "storage sqlite://me:***@host/vittle.db is not a database"),
        ("sqlite:///vittle.db?password=SECRET", "argument(s) 'password' are not accepted"),
        ("sqlite:///vittle.db?timeout=soon", "could not convert string to float: 'soon'"),
        ("sqlite:////nowhere/at/all.db", "no folder /nowhere/at"),
        ("sqlite:////proc/vittle.db", "cannot open storage sqlite:////proc/vittle.db ("),
        ("sqlite:////proc", "cannot open storage sqlite:////proc ("),
    ],
)
def test_a_storage_that_cannot_be_opened_is_one_line_without_its_password(
    storage: str, message: str, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VittleError) as refused:
        Store.open(storage, create=True)
    said = str(refused.value)
    assert message in said
    assert said.endswith(ACCEPTED)
    assert "SECRET" not in said
    assert "\n" not in said
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_shows_no_more(monkeypatch, capsys) -> None:
    monkeypatch.setenv("VITTLE_STORAGE", "postgres://me:SECRET@host/db")
    line = refusal(monkeypatch, capsys, "studies")
    assert line.startswith("error: storage 'postgres:...' is of no database that SQLAlchemy knows")


def test_a_driver_that_is_missing_is_named_with_what_brings_it(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(VittleError, match=r'write postgresql\+psycopg://, and pip install "vittle\[postgres\]"'):
        Store.open("postgresql+psycopg://me:SECRET@host/db")
    with pytest.raises(VittleError, match=r"needs the Python module psycopg2; write postgresql\+psycopg://"):
        Store.open("postgresql+psycopg2://me:SECRET@host/db")


@pytest.mark.parametrize(
    ("url", "shown", "text", "hidden"),
    [
        ("postgresql://me:s%40crt@host/db", "postgresql://me:***@host/db", "no s@crt, no s%40crt", "no ***, no ***"),
        (
            "postgresql://host/db?password=s+crt",
            "postgresql://host/db",
            "no s crt, no s+crt, no s%20crt",
            "no ***, no ***, no ***",
        ),
        ("mssql+pyodbc:///?odbc_connect=PWD%3Dx1", "mssql+pyodbc:///", "PWD=x1", "***"),
        ("sqlite:///vittle.db", "sqlite:///vittle.db", "as it is", "as it is"),
    ],
)
def test_what_opens_a_database_is_hidden_wherever_it_stands(url: str, shown: str, text: str, hidden: str) -> None:
    parsed = make_url(url)
    assert address.shown(parsed) == shown
    assert address.hidden(text, parsed) == hidden
    assert bool(address.secrets(parsed)) == (text != hidden)
