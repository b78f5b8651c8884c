"""Fronts that are kept tell the same as all trials do."""

import itertools

import pytest

from rankings import ranked
from recorded import coordinate, make_study, outcome, run
from vittle import presets
from vittle.storage import fronts
from vittle.storage.findings import Standing
from vittle.storage.store import Store
from vittle.storage.tables import FrontRow


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path) -> str:
    return f"sqlite:///{tmp_path / 'vittle.db'}" if request.param == "sqlite" else request.getfixturevalue("postgres")()


def kept(store: Store) -> list[tuple[int, int, list[int], int | None]]:
    with store.transaction() as session:
        return [(row.since, row.until, row.points, row.best) for row in session.query(FrontRow).order_by(FrontRow.since)]


def test_how_far_a_search_is_follows_from_what_is_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make_study(store, trials=30)
    assert fronts.standing(store, "study") == Standing(0, [], None)
    coordinator = coordinate(study, store)
    for turn in range(16):
        run(coordinator, limit=1)
        whole = ranked(store.trials("study"), study.budget).standing
        assert whole.finished == turn
        with monkeypatch.context() as without:
            without.setattr(store, "trials", None)  # they are not read
            assert fronts.standing(store, "study") == whole
    history = kept(store)
    assert [since for since, _, _, _ in history] == sorted({since for since, _, _, _ in history})
    assert all(until < later for (_, until, _, _), (later, _, _, _) in itertools.pairwise(history))
    assert 1 < len(history) <= 16
    assert history[-1][1:] == (15, [trial.number for trial in whole.points], whole.best.number)


def test_a_front_that_is_out_of_date_is_not_told(store: Store) -> None:
    study = make_study(store, trials=30)
    run(coordinate(study, store), limit=12)
    before = fronts.standing(store, "study")
    schedule = presets.kept(study.backbone.shape, [50 - 4 * block for block in range(12)])
    number = store.start_trial("study", "sampler", schedule, {})
    assert fronts.standing(store, "study") == before  # it has not ended
    store.finish_trial("study", number, "complete", outcome(schedule, study.settings).measurements)
    after = fronts.standing(store, "study")
    assert after == ranked(store.trials("study"), study.budget).standing
    assert after.finished == before.finished + 1
    history = kept(store)
    fronts.keep(store, "study", after)
    fronts.keep(store, "study", after)  # twice changes nothing
    assert kept(store)[-1][1] == after.finished
    assert len(kept(store)) <= len(history) + 1
