"""What pages stay as the study is by: revisions, streams of events, and documents that are made once."""

import http.client
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event, update

from browsing import serving
from dashboard_study import (
    FINGERPRINT,
    Synthetic,
    importance,
    latency_profile,
    made_merge_start,
    open_store,
    repeated,
    sensitivity,
)
from vittle import VittleError
from vittle.dashboards.app import create_app
from vittle.dashboards.documents import study_document
from vittle.dashboards.pages import cache, events
from vittle.dashboards.pages.cache import Watch
from vittle.objectives.measurement import exact
from vittle.storage import rows, transfer
from vittle.storage.holder import Holder
from vittle.storage.store import Store
from vittle.storage.tables import StudyRow, now
from waiting import wait_until

NAME = "live"
TWIN = f"/studies/{NAME}.json"


@pytest.fixture
def study(tmp_path: Path) -> Synthetic:
    made = Synthetic(open_store(tmp_path), NAME)
    made.fill(16, "running")
    return made


@pytest.fixture
def client(study: Synthetic) -> TestClient:
    return TestClient(create_app(study.store), base_url="http://127.0.0.1")


class TestRevisions:
    @pytest.fixture(params=["sqlite", "postgresql"])
    def url(self, request: pytest.FixtureRequest, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path / 'vittle.db'}" if request.param == "sqlite" else request.getfixturevalue("postgres")()

    def test_every_change_is_one_more_and_stamps_its_trial(self, store: Store) -> None:
        made = Synthetic(store, NAME)
        schedule = made.proposal()
        measured = made.latency(schedule, 5)
        number = store.start_trial(NAME, "sampler", schedule, {})
        changes: list[tuple[Callable[[], object], list[int]]] = [
            (lambda: store.retry_trial(NAME, number), [number]),
            (lambda: store.start_trial(NAME, "sampler", schedule, {}), [number + 1]),
            (lambda: store.finish_trial(NAME, number, "complete", measured), [number]),
            (lambda: store.finish_trial(NAME, number, "complete", {"macs": exact("macs", 1)}), [number]),  # late
            (lambda: store.confirm_trial(NAME, number, measured), [number]),
            (lambda: store.keep_again(NAME, number, "elsewhere", measured), [number]),
            (lambda: store.set_state(NAME, "running"), []),
            (lambda: store.set_state(NAME, "interrupted"), [number + 1]),
            (lambda: store.set_state(NAME, "complete", "it is done"), []),
            (lambda: store.set_trials(NAME, 99), []),
            (lambda: store.save_importance(NAME, importance()), []),
            (lambda: store.save_merge_start(made_merge_start()), []),
            (lambda: store.save_sensitivity(sensitivity()), []),
            (lambda: store.save_profile(latency_profile()), []),
        ]
        for place, (change, stamped) in enumerate(changes):
            before, any_before = store.revision(NAME), store.revision()
            change()
            now, trials = store.changes(NAME, before)
            assert (now, store.revision(), [trial.number for trial in trials]) == (before + 2, any_before + 2, stamped), place
            assert trials == [trial for trial in store.trials(NAME) if trial.number in stamped]

    def test_reading_changes_nothing_nor_does_a_change_of_another_study(self, store: Store) -> None:
        Synthetic(store, NAME)
        before = store.revision(NAME), store.revision()
        store.studies(), store.study(NAME), store.trials(NAME), store.merge_start(FINGERPRINT), store.changes(NAME, 0)
        assert (store.revision(NAME), store.revision()) == before
        Synthetic(store, "another")
        store.set_state("another", "failed")
        assert store.revision(NAME) == before[0]
        assert store.revision() > before[1]

    def test_writers_at_the_same_time_each_have_a_revision(self, store: Store) -> None:
        made = Synthetic(store, NAME)
        schedules = [made.proposal() for _ in range(4)]

        def write(schedule: object) -> None:
            for _ in range(5):
                number = store.start_trial(NAME, "sampler", schedule, {})
                store.finish_trial(NAME, number, "failed", reason="none")

        threads = [threading.Thread(target=write, args=(schedule,)) for schedule in schedules]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert store.revision(NAME) == 2 * 40

    def test_what_an_import_brings_is_known_to_the_studies_there(self, store: Store, tmp_path: Path) -> None:
        other = open_store(tmp_path)
        Synthetic(other, "imported")
        other.save_merge_start(made_merge_start())
        Synthetic(store, NAME)
        before = store.revision(NAME)
        transfer.read(store, transfer.write(other, "imported"))
        assert store.revision(NAME) == before + 2

    def test_an_unknown_study_has_none(self, store: Store) -> None:
        with pytest.raises(VittleError, match="no study named 'x'"):
            store.revision("x")
        with pytest.raises(VittleError, match="no study named 'x'"):
            store.set_state("x", "complete")


