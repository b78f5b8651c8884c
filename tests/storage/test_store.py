"""What any store does, over a SQLite file and over a real PostgreSQL."""

import threading
from dataclasses import replace

import pytest
from sqlalchemy import create_engine, text

from rankings import ranked
from recorded import BACKBONE, make_study, outcome
from vittle import Schedule, VittleError
from vittle.objectives.backbones.merge_start import BlockCurve, MergeStart
from vittle.spaces import Merging
from vittle.storage.export import document, front_entry, to_yaml
from vittle.storage.fronts import standing
from vittle.storage.settings import Settings
from vittle.storage.store import Store

SCHEDULE = Schedule((Merging(kept=tuple(range(60, 0, -5))),), "prefix")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path) -> str:
    return f"sqlite:///{tmp_path / 'vittle.db'}" if request.param == "sqlite" else request.getfixturevalue("postgres")()


def test_everything_comes_back_as_it_was_written(store, url) -> None:
    study = make_study(store, trials=7, latency_budget="5ms", reductions=("merging",))
    number = store.start_trial("study", "start", SCHEDULE, {"merging.end": 0.3})
    measured = outcome(SCHEDULE, study.settings).measurements
    store.finish_trial("study", number, "complete", measured)
    store.confirm_trial("study", number, measured)
    again = Store.open(url)
    assert again.study("study") == study
    (trial,) = again.trials("study")
    assert (trial.number, trial.state, trial.origin, trial.schedule) == (0, "complete", "start", SCHEDULE)
    assert trial.parameters == {"merging.end": 0.3}
    assert trial.measurements == {"search": measured, "confirmation": measured}
    assert trial.seconds is not None


def test_numbers_count_up_within_each_study(store) -> None:
    make_study(store, "a")
    make_study(store, "b")
    assert [store.start_trial(name, "start", SCHEDULE, {}) for name in ("a", "a", "b")] == [0, 1, 0]


def test_a_trial_ends_once(store) -> None:
    study = make_study(store)
    number = store.start_trial("study", "start", SCHEDULE, {})
    assert store.finish_trial("study", number, "failed", reason="out of memory")
    assert not store.finish_trial("study", number, "complete", outcome(SCHEDULE, study.settings).measurements)
    (trial,) = store.trials("study")
    assert (trial.state, trial.reason, trial.judged, set(trial.measurements)) == ("failed", "out of memory", {}, {"late"})


def test_what_is_under_way_when_a_study_stops_is_interrupted_and_runs_when_it_is_begun_again(store) -> None:
    study = make_study(store)
    first, second = (store.start_trial("study", "start", SCHEDULE, {}) for _ in range(2))
    store.finish_trial("study", first, "failed", reason="out of memory")
    store.set_state("study", "interrupted")
    assert [trial.state for trial in store.trials("study")] == ["failed", "interrupted"]
    assert [trial.ended for trial in store.trials("study")] == [True, False]
    assert standing(store, "study").finished == ranked(store.trials("study")).standing.finished == 1
    store.set_state("study", "running")
    assert [trial.state for trial in store.trials("study")] == ["failed", "interrupted"]  # it is not its turn yet
    assert store.retry_trial("study", second, counted=False) == 1
    assert store.retry_trial("study", second) == 2
    assert [trial.state for trial in store.trials("study")] == ["failed", "running"]
    assert store.finish_trial("study", second, "complete", outcome(SCHEDULE, study.settings).measurements)


def test_confirming_again_replaces(store) -> None:
    study = make_study(store)
    number = store.start_trial("study", "start", SCHEDULE, {})
    measured = outcome(SCHEDULE, study.settings).measurements
    store.confirm_trial("study", number, outcome(Schedule(), study.settings).measurements)
    store.confirm_trial("study", number, measured)
    assert store.trials("study")[0].measurements["confirmation"] == measured


def test_the_same_study_again_is_the_same_study(store) -> None:
    assert make_study(store, trials=7) == make_study(store, trials=7)
    assert len(store.studies()) == 1
    with pytest.raises(VittleError, match="study 'study' exists with trials 7, not 9; give another --study"):
        make_study(store, trials=9)


def test_unknown_study_names_those_there_are(store) -> None:
    with pytest.raises(VittleError, match="no study named 'x'; there are none; make one with: vittle launch"):
        store.study("x")
    make_study(store, "mine")
    with pytest.raises(VittleError, match="no study named 'x'; there are: mine"):
        store.trials("x")


def test_readers_do_not_wait_for_a_writer(store, url) -> None:
    make_study(store)
    names: list[str] = []
    with create_engine(url).begin() as writer:
        writer.execute(text("UPDATE vittle_studies SET state = 'failed'"))
        reader = threading.Thread(target=lambda: names.extend(study.state for study in Store.open(url).studies()), daemon=True)
        reader.start()
        reader.join(10)
        assert names == ["running"]  # as it was before
    assert store.study("study").state == "failed"


