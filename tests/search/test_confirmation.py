"""The confirmation of a front is a phase that everybody can follow."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rankings import ranked
from recorded import coordinate, make_study, outcome, run
from vittle.dashboards.documents import study_document
from vittle.objectives.goals import Measured
from vittle.objectives.measurement import Measurement
from vittle.search import study as studies
from vittle.search.reporter import Reporter
from vittle.storage import fronts
from vittle.storage.findings import Confirmation
from vittle.storage.records import confirmation_gap
from vittle.storage.settings import Settings
from vittle.storage.store import Store

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
GAP = 4.0  # seconds from one confirmed trial to the next


class Confirming:
    """Stands in for the workers: what they measure a second time costs a tenth more, so that points leave the front."""

    def __init__(self, _problem: object) -> None:
        self.count = 0

    def confirm(self, candidates: Iterable[Any]) -> Iterator[Measured]:
        for candidate in candidates:
            measured = {**outcome(candidate, Settings()).measurements}
            at = BEGAN + timedelta(seconds=GAP * self.count)
            self.count += 1
            for name in ("latency_ms", "latency_ratio"):
                one = measured[name]
                protocol = {**one.protocol, "measured_at": at.isoformat(timespec="seconds")}
                measured[name] = Measurement(name, 1.1 * one.value, 1.1 * one.low, 1.1 * one.high, 15, protocol)
            yield measured


@pytest.fixture
def searched(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    study = make_study(store, trials=30)
    run(coordinate(study, store))
    monkeypatch.setattr(studies, "Pool", Confirming)
    store.set_state("study", "running", "all 30 trials are done")
    return store


def test_each_confirmed_trial_shows_how_far_it_is_and_what_is_best_now(searched: Store) -> None:
    store, told, planned = searched, [], []

    def confirmed(trial: Any, left: int) -> None:
        study, ranking = store.study("study"), ranked(store.trials("study"), store.study("study").budget)
        assert (study.state, study.phase) == ("running", "confirming")
        assert fronts.standing(store, "study") == ranking.standing  # not what was kept when the last trial ended
        document = study_document.detailed(study, ranking)
        assert document["phase"] == "confirming"
        assert document["confirmation"] == ranking.confirmation._asdict()
        assert document["seconds_left"] == ranking.confirmation.seconds_left
        told.append((trial.number, left, ranking.confirmation))

    studies.confirm(store.study("study"), None, store, Reporter(confirmed=confirmed, confirming=planned.append))
    numbers = [number for number, _, _ in told]
    assert numbers[0] == 0
    assert len(set(numbers)) == len(numbers) == sum(planned)
    assert [found.done for _, _, found in told] == list(range(1, len(told) + 1))
    assert told[0][2].seconds_left is None  # nobody knows after a single one
    assert all(found.seconds_left == GAP * (found.of - found.done) for _, _, found in told[1:-1] if found.of > found.done)
    assert told[-1][2] == Confirmation(len(told), len(told), None)
    store.set_state("study", "complete", "all 30 trials are done")
    study = store.study("study")
    assert (study.phase, study.confirming) == ("complete", False)
    assert study_document.listed(study, fronts.standing(store, "study"))["confirmation"] is None


def test_what_was_kept_counts_again_once_it_is_over(searched: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    studies.confirm(searched.study("study"), None, searched, Reporter())
    whole = ranked(searched.trials("study"), searched.study("study").budget).standing
    searched.set_state("study", "complete", "all 30 trials are done")
    fronts.keep(searched, "study", whole)
    monkeypatch.setattr(searched, "trials", None)
    assert fronts.standing(searched, "study") == whole


def test_a_search_that_goes_on_confirms_nothing(searched: Store) -> None:
    searched.set_state("study", "running")
    study = searched.study("study")
    assert (study.phase, study.confirming) == ("running", False)


def test_a_pause_before_a_study_was_extended_is_no_pace(searched: Store) -> None:
    studies.confirm(searched.study("study"), None, searched, Reporter())
    trials = searched.trials("study")
    confirmed = [trial for trial in trials if trial.confirmed]
    late = confirmed[-1]
    again = {**late.measurements["confirmation"]}
    ms = again["latency_ms"]
    at = (BEGAN + timedelta(days=3)).isoformat(timespec="seconds")
    again["latency_ms"] = Measurement("latency_ms", ms.value, ms.low, ms.high, ms.n, {**ms.protocol, "measured_at": at})
    searched.confirm_trial("study", late.number, again)
    assert len(confirmed) > 3
    assert confirmation_gap(searched.trials("study")) == GAP
