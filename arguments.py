"""What several commands take: their options, and where images come from."""

from pathlib import Path
from typing import Annotated

import typer

from vittle.spaces.errors import VittleError

DIGITS = "digits"

Model = Annotated[str, typer.Option(help="A timm name, hf-hub:owner/name, local-dir:path, or digits.")]
Checkpoint = Annotated[
    Path | None, typer.Option(help="Weights (.safetensors, .pth) in place of the published ones.", show_default=False)
]
Data = Annotated[
    str | None, typer.Option(help="Image folder, .npz, timm dataset, or digits (with the model digits).", show_default=False)
]
Device = Annotated[str | None, typer.Option(help="cpu or cuda. Default: cuda where there is one.", show_default=False)]


def source(model: str, data: str | None) -> str:
    """Where the images are; a path is made absolute, so that a resumed study finds it from any folder.

    Raises:
        VittleError: a model of one's own without images.
    """
    if data is None and model != DIGITS:
        raise VittleError(f"model {model!r} needs images; give --data with a folder, an .npz file or a timm data set")
    return str(Path(data).resolve()) if data is not None and Path(data).exists() else data or DIGITS
