"""One process at a time runs a study."""

import subprocess
import sys
import threading
import time
from datetime import timedelta

import pytest
from sqlalchemy import update
from typer.testing import CliRunner

import vittle.cli.commands
from recorded import coordinate, make_study
from refusals import refusal
from vittle import Schedule, VittleError
from vittle.spaces.errors import StorageError
from vittle.storage import claim
from vittle.storage.claim import claimed
from vittle.storage.holder import LEASE, Holder
from vittle.storage.store import Store
from vittle.storage.tables import StudyRow, in_utc, now
from waiting import wait_until


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path) -> str:
    return f"sqlite:///{tmp_path / 'vittle.db'}" if request.param == "sqlite" else request.getfixturevalue("postgres")()


def hold(store: Store, study: str, holder: Holder, ago: float = 0.0) -> None:
    with store.transaction() as session:
        heard = now() - timedelta(seconds=ago)
        session.execute(update(StudyRow).where(StudyRow.name == study).values(holder=str(holder), heartbeat=heard))


def held(store: Store, study: str = "study") -> Holder | None:
    with store.transaction() as session:
        text = store.row(session, study).holder
    return None if text is None else Holder.parse(text)


ELSEWHERE = Holder("mia@lab", "node 7", 4711, 1.5)


def test_a_study_is_held_while_it_runs_and_given_back(store) -> None:
    make_study(store)
    make_study(store, "another")
    with claimed(store, "study"), claimed(store, "another"):
        assert held(store) == held(store, "another") == Holder.here()
    assert held(store) is None
    with pytest.raises(ZeroDivisionError), claimed(store, "study"):
        raise ZeroDivisionError
    assert held(store) is None


def test_who_finds_it_claimed_is_told_by_whom(store) -> None:
    make_study(store)
    hold(store, "study", ELSEWHERE, ago=12)
    with pytest.raises(VittleError) as refused, claimed(store, "study"):
        raise AssertionError
    assert str(refused.value).startswith("study 'study' is being run by mia@lab on node 7 (process 4711, heard of 12 s ago)")
    assert held(store) == ELSEWHERE


def test_a_claim_of_which_nothing_was_heard_for_long_is_taken_over(store) -> None:
    make_study(store)
    hold(store, "study", ELSEWHERE, ago=LEASE + 1)
    with claimed(store, "study"):
        assert held(store) == Holder.here()


def test_a_claim_of_a_process_that_is_gone_is_taken_over_at_once(store) -> None:
    make_study(store)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    me = Holder.here()
    assert me._replace(process=ended.pid).gone
    assert me._replace(started=me.started - 100).gone  # an earlier process with the same number
    assert not me.gone
    assert not ELSEWHERE.gone
    hold(store, "study", me._replace(process=ended.pid))
    with claimed(store, "study"):
        assert held(store) == me


def test_one_of_many_gets_it(store, url) -> None:
    make_study(store)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDING, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "mine\n"
        with pytest.raises(VittleError, match=rf"process {other.pid}, heard of"), claimed(store, "study"):
            raise AssertionError
        other.kill()
    with claimed(store, "study"):
        assert held(store) == Holder.here()


HOLDING = """
import sys
from vittle.storage.claim import claimed
from vittle.storage.store import Store
with claimed(Store.open(sys.argv[1]), "study"):
    print("mine", flush=True)
    sys.stdin.readline()
"""


def test_the_holder_says_that_it_is_there_and_hears_when_it_lost_its_claim(store, monkeypatch) -> None:
    monkeypatch.setattr(claim, "BEAT", 0.02)
    make_study(store)
    lost = threading.Event()
    with claimed(store, "study", lost.set):
        hold(store, "study", Holder.here(), ago=50)
        wait_until(lambda: heard(store) > now() - timedelta(seconds=10), 20, 0.01)
        assert not lost.is_set()
        hold(store, "study", ELSEWHERE)
        assert lost.wait(20)
    assert held(store) == ELSEWHERE  # it is not this one's to give back


def test_whoever_runs_a_study_is_asked_to_stop_once_and_goes_on_saying_that_it_is_there(store, monkeypatch) -> None:
    monkeypatch.setattr(claim, "BEAT", 0.1)
    monkeypatch.setattr(claim, "LOOK", 0.02)
    make_study(store)
    make_study(store, "another")
    asked: list[str] = []
    stopped = threading.Event()

    def stop() -> None:
        asked.append("study")
        stopped.set()

    with (
        claimed(store, "study", stopped=stop),
        claimed(store, "another", stopped=lambda: asked.append("another")),
    ):
        assert claim.holder(store, "study") == Holder.here()
        assert claim.stop(store, "study") == Holder.here()
        assert stopped.wait(20)
        hold(store, "study", Holder.here(), ago=50)
        wait_until(lambda: heard(store) > now() - timedelta(seconds=10), 20, 0.01)
    assert asked == ["study"]
    with claimed(store, "study", stopped=stop):  # begun anew, it does not stop
        time.sleep(0.2)
    assert asked == ["study"]


