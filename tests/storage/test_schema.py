"""Versions of the tables: every older database is brought up to date, whole or not at all, once, and after a copy."""

import multiprocessing
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, text

from recorded import make_study
from vittle import Schedule, VittleError
from vittle.storage import schema
from vittle.storage.store import Store
from vittle.storage.tables import Base


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'vittle.db'}" if request.param == "sqlite" else request.getfixturevalue("postgres")()


SINCE_0001 = [
    "DROP INDEX ix_trials_candidate",
    "ALTER TABLE trials RENAME COLUMN candidate TO schedule",
    "ALTER TABLE trials RENAME COLUMN candidate_id TO schedule_id",
    "CREATE INDEX ix_trials_schedule ON trials (study_id, schedule_id)",
    "DROP INDEX ix_trials_state",
    "DROP INDEX ix_trials_revision",
    *(
        f"ALTER TABLE studies DROP COLUMN {name}"
        for name in ("ended", "owner", "holder", "heartbeat", "revision", "stop", "kind", "images")
    ),
    *(f"ALTER TABLE trials DROP COLUMN {name}" for name in ("attempts", "revision")),
    "DROP TABLE fronts",
]
"""Takes back what the steps after the first one have made."""


@pytest.fixture
def old(url: str) -> str:
    """A database with a study from before there were versions and why a study ended, and from before `knowledge`."""
    store = Store.open(url, create=True)
    make_study(store, "precious")
    store.start_trial("precious", "backbone", Schedule(), {})
    with store.engine.begin() as connection:
        for statement in ("DROP TABLE alembic_version", "DROP TABLE knowledge", *SINCE_0001):
            connection.execute(text(statement))
    store.engine.dispose()
    return url


def execute(url: str, statement: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def version(url: str) -> str:
    with create_engine(url).connect() as connection:
        return str(connection.scalar(text("SELECT version_num FROM alembic_version")))


def test_the_steps_lead_to_the_tables_that_the_code_has(url: str) -> None:
    store = Store.open(url, create=True)
    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_the_newest_version_is_the_last_step() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_heads() == [schema.NEWEST]


def test_an_old_database_is_brought_up_to_date_when_it_is_opened(old: str) -> None:
    store = Store.open(old)
    assert [(study.name, study.ended, study.kind) for study in store.studies()] == [("precious", None, "inference")]
    assert [trial.schedule for trial in store.trials("precious")] == [Schedule()]
    assert store.merge_start("a") is None
    store.set_state("precious", "complete", "all 40 trials are done")
    assert Store.open(old).study("precious").ended == "all 40 trials are done"
    assert version(old) == schema.NEWEST


def test_a_file_is_copied_before_it_is_changed_and_only_then(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'vittle.db'}"
    make_study(Store.open(url, create=True), "precious")
    assert list(tmp_path.glob("*.backup")) == []
    execute(url, "UPDATE alembic_version SET version_num = '0001'")
    for statement in SINCE_0001:
        execute(url, statement)
    for _ in range(2):
        Store.open(url)
        (copy,) = tmp_path.glob("*.backup")
        assert copy.name == "vittle.db.0001.backup"
    with sqlite3.connect(copy) as connection:
        assert connection.execute("SELECT name FROM studies").fetchall() == [("precious",)]
        assert "ended" not in [column[1] for column in connection.execute("PRAGMA table_info(studies)")]
    connection.close()


def test_a_newer_database_is_refused_and_left_alone(url: str) -> None:
    make_study(Store.open(url, create=True), "precious")
    execute(url, "UPDATE alembic_version SET version_num = '9999'")
    for create in (False, True):
        with pytest.raises(
            VittleError, match=rf"tables of version 9999\); accepted: up to {schema.NEWEST}. Update this one"
        ) as refused:
            Store.open(url, create=create)
        assert "\n" not in str(refused.value)
    assert version(url) == "9999"


def test_an_update_that_fails_changes_nothing(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    migrate: Callable[[object], None] = schema._migrate

    def die(connection: object) -> None:
        migrate(connection)
        raise KeyboardInterrupt

    monkeypatch.setattr(schema, "_migrate", die)
    with pytest.raises(KeyboardInterrupt):
        Store.open(old)
    engine = create_engine(old)
    assert set(inspect(engine).get_table_names()) == {"studies", "trials", "measurements"}
    assert "ended" not in [column["name"] for column in inspect(engine).get_columns("studies")]
    monkeypatch.undo()
    assert [study.name for study in Store.open(old).studies()] == ["precious"]


def opened(url: str) -> list[str]:
    return [study.name for study in Store.open(url).studies()]


def test_who_opens_at_the_same_time_updates_once(old: str) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        assert pool.map(opened, [old] * 4) == [["precious"]] * 4
    assert version(old) == schema.NEWEST


def test_reading_makes_no_tables(url: str, tmp_path: Path) -> None:
    if url.startswith("sqlite"):
        sqlite3.connect(tmp_path / "vittle.db").close()
    with pytest.raises(VittleError, match="no studies in .*; make one with: vittle launch"):
        Store.open(url)
    assert inspect(create_engine(url)).get_table_names() == []