class TestKept:
    def test_a_twin_is_sent_again_only_when_it_has_changed(self, client: TestClient, study: Synthetic) -> None:
        first = client.get(TWIN)
        assert first.headers["content-encoding"] == "gzip"
        assert first.json()["revision"] == study.store.revision(NAME)
        same = client.get(TWIN, headers={"if-none-match": first.headers["etag"]})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", first.headers["etag"])
        assert "content-security-policy" in same.headers
        number = study.add_best()
        other = client.get(TWIN, headers={"if-none-match": first.headers["etag"]})
        assert (other.status_code, other.json()["best"]["trial"]) == (200, number)
        plain = client.get(TWIN, headers={"accept-encoding": "identity"})
        assert (plain.json(), plain.headers["etag"]) == (other.json(), other.headers["etag"])
        assert "content-encoding" not in plain.headers

    def test_languages_are_kept_apart(self, client: TestClient) -> None:
        assert {client.get(TWIN, headers={"accept-language": code}).status_code for code in ("en", "ja", "en")} == {200}
        assert set(client.app.state.watch._watched[NAME].documents) == {"study en", "study ja"}

    def test_thousands_of_trials_are_read_and_compared_once(
        self, client: TestClient, study: Synthetic, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        repeated(study.store, NAME, 5_000)
        made: Counter[str] = Counter()
        detailed, parse = study_document.detailed, rows._trial
        monkeypatch.setattr(study_document, "detailed", lambda *known: made.update(["twin"]) or detailed(*known))
        monkeypatch.setattr(rows, "_trial", lambda *row, **told: made.update(["trial"]) or parse(*row, **told))
        monkeypatch.setattr(cache, "HEAVY", 1e9)  # a twin is made whenever there is something new
        first = client.get(TWIN)
        assert len(first.json()["trials"]) == 5_000
        with statements(study.store) as asked:
            assert client.get(TWIN).content == first.content
            assert client.get(TWIN, headers={"if-none-match": first.headers["etag"]}).status_code == 304
        assert made == {"twin": 1, "trial": 5_000}
        assert len(asked) == 2  # what the revision is, twice
        number = study.add_best()
        twin = client.get(TWIN).json()
        assert twin["best"]["trial"] == number
        assert made == {"twin": 2, "trial": 5_001}
        another = TestClient(create_app(study.store), base_url="http://127.0.0.1")
        assert twin == another.get(TWIN).json()

    def test_what_takes_long_is_not_made_at_once_again(self, study: Synthetic, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cache, "HEAVY", 0)
        monkeypatch.setattr(cache, "REST", 1e9)
        watch = Watch(study.store)
        first = watch.document(NAME, "number", lambda seen: {"trials": len(seen.trials)})
        study.add_best()
        assert watch.document(NAME, "number", lambda seen: {"trials": len(seen.trials)}) is first
        monkeypatch.setattr(cache, "REST", 0)
        study.add_best()
        again = Watch(study.store)
        kept = [again.document(NAME, "number", lambda seen: {"trials": len(seen.trials)}) for _ in range(2)]
        assert kept[0] is kept[1]
        assert kept[0].revision > first.revision

    def test_an_older_copy_that_is_brought_back_is_read_anew(self, study: Synthetic) -> None:
        watch = Watch(study.store)
        assert len(watch.snapshot(NAME).trials) == 17
        with study.store.engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM vittle_trials WHERE number > 3")
            connection.exec_driver_sql("UPDATE vittle_studies SET revision = 1")
        assert len(watch.snapshot(NAME).trials) == 4

    def test_a_process_that_was_killed_is_seen_though_it_writes_nothing(self, client: TestClient, study: Synthetic) -> None:
        first = client.get(TWIN)
        assert (first.json()["state"], first.json()["counts"]["running"]) == ("running", 1)
        with study.store.transaction() as session:
            killed = str(Holder.here()._replace(started=0.0))
            session.execute(update(StudyRow).where(StudyRow.name == NAME).values(holder=killed, heartbeat=now()))
        again = client.get(TWIN, headers={"if-none-match": first.headers["etag"]}).json()
        assert (again["state"], again["counts"]["interrupted"], "running" in again["counts"]) == ("interrupted", 1, False)
        assert again["revision"] > first.json()["revision"]
        assert client.get("/studies.json").json()["studies"][0]["state"] == "interrupted"

    def test_few_studies_are_kept(self, tmp_path: Path) -> None:
        store = open_store(tmp_path)
        watch = Watch(store)
        for number in range(cache.KEPT + 2):
            Synthetic(store, f"study {number}")
            watch.snapshot(f"study {number}")
        assert list(watch._watched) == [f"study {number}" for number in range(2, cache.KEPT + 2)]


class TestStreams:
    @pytest.fixture(autouse=True)
    def fast(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(events, "POLL", 0.05)

    def test_a_stream_tells_the_revision_and_each_that_follows(self, study: Synthetic) -> None:
        with serving(study.store) as address, listening(f"{address}/studies/{NAME}/events") as heard:
            assert next(heard) == f"retry: {events.RETRY}"
            revision = study.store.revision(NAME)
            assert [next(heard), next(heard)] == [f"id: {revision}", f"data: {revision}"]
            study.store.set_state(NAME, "complete")
            assert [next(heard), next(heard)] == [f"id: {revision + 2}", f"data: {revision + 2}"]

    def test_who_knows_the_revision_is_told_of_the_next_one(self, study: Synthetic) -> None:
        revision = study.store.revision(NAME)
        with serving(study.store) as address, listening(f"{address}/studies/{NAME}/events", str(revision)) as heard:
            next(heard)
            study.store.set_state(NAME, "complete")
            assert next(heard) == f"id: {revision + 2}"

    def test_the_stream_of_the_list_hears_of_new_studies(self, study: Synthetic) -> None:
        with serving(study.store) as address, listening(f"{address}/events") as heard:
            before = [next(heard) for _ in range(3)][1]
            Synthetic(study.store, "new")
            assert next(heard) != before

    def test_silence_is_broken_now_and_then(self, study: Synthetic, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(events, "HEARTBEAT", 0.1)
        with serving(study.store) as address, listening(f"{address}/studies/{NAME}/events") as heard:
            assert [next(heard) for _ in range(5)][3:] == [": still here"] * 2

    def test_streams_end_with_the_server_and_with_their_readers(self, study: Synthetic) -> None:
        server = serving(study.store)
        with server as address:
            streams = server.server.app.state.streams
            with listening(f"{address}/events") as heard:
                next(heard)
                assert streams.open == 1
            wait_until(lambda: streams.open == 0)
            with listening(f"{address}/events") as heard:
                next(heard)
                server.server.should_exit = True
                assert list(heard)[2:] == []
                server.thread.join(10)
                assert not server.thread.is_alive()

    def test_there_are_only_so_many(self, study: Synthetic, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(events, "MOST", 1)
        with serving(study.store) as address, listening(f"{address}/events") as heard:
            next(heard)
            connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
            connection.request("GET", f"/studies/{NAME}/events")
            answer = connection.getresponse()
            assert (answer.status, answer.getheader("retry-after")) == (503, "10")
            connection.close()

    def test_an_unknown_study_is_a_404(self, client: TestClient) -> None:
        answer = client.get("/studies/nope/events")
        assert answer.status_code == 404
        assert "nope" in answer.text


@contextmanager
def listening(url: str, last: str | None = None) -> Iterator[Iterator[str]]:
    """The lines of a stream, without the empty ones."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=30)
    connection.request("GET", parts.path, headers={} if last is None else {"Last-Event-ID": last})
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("content-type")) == (200, "text/event-stream; charset=utf-8")
    yield (line for raw in iter(answer.readline, b"") if (line := raw.decode().strip()))
    answer.close()
    connection.close()


@contextmanager
def statements(store: Store) -> Iterator[list[str]]:
    """The statements that are executed meanwhile."""
    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        seen.append(statement)

    event.listen(store.engine, "after_cursor_execute", note)
    yield seen
    event.remove(store.engine, "after_cursor_execute", note)
