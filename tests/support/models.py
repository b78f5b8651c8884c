"""Small models of every supported kind."""

import timm
import torch
from torch import nn

# One of each kind that `vittle.apply` promises to support, small enough to run in milliseconds.
SMALL = {"embed_dim": 32, "depth": 4, "num_heads": 2, "num_classes": 10}
FAMILIES: dict[str, tuple[str, dict[str, object]]] = {
    "plain": ("vit_tiny_patch16_224", {"img_size": 64, "patch_size": 8, **SMALL}),
    "distilled": ("deit_tiny_distilled_patch16_224", {"img_size": 64, "patch_size": 8, **SMALL}),
    "registers": ("vit_small_patch14_reg4_dinov2", {"img_size": 56, "patch_size": 7, **SMALL}),
    "layer scale": ("deit3_small_patch16_224", {"img_size": 64, "patch_size": 8, "init_values": 0.3, **SMALL}),
    "pooled, no class token": ("vit_base_patch16_gap_224", {"img_size": 64, "patch_size": 8, **SMALL}),
    "pooled with class token": ("vit_tiny_patch16_224", {"img_size": 64, "patch_size": 8, "global_pool": "avg", **SMALL}),
    "average and maximum": ("vit_tiny_patch16_224", {"img_size": 64, "patch_size": 8, "global_pool": "avgmax", **SMALL}),
    "qk-norm": ("vit_tiny_patch16_224", {"img_size": 64, "patch_size": 8, "qk_norm": True, **SMALL}),
    "pre-norm": ("vit_tiny_patch16_224", {"img_size": 64, "patch_size": 8, "pre_norm": True, **SMALL}),
    "scaled norms, no biases": (
        "vit_tiny_patch16_224",
        {"img_size": 64, "patch_size": 8, "scale_attn_norm": True, "scale_mlp_norm": True, "qkv_bias": False, **SMALL},
    ),
    "odd grid": ("vit_tiny_patch16_224", {"img_size": (40, 56), "patch_size": 8, **SMALL}),
}


def make_model(name: str) -> nn.Module:
    """A model of one of `FAMILIES` with random weights; LayerScale and norms are randomised, so that leaving one out shows."""
    architecture, arguments = FAMILIES[name]
    torch.manual_seed(0)
    model = timm.create_model(architecture, **arguments).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model
