"""The one error that a user's input can cause: the command line prints it as one line, with exit code 2."""


class VittleError(ValueError):
    """Bad input. The message says in one line what is wrong and what is accepted."""

    exit_code = 2


class ScheduleError(VittleError):
    """A schedule that cannot run on a backbone, or a file that is not a schedule."""


class StorageError(VittleError):
    """A database that cannot be reached or written to any more; what it holds stays as it is."""

    exit_code = 1


class UnsupportedBackboneError(VittleError):
    """A model whose blocks are not understood; it is refused rather than run wrongly."""


def one_line(said: object, most: int) -> str:
    """The beginning, of so many characters, of what somebody else says, on one line; of nothing the name of its type."""
    line = " ".join(str(said).split()) or type(said).__name__
    return line if len(line) <= most else f"{line[: most - 1]}…"
