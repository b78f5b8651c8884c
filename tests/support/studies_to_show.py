"""Studies that several tests of pages look at and none changes; `store`, `client`, `address`, `pictured` are to import."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient

from browsing import serving
from dashboard_study import Synthetic, open_store
from vittle import Schedule
from vittle.dashboards.app import create_app
from vittle.reductions.backbone import load_backbone
from vittle.reductions.recursive_blocks import RecursiveBlocks
from vittle.spaces.table import REDUCTIONS
from vittle.storage.records import BackboneRecord, Trial
from vittle.storage.settings import Settings
from vittle.storage.store import Store

HOSTILE = "<script>alert(1)</script>"
HOSTILE_REASON = "<img src=x onerror=alert(2)><b>bold</b>"
BOTH = {
    "pruning": {"kept": [65, 60, 50, 40, 34, 28, 24, 20, 16, 12, 8, 6]},
    "merging": {"kept": [65, 55, 44, 36, 30, 25, 20, 15, 12, 9, 7, 5]},
}
RECURSIVE: list[tuple[list[float], str, dict[str, Any]]] = [
    ([1, 0.75, 0.5, 0.5, 0.25], "learned", {"tail": "prefix"}),
    ([1, 0.5, 0.3], "norm", {"pruning": {"kept": [60] * 5}, "merging": {"kept": [50, 45, 45, 45, 45]}}),
    ([0.6, 0.3], "random", {"sparsity": {"shares": [0.25] * 12}}),
    ([1, 1], "random", {}),
]


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
    """The embedded model and its images, with trials that nobody has measured: two of them sparse, the last four recursive."""
    folder = tmp_path_factory.mktemp("pictured")
    opened = open_store(folder)
    backbone = load_backbone()
    record = BackboneRecord(backbone.name, backbone.fingerprint, backbone.classes, backbone.shape)
    weights, file = RecursiveBlocks.from_backbone(backbone.model, steps=5), folder / "recursion.safetensors"
    generator = torch.Generator().manual_seed(0)
    for weight in weights.routers.parameters():  # they are zero before they are trained
        weight.data = torch.randn(weight.shape, generator=generator)
    weights.save(file, {"backbone": backbone.fingerprint})
    settings = Settings(reductions=tuple(REDUCTIONS), adapters={"recursion": str(file)})
    opened.create_study("real", settings, record)
    documents: list[dict[str, Any]] = [{}, {"tail": "prefix", "merging": BOTH["merging"]}, {"tail": "full", **BOTH}]
    documents += [
        {"sparsity": {"shares": [0.25] * 12}},
        {"tail": "prefix", "sparsity": {"shares": [1, 1, *[0.3] * 10]}, **BOTH},
    ]
    documents += [
        {**together, "recursion": {"weights": weights.name, "capacities": capacities, "router": router}}
        for capacities, router, together in RECURSIVE
    ]
    for document in documents:
        opened.start_trial("real", "sampler", Schedule.from_dict(document), {})
    return opened


def one_of(store: Store, state: str, name: str = "digits-60") -> Trial:
    return next(trial for trial in store.trials(name) if trial.state == state and trial.schedule.reductions)
