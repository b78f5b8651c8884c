"""The front door: `vittle ...`, one file a group of commands.

What a command needs besides its options it imports when it is called, and what is heavy only once all that was given has been
looked at: `--help` and a mistake are answered without a database, and without torch.
"""

from vittle.cli.commands import app, main

__all__ = ["app", "main"]
