"""The files and sizes that a user names, checked before what reads them is loaded: what is wrong waits for no torch."""

import re
from pathlib import Path
from typing import Any

from vittle.spaces.errors import VittleError

EMBEDDED = "digits"  # the model and the images that come with the package
NAMED = ("torch", "hfds")  # data sets that timm knows by name and that can be read in any order
STREAMED = ("hfids", "tfds", "wds")
ACCEPTED = (
    "digits, a folder of images (with or without labelled sub-folders), an .npz with `images` and `labels`, or a timm dataset"
)


def check_images(source: str) -> None:
    """Refuse a place of images where nothing is. A data set that timm finds by its name passes.

    Raises:
        VittleError: there is no such file or folder, or what is named can only be read in its own order.
    """
    path = Path(source)
    if source == EMBEDDED or path.exists():
        return
    if path.suffix == ".npz":
        raise VittleError(f"no file at {source}; accepted: {ACCEPTED}")
    name, _, root = source.partition(":")
    kind = name.partition("/")[0].lower() if "/" in name else ""
    if kind in STREAMED:
        raise VittleError(f"data {source!r} is a stream, of which nothing can be held out; accepted: {ACCEPTED}")
    if kind not in NAMED and not Path(root or source).exists():
        raise VittleError(f"no images at {root or source}; accepted: {ACCEPTED}")


def check_checkpoint(path: Path) -> None:
    """Refuse a checkpoint that is not there.

    Raises:
        VittleError: there is no such file.
    """
    if not path.is_file():
        raise VittleError(f"no checkpoint at {path}; give a .safetensors or .pth file")


def parse_image_size(given: Any) -> Any:
    """Read 192x320 (height x width) or 224 (both); what is no text is returned as it is.

    Raises:
        VittleError: a text that is neither.
    """
    if not isinstance(given, str):
        return given
    match = re.fullmatch(r"\s*([1-9]\d{0,4})(?:\s*[x×]\s*([1-9]\d{0,4}))?\s*", given)
    if match is None:
        raise VittleError(f"image size {given!r} is no size in pixels; accepted: 224, or 192x320 for height x width")
    return int(match[1]), int(match[2] or match[1])
