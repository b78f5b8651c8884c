"""MACs as a model really computes them."""

import pytest
import torch
from torch import nn
from torch.nn import functional


def count_macs(model: nn.Module, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> int:
    """MACs of one image by watching every matrix product, whoever calls it.

    Those of `@` count in place of attention's core; in other places they match tokens, which nobody counts.
    """
    total, attending = 0, False
    product = torch.Tensor.__matmul__
    attention, linear, convolution = functional.scaled_dot_product_attention, functional.linear, functional.conv2d

    def counted_attention(q, k, v, attn_mask=None, **options):
        nonlocal total
        # Keys of which no query reads anything fill a kernel's tiles.
        read = k.shape[-2] if attn_mask is None else int((attn_mask > -torch.inf).flatten(0, -2).any(0).sum())
        total += q[0].numel() * read + q.shape[1] * q.shape[2] * read * v.shape[-1]
        return attention(q, k, v, attn_mask=attn_mask, **options)

    def counted_product(x, y):
        nonlocal total
        made = product(x, y)
        total += attending * made[0].numel() * x.shape[-1]
        return made

    def counted_core(attend):
        def attended(heads):
            nonlocal attending
            attending = True
            mixed = attend(heads)
            attending = False
            return mixed

        return attended

    def counted_linear(x, weight, bias=None):
        nonlocal total
        total += x[0].numel() // x.shape[-1] * weight.numel()
        return linear(x, weight, bias)

    def counted_convolution(x, weight, *rest):
        nonlocal total
        result = convolution(x, weight, *rest)
        total += result[0, 0].numel() * weight.numel()
        return result

    monkeypatch.setattr(functional, "scaled_dot_product_attention", counted_attention)
    monkeypatch.setattr(functional, "linear", counted_linear)
    monkeypatch.setattr(functional, "conv2d", counted_convolution)
    monkeypatch.setattr(torch.Tensor, "__matmul__", counted_product)
    for operator in (one for there in getattr(model, "operators", ()) for one in there):
        monkeypatch.setattr(operator, "attend", counted_core(operator.attend))
    if hasattr(model, "form"):
        monkeypatch.setattr(model, "form", "mask")  # others have channels of their own
    with torch.inference_mode():
        model(images)
    return total
