"""A timm Vision Transformer that runs under a schedule. This file and `backbone.py` are all that know timm's block.

    block:  x <- x + attention(norm1(x)),  reductions,  x <- x + mlp(norm2(x))

Attention is always fused (`attention.py`). In the last block of a `tail: prefix` schedule only the prefix tokens
have queries; keys and values are still made for all, so their output is the same. A learned merge embedding (DTEM, arXiv
2412.10569) is a few more rows of the matrix that makes queries, keys and values.
"""

import copy
import importlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vittle.reductions.attention import Form, fastest_form, weighted_attention
from vittle.reductions.backbone import describe_backbone, shape_of
from vittle.reductions.merge_embedding import MergeEmbedding
from vittle.reductions.tokens import Attended, Attention, Operator, Site, Tokens, Traced, unmerge
from vittle.spaces import costs
from vittle.spaces.errors import ScheduleError, UnsupportedBackboneError, VittleError
from vittle.spaces.merging import Merging
from vittle.spaces.schedule import Schedule
from vittle.spaces.shape import BackboneShape
from vittle.spaces.table import REDUCTIONS


def apply(model: nn.Module, schedule: Schedule, adapter: str | Path | None = None) -> "ReducedViT":
    """A new module that runs `schedule`, called like the backbone; `model` and its weights stay as they are.

    Args:
        model: a timm VisionTransformer.
        schedule: for as many blocks as the model has.
        adapter: the file of a merge embedding, where the schedule's metric is `decoupled`.

    Raises:
        UnsupportedBackboneError: the model is not understood.
        ScheduleError: the schedule does not fit the model, or needs an adapter that is not given.
        VittleError: the adapter is not one, or belongs to another model.
    """
    shape_of(model)
    adapters = {}
    if adapter is not None:
        # Weights that were rounded to half precision have another fingerprint than those that it was trained with.
        exact = next(model.parameters()).dtype == torch.float32
        adapters[Merging.name] = MergeEmbedding.load(adapter, describe_backbone(model, "this model") if exact else None)
    return ReducedViT(copy.deepcopy(model), schedule, adapters)


def macs(model: nn.Module | BackboneShape, schedule: Schedule) -> int:
    """MACs of one image through `model` under `schedule`, in closed form: the model does not run. FLOPs are twice as many."""
    return costs.macs(shape_of(model), schedule)


def tokens(model: nn.Module | BackboneShape, schedule: Schedule) -> tuple[int, ...]:
    """Tokens left after each block of `model` under `schedule`, prefix tokens included."""
    return costs.tokens(shape_of(model), schedule)


