"""The door to timm: load a Vision Transformer, read its shape, refuse what is not understood. No other file imports timm."""

import difflib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data.config import resolve_model_data_config
from timm.data.dataset_factory import create_dataset
from timm.layers.attention import Attention
from timm.layers.patch_embed import PatchEmbed
from timm.models import load_state_dict
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from vittle.reductions import digits
from vittle.spaces.errors import UnsupportedBackboneError, VittleError
from vittle.spaces.inputs import EMBEDDED, check_checkpoint
from vittle.spaces.shape import BackboneShape

POOLS = ("token", "avg", "max", "avgmax", "")


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a backbone wants its images: `size` (height, width), resized by `1 / crop`, centre-cropped, then normalised."""

    size: tuple[int, int]
    crop: float
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Backbone:
    """A loaded Vision Transformer in evaluation mode, with what the rest of the project asks of it."""

    name: str
    model: nn.Module
    shape: BackboneShape
    preprocessing: Preprocessing
    classes: int  # 0 where an image has no single answer: no head, or no pooling
    fingerprint: str
    adapters: Mapping[str, Any] = field(default_factory=dict)  # trained weights for it, by reduction


def load_backbone(name: str = EMBEDDED, checkpoint: str | Path | None = None) -> Backbone:
    """Build a timm Vision Transformer with its weights.

    Args:
        name: `digits` for the embedded default, else anything that `timm.create_model` takes: an architecture with an optional
            weight tag, `hf-hub:owner/name` or `local-dir:path`.
        checkpoint: a .safetensors or .pth file in place of the published weights. The number of classes and the image size
            are read off it.

    Raises:
        VittleError: no such model, no such file, weights that do not fit or cannot be had.
        UnsupportedBackboneError: a model that cannot be reduced, with the reason.
    """
    if name == EMBEDDED:
        model = _create(digits.ARCHITECTURE, pretrained=False, **digits.ARGUMENTS)
        _load_weights(model, Path(checkpoint or digits.WEIGHTS))
    elif checkpoint is None:
        model = _create(name, pretrained=True)
    else:
        model = _from_checkpoint(name, Path(checkpoint))
    return describe_backbone(model.eval(), name)


def load_architecture(name: str) -> Backbone:
    """A timm Vision Transformer without its weights, for what does not depend on them; nothing is downloaded.

    Raises:
        VittleError: no such model.
        UnsupportedBackboneError: a model that cannot be reduced, with the reason.
    """
    return describe_backbone(_create(name, pretrained=False).eval(), name)


def untrained_digits(**arguments: Any) -> nn.Module:
    """The architecture of the embedded backbone with random weights, and with what else timm's constructor takes."""
    model: nn.Module = _create(digits.ARCHITECTURE, pretrained=False, **digits.ARGUMENTS, **arguments)
    return model


def describe_backbone(model: nn.Module, name: str) -> Backbone:
    """A loaded model with its shape, preprocessing and fingerprint.

    Raises:
        UnsupportedBackboneError: the model cannot be reduced, with the reason.
    """
    vit: Any = model
    config = resolve_model_data_config(vit)
    shape = shape_of(model)
    preprocessing = Preprocessing(
        size=(vit.patch_embed.img_size[0], vit.patch_embed.img_size[1]),
        crop=float(config["crop_pct"]),
        interpolation=str(config["interpolation"]),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )
    return Backbone(name, model, shape, preprocessing, int(vit.num_classes) if vit.global_pool else 0, fingerprint(model))


def shape_of(model: nn.Module | BackboneShape) -> BackboneShape:
    """The sizes of a timm Vision Transformer that decide its costs; a shape is returned as it is.

    Raises:
        UnsupportedBackboneError: a class, block, attention, embedding or pooling that is not understood.
    """
    if isinstance(model, BackboneShape):
        return model
    return _read_shape(model)


def _read_shape(model: Any) -> BackboneShape:
    if type(model) not in (VisionTransformer, VisionTransformerDistilled):
        raise _refusal(f"{type(model).__name__} is not a timm VisionTransformer")
    if type(model.patch_embed) is not PatchEmbed:
        raise _refusal(f"its patch embedding is a {type(model.patch_embed).__name__}, not one strided convolution")
    if model.attn_pool is not None or model.global_pool not in POOLS:
        raise _refusal(f"its head pools with {model.global_pool!r}, which would need to know the tokens' sizes")
    blocks = [_block_shape(block) for block in model.blocks]
    if not blocks or any(block != blocks[0] for block in blocks):
        raise _refusal("its blocks differ in shape" if blocks else "it has no blocks")
    embed = model.patch_embed
    heads = [model.head, getattr(model, "head_dist", None)]
    in_blocks = _weights(model.blocks)
    return BackboneShape(
        depth=len(blocks),
        width=model.embed_dim,
        grid=(embed.grid_size[0], embed.grid_size[1]),
        prefix=model.num_prefix_tokens,
        embed_macs=embed.num_patches * embed.proj.weight.numel(),
        head_macs=sum(head.weight.numel() for head in heads if isinstance(head, nn.Linear)),
        reads_prefix_only=model.global_pool == "token",
        has_class=bool(model.has_class_token),
        block_parameters=in_blocks // len(blocks),
        other_parameters=_weights(model) - in_blocks,
        **blocks[0],
    )


