"""timm's block in two halves, attention and MLP, and what comes before the first and after the last one.

x <- x + attention(norm1(x)),    x <- x + mlp(norm2(x))
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from vittle.reductions.attention import Form, fastest_form, weighted_attention
from vittle.reductions.tokens import Attended, Heads, Tokens
from vittle.spaces.shape import BackboneShape

Core = Callable[[Heads], Tensor]
"""What mixes the values (b, h, q, c) in place of fused attention."""


def embed(model: nn.Module, images: Tensor) -> Tensor:
    """The tokens (b, n, d) that enter a model's first block, of images (b, 3, height, width)."""
    vit: Any = model
    return vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(images))))  # type: ignore[no-any-return]


def pass_attention(
    block: Any,
    projection: nn.Linear,
    features: Tensor,
    sizes: Tensor | None,
    queries: int,
    form: Form,
    core: Core | None = None,
) -> tuple[Attended, Tensor]:
    """The first half of timm's block, of tokens (b, n, d): what operators see of its attention, and (b, queries, d)."""
    attended, output = attend(block.attn, projection, block.norm1(features), sizes, queries, form, core)
    return attended, features[:, :queries] + block.drop_path1(block.ls1(output))


def pass_mlp(block: Any, features: Tensor) -> Tensor:
    """The second half of timm's block, of tokens (b, n, d)."""
    passed: Tensor = block.drop_path2(block.ls2(block.mlp(block.norm2(features))))
    return features + passed


def attend(
    attention: Any,
    projection: nn.Linear,
    features: Tensor,
    sizes: Tensor | None,
    queries: int,
    form: Form,
    core: Core | None = None,
) -> tuple[Attended, Tensor]:
    """timm's self-attention of the first `queries` tokens over all of them, fused unless something else is its core.

    Args:
        attention: timm's `Attention`.
        projection: makes queries, keys and values, and below them the merge embedding where there is one: (3 h c + e, d).
        features: (b, n, d), normalised.
        sizes: (b, n) patches per token, or None for unweighted keys.
        queries: tokens that attend; n for all.
        form: how the kernel is told the sizes.
        core: what mixes the values, in place of the fused kernel.

    Returns:
        What operators see of it, and the output (b, q, d).
    """
    b, n, _ = features.shape
    h, c = attention.num_heads, attention.head_dim
    asking = features[:, :queries]
    weight, bias = projection.weight, projection.bias
    embedding = None
    if queries == n:
        made = projection(features)  # (b, n, 3 h c + e)
        if made.shape[2] > 3 * h * c:
            embedding = made[..., 3 * h * c :]
        q, k, v = made[..., : 3 * h * c].unflatten(2, (3, h, c)).permute(2, 0, 3, 1, 4).unbind(0)  # each (b, h, n, c)
    else:
        bias_q, bias_kv = (None, None) if bias is None else (bias[: h * c], bias[h * c :])
        q = functional.linear(asking, weight[: h * c], bias_q).view(b, queries, h, c).transpose(1, 2)
        k, v = functional.linear(features, weight[h * c :], bias_kv).view(b, n, 2, h, c).permute(2, 0, 3, 1, 4).unbind(0)
    q, k = attention.q_norm(q), attention.k_norm(k)
    log_sizes = None if sizes is None else sizes.log().to(q.dtype)[:, None, None, :]  # (b, 1, 1, n)
    if core is None:
        dropout = attention.attn_drop.p if attention.training else 0.0
        mixed = weighted_attention(q, k, v, log_sizes, scale=attention.scale, dropout=dropout, form=form)
    else:
        mixed = core(Heads(q, k, v, log_sizes, attention.scale, form))
    mixed = attention.norm(mixed.transpose(1, 2).reshape(b, queries, h * c))
    gate = getattr(attention, "gate", None)
    if gate is not None:
        mixed = mixed * gate(asking).sigmoid()
    return Attended(q, k, attention.scale, log_sizes, embedding), attention.proj_drop(attention.proj(mixed))


def classify(model: nn.Module, tokens: Tokens) -> Tensor:
    """Logits (b, classes) of a model's normalised last tokens; pooled as if each were still all of its patches."""
    vit: Any = model
    if tokens.sizes is None or vit.global_pool in ("token", ""):
        return vit.forward_head(tokens.features)  # type: ignore[no-any-return]
    start = 0 if vit.pool_include_prefix else vit.num_prefix_tokens
    pooled = _pool(tokens.features[:, start:], tokens.sizes[:, start:], vit.global_pool)
    return vit.head(vit.head_drop(vit.fc_norm(pooled)))  # type: ignore[no-any-return]


def _pool(features: Tensor, sizes: Tensor, kind: str) -> Tensor:
    """Pool tokens (b, n, d) as if each were still `sizes` (b, n) patches."""
    mean = (features * sizes[..., None]).sum(1) / sizes.sum(1, keepdim=True)
    mean = mean.to(features.dtype)
    if kind == "avg":
        return mean
    highest = features.amax(1)
    return highest if kind == "max" else (highest + mean) / 2


def weighted_form(model: Any, shape: BackboneShape) -> Form:
    """The fastest form of attention to tokens of different sizes, for a timm model where it is."""
    weight = model.patch_embed.proj.weight
    if weight.is_meta:
        return "mask"  # nothing runs there
    return fastest_form(weight.device, weight.dtype, shape.heads, shape.attention_width // shape.heads, shape.tokens)
