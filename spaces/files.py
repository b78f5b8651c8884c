"""Files that appear complete or not at all."""

from pathlib import Path

from vittle.spaces.errors import VittleError


def write_at_once(path: Path, content: bytes, hint: str = "give a file in an existing folder") -> None:
    """Write a file beside its place and move it there; an interrupted write leaves the place as it was.

    Raises:
        VittleError: it cannot be written there; the message ends in `hint`.
    """
    draft = path.with_name(f".{path.name}.draft")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise VittleError(f"cannot write {path}: {error.strerror}; {hint}") from None