def open_dataset(source: str, accepted: str) -> Any:
    """The validation split of a dataset that timm opens: indexable, giving (PIL image, label).

    Args:
        source: `name[:root]`, for example `torch/cifar10:/data` or `hfds/owner/name`.
        accepted: what to say is accepted where it cannot be opened.

    Raises:
        VittleError: timm cannot open it.
    """
    name, _, root = source.partition(":")
    try:
        return create_dataset(name, root=root or None, split="validation")
    except Exception as error:  # timm, torchvision and the hub raise whatever they meet
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise VittleError(f"cannot open data {source!r} ({reason}); accepted: {accepted}") from None


def fingerprint(model: nn.Module) -> str:
    """Twelve hexadecimal digits of all weights, so that a result is never taken for another model's."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().float().contiguous().numpy().data)
    return digest.hexdigest()[:12]


def _weights(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def _block_shape(block: Any) -> dict[str, int]:
    if type(block) is not Block:
        raise _refusal(f"its blocks are {type(block).__name__}, not the pre-norm Block")
    attention = block.attn
    if type(attention) is not Attention or not isinstance(attention.qkv, nn.Linear):
        raise _refusal(f"its attention is {type(attention).__name__}, not multi-head self-attention with one qkv matrix")
    qkv = attention.qkv.weight.numel()
    gate = getattr(attention, "gate", None)
    query = qkv // 3 + attention.proj.weight.numel() + (gate.weight.numel() if gate is not None else 0)
    mlp = sum(layer.weight.numel() for layer in block.mlp.modules() if isinstance(layer, nn.Linear))
    return {
        "heads": attention.num_heads,
        "attention_width": attention.qkv.out_features // 3,
        "key_macs": 2 * qkv // 3,
        "query_macs": query,
        "mlp_macs": mlp,
    }


def _refusal(reason: str) -> UnsupportedBackboneError:
    return UnsupportedBackboneError(
        f"this model cannot be reduced: {reason}; "
        "accepted: timm VisionTransformer models (vit_*, deit*_*, dinov2) with plain blocks"
    )


def _create(name: str, *, pretrained: bool, **arguments: Any) -> Any:
    try:
        return timm.create_model(name, pretrained=pretrained, **arguments)
    except Exception as error:  # timm and the hub raise whatever they meet: RuntimeError, OSError, KeyError, HTTP errors
        raise _cannot_create(name, pretrained, error) from None


def _cannot_create(name: str, pretrained: bool, error: Exception) -> VittleError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    local = ":" in name
    architecture = name.split(".")[0]
    if not local and not timm.is_model(architecture):
        close = difflib.get_close_matches(architecture, timm.list_models("*vit*") + timm.list_models("deit*"), n=3)
        hint = f" (did you mean {', '.join(close)}?)" if close else ""
        return VittleError(
            f"unknown model {name!r}{hint}; accepted: {EMBEDDED}, a timm name, hf-hub:owner/name, local-dir:path"
        )
    if pretrained:
        return VittleError(
            f"cannot load the weights of {name!r} ({reason}); check the name and the network, or give --checkpoint FILE"
        )
    return VittleError(f"cannot build {name!r} ({reason})")


def _from_checkpoint(name: str, path: Path) -> Any:
    weights = _read_weights(path)
    arguments: dict[str, Any] = {}
    head = weights.get("head.weight")
    arguments["num_classes"] = 0 if head is None else head.shape[0]
    model = _create(name, pretrained=False, **arguments)
    embedding, ours = weights.get("pos_embed"), getattr(model, "pos_embed", None)
    if embedding is not None and ours is not None and embedding.shape[1] != ours.shape[1]:
        # Trained at another image size: build at that size rather than resample the position embedding in silence.
        side = round((embedding.shape[1] - (ours.shape[1] - model.patch_embed.num_patches)) ** 0.5)
        patch = model.patch_embed.patch_size
        model = _create(name, pretrained=False, img_size=(side * patch[0], side * patch[1]), **arguments)
    _load_weights(model, path, weights)
    return model


def _read_weights(path: Path) -> Mapping[str, torch.Tensor]:
    check_checkpoint(path)
    try:
        weights: Mapping[str, torch.Tensor] = load_state_dict(str(path), device="cpu", weights_only=True)
    except Exception:
        raise VittleError(f"cannot read {path} as weights; give a .safetensors or .pth state dict") from None
    return weights


def _load_weights(model: nn.Module, path: Path, weights: Mapping[str, torch.Tensor] | None = None) -> None:
    try:
        model.load_state_dict(dict(weights or _read_weights(path)))
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise VittleError(f"the weights in {path} are not of this model: {first}") from None
