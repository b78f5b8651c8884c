"""Files that appear complete or not at all, and in no other place than the one that was named.

What is there already is replaced only where it is a regular file: a device, a pipe, a folder or a link stays what it is. A link
is refused and not followed, because whoever can write to a folder could plant one; links among the folders before it are.
"""

import contextlib
import os
import secrets
import stat
from pathlib import Path

from vittle.spaces.errors import VittleError

HINT = "give a file in an existing folder"
STANDARD_OUTPUT = Path("-")  # never a file's name, also where nothing can be written to it
KINDS = {
    stat.S_ISDIR: "a folder",
    stat.S_ISLNK: "a link",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
}


def check_writable(path: Path, hint: str = HINT) -> os.stat_result | None:
    """Refuse a place where no file can be written, before anything is computed for it.

    Returns:
        The regular file that is there already; None where there is nothing.

    Raises:
        VittleError: something else than a regular file is there, or it may not be written; the message ends in `hint`.
    """
    if path == STANDARD_OUTPUT:
        raise VittleError(f"this is not written to standard output; {hint}")
    there = None
    try:
        with contextlib.suppress(FileNotFoundError):
            there = path.lstat()
        if there is not None and not stat.S_ISREG(there.st_mode):
            kind = next((name for is_one, name in KINDS.items() if is_one(there.st_mode)), "no regular file")
            raise VittleError(f"cannot write {path}: it is {kind}; {hint}")
        if not path.parent.is_dir():
            raise VittleError(f"cannot write {path}: no folder {path.parent}; {hint}")
        if not os.access(path.parent if there is None else path, os.W_OK):
            raise VittleError(f"cannot write {path}: Permission denied; {hint}")
    except OSError as error:
        raise VittleError(f"cannot write {path}: {error.strerror}; {hint}") from None
    return there


def write_at_once(path: Path, content: bytes, hint: str = HINT) -> None:
    """Write a file beside its place and move it there; an interrupted write leaves the place as it was.

    A file that it replaces passes on its permissions, and its owner where the system lets it.

    Raises:
        VittleError: it cannot be written there (see `check_writable`); the message ends in `hint`.
    """
    there = check_writable(path, hint)
    draft = path.with_name(f".vittle-{secrets.token_hex(8)}.draft")
    try:
        # A name that nobody can guess, and no file or link that is there already, is never opened.
        file = os.open(
            draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666 if there is None else 0o600
        )
        try:
            with open(file, "wb") as opened:
                if there is not None:
                    with contextlib.suppress(PermissionError):
                        os.fchown(file, there.st_uid, there.st_gid)
                    os.fchmod(file, stat.S_IMODE(there.st_mode))
                opened.write(content)
                opened.flush()
                os.fsync(file)
            os.replace(draft, path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise VittleError(f"cannot write {path}: {error.strerror}; {hint}") from None
