"""The command line: it composes the groups of commands, and turns a refusal into one line and an exit code."""

import sys
from typing import Annotated

import typer

from vittle import __version__
from vittle.cli.export import export_app
from vittle.cli.latency import latency_app
from vittle.cli.launch import search_app
from vittle.cli.serve import serve_app
from vittle.cli.studies import studies_app
from vittle.cli.train import train_app
from vittle.dashboards.terminal.console import err, escape
from vittle.spaces.errors import VittleError

app = typer.Typer(
    help="Find the token-reduction schedule that makes a Vision Transformer fit a latency budget.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for group in (search_app, studies_app, export_app, serve_app, latency_app):
    app.add_typer(group)
app.add_typer(train_app, name="train")


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"vittle {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    del version


def main() -> None:
    """Run a command; bad input is one line on stderr and exit code 2."""
    try:
        app()
    except VittleError as error:
        err.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
        sys.exit(error.exit_code)