def test_a_wish_that_a_dead_holder_left_is_cleared_when_the_study_is_run_again(store, monkeypatch) -> None:
    monkeypatch.setattr(claim, "LOOK", 0.02)
    make_study(store)
    hold(store, "study", ELSEWHERE)
    assert claim.stop(store, "study") == ELSEWHERE
    hold(store, "study", ELSEWHERE, ago=LEASE + 1)
    asked = threading.Event()
    with claimed(store, "study", stopped=asked.set):
        assert not asked.wait(0.2)


def test_a_study_that_nobody_runs_cannot_be_stopped_and_its_state_is_told(store) -> None:
    make_study(store)
    with pytest.raises(VittleError, match="no study named 'x'; there are: study"):
        claim.stop(store, "x")
    gone = "nobody runs study 'study': its process is gone; go on with: vittle resume"
    for holder, ago in ((None, 0.0), (ELSEWHERE, LEASE + 1), (Holder.here()._replace(started=0.0), 0.0)):
        if holder is not None:
            hold(store, "study", holder, ago)
        assert claim.holder(store, "study") is None
        with pytest.raises(VittleError, match=gone):
            claim.stop(store, "study")
    store.set_state("study", "complete", "all done")
    with pytest.raises(VittleError, match="nobody runs study 'study': it is complete"):
        claim.stop(store, "study")


def states(store: Store) -> tuple[str, str, list[str]]:
    """Of the study, as it is listed and alone, and of its trials."""
    (listed,) = store.studies()
    return listed.state, store.study("study").state, [trial.state for trial in store.trials("study")]


def test_what_a_killed_process_left_is_interrupted_and_counts_when_it_is_begun_again(store) -> None:
    make_study(store)
    store.start_trial("study", "backbone", Schedule(), {})
    running, interrupted = ("running", "running", ["running"]), ("interrupted", "interrupted", ["interrupted"])
    assert states(store) == running  # it has not begun yet
    for holder, ago, seen in (
        (Holder.here(), 0.0, running),
        (Holder.here()._replace(started=0.0), 0.0, interrupted),
        (ELSEWHERE, 0.0, running),
        (ELSEWHERE, LEASE + 1, interrupted),
    ):
        before, any_before = store.revision("study"), store.revision()
        hold(store, "study", holder, ago)
        assert states(store) == seen, holder
        assert store.revision("study") == before // 2 * 2 + (seen is interrupted)
        assert store.revision() - any_before == store.revision("study") - before
        if (store.revision("study") - before) % 2:  # pages hear of it though nothing was written
            assert [trial.state for trial in store.changes("study", before).trials] == seen[2]
        assert store.changes("study", store.revision("study")).trials == []
    store.set_trials("study", 50)  # as `vittle extend` does before it goes on
    assert states(store) == interrupted
    with claimed(store, "study"):
        store.set_state("study", "running")
        assert states(store) == running  # until whoever goes on begins it again, or gives it up
        coordinate(store.study("study"), store).next()
        assert [trial.attempts for trial in store.trials("study")] == [2]


def test_where_the_database_is_gone_the_run_is_ended_and_says_so_once(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(claim, "LOOK", 0.02)
    file = tmp_path / "vittle.db"
    store = Store.open(f"sqlite:///{file}", create=True)
    make_study(store)
    ended = threading.Event()
    with claimed(store, "study", stopped=ended.set):
        assert not ended.wait(0.2)
        file.unlink()
        assert ended.wait(20)
        with pytest.raises(StorageError, match="was deleted or moved"):
            store.set_state("study", "interrupted")
    assert not file.exists()


def test_vittle_stop_waits_for_the_end_and_says_how_to_go_on(store, url) -> None:
    make_study(store)
    command = ["stop", "study", "--storage", url]
    with subprocess.Popen([sys.executable, "-c", STOPPABLE, url], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "mine\n"
        told = CliRunner().invoke(vittle.cli.app, command)
        assert (told.exit_code, " ".join(told.stdout.split())) == (
            0,
            "study study is interrupted; go on with: vittle resume study",
        )
        assert other.wait(60) == 0
    hold(store, "study", ELSEWHERE)  # does not look
    told = CliRunner().invoke(vittle.cli.app, [*command, "--wait", "0.1s"])
    assert (told.exit_code, told.stdout) == (1, "")
    assert "study study was asked to stop and has not ended yet" in told.stderr


def test_vittle_stop_of_what_does_not_run_is_one_line(store, url, monkeypatch, capsys) -> None:
    make_study(store)
    store.set_state("study", "complete")
    line = refusal(monkeypatch, capsys, "stop", "study", "--storage", url)
    assert line == "error: nobody runs study 'study': it is complete"
    assert "time limit 'soon' is not a time" in refusal(monkeypatch, capsys, "stop", "--wait", "soon", "--storage", url)


STOPPABLE = """
import sys, threading
from vittle.storage.claim import claimed
from vittle.storage.store import Store
store, asked = Store.open(sys.argv[1]), threading.Event()
with claimed(store, "study", stopped=asked.set):
    print("mine", flush=True)
    asked.wait()
    store.set_state("study", "interrupted")
"""


def heard(store: Store):
    with store.transaction() as session:
        return in_utc(store.row(session, "study").heartbeat)
