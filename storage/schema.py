"""Which version the tables of a database have, and how they come to this one's: whenever a store is opened.

Versions are the steps in `migrations/versions`, run by Alembic in one transaction, so that an update happens whole or not at
all, and once however many processes open the database. A SQLite file is copied before it is changed.

Tables are called after this project, that of the version too, so that a database may be another program's as well: Optuna's
has studies and trials, and Alembic's own table is Optuna's or MLflow's where they were first.
"""

import contextlib
import sqlite3
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.exc import NoSuchTableError

from vittle.spaces.errors import VittleError
from vittle.storage.tables import Base

NEWEST = "0009"
VERSIONS = "vittle_version"
BEFORE = "alembic_version"  # where versions up to 0007 are, of databases that nobody else uses
OURS = tuple(f"{number:04}" for number in range(1, 8))
STUDIES = {"id", "name", "state", "settings", "backbone", "created"}  # columns of the table `studies` up to 0007
LOCK = 0x766974746C65  # of PostgreSQL: anything that nobody else uses


def update(engine: Engine, *, create: bool = False) -> bool:
    """Bring a database to the newest version.

    Args:
        engine: of the database.
        create: make the tables where there are none.

    Returns:
        Whether the database has tables.

    Raises:
        VittleError: it is of a newer version than this.
        SQLAlchemyError: it cannot be reached, or not be written to where it has to be.
    """
    with engine.connect() as connection:
        version = _version(connection)
    if version == NEWEST:
        return True
    if version is None and not create:
        return False
    with engine.connect() as connection:
        _alone(connection)
        version = _version(connection)  # somebody else may have been first
        if version is None:
            _make(connection)
        elif version != NEWEST:
            _check(version)
            _keep_a_copy(engine, version)
            _migrate(connection, version)
        connection.commit()
    return True


def _version(connection: Connection) -> str | None:
    """The version of the tables; "0000" of those from before there were any, None where there are no tables."""
    seen = inspect(connection)
    there = seen.get_table_names()
    if VERSIONS in there:
        version: str | None = connection.scalar(text(f"SELECT version_num FROM {VERSIONS}"))
        return version
    if "studies" not in there:
        return None
    try:
        columns = {column["name"] for column in seen.get_columns("studies")}
    except NoSuchTableError:  # somebody updates just now; once they have, it is read anew
        return "0000"
    if not columns >= STUDIES:
        return None
    before = connection.scalars(text(f"SELECT version_num FROM {BEFORE}")).all() if BEFORE in there else []
    return before[0] if len(before) == 1 and before[0] in OURS else "0000"


def _check(version: str) -> None:
    if version > NEWEST:
        raise VittleError(
            f"the database was written by a newer vittle (tables of version {version}); accepted: up to {NEWEST}. "
            "Update this one with: pip install --upgrade vittle"
        )


def _alone(connection: Connection) -> None:
    """Wait until nobody else updates, and keep others waiting until the transaction ends."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    elif connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})


def _keep_a_copy(engine: Engine, version: str) -> None:
    """Copy a SQLite file as it is now to `NAME.VERSION.backup` beside it; other databases have backups of their own."""
    database = engine.url.database
    if engine.dialect.name != "sqlite" or database in (None, "", ":memory:"):
        return
    source, copy = Path(str(database)), Path(f"{database}.{version}.backup")
    with contextlib.closing(sqlite3.connect(source)) as before, contextlib.closing(sqlite3.connect(copy)) as after:
        before.backup(after)


def _make(connection: Connection) -> None:
    """The tables as they are now, in a database that has none of them, whatever else it has."""
    Base.metadata.create_all(connection)
    _alembic(connection, "stamp", "head")


def _migrate(connection: Connection, version: str) -> None:
    """Take the steps from a version to the newest."""
    if version in OURS:
        _alembic(connection, "stamp", version)
        connection.execute(text(f"DROP TABLE {BEFORE}"))
    _alembic(connection, "upgrade", "head")


def _alembic(connection: Connection, what: Literal["stamp", "upgrade"], version: str) -> None:
    from alembic import command  # here, because most databases are up to date, and it takes a while to import
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    attributes: dict[str, Any] = config.attributes
    attributes["connection"], attributes["versions"] = connection, VERSIONS
    {"stamp": command.stamp, "upgrade": command.upgrade}[what](config, version)
