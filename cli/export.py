"""`vittle export`: one schedule; `report`: a study as a page; `export-study` and `import-study`: a study as a file."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vittle.cli.options import Budget, MaxDrop, Storage, StudyName, Tolerance, find_study, illustrate, open_store, wanted
from vittle.dashboards.terminal.console import escape, out, working
from vittle.spaces.errors import VittleError
from vittle.spaces.files import STANDARD_OUTPUT, write_at_once

if TYPE_CHECKING:
    from vittle.storage.records import Study, Trial
    from vittle.storage.store import Store

export_app = typer.Typer()
PANEL = "Files"  # of the list of commands


@export_app.command(rich_help_panel=PANEL)
def export(
    study: StudyName = None,
    latency_budget: Budget = None,
    tolerance: Tolerance = None,
    max_drop: MaxDrop = None,
    output: Annotated[Path, typer.Option(metavar="FILE", help="The file to write; - for standard output.")] = Path("best.yaml"),
    storage: Storage = None,
) -> None:
    """Write the recommended candidate within the budget with its measurements: the fastest about as good as the best."""
    from vittle.cli.answers import explain_unmet, front_table, tell_trade, write_output
    from vittle.storage import kinds
    from vittle.storage.ranking import Ranking

    store = open_store(storage)
    found = find_study(store, study)
    asked = wanted(found, latency_budget, tolerance, max_drop)
    ranking = Ranking.of(store.trials(found.name), found.goals)
    choice = ranking.choice(asked)
    if choice is None:
        explain_unmet(found, ranking, asked)
        raise typer.Exit(1)
    chosen = choice.recommended
    exported = kinds.document(found, chosen, ranking, asked, output.name)
    adapters = {output.with_name(file): _adapter(found, chosen, name) for name, file in exported.get("adapters", {}).items()}
    if adapters and output == STANDARD_OUTPUT:
        raise VittleError(f"trial {chosen.number} needs copies of its trained weights beside it; give --output a file")
    # The file that names the others comes last, and no other one names them: what was exported before stays whole until then.
    for path, content in adapters.items():
        write_at_once(path, content, "give --output a file in an existing folder")
    beside = "".join(f" with {path}" for path in adapters)
    text = kinds.to_yaml(found, exported).encode()
    console = write_output(output, text, f"{beside}: trial {chosen.number} of {found.name}")
    shown = [chosen] if choice.finest is chosen else [chosen, choice.finest]
    console.print(front_table(found, shown, ranking, asked))
    tell_trade(ranking, asked, console)


def _adapter(study: "Study", trial: "Trial", name: str) -> bytes:
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


@export_app.command("export-study", rich_help_panel=PANEL)
def export_study(
    study: StudyName = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The file to write; - for standard output. Default: the study's name and .jsonl.",
            show_default=False,
        ),
    ] = None,
    storage: Storage = None,
) -> None:
    """Write a study with all its trials to a file of JSON lines, for another database."""
    from vittle.cli.answers import write_output
    from vittle.storage import records, transfer

    store = open_store(storage)
    found = find_study(store, study)
    path = output or Path(f"{records.file_stem(found.name)}.jsonl")
    lines = list(transfer.write(store, found.name))
    write_output(path, "".join(lines).encode(), _counted(found, store))


@export_app.command("import-study", rich_help_panel=PANEL)
def import_study(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What vittle export-study has written.")],
    study: Annotated[str | None, typer.Option(metavar="NAME", help="Another name for it.", show_default=False)] = None,
    storage: Storage = None,
) -> None:
    """Read a study from a file of JSON lines; go on with it by `vittle resume`."""
    try:
        lines = file.read_text(encoding="utf-8").split("\n")  # not splitlines: a reason may hold other ends of a line
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise VittleError(f"cannot read {file}: {reason}; accepted: what vittle export-study writes") from None
    from vittle.storage import transfer

    store = open_store(storage, create=True)
    found = transfer.read(store, lines, study)
    out.print(f"read {escape(str(file) + _counted(found, store))}", highlight=False, soft_wrap=True)


@export_app.command(rich_help_panel=PANEL)
def report(
    study: StudyName = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The file to write; - for standard output. Default: the study's name and .html.",
            show_default=False,
        ),
    ] = None,
    language: Annotated[str, typer.Option(metavar="NAME", help="en or ja.")] = "en",
    pictures: Annotated[
        list[int] | None,
        typer.Option(
            metavar="TRIAL",
            help="Draw what this trial does to images, as its page does; for several trials, repeat it. "
            "Model and images have to be here.",
            show_default=False,
        ),
    ] = None,
    storage: Storage = None,
) -> None:
    """Write a study as one HTML file that needs no server and no network."""
    store = open_store(storage)
    found = find_study(store, study)
    from vittle.cli.answers import write_output
    from vittle.dashboards.pages import report as reports  # here, because no other command prints pages
    from vittle.storage import records

    path = output or Path(f"{records.file_stem(found.name)}.html")
    page = reports.render(store, found, language, _pictures(found, store, pictures or [])).encode()
    write_output(path, page, f": study {found.name}, {len(page) / 1e6:.1f} MB")


def _pictures(study: "Study", store: "Store", numbers: Sequence[int]) -> dict[int, dict[str, Any]]:
    """What the pictures of some trials draw, by their numbers."""
    trials = {trial.number: trial for trial in store.trials(study.name)}
    unknown = [number for number in numbers if number not in trials]
    if unknown:
        raise VittleError(f"no trial {unknown[0]} to draw in study {study.name!r}; accepted: 0 to {max(trials, default=0)}")
    return {number: illustrate(study, trials[number].schedule, ()) for number in numbers}


def _counted(study: "Study", store: "Store") -> str:
    return f": study {study.name}, {len(store.trials(study.name))} trials"
