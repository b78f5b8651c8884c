"""The one error that a user's input can cause; the command line prints it as one line and exits with code 2."""


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
