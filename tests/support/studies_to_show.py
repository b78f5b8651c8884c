"""Two studies that several tests of pages look at and none changes; `store`, `client` and `address` are fixtures to import."""

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from browsing import serving
from dashboard_study import Synthetic, open_store
from vittle.dashboards.app import create_app
from vittle.storage.store import Store

HOSTILE = "<script>alert(1)</script>"
HOSTILE_REASON = "<img src=x onerror=alert(2)><b>bold</b>"


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
