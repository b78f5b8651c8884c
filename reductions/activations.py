"""The dense beginning of a forward pass, kept: schedules that begin alike go on from it in place of computing it again.

Before the first block in which anything acts, every schedule does what the backbone does. `Activations` hold a batch at such a
block, once its attention has run, with what reductions ask about that attention. They are kept as they were computed, in the
same type and from the same batch, so that going on from them gives the same bits as beginning anew.
"""

import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Self

import torch
from numpy.typing import NDArray
from torch import Tensor

from vittle.reductions.block import classify, pass_attention, pass_mlp
from vittle.reductions.tokens import Remembered, Tokens
from vittle.reductions.vit import ReducedViT
from vittle.spaces.shape import BackboneShape


class Activations(NamedTuple):
    """A batch after the attention of one dense block.

    Attributes:
        features: (b, n, d), the attention's residual added.
        keys: (b, n, c) summed over heads.
        weights: (b, n) attention of the class token, mean over heads; None where there is no class token.
    """

    features: Tensor
    keys: Tensor
    weights: Tensor | None

    def resume(self, model: ReducedViT, block: int) -> Tensor:
        """Logits (b, classes) of this batch, which is at `block`, under the model's schedule."""
        return model.resume(block, self.features, Remembered(self.keys, self.weights))

    @property
    def bytes(self) -> int:
        return sum(part.numel() * part.element_size() for part in self if part is not None)

    def pack(self) -> "Packed":
        """As arrays, which can be shared between processes without copies."""
        return tuple(None if part is None else _array(part) for part in self)

    @classmethod
    def unpack(cls, packed: "Packed", device: torch.device) -> Self:
        """As tensors on a device; on a CPU they share the arrays' memory, so never write to them."""
        return cls(*(None if part is None else _tensor(part, device) for part in packed))  # type: ignore[arg-type]


Packed = tuple[NDArray[Any] | None, ...]


@torch.inference_mode()
def walk(
    model: ReducedViT, images: Tensor, see: Callable[[int, Tensor], None] = lambda _block, _features: None
) -> Iterator[Activations | Tensor]:
    """One dense pass of images (b, 3, height, width): the prefix at each block, then the logits (b, classes).

    Args:
        model: the backbone under an empty schedule.
        images: a batch.
        see: told the tokens (b, n, d) that are about to enter each block.
    """
    vit: Any = model.backbone
    features = model.embed(images).features
    for index, block in enumerate(vit.blocks):
        see(index, features)
        n = features.shape[1]
        attended, features = pass_attention(block, block.attn.qkv, features, None, n, model.form)
        yield Activations(features, attended.mean_keys(), attended.importance() if model.shape.has_class else None)
        features = pass_mlp(block, features)
    yield classify(vit, Tokens(vit.norm(features)))


def size(shape: BackboneShape, images: int, itemsize: int) -> int:
    """Bytes of a prefix of so many images."""
    channels = shape.width + shape.attention_width // shape.heads
    weights = 4 * shape.tokens if shape.has_class else 0
    return images * (shape.tokens * channels * itemsize + weights)


def _array(tensor: Tensor) -> NDArray[Any]:
    tensor = tensor.detach().cpu().contiguous()
    # NumPy has no bfloat16; its bits travel as integers.
    plain: NDArray[Any] = (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return plain


def _tensor(array: NDArray[Any], device: torch.device) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of memory that must not be written to, and nothing here does
        tensor = torch.from_numpy(array)
    return (tensor.view(torch.bfloat16) if tensor.dtype == torch.int16 else tensor).to(device)
