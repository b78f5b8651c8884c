"""The learned merge embedding: one small affine layer per block that says which tokens are alike.

Lee and Hong, "Learning to Merge Tokens via Decoupled Embedding for Efficient Vision Transformers", arXiv 2412.10569, section 3.
The attention's keys serve attention and, in ToMe, also the choice of what merges. Here that choice has features of its own,

    e = W sg(norm1(x)) + b        in R^c,

where sg stops the gradient, so that the backbone's own features are never bent towards merging. At inference tokens merge as in
ToMe with e in place of the keys; `soft_merging.py` is how W and b are learned. `mode` says what was trained: "modular" is the
embedding alone, on a frozen backbone.

Departures. The paper starts from random weights; here W and b start as the key projection, averaged over heads, so that where
the backbone has no key norm the start is exactly ToMe's `key` metric, and training is kept only where it beats that. Any other
width c starts from a random projection of all heads' keys, which keeps their cosines approximately. By default c is the
published 64 (128 from a width of 1024 on), or the width of one head where that is less.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from vittle.reductions.backbone import Backbone, fingerprint
from vittle.reductions.verdict import Verdict
from vittle.spaces.errors import VittleError
from vittle.spaces.files import write_at_once
from vittle.spaces.reduction import AdapterRecord

FORMAT = "vittle merge embedding 1"
MODE = "modular"
METADATA = "vittle"  # the key under which a file describes itself
RIVAL = "the metric key"


class MergeEmbedding(nn.Module):
    """One `nn.Linear(width, embedding_width)` per block, applied to the block's normalised input (b, n, width).

    Attributes:
        layers: the affine layers, block after block.
        metadata: what the file that it was loaded from says of its training; empty for a new one.
    """

    def __init__(self, depth: int, width: int, embedding_width: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):  # the caller's random numbers are the caller's
            self.layers = nn.ModuleList(nn.Linear(width, embedding_width) for _ in range(depth))
        self.mode = MODE
        self.metadata: dict[str, Any] = {}

    @classmethod
    def from_keys(cls, model: nn.Module, embedding_width: int | None = None, *, seed: int = 0) -> Self:
        """An embedding that starts from the key projections of a backbone.

        Args:
            model: a timm Vision Transformer.
            embedding_width: c; by default 64 or 128 as published, at most the width of one head.
            seed: of the random projection where c is not the width of one head.
        """
        vit: Any = model
        width, head = vit.embed_dim, vit.blocks[0].attn.head_dim
        chosen = embedding_width or min(head, 64 if width < 1024 else 128)
        embedding = cls(len(vit.blocks), width, chosen)
        generator = torch.Generator().manual_seed(seed)
        for layer, block in zip(embedding.layers, vit.blocks, strict=True):
            start = _start(block.attn, chosen, generator)
            layer.load_state_dict({"weight": start[:, :-1], "bias": start[:, -1]})
        return embedding

    @property
    def width(self) -> int:
        """Channels of an embedded token, c."""
        layer: Any = self.layers[0]
        return int(layer.out_features)

    @property
    def name(self) -> str:
        """What was trained, and twelve hexadecimal digits of the weights: equal names are equal embeddings."""
        return f"{self.mode}-{fingerprint(self)}"

    @property
    def record(self) -> AdapterRecord:
        """What a search has to know of it."""
        return AdapterRecord(self.name, self.width)

    @property
    def compared(self) -> Verdict:
        """How it did against the keys; a file of old holds no such comparison."""
        return Verdict.model_validate(self.metadata.get("verdict", {"rival": RIVAL}))

    def verdict(self) -> tuple[bool, str]:
        """Whether it merges better than the keys at a rate at least, and at which, in words."""
        return self.compared.tell(f"merge embedding {self.name}", "the search keeps metric key")

    def save(self, path: str | Path, metadata: Mapping[str, Any]) -> None:
        """Write weights and `metadata` as safetensors, all at once; equal embeddings give equal bytes.

        Raises:
            VittleError: the file cannot be written.
        """
        # One entry, because safetensors writes several in random order.
        about = {"format": FORMAT, "name": self.name, "mode": self.mode, **metadata}
        weights = {name: weight.detach().cpu().contiguous() for name, weight in self.state_dict().items()}
        write_at_once(Path(path), save(weights, {METADATA: json.dumps(about, sort_keys=True)}))

    @classmethod
    def load(cls, path: str | Path, backbone: Backbone | None = None) -> Self:
        """Read a file that `save` has written.

        Args:
            path: the file.
            backbone: refuse an embedding that was trained for another one.

        Raises:
            VittleError: no such file, not a merge embedding, or one of another backbone.
        """
        try:
            with safe_open(path, "pt") as file:
                about = json.loads((file.metadata() or {})[METADATA])
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, the file is no mapping
            if about["format"] != FORMAT or about["mode"] != MODE:
                raise KeyError
            embedding_width, width = weights["layers.0.weight"].shape
            embedding = cls(len(weights) // 2, width, embedding_width)
            embedding.load_state_dict(weights)
            embedding.metadata = about
            _ = embedding.compared  # what is damaged is told now
        except FileNotFoundError:
            raise VittleError(
                f"no merge embedding at {path}; put it there, or make one with: vittle train merge-embedding"
            ) from None
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError):
            raise VittleError(f"{path} is not a merge embedding; accepted: what vittle train merge-embedding writes") from None
        if backbone is not None:
            embedding.check(backbone)
        return embedding.requires_grad_(False)

    def check(self, backbone: Backbone) -> None:
        """Refuse a backbone that this embedding does not belong to.

        Raises:
            VittleError: another depth or width, or other weights than it was trained with.
        """
        layer: Any = self.layers[0]
        ours, theirs = (len(self.layers), layer.in_features), (backbone.shape.depth, backbone.shape.width)
        if ours != theirs:
            raise VittleError(
                f"the merge embedding is for {ours[0]} blocks of width {ours[1]}, "
                f"{backbone.name} has {theirs[0]} of width {theirs[1]}; accepted: an embedding trained for this model"
            )
        trained = self.metadata.get("backbone", backbone.fingerprint)
        if trained != backbone.fingerprint:
            raise VittleError(
                f"the merge embedding was trained for weights {trained}, those of {backbone.name} are {backbone.fingerprint}; "
                "accepted: an embedding trained for these weights"
            )


def _start(attention: Any, embedding_width: int, generator: torch.Generator) -> Tensor:
    """Weight and, as the last column, bias of one layer: (c, d + 1)."""
    h, c = int(attention.num_heads), int(attention.head_dim)
    weight: Tensor = attention.qkv.weight.detach().float().cpu()  # (3 h c, d)
    bias: Tensor = weight.new_zeros(len(weight)) if attention.qkv.bias is None else attention.qkv.bias.detach().float().cpu()
    keys = torch.cat([weight, bias[:, None]], 1)[h * c : 2 * h * c]  # (h c, d + 1)
    if embedding_width == c:
        return keys.view(h, c, -1).mean(0)
    return torch.randn(embedding_width, h * c, generator=generator) @ keys / math.sqrt(embedding_width)
