"""The front door: `vittle ...`, one file a group of commands."""

from vittle.cli.commands import app, main

__all__ = ["app", "main"]
