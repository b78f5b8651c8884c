"""The weights of a recursion: a first block, shared ones with what each of their steps has of its own, and a last block.

See `vittle.spaces.recursion`. The blocks have the structure of the backbone's and none of its weights. In the first step a
shared block runs as it is. Every later step has norms of its own, and after attention and MLP a scale for each channel
(LayerScale, Touvron et al., "Going Deeper with Image Transformers", arXiv 2103.17239), so that one set of weights can do the
work of many. A step's router is one linear layer on the normalised token.
"""

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from vittle.reductions.trained_adapter import TrainedAdapter
from vittle.spaces.errors import VittleError
from vittle.spaces.reduction import AdapterRecord
from vittle.spaces.work import Visit

NORMS, SCALES = ("norm1", "norm2"), ("ls1", "ls2")  # of timm's block, which a step has of its own


class StepBlock(NamedTuple):
    """timm's block as one step of a recursion runs it, its parts named as timm names them."""

    norm1: nn.Module
    attn: nn.Module
    ls1: nn.Module
    drop_path1: nn.Module
    norm2: nn.Module
    mlp: nn.Module
    ls2: nn.Module
    drop_path2: nn.Module


class Scale(nn.Module):
    """One factor for each channel of tokens (..., d)."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, values: Tensor) -> Tensor:
        return values * self.weight


class Dress(nn.Module):
    """The norms and scales that one step has in place of the shared block's.

    Args:
        own: their weights, as `RecursiveBlocks.steps` has them.
        like: a block of the backbone, which says what norms it has.
    """

    def __init__(self, own: nn.Module, like: Any) -> None:
        super().__init__()
        self.norm1, self.norm2 = (filled(getattr(like, name), own.get_submodule(name)) for name in NORMS)
        self.ls1, self.ls2 = (Scale(own.get_submodule(name).get_parameter("weight")) for name in SCALES)

    def on(self, block: Any) -> StepBlock:
        """The shared block as this step runs it."""
        return StepBlock(self.norm1, block.attn, self.ls1, block.drop_path1, self.norm2, block.mlp, self.ls2, block.drop_path2)


class Router(nn.Module):
    """Scores tokens (b, n, d): (b, n), the higher the deeper they should go."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, 1)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, features: Tensor) -> Tensor:
        scores: Tensor = self.layer(functional.layer_norm(features, features.shape[-1:]))
        return scores.squeeze(-1)


class RecursiveBlocks(TrainedAdapter):
    """Weights of blocks that run in place of a backbone's.

    Attributes:
        depth: (), of the backbone.
        first: the first block's, by timm's names.
        last: the last one's.
        shared: those of each shared block.
        steps: for each step after the first one and each shared block, its norms and scales.
        routers: one for each step.
    """

    kind = "recursion"
    mode = "distilled"
    command = "vittle train recursion"
    rival = "patches drawn by chance"
    otherwise = "take router random"

    depth: Tensor

    def __init__(self, block: Mapping[str, Tensor], *, depth: int, shared: int, steps: int, width: int) -> None:
        """`block` has weights of the shapes of one block's; `width` is a token's."""
        super().__init__()
        self.register_buffer("depth", torch.tensor(depth))
        own = {name: block[name] for name in block if name.split(".")[0] in NORMS}
        own |= {f"{name}.weight": torch.empty(width) for name in SCALES}
        with torch.random.fork_rng(devices=[]):  # the caller's random numbers are the caller's
            self.first, self.last = holding(block), holding(block)
            self.shared = nn.ModuleList(holding(block) for _ in range(shared))
            self.steps = nn.ModuleList(nn.ModuleList(holding(own) for _ in range(shared)) for _ in range(steps - 1))
            self.routers = nn.ModuleList(Router(width) for _ in range(steps))

    @classmethod
    def of(cls, weights: Mapping[str, Tensor]) -> Self:
        block = {name.removeprefix("first."): weight for name, weight in weights.items() if name.startswith("first.")}
        shared, steps = (
            len({name.split(".")[1] for name in weights if name.startswith(part)}) for part in ("shared.", "routers.")
        )
        width = weights["routers.0.layer.weight"].shape[1]
        return cls(block, depth=int(weights["depth"]), shared=shared, steps=steps, width=width)

    @classmethod
    def from_backbone(cls, model: nn.Module, *, shared: int = 1, steps: int | None = None) -> Self:
        """Weights that start from a backbone's: its first and last block, and means of those between.

        Args:
            model: a timm Vision Transformer with at least `shared` + 2 blocks.
            shared: blocks whose weights are shared; each starts as the mean of as many of the backbone's, in their order.
            steps: how often they may recur; by default as often as makes up for the blocks between.
        """
        vit: Any = model
        states = [{name: weight.detach().float().cpu() for name, weight in block.state_dict().items()} for block in vit.blocks]
        first, *between, last = states
        made = cls(first, depth=len(states), shared=shared, steps=steps or len(between) // shared, width=vit.embed_dim)
        made.first.load_state_dict(first)
        made.last.load_state_dict(last)
        for number, holder in enumerate(made.shared):
            group = between[len(between) * number // shared : len(between) * (number + 1) // shared]
            mean = {name: torch.stack([state[name] for state in group]).mean(0) for name in first}
            holder.load_state_dict(mean)
            for step in made.steps:
                own: Any = step
                names = own[number].state_dict()
                own[number].load_state_dict({name: mean.get(name, torch.ones(vit.embed_dim)) for name in names})
        return made

    @property
    def width(self) -> int:
        """Shared blocks."""
        return len(self.shared)

    @property
    def sizes(self) -> tuple[int, int]:
        router: Any = self.routers[0]
        return int(self.depth), router.layer.in_features

    @property
    def record(self) -> AdapterRecord:
        return AdapterRecord(self.name, self.width, len(self.routers))

    def blocks_like(self, block: nn.Module) -> dict[int, nn.Module]:
        held = {0: self.first, **dict(enumerate(self.shared, start=1)), int(self.depth) - 1: self.last}
        return {index: filled(block, one) for index, one in held.items()}

    def own(self, visit: Visit) -> nn.Module | None:
        """The norms and scales that a visit has of its own; None where it runs as the block is."""
        steps: Any = self.steps
        found: nn.Module | None = steps[visit.step - 1][visit.block - 1] if visit.step else None
        return found


def holding(weights: Mapping[str, Tensor]) -> nn.Module:
    """A module that does nothing but hold parameters of these names and shapes."""
    root = nn.Module()
    for name, weight in weights.items():
        *path, last = name.split(".")
        place = root
        for part in path:
            if not hasattr(place, part):
                place.add_module(part, nn.Module())
            place = place.get_submodule(part)
        place.register_parameter(last, nn.Parameter(torch.zeros(weight.shape)))
    return root


def filled(like: nn.Module, held: nn.Module) -> nn.Module:
    """A module with the structure of `like` and the very parameters that are held, so that what is learned stays one."""
    # Nothing of `like` is copied but its structure.
    made = copy.deepcopy(like, {id(weight): weight for weight in like.parameters()})
    weights = dict(held.named_parameters())
    if weights.keys() != dict(made.named_parameters()).keys():
        raise VittleError(
            "the recursion was trained for blocks of another structure; accepted: one that was trained for this model"
        )
    for name, weight in weights.items():
        path, _, last = name.rpartition(".")
        setattr(made.get_submodule(path), last, weight)
    return made
