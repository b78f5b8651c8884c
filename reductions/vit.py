"""A timm Vision Transformer that runs under a schedule. This file, `block.py` and `backbone.py` are all that know its blocks.

    visit:  select who takes part,  x <- x + attention(norm1(x)),  reduce tokens,  x <- x + mlp(norm2(x)),  put back

What runs in which visit is read off the schedule's rows of work (`spaces.costs.work`). Attention is always fused
(`attention.py`), unless something acts in place of its core. In the last visit of a `tail: prefix` schedule only the prefix
tokens have queries; keys and values are still made for all, so their output is the same. A learned merge embedding (DTEM, arXiv
2412.10569) is a few more rows of the matrix that makes queries, keys and values.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vittle.reductions.adapters import load_adapters
from vittle.reductions.attention import Form
from vittle.reductions.backbone import describe_backbone, shape_of
from vittle.reductions.block import Core, classify, embed, pass_attention, pass_mlp, weighted_form
from vittle.reductions.operators import needed, operators_of, projections_of
from vittle.reductions.tokens import (
    Attention,
    FinalTokens,
    Operator,
    Signalling,
    Telling,
    Tokens,
    Told,
    Traced,
    take,
    unmerge,
)
from vittle.reductions.trained_adapter import TrainedAdapter
from vittle.spaces import costs
from vittle.spaces.errors import UnsupportedBackboneError, VittleError
from vittle.spaces.schedule import Schedule
from vittle.spaces.shape import BackboneShape
from vittle.spaces.table import adapter_files
from vittle.spaces.work import BlockWork, Place, Visit

Asked = Callable[[Operator, str], Operator]
"""Has an operator, of a reduction of that name, say more than it does by itself."""


class Signal(NamedTuple):
    """One of the signals of a reduced model: of which reduction, in which visit, and in which step of a recursion."""

    reduction: str
    visit: int
    step: int


def apply(model: nn.Module, schedule: Schedule, adapters: str | Path | Mapping[str, str | Path] | None = None) -> "ReducedViT":
    """A new module that runs `schedule`, called like the backbone; `model` and its weights stay as they are.

    Args:
        model: a timm VisionTransformer.
        schedule: for as many blocks as the model has.
        adapters: files of the trained weights that the schedule needs, by reduction; a file alone is a merge embedding. A
            schedule that was loaded from an exported file knows them already.

    Raises:
        UnsupportedBackboneError: the model is not understood.
        ScheduleError: the schedule does not fit the model, or needs an adapter that is not given.
        VittleError: an adapter is not one, or belongs to another model.
    """
    shape_of(model)
    files: dict[str, str | Path] = {**schedule.files, **adapter_files(adapters or {})}
    # Weights that were rounded to half precision have another fingerprint than those that an adapter was trained with.
    exact = bool(files) and next(model.parameters()).dtype == torch.float32
    loaded = load_adapters(files, describe_backbone(model, "this model") if exact else None)
    return ReducedViT(copy.deepcopy(model), schedule, loaded)


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
        shape: the backbone's, where trained weights have taken the place of its blocks, so that it cannot be read any more.

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
        shape: BackboneShape | None = None,
    ) -> None:
        super().__init__()
        shape = shape or shape_of(backbone)
        self.adapters = trained = needed(schedule, adapters or {}, next(backbone.parameters()))
        self.backbone = backbone = _with_blocks(backbone, trained.values())
        model: Any = backbone
        self.schedule = schedule
        self.shape = shape
        self.work = costs.work(shape, schedule)
        self.proportional = costs.attends_in_proportion(shape, schedule)
        # Where nothing is added to logits, nothing is measured.
        weighted = self.proportional or any(row.at("attention") for row in self.work)
        self.form: Form = form or (weighted_form(model, shape) if schedule.reductions and weighted else "mask")
        self.operators = operators_of(schedule, shape, self.work, trained).to(next(backbone.parameters()))
        # Not registered: its parts are the backbone's and the operators'.
        self.blocks = tuple(self._dressed(row) for row in self.work)
        self.projections = projections_of(backbone, self.work, self.operators)
        self.num_classes: int = model.num_classes
        self.num_features: int = model.num_features
        self.num_prefix_tokens: int = model.num_prefix_tokens
        self.pretrained_cfg: dict[str, Any] = model.pretrained_cfg
        self.train(backbone.training)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (b, classes) of images (b, 3, height, width)."""
        return classify(self.backbone, self._encode(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """The tokens that are left after the last block, normalised: (b, n, d) with n = `self.work[-1].leaving`."""
        return self._encode(images).features

    def forward_tokens(self, images: Tensor) -> FinalTokens:
        """What `forward_features` gives, with how many patches each token stands for and where each patch went.

        `vittle.unmerge(features, source)` restores the grid.

        Raises:
            VittleError: the schedule's tail is `prefix`, so that patches have no features after the last block.
        """
        self._needs_patches(len(self.work) - 1)
        state = self._encode(images, trace=True)
        sizes = state.features.new_ones(state.features.shape[:2], dtype=torch.float32) if state.sizes is None else state.sizes
        assert state.source is not None
        return FinalTokens(state.features, sizes, state.source)

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
        depth = len(self.work)
        blocks = range(-n, 0) if isinstance(n, int) else n
        if not blocks or not all(-depth <= block < depth for block in blocks):
            raise VittleError(f"n is {n}; accepted: 1 to {depth}, or indices of the model's {depth} blocks")
        wanted = {block % depth for block in blocks}
        self._needs_patches(max(wanted))
        model: Any = self.backbone
        found = []
        for index, (state, *_) in enumerate(islice(self.trace(images), max(wanted) + 1)):
            if index in wanted:
                assert state.source is not None
                whole = unmerge(model.norm(state.features) if norm else state.features, state.source)
                prefix, patches = whole[:, : self.shape.prefix], whole[:, self.shape.prefix :]
                if reshape:
                    patches = patches.mT.reshape(images.shape[0], -1, *self.shape.grid)
                found.append((patches, prefix) if return_prefix_tokens and self.shape.prefix else patches)
        return found

    def states(self, images: Tensor) -> Iterator[Tensor]:
        """The features (b, n, d) that enter the first visit, and those after every one, of images (b, 3, height, width)."""
        state = self.embed(images)
        yield state.features
        for row in self.work:
            state, _ = self._visit(row, state)
            yield state.features

    def trace(self, images: Tensor) -> Iterator[Traced]:
        """Where each token of the first block is after every visit that computes patches, which is all but a `prefix` tail.

        Args:
            images: (b, 3, height, width).
        """
        state = self.embed(images, trace=True)
        dropped = torch.zeros(state.features.shape[:2], dtype=torch.bool, device=images.device)
        for row in self.work:
            if row.queries < row.keys:
                return
            entered = state.source
            assert entered is not None
            told: Told = {}
            state, remaining = self._visit(row, state, partial(Telling, told=told))
            if remaining is not None:
                gone = torch.ones((images.shape[0], row.keys), dtype=torch.bool, device=images.device)
                dropped = dropped | gone.scatter_(1, remaining, False).gather(1, entered)
            yield Traced(state, dropped, told, state.active if row.resting else None)

    @property
    def signals(self) -> tuple[Signal, ...]:
        """What `forward_signals` tells, in its order."""
        there: Any = self.operators
        pairs = [(act, operator) for row in self.work for act, operator in zip(row.acts, there[row.index], strict=True)]
        rows = [row for row in self.work for _ in row.acts]
        return tuple(
            Signal(act.reduction, row.index, row.visit.step)
            for row, (act, operator) in zip(rows, pairs, strict=True)
            if operator.signals
        )

    def forward_signals(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """What `forward` gives, and what is to be watched: (b, m) float32 for each of `signals`."""
        heard: list[Tensor] = []
        state = self._finish(self.embed(images), 0, lambda acting, _: Signalling(acting, heard) if acting.signals else acting)
        return classify(self.backbone, state), tuple(heard)

    def _needs_patches(self, block: int) -> None:
        if block == len(self.work) - 1 and self.schedule.tail == "prefix":
            raise VittleError("tail: prefix computes no patches in the last block; accepted: a schedule with tail: full")

    @property
    def resumable(self) -> int:
        """The last visit whose attention is that of a dense pass, which this model can `resume` from; -1 for none."""
        for row in self.work:
            # A merge embedding is made together with queries, keys and values; a last visit may ask for prefix tokens alone.
            alike = row.visit == Visit(row.index) and row.queries == row.keys and str(row.index) not in self.projections
            if not alike or len(row.at("tokens")) < len(row.acts):
                return row.index - 1
            if row.acts:
                return row.index
        return len(self.work) - 1

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
        state, _ = self._reduce(self.work[block], Tokens(features), attended)
        state = state._replace(features=pass_mlp(model.blocks[block], state.features))
        return classify(model, self._finish(state, block + 1))

    def _encode(self, images: Tensor, *, trace: bool = False) -> Tokens:
        return self._finish(self.embed(images, trace=trace), 0)

    def _finish(self, state: Tokens, start: int, asked: Asked | None = None) -> Tokens:
        model: Any = self.backbone
        for row in self.work[start:]:
            # No earlier state is kept: memory that is held is memory that the next block has to ask for.
            state, _ = self._visit(row, state, asked)
        return state._replace(features=model.norm(state.features))

    def embed(self, images: Tensor, *, trace: bool = False) -> Tokens:
        """The tokens that enter the first block; with `trace`, each knows where it is."""
        state = Tokens(embed(self.backbone, images))
        b, n, _ = state.features.shape
        if n != self.work[0].entering:
            raise VittleError(f"the images give {n} tokens, the schedule starts from {self.work[0].entering}")
        if trace:
            state = state._replace(source=torch.arange(n, device=images.device).expand(b, n))
        return state

    def core(self, index: int, asked: Asked | None = None) -> Core | None:
        """What runs in place of the attention's core in a visit; None for the fused one."""
        return next((operator.attend for operator in self._acting(self.work[index], "attention", asked)), None)

    def _dressed(self, row: BlockWork) -> Any:
        """What runs in a visit: timm's block, or its parts under timm's names."""
        model: Any = self.backbone
        block = model.blocks[row.visit.block]
        for operator in self._acting(row, "route"):
            block = operator.dress(block)
        return block

    def _acting(self, row: BlockWork, place: Place, asked: Asked | None = None) -> list[Operator]:
        """The operators of one place of a visit; where something is `asked` of them, as it has them."""
        there: Any = self.operators[row.index]
        found = [(act.reduction, operator) for act, operator in zip(row.acts, there, strict=True) if act.place == place]
        return [operator if asked is None else asked(operator, name) for name, operator in found]

    def _visit(self, row: BlockWork, state: Tokens, asked: Asked | None = None) -> tuple[Tokens, Tensor | None]:
        """The tokens after a visit, and (b, k) which of those that took part nothing has dropped; None for all."""
        block = self.blocks[row.index]
        taking_part = next((operator.select(state) for operator in self._acting(row, "route", asked)), None)
        part = state if taking_part is None else take_part(state, taking_part)
        part, remaining = self._attend(row, block, part, asked)
        part = part._replace(features=pass_mlp(block, part.features))
        return (part if taking_part is None else put_back(state, part, taking_part)), remaining

    def _attend(self, row: BlockWork, block: Any, state: Tokens, asked: Asked | None) -> tuple[Tokens, Tensor | None]:
        # A function of its own, so that the memory of queries, keys and values is free again for the MLP.
        sizes = state.sizes if self.proportional else None
        name = str(row.index)
        projection: Any = self.projections[name] if name in self.projections else block.attn.qkv  # noqa: SIM401, it has no `get`
        core = self.core(row.index, asked)
        attended, features = pass_attention(block, projection, state.features, sizes, row.queries, self.form, core)
        state = state._replace(features=features, sizes=None if state.sizes is None else state.sizes[:, : row.queries])
        return self._reduce(row, state, attended, asked)

    def _reduce(
        self, row: BlockWork, state: Tokens, attended: Attention, asked: Asked | None = None
    ) -> tuple[Tokens, Tensor | None]:
        """The tokens left, and (b, n) which of those that entered nothing has dropped, merged ones included; None for all."""
        for operator in self._acting(row, "tokens", asked):
            state, attended = operator.reduce(state, attended)
        return state, attended.remaining


def take_part(state: Tokens, positions: Tensor) -> Tokens:
    """The tokens (b, k, d) at `positions` (b, k)."""
    return Tokens(take(state.features, positions), None if state.sizes is None else take(state.sizes, positions))


def put_back(state: Tokens, part: Tokens, positions: Tensor) -> Tokens:
    """All tokens (b, n, d), those at `positions` (b, k) as they came out, or the first of them where not all did."""
    places = positions[:, : part.features.shape[1], None].expand_as(part.features)
    return state._replace(features=state.features.scatter(1, places, part.features), active=positions)


def _with_blocks(backbone: nn.Module, adapters: Iterable[Any]) -> nn.Module:
    """The backbone, or where trained weights have blocks of their own the same with those in place of all its blocks."""
    model: Any = backbone
    own: dict[int, nn.Module] = {}
    for adapter in adapters:
        if isinstance(adapter, TrainedAdapter):
            own |= adapter.blocks_like(model.blocks[0])
    if not own:
        return backbone
    made = copy.copy(model)
    made._modules = dict(model._modules)  # it shares all the others
    made.blocks = nn.ModuleList(own.get(index, nn.Identity()) for index in range(len(model.blocks)))
    return made  # type: ignore[no-any-return]


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
