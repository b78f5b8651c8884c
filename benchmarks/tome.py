"""Token Merging as published, without any attempt at speed: what `merging.py` compares with.

Bolya et al., "Token Merging: Your ViT But Faster", arXiv 2210.09461, section 3. Written from the paper's description: logits
with their log sizes exist in memory and pass an explicit softmax; tokens are weighted by their size, summed by scattering and
divided again.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vittle.spaces.errors import VittleError


class PlainToMe(nn.Module):
    """A timm Vision Transformer that merges `removed` tokens away in every block, at most half of its patch tokens.

    It shares the modules of `model`. With `fused`, which is not as published, torch's fused attention takes the log sizes as a
    mask: what somebody gains who changes that alone.

    Raises:
        VittleError: a model without a class token, with further prefix tokens, or with a head that pools patches.
    """

    def __init__(self, model: nn.Module, removed: int, *, fused: bool = False) -> None:
        super().__init__()
        vit: Any = model
        if vit.num_prefix_tokens != 1 or vit.global_pool != "token":
            raise VittleError("this model is not one that the paper describes; accepted: one class token, read by the head")
        self.model = vit
        self.removed = removed
        self.fused = fused

    def forward(self, images: Tensor) -> Tensor:
        """Logits (b, classes) of images (b, 3, height, width)."""
        vit = self.model
        tokens = vit.norm_pre(vit._pos_embed(vit.patch_embed(images)))  # (b, n, d)
        sizes = torch.ones_like(tokens[..., :1])  # (b, n, 1)
        for block in vit.blocks:
            output, metric = attend(block.attn, block.norm1(tokens), sizes, fused=self.fused)
            tokens = tokens + block.ls1(output)
            tokens, sizes = merge(tokens, sizes, metric, min(self.removed, (tokens.shape[1] - 1) // 2))
            tokens = tokens + block.ls2(block.mlp(block.norm2(tokens)))
        return vit.forward_head(vit.norm(tokens))  # type: ignore[no-any-return]


def attend(attention: Any, tokens: Tensor, sizes: Tensor, *, fused: bool = False) -> tuple[Tensor, Tensor]:
    """Proportional attention: softmax(Q K^T / sqrt(c) + log s) V.

    Args:
        attention: timm's `Attention`.
        tokens: (b, n, d), normalised.
        sizes: (b, n, 1) patches per token.
        fused: in one kernel.

    Returns:
        The output (b, n, d), and the keys' mean over heads (b, n, c).
    """
    b, n, _ = tokens.shape
    h, c = attention.num_heads, attention.head_dim
    q, k, v = attention.qkv(tokens).reshape(b, n, 3, h, c).permute(2, 0, 3, 1, 4).unbind(0)  # each (b, h, n, c)
    q, k = attention.q_norm(q), attention.k_norm(k)
    log_sizes = sizes.log()[:, None, None, :, 0]  # (b, 1, 1, n)
    if fused:
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=log_sizes, scale=attention.scale)
    else:
        logits = (q * attention.scale) @ k.transpose(-2, -1) + log_sizes  # (b, h, n, n)
        mixed = logits.softmax(dim=-1) @ v
    return attention.proj(attention.norm(mixed.transpose(1, 2).reshape(b, n, h * c))), k.mean(1)


def merge(tokens: Tensor, sizes: Tensor, metric: Tensor, removed: int) -> tuple[Tensor, Tensor]:
    """Merge the `removed` tokens at even positions that are most similar to one at an odd position into it.

    Args:
        tokens: (b, n, d), the class token first.
        sizes: (b, n, 1).
        metric: (b, n, c), compared by cosine.
        removed: r.

    Returns:
        Tokens (b, n - r, d) and sizes (b, n - r, 1): even positions that stay in their order, then all odd ones.
    """
    if removed == 0:
        return tokens, sizes
    with torch.no_grad():
        metric = functional.normalize(metric, dim=-1)
        scores = metric[:, ::2] @ metric[:, 1::2].transpose(-2, -1)  # (b, a, a')
        scores[:, 0] = -torch.inf  # the class token stays
        highest, partners = scores.max(dim=-1)  # (b, a) each
        ranks = highest.argsort(dim=-1, descending=True)
        sources, rest = ranks[:, :removed], ranks[:, removed:].sort(dim=-1).values
        targets = partners.gather(1, sources)

    def sums(values: Tensor) -> Tensor:
        even, odd = values[:, ::2], values[:, 1::2]
        width = values.shape[-1]

        def pick(positions: Tensor) -> Tensor:
            return even.gather(1, positions[..., None].expand(-1, -1, width))

        index = targets[..., None].expand(-1, -1, width)
        return torch.cat([pick(rest), odd.scatter_reduce(1, index, pick(sources), reduce="sum")], dim=1)

    merged = sums(sizes)
    return sums(tokens * sizes) / merged, merged
