"""A timm Vision Transformer that runs under a schedule. This file and `backbone.py` are all that know timm's block.

    block:  x <- x + attention(norm1(x)),  reductions,  x <- x + mlp(norm2(x))

Attention is always fused. A token that stands for s patches is attended to s times as strongly: log s is added to its logits
("proportional attention", arXiv 2210.09461, section 3). In the last block of a `tail: prefix` schedule only the prefix tokens
have queries; keys and values are still made for all, so their output is the same.
"""

import copy
import importlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vittle.reductions.backbone import shape_of
from vittle.reductions.tokens import Attended, Operator, Tokens
from vittle.spaces import costs
from vittle.spaces.errors import UnsupportedBackboneError, VittleError
from vittle.spaces.schedule import Schedule
from vittle.spaces.shape import BackboneShape
from vittle.spaces.table import REDUCTIONS


def apply(model: nn.Module, schedule: Schedule) -> "ReducedViT":
    """A new module that runs `schedule`, called like the backbone; `model` and its weights stay as they are.

    Args:
        model: a timm VisionTransformer.
        schedule: for as many blocks as the model has.

    Raises:
        UnsupportedBackboneError: the model is not understood.
        ScheduleError: the schedule does not fit the model.
    """
    shape_of(model)
    return ReducedViT(copy.deepcopy(model), schedule)


def macs(model: nn.Module | BackboneShape, schedule: Schedule) -> int:
    """MACs of one image through `model` under `schedule`, in closed form: the model does not run. FLOPs are twice as many."""
    return costs.macs(shape_of(model), schedule)


def tokens(model: nn.Module | BackboneShape, schedule: Schedule) -> tuple[int, ...]:
    """Tokens left after each block of `model` under `schedule`, prefix tokens included."""
    return costs.tokens(shape_of(model), schedule)


