"""`vittle export-study` and `import-study`: a whole study, from one database to another; `vittle report`: to somebody."""

from pathlib import Path
from typing import Annotated

import typer

from vittle.cli.options import Storage, StudyName, find_study
from vittle.dashboards.terminal.console import out
from vittle.spaces.errors import VittleError
from vittle.spaces.files import write_at_once
from vittle.storage import transfer
from vittle.storage.store import Store

transfer_app = typer.Typer()


@transfer_app.command("export-study")
def export_study(
    study: StudyName = None,
    output: Annotated[
        Path | None, typer.Option(help="The file to write. Default: the study's name and .jsonl.", show_default=False)
    ] = None,
    storage: Storage = None,
) -> None:
    """Write a study with all its trials to a file of JSON lines, for another database."""
    store = Store.open(storage)
    found = find_study(store, study)
    path = output or Path(f"{found.name.replace('/', '-')}.jsonl")
    lines = list(transfer.write(store, found.name))
    write_at_once(path, "".join(lines).encode(), "give --output a file in an existing folder")
    out.print(f"wrote {path}: study {found.name}, {len(store.trials(found.name))} trials", highlight=False, soft_wrap=True)


@transfer_app.command("import-study")
def import_study(
    file: Annotated[Path, typer.Argument(help="What vittle export-study has written.")],
    study: Annotated[str | None, typer.Option(help="Another name for it.", show_default=False)] = None,
    storage: Storage = None,
) -> None:
    """Read a study from a file of JSON lines; go on with it by `vittle resume`."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise VittleError(f"cannot read {file}: {reason}; accepted: what vittle export-study writes") from None
    store = Store.open(storage, create=True)
    found = transfer.read(store, lines, study)
    out.print(f"read {file}: study {found.name}, {len(store.trials(found.name))} trials", highlight=False, soft_wrap=True)


@transfer_app.command()
def report(
    study: StudyName = None,
    output: Annotated[
        Path | None, typer.Option(help="The file to write. Default: the study's name and .html.", show_default=False)
    ] = None,
    language: Annotated[str, typer.Option(help="en or ja.")] = "en",
    storage: Storage = None,
) -> None:
    """Write a study as one HTML file that needs no server and no network."""
    store = Store.open(storage)
    found = find_study(store, study)
    from vittle.dashboards.pages import report as reports  # here, because no other command prints pages
    from vittle.dashboards.pages.trials import slug

    path = output or Path(f"{slug(found.name)}.html")
    page = reports.render(store, found, language).encode()
    write_at_once(path, page, "give --output a file in an existing folder")
    out.print(f"wrote {path}: study {found.name}, {len(page) / 1e6:.1f} MB", markup=False, highlight=False, soft_wrap=True)
