"""Load a Vision Transformer of timm's, read its shape, refuse what is not understood.

This file and those that it loads with, `zoo.py`, `state_dict.py` and `checkpoints.py`, are all that import timm.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from timm.data.config import resolve_model_data_config
from timm.data.dataset_factory import create_dataset
from timm.layers.attention import Attention
from timm.layers.patch_embed import PatchEmbed
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from vittle.reductions import digits
from vittle.reductions.checkpoints import Size, check_finite, grid_of, load_checkpoint
from vittle.reductions.state_dict import shortened
from vittle.reductions.zoo import create, outline
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
    notes: tuple[str, ...] = ()  # what was decided where its file left a choice


def load_backbone(name: str = EMBEDDED, checkpoint: str | Path | None = None, image_size: Size | None = None) -> Backbone:
    """Build a timm Vision Transformer with its weights.

    Args:
        name: `digits` for the embedded default, else anything that `timm.create_model` takes: an architecture with an optional
            weight tag, `hf-hub:owner/name` or `local-dir:path`.
        checkpoint: a file of weights in place of the published ones; see `vittle.reductions.checkpoints`.
        image_size: height and width that images are taken at; by default those that the weights were trained at.

    Raises:
        VittleError: no such model, no such file, weights that do not fit, are not finite or cannot be had.
        UnsupportedBackboneError: a model that cannot be reduced, with the reason.
    """
    notes: list[str] = []
    if checkpoint is not None:
        check_checkpoint(Path(checkpoint))
        architecture, arguments = (digits.ARCHITECTURE, digits.ARGUMENTS) if name == EMBEDDED else (name, {})
        drawn = outline(architecture, **arguments)
        shape_of(drawn)
        model, notes = load_checkpoint(architecture, drawn, Path(checkpoint), image_size, **arguments)
    elif name == EMBEDDED:
        _check_embedded(image_size)
        model = untrained_digits()
        model.load_state_dict(load_file(digits.WEIGHTS))
    else:
        check_known(name, image_size)
        model = _sized(name, image_size, create, pretrained=True)
    check_finite(model, shortened(name if checkpoint is None else Path(checkpoint).name))
    return replace(describe_backbone(model.eval(), name), notes=tuple(notes))


def load_architecture(name: str, image_size: Size | None = None) -> Backbone:
    """A timm Vision Transformer without its weights, for what does not depend on them; nothing is downloaded.

    Raises:
        VittleError: no such model.
        UnsupportedBackboneError: a model that cannot be reduced, with the reason.
    """
    return describe_backbone(_sized(name, image_size, create, pretrained=False).eval(), name)


def check_known(name: str, image_size: Size | None = None) -> BackboneShape | None:
    """Refuse what is wrong with a model by its name alone, before anything is fetched.

    Returns:
        Its shape, unless its files have to say it, or its checkpoint.

    Raises:
        VittleError: no such model, or one that does not take images of this size.
        UnsupportedBackboneError: a model that cannot be reduced, with the reason.
    """
    if name == EMBEDDED:
        _check_embedded(image_size)
        return None
    return None if ":" in name else shape_of(_sized(name, image_size, outline))


def _check_embedded(image_size: Size | None) -> None:
    if image_size is not None:
        raise VittleError(f"the weights of {EMBEDDED} take images of 32x32 pixels; --image-size is for other models")


def _sized(name: str, image_size: Size | None, build: Callable[..., Any], **arguments: Any) -> Any:
    """A model at an image size that fits its patches, or at its own."""
    if image_size is None:
        return build(name, **arguments)
    model = build(name, img_size=image_size, **arguments)
    grid_of(image_size, model)
    return model


def untrained_digits(**arguments: Any) -> nn.Module:
    """The architecture of the embedded backbone with random weights, and with what else timm's constructor takes."""
    model: nn.Module = create(digits.ARCHITECTURE, pretrained=False, **digits.ARGUMENTS, **arguments)
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
    embed: Any = getattr(model, "patch_embed", None)
    if embed is not None and embed.grid_size[0] != embed.grid_size[1]:
        # The same weights are another model than those of a square with as many patches.
        digest.update(f"grid {embed.grid_size}".encode())
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
