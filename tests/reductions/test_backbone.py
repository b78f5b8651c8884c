"""Loading: the embedded default, timm names, checkpoints, Hugging Face folders, and what is refused."""

import json

import pytest
import timm
import torch
from safetensors.torch import save_file

from models import SMALL
from vittle import VittleError
from vittle.objectives.quality.accuracy import predict
from vittle.objectives.quality.images import load_images
from vittle.reductions.backbone import describe_backbone, load_backbone


def test_the_embedded_default_reads_held_out_digits() -> None:
    backbone = load_backbone()
    assert (backbone.shape.depth, backbone.shape.patches, backbone.classes) == (12, 64, 10)
    images = load_images("digits", backbone.preprocessing, 10).held_out
    predicted = predict(backbone.model, images.pixels, backbone.preprocessing, torch.device("cpu"))
    assert (predicted == images.labels).mean() >= 0.97


def test_a_checkpoint_brings_its_classes_and_image_size(tmp_path) -> None:
    trained = timm.create_model("vit_tiny_patch16_224", num_classes=7, img_size=96).eval()
    save_file(trained.state_dict(), tmp_path / "weights.safetensors")
    backbone = load_backbone("vit_tiny_patch16_224", tmp_path / "weights.safetensors")
    assert (backbone.classes, backbone.preprocessing.size) == (7, (96, 96))
    images = torch.randn(1, 3, 96, 96)
    with torch.inference_mode():
        torch.testing.assert_close(backbone.model(images), trained(images))


def test_a_pth_checkpoint(tmp_path) -> None:
    trained = timm.create_model("vit_tiny_patch16_224", num_classes=3)
    torch.save({"state_dict": trained.state_dict()}, tmp_path / "weights.pth")
    assert load_backbone("vit_tiny_patch16_224", tmp_path / "weights.pth").classes == 3


def test_a_hugging_face_folder(tmp_path) -> None:
    trained = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=5).eval()
    save_file(trained.state_dict(), tmp_path / "model.safetensors")
    config = {"architecture": "vit_tiny_patch16_224", "num_classes": 5, "model_args": {"img_size": 64}, "pretrained_cfg": {}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    backbone = load_backbone(f"local-dir:{tmp_path}")
    assert backbone.classes == 5
    with torch.inference_mode():
        images = torch.randn(1, 3, 64, 64)
        torch.testing.assert_close(backbone.model(images), trained(images))


def test_the_fingerprint_is_of_the_weights() -> None:
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, patch_size=8, **SMALL)
    first = describe_backbone(model, "a").fingerprint
    assert describe_backbone(model, "b").fingerprint == first
    with torch.no_grad():
        model.head.bias[0] += 1
    assert describe_backbone(model, "a").fingerprint != first


def test_unknown_model_suggests_near_names() -> None:
    with pytest.raises(VittleError, match=r"unknown model 'vit_tiny_patch16_223' \(did you mean vit_tiny_patch16_224"):
        load_backbone("vit_tiny_patch16_223")


@pytest.mark.parametrize("content", [b"not weights", b""])
def test_unreadable_checkpoint(tmp_path, content: bytes) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(VittleError, match=r"cannot read .*weights.pth as weights"):
        load_backbone("vit_tiny_patch16_224", path)


def test_a_pickle_that_would_run_code_is_not_loaded(tmp_path) -> None:
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    torch.save({"head.weight": Trap()}, tmp_path / "weights.pth")
    with pytest.raises(VittleError, match="cannot read"):
        load_backbone("vit_tiny_patch16_224", tmp_path / "weights.pth")
    assert not (tmp_path / "sprung").exists()


def test_missing_checkpoint() -> None:
    with pytest.raises(VittleError, match="no checkpoint at nowhere.pth"):
        load_backbone("vit_tiny_patch16_224", "nowhere.pth")


def test_weights_of_another_model(tmp_path) -> None:
    save_file(timm.create_model("vit_tiny_patch16_224", embed_dim=96).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(
        VittleError, match="are not of vit_tiny_patch16_224: 151 of another shape, such as cls_token 1x1x96, not 1x1x192"
    ) as error:
        load_backbone("vit_tiny_patch16_224", tmp_path / "w.safetensors")
    assert "\n" not in str(error.value)
