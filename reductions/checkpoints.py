"""A timm model with the weights of a file: built at the size that the weights have, never resampled in silence.

Names are brought to timm's by timm's own filter. Read off the weights are the classes, whether the head pools, and how many
patches there are. How many rows these form is written nowhere: as many as the architecture has, else a square, unless `size`
says it. Whatever follows from a rule and not from the file is told in a note.
"""

from collections.abc import Mapping
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn

from vittle.reductions.state_dict import ACCEPTED, LAST_OF_A_PREFIX, is_jax, named, read_state_dict, shortened
from vittle.reductions.zoo import create, outline, quoted
from vittle.spaces.errors import VittleError

Size = tuple[int, int]
"""Rows and columns, of pixels or of patches."""


def load_checkpoint(
    name: str, drawn: nn.Module, path: Path, size: Size | None = None, **arguments: Any
) -> tuple[nn.Module, list[str]]:
    """The model with the weights of a file in place of the published ones, and what there is to say of them.

    Args:
        name: as `zoo.create` takes it.
        drawn: its outline with the same arguments, a Vision Transformer; it is changed.
        path: a state dict of any wrapping, told by its content, or a JAX model's .npz.
        size: height and width of the images; where none is given, those that the weights were trained at.
        **arguments: of timm's constructor.

    Raises:
        VittleError: the file cannot be read, is not of this model, or is at a size that has to be said.
    """
    if is_jax(path):
        return _load_jax(name, path, size, drawn, arguments)
    file = shortened(path.name)
    weights, notes = read_state_dict(path)
    kernels = [weight.shape[2:] for weight in weights.values() if weight.ndim == 4]
    own = _filtered(weights, drawn)
    if "fc_norm.weight" in own and "fc_norm.weight" not in drawn.state_dict():
        arguments = {**arguments, "global_pool": "avg"}
        notes.append(f"{file} has fc_norm in place of norm, so the mean of the patches is classified, as MAE does")
    head = own.get("head.weight")
    arguments = {**arguments, "num_classes": 0 if head is None else head.shape[0]}
    shapes = {key: tuple(weight.shape) for key, weight in own.items()}
    if len(kernels) == 1 and LAST_OF_A_PREFIX in shapes:  # as it was before the filter made it fit
        shapes[LAST_OF_A_PREFIX] = (*shapes[LAST_OF_A_PREFIX][:2], *kernels[0])
    drawn = outline(name, **arguments)
    _check_names(shapes, drawn, name, file)
    trained = _trained_at(own["pos_embed"].shape[1] if "pos_embed" in own else None, drawn, size, file)
    model = create(name, pretrained=False, **{**arguments, **_at(trained, drawn)})
    model.load_state_dict(own)
    return model, [*notes, *_resize(model, trained, size, drawn, file)]


def check_finite(model: nn.Module, source: str) -> None:
    """Refuse a model with weights that are no numbers.

    Raises:
        VittleError: which of them.
    """
    broken = [name for name, weight in model.state_dict().items() if not weight.isfinite().all()]
    if broken:
        count = f"{len(broken)} weight{'s' if len(broken) > 1 else ''}"
        raise VittleError(f"{source} has NaN or infinity in {count}: {named(broken)}; give weights that are finite")


def grid_of(size: Size, model: Any) -> Size:
    """The patches, as rows and columns, of images of a size.

    Raises:
        VittleError: some pixels would be in no patch.
    """
    patch: Size = model.patch_embed.patch_size
    if size[0] % patch[0] or size[1] % patch[1]:
        fitting = f"multiples of its patches, {_pixels(patch)}"
        raise VittleError(f"image size {_pixels(size)} does not fit the model; accepted: {fitting}")
    return size[0] // patch[0], size[1] // patch[1]


def _filtered(weights: Mapping[str, Tensor], drawn: Any) -> dict[str, Tensor]:
    """The weights under timm's names, the position embedding as large as it is."""
    embedding = weights.get("pos_embed", weights.get("visual.positional_embedding"))
    if embedding is not None and embedding.ndim > 1 and drawn.pos_embed is not None:
        # The filter resamples what has another size than the model's, so this model's has that size. Registers have no position
        # in timm, and DINOv2's class token loses its.
        positions = embedding.shape[-2] - ("register_tokens" in weights)
        drawn.pos_embed = nn.Parameter(torch.empty(1, positions, 1, device="meta"))
    try:
        found: dict[str, Tensor] = checkpoint_filter_fn(dict(weights), drawn, adapt_layer_scale=True)
    except Exception:  # of weights that only look like those that it knows; their names say what they are
        return dict(weights)
    return found


def _trained_at(positions: int | None, drawn: Any, size: Size | None, file: str) -> Size:
    """The patches, as rows and columns, that a position embedding is taken to be of.

    Raises:
        VittleError: they form no square, and `size` says nothing else.
    """
    ours: Size = drawn.patch_embed.grid_size
    if positions is None:
        return ours if size is None else grid_of(size, drawn)
    patches = positions - (0 if drawn.no_embed_class else drawn.num_prefix_tokens)
    asked = None if size is None else grid_of(size, drawn)
    if asked is not None and asked[0] * asked[1] == patches:
        return asked
    if ours[0] * ours[1] == patches:
        return ours
    side = isqrt(max(patches, 0))
    if side == 0 or side**2 != patches:
        given = "" if asked is None else f", nor the {asked[0]} x {asked[1]} that are asked for"
        raise VittleError(
            f"the {patches} patches that {file} was trained with form no square{given}; "
            f"give the size that it was trained at: --image-size HEIGHTxWIDTH"
        )
    return side, side