class ReducedViT(nn.Module):
    """A backbone under a schedule. It shares the modules of the `backbone` that it is given; `apply` hands it a copy.

    Args:
        backbone: a timm VisionTransformer.
        schedule: for as many blocks as it has.
        adapters: trained weights that the schedule needs, by reduction.
        form: how attention is told the sizes of tokens; where none is given, the fastest on the device is measured.

    Raises:
        UnsupportedBackboneError: the model is not understood.
        ScheduleError: the schedule does not fit the model, or an adapter is missing.
    """

    def __init__(
        self,
        backbone: nn.Module,
        schedule: Schedule,
        adapters: Mapping[str, nn.Module] | None = None,
        form: Form | None = None,
    ) -> None:
        super().__init__()
        model: Any = backbone
        shape = shape_of(backbone)
        self.backbone = backbone
        self.schedule = schedule
        self.shape = shape
        self.plan = costs.plan(shape, schedule)
        self.proportional = all(part.attends_in_proportion(shape) for part in schedule.reductions)
        # An unreduced model tells no sizes, so nothing is measured for it.
        self.form: Form = form or (weighted_form(model, shape) if schedule.reductions and self.proportional else "mask")
        self.operators = nn.ModuleList(
            nn.ModuleList(_operators(schedule, shape, index, block)) for index, block in enumerate(self.plan)
        )
        self.projections = _projections(backbone, schedule, self.plan, adapters or {})
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

    def forward_tokens(self, images: Tensor) -> Tokens:
        """What `forward_features` gives, with how many patches each token stands for and where each patch went.

        `vittle.unmerge(features, source)` restores the grid.

        Raises:
            VittleError: the schedule's tail is `prefix`, so that patches have no features after the last block.
        """
        self._needs_patches(len(self.plan) - 1)
        state = self._encode(images, trace=True)
        if state.sizes is None:
            state = state._replace(sizes=state.features.new_ones(state.features.shape[:2], dtype=torch.float32))
        return state

    def get_intermediate_layers(
        self,
        images: Tensor,
        n: int | Sequence[int] = 1,
        reshape: bool = False,
        return_prefix_tokens: bool = False,
        norm: bool = False,
    ) -> list[Any]:
        """Features after some blocks with every patch back in its place, as timm's method of that name gives them.

        Args:
            images: (b, 3, height, width).
            n: the last n blocks, or the indices of blocks.
            reshape: give (b, d, rows, columns) in place of (b, patches, d).
            return_prefix_tokens: give pairs of patches and prefix tokens (b, prefix, d), where the model has any.
            norm: apply the backbone's last norm.

        Raises:
            VittleError: a block that there is not, or the last one where the schedule's tail is `prefix`.
        """
        depth = len(self.plan)
        blocks = range(-n, 0) if isinstance(n, int) else n
        if not blocks or not all(-depth <= block < depth for block in blocks):
            raise VittleError(f"n is {n}; accepted: 1 to {depth}, or indices of the model's {depth} blocks")
        wanted = {block % depth for block in blocks}
        self._needs_patches(max(wanted))
        model: Any = self.backbone
        found = []
        for index, (state, _) in enumerate(islice(self.trace(images), max(wanted) + 1)):
            if index in wanted:
                assert state.source is not None
                whole = unmerge(model.norm(state.features) if norm else state.features, state.source)
                prefix, patches = whole[:, : self.shape.prefix], whole[:, self.shape.prefix :]
                if reshape:
                    patches = patches.mT.reshape(len(images), -1, *self.shape.grid)
                found.append((patches, prefix) if return_prefix_tokens and self.shape.prefix else patches)
        return found

    def trace(self, images: Tensor) -> Iterator[Traced]:
        """Where each token of the first block is after every block that computes patches, which is all but a `prefix` tail.

        Args:
            images: (b, 3, height, width).
        """
        model: Any = self.backbone
        state = self.embed(images, trace=True)
        dropped = torch.zeros(state.features.shape[:2], dtype=torch.bool, device=images.device)
        for index, block in enumerate(model.blocks):
            if self.plan[index].queries < self.plan[index].keys:
                return
            entered = state.source
            assert entered is not None
            state, remaining = self._attend(index, block, state)
            state = state._replace(features=pass_mlp(block, state.features))
            if remaining is not None:
                gone = torch.ones((len(images), self.plan[index].keys), dtype=torch.bool, device=images.device)
                dropped = dropped | gone.scatter_(1, remaining, False).gather(1, entered)
            yield Traced(state, dropped)

    def _needs_patches(self, block: int) -> None:
        if block == len(self.plan) - 1 and self.schedule.tail == "prefix":
            raise VittleError("tail: prefix computes no patches in the last block; accepted: a schedule with tail: full")

    @property
    def resumable(self) -> int:
        """The last block whose attention is that of a dense pass, which this model can `resume` from; -1 for none."""
        block = next((index for index, block in enumerate(self.plan) if block.steps), len(self.plan) - 1)
        # A merge embedding is made together with queries, keys and values, and a last block may ask for prefix tokens alone.
        return block - 1 if str(block) in self.projections or self.plan[block].queries < self.plan[block].keys else block

    def resume(self, block: int, features: Tensor, attended: Attention) -> Tensor:
        """Logits (b, classes) of a batch that a dense pass has brought through the attention of a block.

        Args:
            block: at most `resumable`.
            features: (b, n, d), the attention's residual added.
            attended: what that attention looked like.
        """
        if not 0 <= block <= self.resumable:
            raise ValueError(f"cannot resume from block {block}; accepted: 0 to {self.resumable}")
        model: Any = self.backbone
        state, _ = self._reduce(block, Tokens(features), attended)
        state = state._replace(features=pass_mlp(model.blocks[block], state.features))
        return classify(model, self._finish(state, block + 1))

    def _encode(self, images: Tensor, *, trace: bool = False) -> Tokens:
        return self._finish(self.embed(images, trace=trace), 0)

    def _finish(self, state: Tokens, start: int) -> Tokens:
        model: Any = self.backbone
        for index, block in enumerate(model.blocks[start:], start):
            # No earlier state is kept: memory that is held is memory that the next block has to ask for.
            state = self._block(index, block, state)
        return state._replace(features=model.norm(state.features))

    def embed(self, images: Tensor, *, trace: bool = False) -> Tokens:
        """The tokens that enter the first block; with `trace`, each knows where it is."""
        model: Any = self.backbone
        state = Tokens(model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(images)))))
        b, n, _ = state.features.shape
        if n != self.plan[0].keys:
            raise VittleError(f"the images give {n} tokens, the schedule starts from {self.plan[0].keys}")
        if trace:
            state = state._replace(source=torch.arange(n, device=images.device).expand(b, n))
        return state

    def _block(self, index: int, block: Any, state: Tokens) -> Tokens:
        state, _ = self._attend(index, block, state)
        return state._replace(features=pass_mlp(block, state.features))

    def _attend(self, index: int, block: Any, state: Tokens) -> tuple[Tokens, Tensor | None]:
        # A function of its own, so that the memory of queries, keys and values is free again for the MLP.
        queries = self.plan[index].queries
        sizes = state.sizes if self.proportional else None
        name = str(index)
        projection: Any = self.projections[name] if name in self.projections else block.attn.qkv  # noqa: SIM401, it has no `get`
        attended, features = pass_attention(block, projection, state.features, sizes, queries, self.form)
        state = state._replace(features=features, sizes=None if state.sizes is None else state.sizes[:, :queries])
        return self._reduce(index, state, attended)

    def _reduce(self, index: int, state: Tokens, attended: Attention) -> tuple[Tokens, Tensor | None]:
        """The tokens left, and (b, n) which of those that entered nothing has dropped, merged ones included; None for all."""
        for operator in self.operators[index]:  # type: ignore[attr-defined]
            state, attended = operator(state, attended)
        return state, attended.remaining


