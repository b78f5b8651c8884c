"""The command line: it composes the groups of commands, and turns a refusal into one line and an exit code."""

import os
import sys
import traceback
from typing import Annotated

import typer

from vittle import __version__
from vittle.cli.export import export_app
from vittle.cli.latency import latency_app
from vittle.cli.launch import search_app
from vittle.cli.options import FLAG
from vittle.cli.serve import serve_app
from vittle.cli.studies import studies_app
from vittle.cli.train import train_app
from vittle.dashboards.terminal.console import err, escape, out
from vittle.spaces.errors import VittleError

app = typer.Typer(
    help="Find the token-reduction schedule that makes a Vision Transformer fit a latency budget.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for group in (search_app, studies_app, export_app, serve_app, latency_app):
    app.add_typer(group)
app.add_typer(train_app, name="train", rich_help_panel="Training")
TRACEBACK = "--traceback"
UNEXPECTED = 1  # exit code of what is nobody's bad input
LONGEST = 300  # characters of what an unexpected error says


def _show_version(wanted: bool) -> None:
    if wanted:
        out.out(f"vittle {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", metavar=FLAG, callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
    traceback: Annotated[
        bool, typer.Option(TRACEBACK, metavar=FLAG, help="Show where an unexpected error arose; may stand anywhere.")
    ] = False,
) -> None:
    del version, traceback  # `main` looks for it, before there is a command that could take it


def main() -> None:
    """Run a command.

    Bad input is one line on stderr and exit code 2. What is nobody's bad input and was not foreseen where it arose is one line,
    too, with exit code 1; with `--traceback`, or VITTLE_TRACEBACK=1 in the environment, it is shown with all it came through.
    """
    given = sys.argv[1:]
    try:
        app([one for one in given if one != TRACEBACK])
    except VittleError as error:
        _complain(str(error))
        sys.exit(error.exit_code)
    except Exception as error:
        if TRACEBACK in given or os.environ.get("VITTLE_TRACEBACK", "0") != "0":
            traceback.print_exc()
        else:
            said = " ".join(str(error).split())[:LONGEST]
            _complain(f"unexpected {type(error).__name__}{said and f': {said}'}; to see where, run it again with {TRACEBACK}")
        sys.exit(UNEXPECTED)


def _complain(sentence: str) -> None:
    err.print(f"[bold red]error:[/] {escape(sentence)}", soft_wrap=True, highlight=False)
