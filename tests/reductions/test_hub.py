"""Where the hub cannot be reached, or need not be: one line within seconds, its cache at once, and nothing fetched in vain."""

import socket
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from vittle import VittleError
from vittle.reductions import hub, zoo
from vittle.reductions.backbone import load_architecture, load_backbone
from vittle.search.inference import InferenceProblem
from vittle.storage.settings import Settings


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A hub where nobody listens, and an empty cache."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return endpoint


@pytest.mark.parametrize("name", ["test_vit", "hf-hub:owner/name"])
def test_a_hub_that_does_not_answer_is_one_line_without_a_retry(
    name: str, nobody: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(
        VittleError, match=f"^{nobody} cannot be reached: .*, and {name!r} is in no cache; check the network"
    ) as told:
        load_backbone(name)
    assert "\n" not in str(told.value)
    assert len(str(told.value)) <= 300
    assert not [line for line in caplog.messages if "Retrying" in line]
    assert not constants.HF_HUB_OFFLINE


def test_what_is_in_the_cache_is_loaded_without_the_hub(nobody: str, tmp_path: Path) -> None:
    published = timm.get_pretrained_cfg("test_vit").hf_hub_id
    torch.manual_seed(0)
    expected = timm.create_model("test_vit").eval()
    cached = tmp_path / "cache" / f"models--{published.replace('/', '--')}"
    (cached / "snapshots" / "abc").mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    save_file(expected.state_dict(), cached / "snapshots" / "abc" / "model.safetensors")
    backbone = load_backbone("test_vit")
    images = torch.randn(1, 3, 160, 160)
    with torch.inference_mode():
        torch.testing.assert_close(backbone.model(images), expected(images))


def test_being_offline_on_purpose_is_kept_and_nobody_is_asked(nobody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "get_session", lambda: pytest.fail("asked"))
    with pytest.raises(VittleError, match="HF_HUB_OFFLINE is set, and 'test_vit' is in no cache"):
        load_backbone("test_vit")
    assert constants.HF_HUB_OFFLINE


@pytest.mark.parametrize(("environment", "seconds"), [({}, hub.SECONDS), ({"HF_HUB_ETAG_TIMEOUT": "1"}, 1.0)])
def test_the_hub_is_asked_once_for_as_long_as_the_environment_says(
    nobody: str, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], seconds: float
) -> None:
    asked = []

    class Session:
        def head(self, url: str, timeout: float) -> None:
            asked.append((url, timeout))

    monkeypatch.delenv("HF_HUB_ETAG_TIMEOUT", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
        monkeypatch.setattr(constants, name, int(value))
    monkeypatch.setattr(hub, "get_session", Session)
    with hub.hub() as unreachable:
        assert unreachable is None
        assert not constants.HF_HUB_OFFLINE
    assert asked == [(nobody, seconds)]


class TestBeforeAnythingIsFetched:
    @pytest.fixture(autouse=True)
    def _nothing_is_fetched(self, monkeypatch: pytest.MonkeyPatch) -> None:
        @contextmanager
        def asked() -> Any:
            pytest.fail("the hub was asked")
            yield

        monkeypatch.setattr(zoo, "hub", asked)

    @pytest.mark.parametrize(
        ("settings", "expected"),
        [
            ({"data": "/nowhere"}, "no images at /nowhere"),
            ({"reductions": ("wings",)}, "unknown reduction 'wings'"),
            ({"adapters": {"merging": "/nowhere.safetensors"}}, "no merge embedding at /nowhere.safetensors"),
            ({"latency_budget": "soon"}, "soon"),
            ({"dtype": "float8"}, "float8"),
            ({"sampler": "dice"}, "dice"),
            ({"model": "resnet18"}, "ResNet is not a timm VisionTransformer"),
            ({"model": "vit_tiny_patch16_223"}, "unknown model"),
            ({"model": "vit_tiny_patch16_224.nobody"}, "Invalid pretrained tag"),
            ({"model": "vit_base_patch16_gap_224", "reductions": ("pruning",)}, "pruning does not fit this model"),
            ({"image_size": (100, 100)}, "multiples of its patches, 16x16"),
            ({"checkpoint": "/nowhere.pth"}, "no checkpoint at /nowhere.pth"),
        ],
    )
    def test_what_is_wrong_is_told(self, settings: dict[str, Any], expected: str, tmp_path: Path) -> None:
        with pytest.raises(VittleError, match=expected):
            InferenceProblem.load(Settings.of(**{"model": "test_vit", "data": str(tmp_path), **settings}))

    def test_an_architecture_needs_no_weights(self) -> None:
        assert load_architecture("test_vit", (64, 128)).shape.grid == (4, 8)