def pass_attention(
    block: Any, projection: nn.Linear, features: Tensor, sizes: Tensor | None, queries: int, form: Form
) -> tuple[Attended, Tensor]:
    """The first half of timm's block, of tokens (b, n, d): what operators see of its attention, and (b, queries, d)."""
    attended, output = attend(block.attn, projection, block.norm1(features), sizes, queries, form)
    return attended, features[:, :queries] + block.drop_path1(block.ls1(output))


def pass_mlp(block: Any, features: Tensor) -> Tensor:
    """The second half of timm's block, of tokens (b, n, d)."""
    passed: Tensor = block.drop_path2(block.ls2(block.mlp(block.norm2(features))))
    return features + passed


def attend(
    attention: Any, projection: nn.Linear, features: Tensor, sizes: Tensor | None, queries: int, form: Form
) -> tuple[Attended, Tensor]:
    """timm's self-attention of the first `queries` tokens over all of them, always fused.

    Args:
        attention: timm's `Attention`.
        projection: makes queries, keys and values, and below them the merge embedding where there is one: (3 h c + e, d).
        features: (b, n, d), normalised.
        sizes: (b, n) patches per token, or None for unweighted keys.
        queries: tokens that attend; n for all.
        form: how the kernel is told the sizes.

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
    dropout = attention.attn_drop.p if attention.training else 0.0
    mixed = weighted_attention(q, k, v, log_sizes, scale=attention.scale, dropout=dropout, form=form)
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


def weighted_form(model: Any, shape: BackboneShape) -> Form:
    """The fastest form of attention to tokens of different sizes, for a timm model where it is."""
    weight = model.patch_embed.proj.weight
    if weight.is_meta:
        return "mask"  # nothing runs there
    return fastest_form(weight.device, weight.dtype, shape.heads, shape.attention_width // shape.heads, shape.tokens)


def _operators(schedule: Schedule, shape: BackboneShape, index: int, block: costs.BlockWork) -> Iterator[Operator]:
    entering = block.keys
    for name, left in block.steps:
        module, _, operator = REDUCTIONS[name].operator.partition(":")
        settings = next(part for part in schedule.reductions if part.name == name)
        yield getattr(importlib.import_module(module), operator)(settings, Site(shape, index, entering, left))
        entering = left


def _projections(
    backbone: nn.Module, schedule: Schedule, plan: Sequence[costs.BlockWork], adapters: Mapping[str, nn.Module]
) -> nn.ModuleDict:
    """For each block with a learned embedding, the backbone's qkv with the embedding's rows below it."""
    model: Any = backbone
    fused = nn.ModuleDict()
    for part in schedule.reductions:
        if part.adapter is None:
            continue
        adapter: Any = adapters.get(part.name)
        if adapter is None or adapter.name != part.adapter:
            given = "none is given" if adapter is None else f"{adapter.name} is given"
            raise ScheduleError(
                f"the schedule's {part.name} needs the trained weights {part.adapter}, {given}; give their file as adapter"
            )
        for index, block in enumerate(plan):
            if part.name in dict(block.steps):
                fused[str(index)] = _stacked(model.blocks[index].attn.qkv, adapter.layers[index])
    return fused


@torch.no_grad()
def _stacked(above: nn.Linear, below: nn.Linear) -> nn.Linear:
    """One linear layer whose output is that of both, one after the other."""
    like: Any = {"device": above.weight.device, "dtype": above.weight.dtype}
    # Made without values, as all are copied: a random start would use up the caller's random numbers.
    both = nn.Linear(above.in_features, above.out_features + below.out_features, dtype=above.weight.dtype, device="meta")
    both.to_empty(device=above.weight.device)
    both.weight.copy_(torch.cat([above.weight, below.weight.to(**like)]))
    bias = [torch.zeros_like(layer.weight[:, 0]) if layer.bias is None else layer.bias for layer in (above, below)]
    both.bias.copy_(torch.cat([part.to(**like) for part in bias]))
    return both.requires_grad_(above.weight.requires_grad)
