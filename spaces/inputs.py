"""The files that a user names, looked for before what reads them is loaded: a wrong path waits for no torch and no download."""

from pathlib import Path

from vittle.spaces.errors import VittleError

EMBEDDED = "digits"  # the model and the images that come with the package
ACCEPTED = (
    "digits, a folder of images (with or without labelled sub-folders), an .npz with `images` and `labels`, or a timm dataset"
)


def check_images(source: str) -> None:
    """Refuse a place of images where nothing is. Whatever may be the name of a timm dataset passes.

    Raises:
        VittleError: there is no such file or folder.
    """
    path = Path(source)
    if source == EMBEDDED or path.exists():
        return
    if path.suffix == ".npz":
        raise VittleError(f"no file at {source}; accepted: {ACCEPTED}")
    if path.is_absolute() or source.startswith("."):
        raise VittleError(f"no images at {source}; accepted: {ACCEPTED}")


def check_checkpoint(path: Path) -> None:
    """Refuse a checkpoint that is not there.

    Raises:
        VittleError: there is no such file.
    """
    if not path.is_file():
        raise VittleError(f"no checkpoint at {path}; give a .safetensors or .pth file")
