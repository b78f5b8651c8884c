"""`vittle export`: one schedule; `report`: a study as a page; `export-study` and `import-study`: a study as a file."""

from pathlib import Path
from typing import Annotated

import typer

from vittle.cli.answers import explain_unmet, front_table, tell_trade
from vittle.cli.options import Budget, MaxDrop, Storage, StudyName, Tolerance, find_study, wanted
from vittle.dashboards.terminal.console import out, working
from vittle.spaces.errors import VittleError
from vittle.spaces.files import write_at_once
from vittle.storage import kinds, transfer
from vittle.storage.ranking import Ranking
from vittle.storage.records import Study, Trial
from vittle.storage.store import Store

export_app = typer.Typer()


@export_app.command()
def export(
    study: StudyName = None,
    latency_budget: Budget = None,
    tolerance: Tolerance = None,
    max_drop: MaxDrop = None,
    output: Annotated[Path, typer.Option(help="The file to write.")] = Path("best.yaml"),
    storage: Storage = None,
) -> None:
    """Write the recommended candidate within the budget with its measurements: the fastest about as good as the best."""
    store = Store.open(storage)
    found = find_study(store, study)
    asked = wanted(found, latency_budget, tolerance, max_drop)
    ranking = Ranking.of(store.trials(found.name), found.goals)
    choice = ranking.choice(asked)
    if choice is None:
        explain_unmet(found, ranking, asked)
        raise typer.Exit(1)
    chosen = choice.recommended
    exported = kinds.document(found, chosen, ranking, asked.budget, output.name)
    adapters = {output.with_name(file): _adapter(found, chosen, name) for name, file in exported.get("adapters", {}).items()}
    # The file that names the others comes last.
    for path, content in {**adapters, output: kinds.to_yaml(found, exported).encode()}.items():
        write_at_once(path, content, "give --output a file in an existing folder")
    beside = "".join(f" with {path}" for path in adapters)
    out.print(f"wrote {output}{beside}: trial {chosen.number} of {found.name}", markup=False, highlight=False, soft_wrap=True)
    shown = [chosen] if choice.finest is chosen else [chosen, choice.finest]
    out.print(front_table(found, shown, ranking, asked))
    tell_trade(ranking, asked)


def _adapter(study: Study, trial: Trial, name: str) -> bytes:
    """The file of a study's adapter, which has to be the one that a trial was measured with.

    Raises:
        VittleError: it is not there any more, or is another one.
    """
    with working("loading"):
        from vittle.reductions.adapters import load_adapters
    path = Path(study.inference.adapters[name])
    adapter = load_adapters({name: path})[name]
    wanted = next(part.adapter for part in trial.schedule.reductions if part.name == name)
    if adapter.name != wanted:
        raise VittleError(f"{path} holds {adapter.name}, trial {trial.number} was measured with {wanted}; put that back there")
    return path.read_bytes()


@export_app.command("export-study")
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


@export_app.command("import-study")
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


@export_app.command()
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
