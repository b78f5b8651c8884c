"""Small models and images that several tests share, and a database."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from models import FAMILIES, make_model
from vittle.objectives.images import Images, Splits
from vittle.storage.store import Store


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
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'vittle.db'}"


@pytest.fixture
def store(url: str) -> Store:
    return Store.open(url, create=True)
