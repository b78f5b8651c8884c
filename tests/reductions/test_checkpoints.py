"""Weights out of files as people have them: their wrappers, prefixes, sizes and heads, and what is refused by name."""

import argparse
import pathlib
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import load_checkpoint as load_as_timm_does
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn

from vittle import VittleError
from vittle.reductions.backbone import load_backbone
from vittle.reductions.checkpoints import load_checkpoint
from vittle.reductions.zoo import outline

TINY = "test_vit"  # 10 x 10 patches of 16 x 16 pixels
Weights = dict[str, Tensor]


def trained(name: str = TINY, **arguments: Any) -> nn.Module:
    """A model whose every weight is random, so that leaving one out shows."""
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(name, **{"num_classes": 7, **arguments}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def loaded(name: str, path: Path, **arguments: Any) -> tuple[nn.Module, list[str]]:
    """A model that is smaller than its name says, with the weights of a file."""
    model, notes = load_checkpoint(name, outline(name, **arguments), path, None, **arguments)
    return model.eval(), notes


def prefixed(weights: Mapping[str, Tensor], prefix: str) -> Weights:
    return {prefix + name: weight for name, weight in weights.items()}


def other(weights: Mapping[str, Tensor]) -> Weights:
    return {name: weight + 1 for name, weight in weights.items()}


def assert_same(model: nn.Module, expected: nn.Module, size: tuple[int, int] = (160, 160)) -> None:
    images = torch.randn(2, 3, *size)
    with torch.inference_mode():
        torch.testing.assert_close(model(images), expected(images))


WRAPPED: dict[str, tuple[Callable[[Weights], Any], str]] = {
    "plain": (lambda w: w, ""),
    "distributed": (lambda w: prefixed(w, "module."), ""),
    "compiled, then distributed": (lambda w: prefixed(w, "module._orig_mod."), ""),
    "Lightning": (
        lambda w: {
            "state_dict": {**prefixed(w, "model."), "criterion.weight": torch.ones(7)},
            "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}}],
            "hyper_parameters": argparse.Namespace(folder=pathlib.PosixPath("a")),
        },
        "more than the model whose names begin 'model.'; left out: criterion.weight",
    ),
    "a trainer's": (lambda w: {"model_state_dict": w, "best": np.float64(0.5), "lr": np.array([0.1], np.float32), "n": 3}, ""),
    "an unknown name": (lambda w: {"my_vit": w, "epoch": torch.tensor(3)}, ""),
    "nested names": (lambda w: {"student": {"vit": prefixed(w, "net.encoder.")}}, ""),
    "timm's average": (
        lambda w: {"state_dict": other(w), "state_dict_ema": w},
        "state_dict, state_dict_ema; state_dict_ema is used",
    ),
    "DeiT's average": (lambda w: {"model": other(w), "model_ema": w, "optimizer": {}}, "model, model_ema; model_ema is used"),
    "DINO": (
        lambda w: {
            "student": prefixed(other(w), "module.backbone."),
            "teacher": {**prefixed(w, "backbone."), "head.mlp.0.weight": torch.ones(2, 2)},
        },
        "student, teacher; teacher is used",
    ),
    "DINOv2's training": (
        lambda w: {"model": {**prefixed(other(w), "student.backbone."), **prefixed(w, "teacher.backbone.")}},
        "models with names that begin 'student.backbone.', 'teacher.backbone.'; 'teacher.backbone.' is used",
    ),
    "an average in Lightning": (
        lambda w: {"state_dict": {**prefixed(other(w), "model."), **prefixed(w, "ema_model.module.")}},
        "'ema_model.module.' is used",
    ),
    "OpenCLIP": (lambda w: {**prefixed(w, "visual.trunk."), "logit_scale": torch.tensor(1.0), "text.x": torch.ones(2)}, ""),
}


@pytest.mark.parametrize("case", WRAPPED)
def test_wrappers_and_prefixes_are_taken_off_and_a_choice_is_told(tmp_path: Path, case: str) -> None:
    wrap, note = WRAPPED[case]
    expected = trained()
    torch.save(wrap(expected.state_dict()), tmp_path / "w.pth")
    backbone = load_backbone(TINY, tmp_path / "w.pth")
    assert_same(backbone.model, expected)
    assert backbone.classes == 7
    assert note in " | ".join(backbone.notes)
    assert bool(note) == bool(backbone.notes)


def test_a_format_is_told_by_its_content(tmp_path: Path) -> None:
    expected = trained()
    save_file(expected.state_dict(), tmp_path / "weights.bin")
    torch.save(expected.state_dict(), tmp_path / "weights.safetensors")
    torch.save(expected.state_dict(), tmp_path / "old", _use_new_zipfile_serialization=False)
    for file in tmp_path.iterdir():
        assert_same(load_backbone(TINY, file).model, expected)


def test_half_precision_is_loaded_into_whole(tmp_path: Path) -> None:
    save_file({name: weight.bfloat16() for name, weight in trained().state_dict().items()}, tmp_path / "w.safetensors")
    assert {weight.dtype for weight in load_backbone(TINY, tmp_path / "w.safetensors").model.parameters()} == {torch.float32}


def test_a_pooled_head_is_told_by_its_keys(tmp_path: Path) -> None:
    expected = trained(global_pool="avg")
    assert "norm.weight" not in expected.state_dict()
    torch.save({"model": expected.state_dict(), "args": argparse.Namespace()}, tmp_path / "finetuned.pth")
    backbone = load_backbone(TINY, tmp_path / "finetuned.pth")
    assert_same(backbone.model, expected)
    assert not backbone.shape.reads_prefix_only
    assert backbone.notes == (
        "finetuned.pth has fc_norm in place of norm, so the mean of the patches is classified, as MAE does",
    )


def test_pretraining_of_mae_leaves_its_decoder(tmp_path: Path) -> None:
    expected = trained(num_classes=0)
    decoder = {
        "mask_token": torch.zeros(1, 1, 8),
        "decoder_pos_embed": torch.ones(1, 101, 8),
        "decoder_norm.bias": torch.ones(8),
    }
    torch.save({"model": {**expected.state_dict(), **decoder}}, tmp_path / "mae.pth")
    backbone = load_backbone(TINY, tmp_path / "mae.pth")
    assert_same(backbone.model, expected)
    assert backbone.classes == 0
    assert backbone.notes == ("mae.pth holds a decoder, too; its 2 weights are left out",)


def test_official_names_of_dinov2(tmp_path: Path) -> None:
    small = {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 56}
    for name in ("vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2"):
        expected = trained(name, num_classes=0, **small)
        official = dict(expected.state_dict())
        if "reg_token" in official:
            of_class = torch.randn(1, 1, 32)
            official["register_tokens"] = official.pop("reg_token")
            official["cls_token"] = official["cls_token"] - of_class
            official["pos_embed"] = torch.cat([of_class, official["pos_embed"]], 1)
        torch.save({**official, "mask_token": torch.zeros(1, 32)}, tmp_path / "dinov2.pth")
        model, notes = loaded(name, tmp_path / "dinov2.pth", **small)
        assert_same(model, expected, (56, 56))
        assert notes == []
        model, notes = loaded(name, tmp_path / "dinov2.pth", **{**small, "img_size": 28})
        assert_same(model, expected, (56, 56))
        (note,) = notes
        assert note.startswith("dinov2.pth was trained with 4 x 4 patches, so images are taken at 56x56 and not at 28x28; ")


def test_layer_scale_of_deit3_by_its_own_name(tmp_path: Path) -> None:
    small = {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 64}
    expected = trained("deit3_small_patch16_224", **small)
    official = {
        name.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): weight
        for name, weight in expected.state_dict().items()
    }
    assert "blocks.0.gamma_1" in official
    torch.save({"model": official}, tmp_path / "deit3.pth")
    assert_same(loaded("deit3_small_patch16_224", tmp_path / "deit3.pth", **small)[0], expected, (64, 64))


