"""Who runs a study: one process at a time, so that the database has one writer for each.

A process claims a study before it writes and says again and again that it is still there. Whoever finds the study claimed is
refused and told by whom. A claim ends when its holder gives it back, when it has not been heard of for `LEASE` seconds, and at
once where it is of this machine and its process is gone. Whoever wants the study to stop writes that down, and its holder, who
may be on another machine, looks for it.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta

from sqlalchemy import Update, or_, select, update
from sqlalchemy.exc import SQLAlchemyError

from vittle.spaces.errors import StorageError, VittleError
from vittle.storage.holder import LEASE, Holder, silent
from vittle.storage.patience import gone
from vittle.storage.store import Store
from vittle.storage.tables import StudyRow, in_utc, now

BEAT = 10.0  # seconds between two words
LOOK = 1.0  # seconds between two looks at whether the study is to stop


@contextmanager
def claimed(
    store: Store, study: str, lost: Callable[[], None] = lambda: None, stopped: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Run a study, and nobody else does.

    Args:
        store: of the study.
        study: its name.
        lost: called from another thread, once, should somebody else have claimed it because nothing was heard of this process.
        stopped: called from another thread, once, where somebody asks for the study to stop.

    Raises:
        VittleError: it is claimed; the message says by whom.
    """
    me = Holder.here()
    _claim(store, study, me)
    done = threading.Event()

    def beat() -> None:
        heard, stopping = time.monotonic(), False
        while not done.wait(min(LOOK, BEAT)):
            try:
                if time.monotonic() - heard >= BEAT:
                    heard = time.monotonic()
                    if not _beat(store, study, me):
                        lost()
                        return
                asked = not stopping and _asked_to_stop(store, study, me)
            except (SQLAlchemyError, VittleError) as error:
                if isinstance(error, SQLAlchemyError) and not gone(error):
                    continue  # the database is away; whether the claim outlived that shows when it is back
                stopped()  # whoever runs the study finds the same when it says how far it came
                return
            if asked:
                stopping = True
                stopped()

    beating = threading.Thread(target=beat, name=f"claim of {study}", daemon=True)
    beating.start()
    try:
        with nullcontext() if store.file is None else store.file.rescued():
            yield
    finally:
        done.set()
        beating.join()
        # Where that fails the claim ends by itself.
        with contextlib.suppress(SQLAlchemyError, StorageError), store.transaction() as session:
            session.execute(_of(study, me).values(holder=None, heartbeat=None, stop=None))


def holder(store: Store, study: str) -> Holder | None:
    """Who runs a study now; None where nobody does."""
    with store.transaction() as session:
        row = store.row(session, study)
        text, heard = row.holder, row.heartbeat
    if text is None or heard is None or silent(heard):
        return None
    found = Holder.parse(text)
    return None if found.gone else found


def stop(store: Store, study: str) -> Holder:
    """Ask whoever runs a study to stop it, as by Ctrl-C; they look every second. Returns who that is.

    Raises:
        VittleError: nobody runs it; the message says its state.
    """
    running = holder(store, study)
    if running is not None:
        with store.transaction() as session:
            asked = session.execute(_of(study, running).values(stop=now()))
            if asked.rowcount == 1:  # type: ignore[attr-defined]
                return running
    with store.transaction() as session:
        state = store.row(session, study).state
    gone = "its process is gone; go on with: vittle resume" if state == "running" else f"it is {state}"
    raise VittleError(f"nobody runs study {study!r}: {gone}")


def _asked_to_stop(store: Store, study: str, me: Holder) -> bool:
    with store.transaction() as session:
        wish = select(StudyRow.stop).where(StudyRow.name == study, StudyRow.holder == str(me))
        return session.scalar(wish) is not None


def _claim(store: Store, study: str, me: Holder) -> None:
    with store.transaction() as session:
        held = store.row(session, study).holder
    free = [StudyRow.holder.is_(None), StudyRow.heartbeat < now() - timedelta(seconds=LEASE)]
    if held is not None and (held == str(me) or Holder.parse(held).gone):
        free.append(StudyRow.holder == held)
    with store.transaction() as session:
        taken = session.execute(
            update(StudyRow).where(StudyRow.name == study, or_(*free)).values(holder=str(me), heartbeat=now(), stop=None)
        )
        if taken.rowcount == 1:  # type: ignore[attr-defined]
            return
        row = store.row(session, study)
        held, heard = row.holder, row.heartbeat
    other = Holder.parse(str(held))
    ago = max(0.0, (now() - in_utc(heard)).total_seconds()) if heard else 0.0
    raise VittleError(
        f"study {study!r} is being run by {other.user} on {other.host} (process {other.process}, heard of {ago:.0f} s ago); "
        "wait for it, end it there, or give another --study"
    )


def _beat(store: Store, study: str, me: Holder) -> bool:
    """Say that it is still there; whether the claim is still its own."""
    with store.transaction() as session:
        heard = session.execute(_of(study, me).values(heartbeat=now()))
        return bool(heard.rowcount == 1)  # type: ignore[attr-defined]


def _of(study: str, me: Holder) -> Update:
    return update(StudyRow).where(StudyRow.name == study, StudyRow.holder == str(me))
