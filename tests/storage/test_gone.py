"""A database that somebody takes away while it is used: noticed at once, and told as it is."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url, text

from recorded import make_study
from vittle import Schedule
from vittle.spaces.errors import StorageError
from vittle.storage import patience
from vittle.storage.claim import claimed
from vittle.storage.store import Store

LOST = "nothing can be written any more; what was written last may be kept nowhere"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "vittle.db"


@pytest.fixture
def used(file: Path) -> Store:
    """A store with a study, whose connections stay open."""
    store = Store.open(f"sqlite:///{file}", create=True)
    make_study(store)
    return store


def delete(file: Path) -> None:
    file.unlink()


def move(file: Path) -> None:
    file.rename(file.with_suffix(".moved"))


def replace(file: Path) -> None:
    shutil.copy(file, copy := file.with_suffix(".copy"))
    os.replace(copy, file)


@pytest.mark.parametrize(
    ("take", "said"),
    [(delete, "was deleted or moved"), (move, "was deleted or moved"), (replace, "another file is at")],
)
def test_a_file_that_is_no_longer_the_one_that_was_opened(
    used: Store, file: Path, take: Callable[[Path], None], said: str
) -> None:
    take(file)
    there = set(file.parent.glob("vittle.db"))
    for act in (
        lambda: used.start_trial("study", "backbone", Schedule(), {}),
        lambda: used.set_state("study", "complete"),
        lambda: used.trials("study"),
    ):
        with pytest.raises(StorageError, match=said) as told:
            act()
        assert LOST in str(told.value)
        assert str(file) in str(told.value)
    used.engine.dispose()  # nor does a new connection make a new file
    with pytest.raises(StorageError, match=said):
        used.studies()
    assert set(file.parent.glob("vittle.db")) == there


@pytest.mark.parametrize("take", [delete, move, replace])
def test_what_a_search_wrote_is_rescued_once(used: Store, file: Path, take: Callable[[Path], None]) -> None:
    with claimed(used, "study"):
        trial = used.start_trial("study", "backbone", Schedule(), {})
        Path(f"{file}.rescued1").touch()  # there is one from before
        take(file)
        for _ in range(2):
            with pytest.raises(StorageError, match=f"all that it held is kept in {file}.rescued2; go on with: ") as told:
                used.set_state("study", "interrupted")
    _, _, rescued = str(told.value).rpartition("vittle resume --storage ")
    kept = Store.open(rescued)
    assert [one.number for one in kept.trials("study")] == [trial]
    with claimed(kept, "study"):
        assert kept.finish_trial("study", trial, "failed", reason="out of memory")
    assert not Path(f"{file}.rescued3").exists()


def test_tables_that_are_dropped_are_not_said_to_be_kept(used: Store) -> None:
    with used.engine.begin() as connection:
        connection.execute(text("DROP TABLE vittle_measurements"))
        connection.execute(text("DROP TABLE vittle_trials"))
    with pytest.raises(StorageError, match=r"\(no such table: vittle_trials\); what it held is gone with that"):
        used.start_trial("study", "backbone", Schedule(), {})


def test_a_schema_or_a_database_that_is_dropped_is_not_waited_for(postgres: Callable[[], str], monkeypatch) -> None:
    monkeypatch.setattr(patience, "AGAIN", 0.01)
    url = postgres()
    store = Store.open(url, create=True)
    make_study(store)
    administer(url, "DROP SCHEMA public CASCADE")
    with pytest.raises(StorageError, match="vittle_studies.* does not exist.*; what it held is gone with that"):
        store.set_state("study", "complete")
    administer(make_url(url).set(database="postgres"), f"DROP DATABASE {make_url(url).database} WITH (FORCE)")
    with pytest.raises(StorageError, match="does not exist.*; what it held is gone with that"):
        store.set_state("study", "complete")


def administer(url: object, statement: str) -> None:
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute(statement)