class TestSizes:
    def test_another_square_is_built_and_told(self, tmp_path: Path) -> None:
        expected = trained(img_size=96)
        save_file(expected.state_dict(), tmp_path / "w.safetensors")
        backbone = load_backbone(TINY, tmp_path / "w.safetensors")
        assert_same(backbone.model, expected, (96, 96))
        assert backbone.preprocessing.size == (96, 96)
        (note,) = backbone.notes
        assert note == (
            "w.safetensors was trained with 6 x 6 patches, so images are taken at 96x96 and not at 160x160; "
            "--image-size says otherwise"
        )

    def test_a_rectangle_has_to_be_said(self, tmp_path: Path) -> None:
        expected = trained(img_size=(64, 128))
        save_file(expected.state_dict(), tmp_path / "w.safetensors")
        with pytest.raises(
            VittleError, match="32 patches that w.safetensors was trained with form no square; give .*--image-size"
        ):
            load_backbone(TINY, tmp_path / "w.safetensors")
        with pytest.raises(VittleError, match="form no square, nor the 4 x 4 that are asked for; give the size"):
            load_backbone(TINY, tmp_path / "w.safetensors", (64, 64))
        backbone = load_backbone(TINY, tmp_path / "w.safetensors", (64, 128))
        assert_same(backbone.model, expected, (64, 128))
        assert (backbone.shape.grid, backbone.notes) == ((4, 8), ())

    def test_a_rectangle_of_as_many_patches_as_a_square_is_taken_as_said(self, tmp_path: Path) -> None:
        expected = trained(img_size=(32, 128))
        save_file(expected.state_dict(), tmp_path / "w.safetensors")
        backbone = load_backbone(TINY, tmp_path / "w.safetensors", (32, 128))
        assert_same(backbone.model, expected, (32, 128))
        assert backbone.notes == ("the 16 patches of w.safetensors are taken as 2 x 8, as --image-size says, not as a square",)
        square = load_backbone(TINY, tmp_path / "w.safetensors")
        assert square.shape.grid == (4, 4)
        assert square.fingerprint != backbone.fingerprint

    @pytest.mark.parametrize("size", [(96, 96), (64, 224)])
    def test_resampled_is_as_timm_resamples(self, tmp_path: Path, size: tuple[int, int]) -> None:
        torch.save(trained().state_dict(), tmp_path / "w.pth")
        expected = timm.create_model(TINY, num_classes=7, img_size=size).eval()
        load_as_timm_does(expected, str(tmp_path / "w.pth"), filter_fn=checkpoint_filter_fn)
        backbone = load_backbone(TINY, tmp_path / "w.pth", size)
        assert_same(backbone.model, expected, size)
        grid = f"{size[0] // 16} x {size[1] // 16}"
        assert backbone.notes == (f"the position embedding of w.pth is resampled from 10 x 10 to {grid} patches",)

    def test_pixels_that_are_in_no_patch_are_refused(self, tmp_path: Path) -> None:
        torch.save(trained().state_dict(), tmp_path / "w.pth")
        for checkpoint in (None, tmp_path / "w.pth"):
            with pytest.raises(
                VittleError, match="image size 100x160 does not fit the model; accepted: multiples of its patches, 16x16"
            ):
                load_backbone(TINY, checkpoint, (100, 160))

    def test_patches_of_another_size_are_not_resampled(self, tmp_path: Path) -> None:
        torch.save(trained(patch_size=32).state_dict(), tmp_path / "w.pth")
        with pytest.raises(VittleError, match="1 of another shape, such as patch_embed.proj.weight 64x3x32x32, not 64x3x16x16"):
            load_backbone(TINY, tmp_path / "w.pth")

    def test_digits_have_a_size_of_their_own(self) -> None:
        with pytest.raises(VittleError, match="the weights of digits take images of 32x32 pixels"):
            load_backbone(image_size=(64, 64))