def _at(grid: Size, drawn: Any) -> dict[str, Size]:
    """The argument that builds a model with that many patches; none for its own."""
    patch = drawn.patch_embed.patch_size
    return {} if grid == drawn.patch_embed.grid_size else {"img_size": (grid[0] * patch[0], grid[1] * patch[1])}


def _resize(model: Any, trained: Size, size: Size | None, drawn: Any, file: str) -> list[str]:
    """Bring a loaded model to the size that was asked for, and say what has been decided."""
    if size is None and trained == drawn.patch_embed.grid_size:
        return []
    if size is None:
        now, own = _pixels(model.patch_embed.img_size), _pixels(drawn.patch_embed.img_size)
        return [
            f"{file} was trained with {trained[0]} x {trained[1]} patches, so images are taken at {now} and not at {own}; "
            f"--image-size says otherwise"
        ]
    asked = grid_of(size, drawn)
    if asked != trained:
        model.set_input_size(img_size=size)
        resampled = f"{trained[0]} x {trained[1]} to {asked[0]} x {asked[1]} patches"
        return [f"the position embedding of {file} is resampled from {resampled}"]
    side = isqrt(asked[0] * asked[1])
    if asked[0] != asked[1] and side**2 == asked[0] * asked[1]:
        return [f"the {side**2} patches of {file} are taken as {asked[0]} x {asked[1]}, as --image-size says, not as a square"]
    return []


def _check_names(shapes: Mapping[str, tuple[int, ...]], model: nn.Module, name: str, file: str) -> None:
    """Refuse weights that are not those of the model, by three of their names and a count.

    Raises:
        VittleError: weights are missing, unknown, or of another shape.
    """
    ours = {key: tuple(weight.shape) for key, weight in model.state_dict().items()}
    missing, unknown = [key for key in ours if key not in shapes], [key for key in shapes if key not in ours]
    differing = [key for key, shape in ours.items() if key in shapes and not _alike(key, shapes[key], shape)]
    if not (missing or unknown or differing):
        return
    counts = {"unknown": unknown, "missing": missing, "of another shape": differing}
    told = ", ".join(f"{len(names)} {what}" for what, names in counts.items() if names)
    # What is unknown says best what a file is; where names agree, shapes do.
    shown = differing or (unknown if not set(shapes) & set(ours) else missing or unknown)
    first = f" {_by(shapes[shown[0]])}, not {_by(ours[shown[0]])}" if differing else ""
    names = ", ".join([shortened(shown[0]) + first, *map(shortened, shown[1:3])])
    raise VittleError(f"the weights in {file} are not of {shortened(name)}: {told}, such as {names}")


def _alike(key: str, shape: tuple[int, ...], ours: tuple[int, ...]) -> bool:
    # How many positions there are is for `_trained_at` to judge.
    return shape == ours or (key == "pos_embed" and len(shape) == len(ours) == 3 and shape[::2] == ours[::2])


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _pixels(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


def _load_jax(name: str, path: Path, size: Size | None, drawn: Any, arguments: dict[str, Any]) -> tuple[nn.Module, list[str]]:
    """As `load_checkpoint`, by timm's own reader, which leaves out what a file has not: so nothing may be left as it was."""
    file, name_told = shortened(path.name), shortened(name)
    try:
        with np.load(path, allow_pickle=False) as archive:
            shapes = {key: archive[key].shape for key in archive.files}
    except Exception:  # an archive that is broken, or that holds objects
        raise VittleError(f"cannot read {file} as weights: give {ACCEPTED}") from None
    kernel = next((key for key in shapes if key.endswith("embedding/kernel")), None)
    if kernel is None or drawn.pos_embed is None:
        raise VittleError(f"the arrays in {file} are not of {name_told}: {len(shapes)}, such as {named(shapes)}")
    prefix = kernel.removesuffix("embedding/kernel")
    patch = shapes[kernel][:2]
    if patch != tuple(drawn.patch_embed.patch_size):
        theirs = _pixels(drawn.patch_embed.patch_size)
        raise VittleError(f"{file} has patches of {_by(patch)} pixels, {name_told} of {theirs}")
    stacked = shapes.get(f"{prefix}Transformer/encoderblock/LayerNorm_0/scale")
    apart = {key.removeprefix(prefix).split("/")[1] for key in shapes if "Transformer/encoderblock_" in key}
    blocks = len(apart) if stacked is None else stacked[0]
    if blocks != len(drawn.blocks):
        raise VittleError(f"{file} has {blocks} blocks, {name_told} has {len(drawn.blocks)}")
    positions = next((shape for key, shape in shapes.items() if key.endswith("pos_embedding")), (0, 0, 0))[-2]
    trained = _trained_at(positions, drawn, size, file)
    classes = shapes.get(f"{prefix}head/bias", (0,))[-1]
    model = create(name, pretrained=False, **{**arguments, "num_classes": classes, **_at(trained, drawn)})
    for parameter in model.parameters():
        nn.init.constant_(parameter, torch.nan)
    try:
        model.load_pretrained(str(path))
    except Exception as error:  # a name that is missing, a shape that does not fit
        raise VittleError(f"the arrays in {file} are not of {name_told}: {quoted(error)}") from None
    check_finite(model, f"{file}, read as {name_told},")
    return model, _resize(model, trained, size, drawn, file)