class ReducedViT(nn.Module):
    """A backbone under a schedule. It shares the modules of the `backbone` that it is given; `apply` hands it a copy."""

    def __init__(self, backbone: nn.Module, schedule: Schedule) -> None:
        super().__init__()
        model: Any = backbone
        shape = shape_of(backbone)
        self.backbone = backbone
        self.schedule = schedule
        self.plan = costs.plan(shape, schedule)
        self.prefix = shape.prefix
        self.proportional = all(getattr(part, "proportional", True) for part in schedule.reductions)
        self.operators = [
            [_operator(schedule, name, index, shape.prefix, left) for name, left in block.steps]
            for index, block in enumerate(self.plan)
        ]
        self.num_classes: int = model.num_classes
        self.num_features: int = model.num_features
        self.num_prefix_tokens: int = model.num_prefix_tokens
        self.pretrained_cfg: dict[str, Any] = model.pretrained_cfg
        self.train(backbone.training)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (b, classes) of images (b, 3, height, width)."""
        return classify(self.backbone, self._encode(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """The tokens that are left after the last block, normalised: (b, n, d) with n = `self.plan[-1].tokens`."""
        return self._encode(images).features

    def _encode(self, images: Tensor) -> Tokens:
        model: Any = self.backbone
        state = Tokens(model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(images)))))
        if state.features.shape[1] != self.plan[0].keys:
            raise VittleError(f"the images give {state.features.shape[1]} tokens, the schedule starts from {self.plan[0].keys}")
        for block, plan, operators in zip(model.blocks, self.plan, self.operators, strict=True):
            state = self._block(block, plan.queries, operators, state)
        return state._replace(features=model.norm(state.features))

    def _block(self, block: Any, queries: int, operators: list[Operator], state: Tokens) -> Tokens:
        state = self._attend(block, queries, operators, state)
        features = state.features
        return state._replace(features=features + block.drop_path2(block.ls2(block.mlp(block.norm2(features)))))

    def _attend(self, block: Any, queries: int, operators: list[Operator], state: Tokens) -> Tokens:
        # A function of its own, so that the memory of queries, keys and values is free again for the MLP.
        sizes = state.sizes if self.proportional else None
        attended, output = attend(block.attn, block.norm1(state.features), sizes, queries)
        features = state.features[:, :queries] + block.drop_path1(block.ls1(output))  # (b, q, d)
        state = Tokens(features, None if state.sizes is None else state.sizes[:, :queries])
        for operator in operators:
            state = operator(state, attended)
        return state


def attend(attention: Any, features: Tensor, sizes: Tensor | None, queries: int) -> tuple[Attended, Tensor]:
    """timm's self-attention of the first `queries` tokens over all of them, always fused.

    Args:
        attention: timm's `Attention`.
        features: (b, n, d), normalised.
        sizes: (b, n) patches per token, or None for unweighted keys.
        queries: tokens that attend; n for all.

    Returns:
        The heads, and the output (b, q, d).
    """
    b, n, _ = features.shape
    h, c = attention.num_heads, attention.head_dim
    asking = features[:, :queries]
    if queries == n:
        q, k, v = attention.qkv(features).view(b, n, 3, h, c).permute(2, 0, 3, 1, 4).unbind(0)  # each (b, h, n, c)
    else:
        weight, bias = attention.qkv.weight, attention.qkv.bias
        bias_q, bias_kv = (None, None) if bias is None else (bias[: h * c], bias[h * c :])
        q = functional.linear(asking, weight[: h * c], bias_q).view(b, queries, h, c).transpose(1, 2)
        k, v = functional.linear(features, weight[h * c :], bias_kv).view(b, n, 2, h, c).permute(2, 0, 3, 1, 4).unbind(0)
    q, k = attention.q_norm(q), attention.k_norm(k)
    bias = None if sizes is None else sizes.log().to(q.dtype)[:, None, None, :]  # (b, 1, 1, n)
    dropout = attention.attn_drop.p if attention.training else 0.0
    mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout, scale=attention.scale)
    mixed = attention.norm(mixed.transpose(1, 2).reshape(b, queries, h * c))
    gate = getattr(attention, "gate", None)
    if gate is not None:
        mixed = mixed * gate(asking).sigmoid()
    return Attended(q, k), attention.proj_drop(attention.proj(mixed))


def classify(model: nn.Module, tokens: Tokens) -> Tensor:
    """Logits (b, classes) of a model's normalised last tokens; pooled as if each were still all of its patches."""
    vit: Any = model
    if tokens.sizes is None or vit.global_pool in ("token", ""):
        return vit.forward_head(tokens.features)  # type: ignore[no-any-return]
    start = 0 if vit.pool_include_prefix else vit.num_prefix_tokens
    pooled = _pool(tokens.features[:, start:], tokens.sizes[:, start:], vit.global_pool)
    return vit.head(vit.head_drop(vit.fc_norm(pooled)))  # type: ignore[no-any-return]


@torch.inference_mode()
def check_identity(model: nn.Module, tolerance: float = 1e-5) -> None:
    """Refuse a model that an empty schedule would change.

    Raises:
        UnsupportedBackboneError: the outputs differ by more than `tolerance` of the largest one, in float32.
    """
    vit: Any = model
    generator = torch.Generator().manual_seed(0)
    first = next(model.parameters())
    images = torch.randn(2, vit.patch_embed.proj.in_channels, *vit.patch_embed.img_size, generator=generator).to(
        first.device, first.dtype
    )
    expected = model(images)
    difference = (ReducedViT(model, Schedule())(images) - expected).abs().max() / expected.abs().max().clamp(min=1)
    if not difference <= tolerance:
        raise UnsupportedBackboneError(
            f"this model cannot be reduced: an empty schedule changes its output by {difference:.1e}, more than {tolerance:.0e}"
        )


def _pool(features: Tensor, sizes: Tensor, kind: str) -> Tensor:
    """Pool tokens (b, n, d) as if each were still `sizes` (b, n) patches."""
    mean = (features * sizes[..., None]).sum(1) / sizes.sum(1, keepdim=True)
    mean = mean.to(features.dtype)
    if kind == "avg":
        return mean
    highest = features.amax(1)
    return highest if kind == "max" else (highest + mean) / 2


def _operator(schedule: Schedule, name: str, block: int, prefix: int, keep: int) -> Operator:
    module, _, operator = REDUCTIONS[name].operator.partition(":")
    settings = next(part for part in schedule.reductions if part.name == name)
    made: Operator = getattr(importlib.import_module(module), operator)(settings, block, prefix, keep)
    return made