class Unknown:
    """What unpickling would have to make."""


def changed(name: str, value: float) -> Weights:
    weights = dict(trained().state_dict())
    weights[name] = torch.full_like(weights[name], value)
    return weights


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "NaN": (lambda: changed("head.weight", float("nan")), "w.pth has NaN or infinity in 1 weight: head.weight; give"),
    "infinity": (lambda: changed("blocks.1.norm1.bias", float("inf")), "in 1 weight: blocks.1.norm1.bias"),
    "a pickled model": (
        trained,
        r"it holds a pickled model \(Block, VisionTransformer, \w+ and \d+ more\), which may run code",
    ),
    "a pickled object": (
        lambda: {"state_dict": trained().state_dict(), "config": Unknown()},
        r"it holds more than weights \(.*Unknown\), which may run code",
    ),
    "another name for everything": (
        lambda: {f"other.{name}.x": weight for name, weight in trained().state_dict().items()},
        "not of test_vit: 80 unknown, 78 missing, such as other.cls_token.x, other.pos_embed.x, other.patch_embed.proj",
    ),
    "another kind of model": (
        lambda: timm.create_model("test_resnet").state_dict(),
        r"not of test_vit: \d+ unknown, 78 missing, such as conv1.0.weight",
    ),
    "another width": (
        lambda: trained(embed_dim=96).state_dict(),
        r"not of test_vit: \d+ of another shape, such as cls_token 1x1x96, not 1x1x64, pos_embed, patch_embed.proj.weight",
    ),
    "another depth": (lambda: trained(depth=7).state_dict(), "12 unknown, such as blocks.6.norm1.weight, blocks.6.norm1.bias"),
    "one that is missing": (
        lambda: {name: weight for name, weight in trained().state_dict().items() if name != "norm.bias"},
        "1 missing, such as norm.bias$",
    ),
    "several models": (
        lambda: {**prefixed(trained().state_dict(), "a."), **prefixed(trained().state_dict(), "b.")},
        "holds 2 models, with names that begin 'a.', 'b.'; save the one that is meant alone",
    ),
    "several sets": (
        lambda: {"one": trained().state_dict(), "two": trained().state_dict()},
        r"holds 2 sets of weights \(one, two\); save the one that is meant alone",
    ),
    "one tensor": (lambda: torch.ones(3), "holds a Tensor, no weights by name"),
    "no weights": (lambda: {"epoch": 3}, "holds no weights"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_this_models_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    make, expected = REFUSED[case]
    torch.save(make(), tmp_path / "w.pth")
    with pytest.raises(VittleError, match=expected) as error:
        load_backbone(TINY, tmp_path / "w.pth")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) <= 300