def test_why_a_study_ended_is_kept_until_it_goes_on(store, url) -> None:
    study = make_study(store)
    assert study.ended is None
    store.set_state("study", "complete", "the front grows no more")
    assert Store.open(url).study("study").ended == "the front grows no more"
    store.set_state("study", "running")
    assert store.study("study").ended is None


def test_writers_wait_for_each_other(store) -> None:
    make_study(store)
    failures: list[Exception] = []

    def write() -> None:
        try:
            for _ in range(10):
                store.start_trial("study", "start", SCHEDULE, {})
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert [trial.number for trial in store.trials("study")] == list(range(40))


def test_reading_makes_no_database(tmp_path) -> None:
    with pytest.raises(VittleError, match="no database at .*; make one with: vittle launch"):
        Store.open(f"sqlite:///{tmp_path / 'none.db'}")
    assert not (tmp_path / "none.db").exists()


def test_the_front_prefers_confirmed_latency_and_searched_accuracy(store) -> None:
    study = make_study(store)
    settings = Settings()
    number = store.start_trial("study", "start", SCHEDULE, {})
    searched = outcome(SCHEDULE, settings).measurements
    store.finish_trial("study", number, "complete", searched)
    slower = {**outcome(Schedule(), settings).measurements, "macs": searched["macs"]}
    store.confirm_trial("study", number, slower)
    (trial,) = store.trials("study")
    assert trial.judged["accuracy"] == searched["accuracy"]
    assert trial.judged["latency_ratio"] == slower["latency_ratio"]
    assert ranked([trial]).front() == [trial]
    assert ranked([trial], study.budget).front(study.budget) == []
    assert ranked([trial], study.budget).best() is None
    assert ranked([trial]).nearest() == trial


def test_an_exported_document_loads_as_its_schedule(store, tmp_path) -> None:
    study = make_study(store)
    number = store.start_trial("study", "start", SCHEDULE, {})
    store.finish_trial("study", number, "complete", outcome(SCHEDULE, study.settings).measurements)
    (trial,) = store.trials("study")
    exported = document(study, trial)
    assert exported["backbone"]["fingerprint"] == BACKBONE.fingerprint
    assert exported["measured_on"]["images"] == "search"
    (tmp_path / "best.yaml").write_text(to_yaml(exported))
    assert Schedule.load(tmp_path / "best.yaml") == SCHEDULE
    entry = front_entry(study, trial)
    assert entry["images"] == 450
    assert entry["confirmed"] is None
    assert Schedule.from_dict(entry["schedule"]) == SCHEDULE


def start_of(fingerprint: str, start: int = 1) -> MergeStart:
    curve = BlockCurve("similarity", (0.3, 0.2, 0.4), (0.2, 0.1, 0.3), (0.4, 0.3, 0.5))
    return MergeStart(start, 0, 2, True, (curve,), 256, fingerprint)


def test_what_is_known_of_a_backbone_comes_back_and_is_replaced(store, url) -> None:
    assert store.merge_start("a") is None
    store.save_merge_start(start_of("a"))
    store.save_merge_start(start_of("b", start=2))
    again = Store.open(url)
    assert [again.merge_start(one) for one in "abc"] == [start_of("a"), start_of("b", start=2), None]
    again.save_merge_start(start_of("a", start=2))
    assert (store.merge_start("a"), store.merge_start("b")) == (start_of("a", start=2), start_of("b", start=2))


def test_two_who_measure_the_same_backbone_at_once(store) -> None:
    failures: list[Exception] = []

    def save(start: int) -> None:
        try:
            store.save_merge_start(start_of("a", start))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=save, args=(number % 3,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert store.merge_start("a") in [start_of("a", start) for start in range(3)]


def test_a_database_in_memory_holds_studies_too() -> None:
    store = Store.open("sqlite://", create=True)
    study = make_study(store)
    number = store.start_trial("study", "start", SCHEDULE, {})
    store.finish_trial("study", number, "complete", outcome(SCHEDULE, study.settings).measurements)
    assert [trial.state for trial in store.trials("study")] == ["complete"]


def test_a_late_result_is_kept_as_late_and_once(store) -> None:
    study = make_study(store)
    number = store.start_trial("study", "start", SCHEDULE, {})
    measured = outcome(SCHEDULE, study.settings).measurements
    slower = {**measured, "latency_ms": replace(measured["latency_ms"], value=54.0)}
    assert store.finish_trial("study", number, "complete", measured)
    for late in (measured, slower, slower):  # also of a worker whose first message got lost
        assert not store.finish_trial("study", number, "complete", late)
    (trial,) = store.trials("study")
    assert trial.measurements == {"search": measured, "late": {"latency_ms": slower["latency_ms"]}}
    assert trial.judged == measured
