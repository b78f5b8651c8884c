"""`vittle train ...`: train what a reduction or the demo needs."""

from pathlib import Path
from typing import Annotated

import typer

from vittle.cli.options import DIGITS, Checkpoint, Classes, Data, Device, ImageSize, Model, resolved, source, weights
from vittle.dashboards.terminal.console import counting, escape, note, out, working
from vittle.spaces.files import check_writable
from vittle.spaces.inputs import parse_image_size

HINT = "give --output a file in an existing folder"

train_app = typer.Typer(help="Train what a reduction or the demo needs.", no_args_is_help=True)


@train_app.command("backbone")
def train_backbone(
    output: Annotated[Path, typer.Option(metavar="FILE", help="The .safetensors file to write.")],
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
    output: Annotated[Path, typer.Option(metavar="FILE", help="The .safetensors file to write.")],
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
    batch_size: Annotated[int, typer.Option(min=1, metavar="N", help="Images of a training step.")] = 32,
    device: Device = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the split of the images and of their order.")] = 0,
) -> None:
    """Learn which tokens are alike (DTEM). The same command continues a training that was interrupted."""
    where, given, size = source(model, data), weights(checkpoint), parse_image_size(image_size)
    check_writable(output, HINT)
    with working("loading"):
        from vittle.objectives.measurement import proportion
        from vittle.objectives.quality.images import load_training_images
        from vittle.reductions.backbone import load_backbone
        from vittle.reductions.device import choose_device
        from vittle.reductions.vit import check_identity
        from vittle.training import merge_embedding
    place = choose_device(device)
    backbone = load_backbone(model, given, size)
    note(backbone.notes)
    check_identity(backbone.model)
    with counting("images") as progress:
        images = load_training_images(
            where, backbone.preprocessing, backbone.classes, class_names=resolved(classes), seed=seed, progress=progress
        )
    note(images.notes)
    parts = ((part.pixels, part.labels) for part in (images.train, images.validation, images.verdict))
    trained = merge_embedding.train(
        backbone,
        merge_embedding.Parts(*parts),
        output=output,
        epochs=epochs or (merge_embedding.EPOCHS_ON_DIGITS if where == DIGITS else merge_embedding.EPOCHS),
        removed=removed,
        batch_size=batch_size,
        seed=seed,
        device=place,
    )
    answered = " answered as the backbone does" if trained.verdict.by_backbone else ""
    for merged, one in zip(trained.removed, trained.verdict.comparisons, strict=True):
        at = f"{one.at} of the MACs (decoupled merges {merged} tokens per block), {one.images} images{answered}:"
        out.print(at, highlight=False, soft_wrap=True)
        for metric, correct in ((f"decoupled ({trained.embedding.mode})", one.right), ("key", one.rival_right)):
            share = proportion("accuracy", correct, one.images, {})
            interval = f"95 %: {share.low:.2%} to {share.high:.2%}"
            out.print(f"  {metric:<19} {share.value:.2%}  ({interval})", highlight=False)
    out.print(f"best epoch: {trained.best_epoch} of {len(trained.losses)}", highlight=False)
    out.print(escape(trained.embedding.verdict()[1]), highlight=False, soft_wrap=True)
    out.print(f"wrote {escape(str(output))}: {trained.embedding.name}", highlight=False, soft_wrap=True)
