"""Versions of the tables: every older database is brought up to date, whole or not at all, once, and after a copy."""

import contextlib
import multiprocessing
import sqlite3
import warnings
from collections.abc import Callable
from pathlib import Path

import optuna
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


SINCE_0007 = [
    *(f"ALTER TABLE vittle_{name} RENAME TO {name}" for name in ("studies", "trials", "measurements", "fronts", "knowledge")),
    *(f"DROP INDEX ix_vittle_trials_{name}" for name in ("candidate", "state", "revision")),
    "CREATE INDEX ix_trials_candidate ON trials (study_id, candidate_id)",
    "CREATE INDEX ix_trials_state ON trials (study_id, state)",
    "CREATE INDEX ix_trials_revision ON trials (study_id, revision)",
    "ALTER TABLE studies DROP COLUMN images",
    "DROP TABLE vittle_version",
    "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))",
    "INSERT INTO alembic_version VALUES ('0007')",
]
SINCE_0001 = [
    *SINCE_0007,
    "DROP INDEX ix_trials_candidate",
    "ALTER TABLE trials RENAME COLUMN candidate TO schedule",
    "ALTER TABLE trials RENAME COLUMN candidate_id TO schedule_id",
    "CREATE INDEX ix_trials_schedule ON trials (study_id, schedule_id)",
    "DROP INDEX ix_trials_state",
    "DROP INDEX ix_trials_revision",
    *(
        f"ALTER TABLE studies DROP COLUMN {name}"
        for name in ("ended", "owner", "holder", "heartbeat", "revision", "stop", "kind")
    ),
    *(f"ALTER TABLE trials DROP COLUMN {name}" for name in ("attempts", "revision")),
    "DROP TABLE fronts",
    "UPDATE alembic_version SET version_num = '0001'",
]
"""Take back what the steps after these versions have made."""


@pytest.fixture
def old(url: str) -> str:
    """A database with a study from before there were versions and why a study ended, and from before `knowledge`."""
    store = Store.open(url, create=True)
    make_study(store, "precious")
    store.start_trial("precious", "backbone", Schedule(), {})
    with store.engine.begin() as connection:
        for statement in (*SINCE_0001, "DROP TABLE alembic_version", "DROP TABLE knowledge"):
            connection.execute(text(statement))
    store.engine.dispose()
    return url


def execute(url: str, statement: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def version(url: str) -> str:
    (found,) = versions(url, "vittle_version")
    return found


def versions(url: str, table: str) -> list[str]:
    engine = create_engine(url)
    with engine.connect() as connection:
        found = list(connection.scalars(text(f"SELECT version_num FROM {table}")))
    engine.dispose()
    return found


def differences(url: str) -> list[object]:
    """Between the tables that there are and those that the code has."""
    engine = create_engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "version_table": schema.VERSIONS})
        found = compare_metadata(context, Base.metadata)
    engine.dispose()
    return found


def test_new_tables_are_what_the_code_has(url: str) -> None:
    Store.open(url, create=True)
    assert differences(url) == []


def test_the_steps_lead_to_the_tables_that_the_code_has(url: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        schema._alembic(connection, "upgrade", "head")
    engine.dispose()
    assert differences(url) == []
    assert version(url) == schema.NEWEST


def test_the_version_moves_to_a_table_of_our_own_and_what_an_ended_search_left_is_interrupted(url: str) -> None:
    store = Store.open(url, create=True)
    for name in ("killed", "stopped"):
        make_study(store, name)
        store.start_trial(name, "backbone", Schedule(), {})
    with store.engine.begin() as connection:
        connection.execute(text("UPDATE vittle_studies SET state = 'interrupted' WHERE name = 'stopped'"))
        for statement in SINCE_0007:
            connection.execute(text(statement))
    store.engine.dispose()
    store = Store.open(url)
    assert [store.trials(name)[0].state for name in ("killed", "stopped")] == ["running", "interrupted"]
    assert set(inspect(store.engine).get_table_names()) == {*Base.metadata.tables, schema.VERSIONS}
    assert differences(url) == []


@pytest.mark.parametrize("first", ["vittle", "optuna"])
def test_a_database_may_be_optunas_too(url: str, first: str) -> None:
    """Its tables are called studies and trials, and Alembic's version table is its own, whoever came first."""
    if first == "vittle":
        make_study(Store.open(url, create=True), "precious")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Optuna's own
        theirs = optuna.create_study(storage=url, study_name="theirs")
        theirs.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
        with pytest.raises(VittleError, match="no studies in") if first == "optuna" else contextlib.nullcontext():
            Store.open(url)
        if first == "optuna":
            make_study(Store.open(url, create=True), "precious")
        assert [study.name for study in Store.open(url).studies()] == ["precious"]
        assert len(optuna.load_study(storage=url, study_name="theirs").trials) == 2
    assert version(url) == schema.NEWEST


def test_another_programs_version_is_left_alone_whatever_it_says(url: str) -> None:
    execute(url, "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
    for theirs in ("867495a8f9d4", "0003"):  # MLflow's, and of a program that counts as we do
        execute(url, "DELETE FROM alembic_version")
        execute(url, f"INSERT INTO alembic_version VALUES ('{theirs}')")
        make_study(Store.open(url, create=True), f"beside {theirs}")
        assert versions(url, "alembic_version") == [theirs]
    assert version(url) == schema.NEWEST
    assert len(Store.open(url).studies()) == 2


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
    execute(url, "UPDATE vittle_version SET version_num = '9999'")
    for create in (False, True):
        with pytest.raises(
            VittleError, match=rf"tables of version 9999\); accepted: up to {schema.NEWEST}. Update this one"
        ) as refused:
            Store.open(url, create=create)
        assert "\n" not in str(refused.value)
    assert version(url) == "9999"


def test_an_update_that_fails_changes_nothing(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    migrate: Callable[[object, str], None] = schema._migrate

    def die(connection: object, version: str) -> None:
        migrate(connection, version)
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
