"""Studies that several tests of pages look at and none changes; `store`, `client`, `address`, `pictured` are to import."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from browsing import serving
from dashboard_study import Synthetic, open_store
from vittle import Schedule
from vittle.dashboards.app import create_app
from vittle.reductions.backbone import load_backbone
from vittle.storage.records import BackboneRecord, Trial
from vittle.storage.settings import Settings
from vittle.storage.store import Store

HOSTILE = "<script>alert(1)</script>"
HOSTILE_REASON = "<img src=x onerror=alert(2)><b>bold</b>"
BOTH = {
    "pruning": {"kept": [65, 60, 50, 40, 34, 28, 24, 20, 16, 12, 8, 6]},
    "merging": {"kept": [65, 55, 44, 36, 30, 25, 20, 15, 12, 9, 7, 5]},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two studies that no test changes; `digits-60` is complete, the other has a hostile name and reason."""
    opened = open_store(tmp_path_factory.mktemp("studies"))
    Synthetic(opened, "digits-60").fill(40)
    hostile = Synthetic(opened, HOSTILE)
    hostile.fill(8)
    schedule = hostile.proposal()
    for state in ("infeasible", "failed"):
        number = opened.start_trial(HOSTILE, "<i>sampler</i>", schedule, {})
        measured = hostile.latency(schedule, 5) if state == "infeasible" else {}
        opened.finish_trial(HOSTILE, number, state, measured, HOSTILE_REASON)
    return opened


@pytest.fixture(scope="module")
def client(store: Store) -> TestClient:
    return TestClient(create_app(store), base_url="http://127.0.0.1")


@pytest.fixture(scope="module")
def address(store: Store) -> Iterator[str]:
    with serving(store) as url:
        yield url


@pytest.fixture(scope="module")
def pictured(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The embedded model and its images, with trials that nobody has measured, the last two sparse."""
    opened = open_store(tmp_path_factory.mktemp("pictured"))
    backbone = load_backbone()
    record = BackboneRecord(backbone.name, backbone.fingerprint, backbone.classes, backbone.shape)
    opened.create_study("real", Settings(), record)
    documents: list[dict[str, Any]] = [{}, {"tail": "prefix", "merging": BOTH["merging"]}, {"tail": "full", **BOTH}]
    documents += [
        {"sparsity": {"shares": [0.25] * 12}},
        {"tail": "prefix", "sparsity": {"shares": [1, 1, *[0.3] * 10]}, **BOTH},
    ]
    for document in documents:
        opened.start_trial("real", "sampler", Schedule.from_dict(document), {})
    return opened


def one_of(store: Store, state: str, name: str = "digits-60") -> Trial:
    return next(trial for trial in store.trials(name) if trial.state == state and trial.schedule.reductions)