def test_files_that_are_no_weights_say_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 22\n")
    with pytest.raises(VittleError, match="a pointer of Git LFS"):
        load_backbone(TINY, path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # old files stay
        torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)).save(path)
    with pytest.raises(VittleError, match="it is a TorchScript archive"):
        load_backbone(TINY, path)
    torch.save(trained(), path, _use_new_zipfile_serialization=False)
    with pytest.raises(VittleError, match="it holds a pickled model"):
        load_backbone(TINY, path)


def jax_arrays(model: Any) -> dict[str, np.ndarray]:
    """The arrays of a Vision Transformer as Google's first release names and shapes them."""
    heads, width, array = model.blocks[0].attn.num_heads, model.embed_dim, lambda tensor: tensor.detach().numpy()
    found = {
        "embedding/kernel": array(model.patch_embed.proj.weight.permute(2, 3, 1, 0)),
        "embedding/bias": array(model.patch_embed.proj.bias),
        "cls": array(model.cls_token),
        "Transformer/posembed_input/pos_embedding": array(model.pos_embed),
        "Transformer/encoder_norm/scale": array(model.norm.weight),
        "Transformer/encoder_norm/bias": array(model.norm.bias),
        "head/kernel": array(model.head.weight.mT),
        "head/bias": array(model.head.bias),
    }
    for index, block in enumerate(model.blocks):
        at = f"Transformer/encoderblock_{index}/"
        for number, norm in ((0, block.norm1), (2, block.norm2)):
            found |= {f"{at}LayerNorm_{number}/scale": array(norm.weight), f"{at}LayerNorm_{number}/bias": array(norm.bias)}
        attention = f"{at}MultiHeadDotProductAttention_1/"
        for name, weight, bias in zip(
            ("query", "key", "value"), block.attn.qkv.weight.chunk(3), block.attn.qkv.bias.chunk(3), strict=True
        ):
            found[f"{attention}{name}/kernel"] = array(weight.mT.reshape(width, heads, -1))
            found[f"{attention}{name}/bias"] = array(bias.reshape(heads, -1))
        found[f"{attention}out/kernel"] = array(block.attn.proj.weight.mT.reshape(heads, -1, width))
        found[f"{attention}out/bias"] = array(block.attn.proj.bias)
        for number, layer in enumerate((block.mlp.fc1, block.mlp.fc2)):
            found[f"{at}MlpBlock_3/Dense_{number}/kernel"] = array(layer.weight.mT)
            found[f"{at}MlpBlock_3/Dense_{number}/bias"] = array(layer.bias)
    return found


def test_a_model_of_jax(tmp_path: Path) -> None:
    plain: dict[str, Any] = {"embed_dim": 32, "depth": 2, "num_heads": 2}
    name, path = "vit_tiny_patch16_224", tmp_path / "w.npz"
    expected = trained(name, img_size=96, **plain)
    arrays = jax_arrays(expected)
    np.savez(path, **arrays)
    model, notes = loaded(name, path, **plain)
    assert_same(model, expected, (96, 96))
    assert notes == [
        "w.npz was trained with 6 x 6 patches, so images are taken at 96x96 and not at 224x224; --image-size says otherwise"
    ]
    for broken, reason in (
        ({key: array for key, array in arrays.items() if key != "head/kernel"}, "head/kernel"),
        ({key: array for key, array in arrays.items() if "encoderblock_1" not in key}, "w.npz has 1 blocks, .* has 2"),
        ({**arrays, "head/bias": np.full(7, np.nan, np.float32)}, "has NaN or infinity in 1 weight: head.bias"),
        ({"images": np.ones(3)}, "the arrays in w.npz are not of vit_tiny_patch16_224: 1, such as images"),
    ):
        np.savez(path, **broken)
        with pytest.raises(VittleError, match=reason) as error:
            loaded(name, path, **plain)
        assert len(str(error.value)) <= 300
