"""What pages read again and again is kept: of a study that changes only the trials that did are read, and a twin is made once.

Everything here is one process's own and can be read again from the store at any time.
"""

import gzip
import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pydantic_core import to_json

from vittle.storage.ranking import Ranking
from vittle.storage.records import Study, Trial
from vittle.storage.store import Store

KEPT = 8  # studies
HEAVY = 0.2  # seconds of a processor; what takes more to make is made at most a fifth of the time
REST = 4.0  # times what it took


class Snapshot(NamedTuple):
    """A study as it was at a revision, or a little later."""

    study: Study
    trials: Ranking
    revision: int


class CachedDocument(NamedTuple):
    """A JSON document that is made already.

    Attributes:
        revision: of the study that it shows.
        etag: of the document, for HTTP.
        body: its bytes, compressed by gzip.
        until: by the monotonic clock; it is good enough until then, whatever has changed.
    """

    revision: int
    etag: str
    body: bytes
    until: float


class Watch:
    """The studies of a store that somebody looks at. Safe to share between threads; each study is read by one at a time."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._lock = threading.Lock()
        self._watched: OrderedDict[str, _Watched] = OrderedDict()

    def snapshot(self, name: str) -> Snapshot:
        """The study of that name with all its trials, as they are now.

        Raises:
            VittleError: there is none.
        """
        watched = self._of(name)
        with watched.lock:
            return watched.read(self.store)

    def document(self, name: str, key: str, make: Callable[[Snapshot], Mapping[str, Any]]) -> CachedDocument:
        """A JSON document about a study, which is made once for each revision.

        Args:
            name: of the study.
            key: which document it is, such as its language.
            make: makes it, should nobody have; `revision` is added to it.

        Raises:
            VittleError: there is no such study.
        """
        watched = self._of(name)
        with watched.lock:
            kept = watched.documents.get(key)
            if kept is not None and time.monotonic() < kept.until:
                return kept
            begin = time.thread_time()
            seen = watched.read(self.store)
            if kept is None or kept.revision != seen.revision:
                kept = watched.documents[key] = _compressed({"revision": seen.revision, **make(seen)}, begin)
            return kept

    def _of(self, name: str) -> "_Watched":
        with self._lock:
            watched = self._watched.setdefault(name, _Watched(name))
            self._watched.move_to_end(name)
            while len(self._watched) > KEPT:
                self._watched.popitem(last=False)
            return watched


class _Watched:
    """One study."""

    def __init__(self, name: str) -> None:
        self.name, self.lock = name, threading.Lock()
        self.seen: Snapshot | None = None
        self.trials: dict[int, Trial] = {}
        self.documents: dict[str, CachedDocument] = {}

    def read(self, store: Store) -> Snapshot:
        """The study as it is now."""
        known = -1 if self.seen is None else self.seen.revision
        now = store.revision(self.name)
        if self.seen is not None and now == known:
            return self.seen
        if now < known:  # a copy from before was brought back
            known, self.trials, self.documents = -1, {}, {}
        revision, changed = store.changes(self.name, known)
        self.trials |= {trial.number: trial for trial in changed}
        study = store.study(self.name)  # after its revision, so that it is no older
        ranking = Ranking.of((self.trials[number] for number in sorted(self.trials)), study.goals)
        self.seen = Snapshot(study, ranking, revision)
        return self.seen


def _compressed(document: Mapping[str, Any], begin: float) -> CachedDocument:
    text = to_json(document)
    revision = document["revision"]
    etag = f'W/"{revision}.{hashlib.sha256(text).hexdigest()[:12]}"'
    body = gzip.compress(text, 1, mtime=0)
    took, now = time.thread_time() - begin, time.monotonic()
    return CachedDocument(revision, etag, body, now + REST * took if took > HEAVY else now)
