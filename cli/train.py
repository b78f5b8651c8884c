"""`vittle train ...`: train what a reduction or the demo needs."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from vittle.cli.options import DIGITS, Checkpoint, Classes, Data, Device, ImageSize, Model, resolved, source, weights
from vittle.dashboards.terminal.console import counting, escape, note, out, working
from vittle.spaces.files import check_writable
from vittle.spaces.inputs import parse_image_size

if TYPE_CHECKING:
    from vittle.reductions.backbone import Backbone
    from vittle.reductions.trained_adapter import TrainedAdapter
    from vittle.training.judging import Parts

HINT = "give --output a file in an existing folder"

Output = Annotated[Path, typer.Option(metavar="FILE", help="The .safetensors file to write.")]
StepImages = Annotated[int, typer.Option(min=1, metavar="N", help="Images of a training step.")]
Seed = Annotated[int, typer.Option(metavar="N", help="Of the split of the images and of their order.")]

train_app = typer.Typer(help="Train what a reduction or the demo needs.", no_args_is_help=True)


@train_app.command("backbone")
def train_backbone(
    output: Output,
    epochs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Passes over the training digits.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the weights to begin with and of the images' order.")] = 0,
) -> None:
    """Train the embedded digits backbone again."""
    check_writable(output, HINT)
    with working("loading"):
        from vittle.training import digits
    reached = digits.train(output, epochs=epochs, seed=seed)
    out.print(", ".join(f"{name} {share:.2%}" for name, share in reached.items()), highlight=False)


@train_app.command("merge-embedding")
def train_merge_embedding(
    output: Output,
    model: Model = DIGITS,
    checkpoint: Checkpoint = None,
    image_size: ImageSize = None,
    data: Data = None,
    classes: Classes = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Passes over the images, at most. Default: 30, fewer for digits.", show_default=False
        ),
    ] = None,
    removed: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Tokens merged in each block. Default: drawn anew in each step, for 60 to 20 % of the MACs.",
            show_default=False,
        ),
    ] = None,
    batch_size: StepImages = 32,
    device: Device = None,
    seed: Seed = 0,
) -> None:
    """Learn which tokens are alike (DTEM). The same command continues a training that was interrupted."""
    material = _material(output, model, checkpoint, image_size, data, classes, device, seed)
    from vittle.training import merge_embedding

    trained = merge_embedding.train(
        material.backbone,
        material.parts,
        output=output,
        epochs=epochs or (merge_embedding.EPOCHS_ON_DIGITS if material.data == DIGITS else merge_embedding.EPOCHS),
        removed=removed,
        batch_size=batch_size,
        seed=seed,
        device=material.device,
    )
    for merged, one in zip(trained.removed, trained.verdict.comparisons, strict=True):
        at = f"{one.at} of the MACs (decoupled merges {merged} tokens per block)"
        counts = {f"decoupled ({trained.embedding.mode})": one.right, "key": one.rival_right}
        _tell_right(at, counts, one.images, by_backbone=trained.verdict.by_backbone)
    _tell_adapter(trained.embedding, output, trained.best_epoch, len(trained.losses))


@train_app.command("sparsity")
def train_sparsity(
    output: Output,
    model: Model = DIGITS,
    checkpoint: Checkpoint = None,
    image_size: ImageSize = None,
    data: Data = None,
    classes: Classes = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Of at most 50 steps each, at most. Default: 8.", show_default=False),
    ] = None,
    batch_size: StepImages = 32,
    device: Device = None,
    seed: Seed = 0,
) -> None:
    """Learn which keys matter (Sparsifiner). The same command continues a training that was interrupted."""
    material = _material(output, model, checkpoint, image_size, data, classes, device, seed)
    from vittle.training import sparsity

    trained = sparsity.train(
        material.backbone,
        material.parts,
        output=output,
        epochs=epochs or sparsity.EPOCHS,
        batch_size=batch_size,
        seed=seed,
        device=material.device,
    )
    for one in trained.right:
        at = f"{one.share:.0%} of the keys, {one.macs:.0%} of the MACs"
        counts = {"trained": one.trained, "sampled": one.sampled, "random": one.random}
        _tell_right(at, counts, trained.images, by_backbone=trained.verdict.by_backbone)
    _tell_adapter(trained.predictor, output, trained.best_epoch, len(trained.losses))


@train_app.command("recursion")
def train_recursion(
    output: Output,
    model: Model = DIGITS,
    checkpoint: Checkpoint = None,
    image_size: ImageSize = None,
    data: Data = None,
    classes: Classes = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Of 100 steps each, at most. Default: 10.", show_default=False),
    ] = None,
    shared: Annotated[int, typer.Option(min=1, max=2, metavar="N", help="Blocks whose weights are shared: 1 or 2.")] = 1,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="How often they may recur. Default: 2 in 5 of what makes up for the model's blocks.",
            show_default=False,
        ),
    ] = None,
    batch_size: StepImages = 32,
    device: Device = None,
    seed: Seed = 0,
) -> None:
    """Distil a model into a few blocks that recur (MoR-ViT). The same command continues a training that was interrupted."""
    material = _material(output, model, checkpoint, image_size, data, classes, device, seed)
    from vittle.training import recursion

    trained = recursion.train(
        material.backbone,
        material.parts,
        output=output,
        epochs=epochs or recursion.EPOCHS,
        shared=shared,
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        device=material.device,
    )
    by_backbone = trained.verdict.by_backbone
    _tell_right("the backbone", {model: trained.backbone}, trained.images, by_backbone=by_backbone)
    for one in trained.right:
        last = f", the last for {one.share:.0%} of the patches" if one.share < 1 else ""
        at = f"{one.steps} steps{last}: {one.macs:.0%} of the MACs, {trained.parameters:.0%} of the parameters"
        _tell_right(
            at, {f"router {router}": right for router, right in one.by_router.items()}, trained.images, by_backbone=by_backbone
        )
    _tell_adapter(trained.blocks, output, trained.best_epoch, len(trained.losses))


class Material(NamedTuple):
    """What an adapter is trained with.

    Attributes:
        backbone: that it is for.
        parts: images in three parts.
        data: where they are from.
        device: cpu or cuda.
    """

    backbone: "Backbone"
    parts: "Parts"
    data: str
    device: str


def _material(
    output: Path,
    model: str,
    checkpoint: Path | None,
    image_size: str | None,
    data: str | None,
    classes: Path | None,
    device: str | None,
    seed: int,
) -> Material:
    """Read the options that every training of an adapter has; what backbone and images have to say is told."""
    where, given, size = source(model, data), weights(checkpoint), parse_image_size(image_size)
    check_writable(output, HINT)
    with working("loading"):
        from vittle.objectives.quality.images import load_training_images
        from vittle.reductions.backbone import load_backbone
        from vittle.reductions.device import choose_device
        from vittle.reductions.vit import check_identity
        from vittle.training.judging import Parts

    place, names = choose_device(device), resolved(classes)
    backbone = load_backbone(model, given, size)
    note(backbone.notes)
    check_identity(backbone.model)
    with counting("images") as progress:
        images = load_training_images(
            where, backbone.preprocessing, backbone.classes, class_names=names, seed=seed, progress=progress
        )
    note(images.notes)
    parts = Parts(*((part.pixels, part.labels) for part in (images.train, images.validation, images.verdict)))
    return Material(backbone, parts, where, place)


def _tell_right(at: str, counts: Mapping[str, int], images: int, *, by_backbone: bool) -> None:
    """How many of the verdict's images were answered rightly at one rate, by each of several rivals."""
    from vittle.objectives.measurement import proportion

    answered = " answered as the backbone does" if by_backbone else ""
    out.print(f"{at}, {images} images{answered}:", highlight=False, soft_wrap=True)
    for name, correct in counts.items():
        share = proportion("accuracy", correct, images, {})
        interval = f"95 %: {share.low:.2%} to {share.high:.2%}"
        out.print(f"  {name:<19} {share.value:.2%}  ({interval})", highlight=False)


def _tell_adapter(adapter: "TrainedAdapter", output: Path, best_epoch: int, epochs: int) -> None:
    out.print(f"best epoch: {best_epoch} of {epochs}", highlight=False)
    out.print(escape(adapter.verdict()[1]), highlight=False, soft_wrap=True)
    out.print(f"wrote {escape(str(output))}: {adapter.name}", highlight=False, soft_wrap=True)
