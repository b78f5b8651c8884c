"""Fused attention in which a token that stands for s patches is attended to s times as strongly.

Bolya et al., "Token Merging", arXiv 2210.09461, section 3 ("proportional attention"): log s is added to the logits of a key.
Fused kernels take that in several exact forms, and which of them is fastest depends on device and data type:

    mask      the log sizes (b, 1, 1, n) as an additive attention mask; on CUDA this rules out the flash kernel
    channel   one more channel: the query has 1 / scale in it and the key log s, so that their product adds log s; channels are
              filled up to a multiple of 8, as kernels want them
    flex      a score function that is compiled into the kernel (FlexAttention), CUDA only

`fastest_form` measures them once per device and shape. The form is written down with every latency.
"""

import time
from collections.abc import Callable
from functools import cache
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend

Form = Literal["mask", "channel", "flex"]

BATCH, ROUNDS = 4, 3  # of the measurement


def weighted_attention(
    queries: Tensor, keys: Tensor, values: Tensor, log_sizes: Tensor | None, *, scale: float, dropout: float, form: Form
) -> Tensor:
    """Attention of queries (b, h, q, c) over keys and values (b, h, n, c), with log sizes (b, 1 or h, 1, n) or without.

    Dropout is of the attention weights; where it is not 0, or there are no sizes, the form makes no difference.

    Returns:
        (b, h, q, c).
    """
    if log_sizes is None or dropout > 0 or form == "mask":
        return functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=log_sizes, dropout_p=dropout, scale=scale
        )
    if form == "channel":
        return _with_channel(queries, keys, values, log_sizes, scale)
    return _flexible(queries, keys, values, log_sizes, scale)


@cache
def fastest_form(device: torch.device, dtype: torch.dtype, heads: int, channels: int, tokens: int) -> Form:
    """The form with the least time for a small batch on a device, measured at the first call and remembered.

    A form that a device cannot run is left out.
    """
    generator = torch.Generator().manual_seed(0)
    draw: Callable[..., Tensor] = lambda *shape: torch.randn(*shape, generator=generator).to(device, dtype)  # noqa: E731
    parts = [draw(BATCH, heads, tokens, channels) for _ in range(3)]
    log_sizes = draw(BATCH, 1, 1, tokens).abs()
    best: dict[Form, float] = {}
    with torch.inference_mode():
        for _ in range(ROUNDS):  # in turn, so that a busy moment meets all of them
            for form in forms(device):
                try:
                    taken = _seconds(device, lambda form=form: _run(parts, log_sizes, channels, form))  # type: ignore[misc]
                except (RuntimeError, NotImplementedError):
                    continue
                best[form] = min(taken, best.get(form, taken))
    return min(best, key=lambda form: best[form])


def kernel(
    device: torch.device, dtype: torch.dtype, heads: int, channels: int, shape: tuple[int, int], form: Form | None
) -> str:
    """Which kernel a device runs attention with: flash, efficient, cudnn, math, or flex.

    Args:
        device: where.
        dtype: of the tokens.
        heads: of the attention.
        channels: of a head.
        shape: images and tokens.
        form: how the kernel is told the sizes of tokens; None where it is told none.
    """
    if form == "flex":
        return form
    b, n = shape
    width = channels + 1 + -(channels + 1) % 8 if form == "channel" else channels
    tokens = torch.empty(b, heads, n, width, device=device, dtype=dtype)
    mask = torch.empty(b, 1, 1, n, device=device, dtype=dtype) if form == "mask" else None
    private: Any = torch  # the public functions say which kernel may run, only this one says which does
    return SDPBackend(private._fused_sdp_choice(tokens, tokens, tokens, mask)).name.removesuffix("_ATTENTION").lower()


def forms(device: torch.device) -> tuple[Form, ...]:
    """The forms that are worth trying on a device."""
    return get_args(Form) if device.type == "cuda" else ("mask", "channel")


def _run(parts: list[Tensor], log_sizes: Tensor, channels: int, form: Form) -> Tensor:
    queries, keys, values = parts
    return weighted_attention(queries, keys, values, log_sizes, scale=channels**-0.5, dropout=0.0, form=form)


def _seconds(device: torch.device, call: Callable[[], Any]) -> float:
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _with_channel(queries: Tensor, keys: Tensor, values: Tensor, log_sizes: Tensor, scale: float) -> Tensor:
    b, h, n, c = keys.shape
    filling = -(c + 1) % 8
    extra = queries.new_full((*queries.shape[:3], 1), 1 / scale)
    queries = functional.pad(torch.cat([queries, extra], -1), (0, filling))
    keys = functional.pad(torch.cat([keys, log_sizes.mT.expand(b, h, n, 1)], -1), (0, filling))
    values = functional.pad(values, (0, 1 + filling))
    return functional.scaled_dot_product_attention(queries, keys, values, scale=scale)[..., :c]


def _flexible(queries: Tensor, keys: Tensor, values: Tensor, log_sizes: Tensor, scale: float) -> Tensor:
    sizes = log_sizes[:, :, 0].expand(*keys.shape[:3])  # (b, h, n)

    def add(score: Tensor, image: Tensor, head: Tensor, _query: Tensor, key: Tensor) -> Tensor:
        return score + sizes[image, head, key]

    compiled_around = torch.compiler.is_compiling() or not queries.is_cuda
    mixed: Tensor = _flex_attention(compiled=not compiled_around)(queries, keys, values, score_mod=add, scale=scale)
    return mixed


@cache
def _flex_attention(*, compiled: bool) -> Any:
    # Imported where it is used, because it brings the compiler along. Dynamic, because blocks differ in their tokens.
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True) if compiled else flex_attention
