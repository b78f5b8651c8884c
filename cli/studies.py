"""`vittle studies`, `trials`, `front` and `importance`: what has been found."""

import typer

from vittle.cli.options import Budget, Json, MaxDrop, Storage, StudyName, Tolerance, find_study, open_store, wanted
from vittle.dashboards.terminal.console import err, escape, note, out, print_json, working

studies_app = typer.Typer()
PANEL = "What was found"  # of the list of commands


@studies_app.command("studies", rich_help_panel=PANEL)
def list_studies(storage: Storage = None, as_json: Json = False) -> None:
    """List all studies."""
    from vittle.dashboards.documents import study_document
    from vittle.dashboards.terminal import study_tables
    from vittle.storage import fronts
    from vittle.storage.records import UnreadableStudy

    listed = fronts.listed(open_store(storage))
    if as_json:
        print_json(study_document.listing(one if isinstance(one, UnreadableStudy) else (*one, None) for one in listed))
        return
    out.print(study_tables.studies_table(listed))
    note(f"study {one.name!r} cannot be read: {one.reason}" for one in listed if isinstance(one, UnreadableStudy))


@studies_app.command("trials", rich_help_panel=PANEL)
def list_trials(study: StudyName = None, storage: Storage = None, as_json: Json = False) -> None:
    """List every trial of a study with its state."""
    from vittle.dashboards.documents import plain_document, study_document
    from vittle.dashboards.terminal import plain_tables, study_tables
    from vittle.storage.settings import Settings

    store = open_store(storage)
    found = find_study(store, study)
    trials, plain = store.trials(found.name), found.kind != Settings.kind
    if as_json:
        document = plain_document.detailed(found, trials) if plain else study_document.detailed(found, trials)
        listed = zip(trials, document["trials"], strict=True)
        # Its number is called `trial`, as `front` has it; `number` is its name of before, and stays for a release more.
        plain_values = [
            {"trial": trial.number, **entry, "measurements": study_document.measurements(trial)} for trial, entry in listed
        ]
        print_json(plain_values)
    else:
        out.print(plain_tables.trials_table(found, trials) if plain else study_tables.trials_table(trials))


@studies_app.command(rich_help_panel=PANEL)
def front(
    study: StudyName = None,
    latency_budget: Budget = None,
    tolerance: Tolerance = None,
    max_drop: MaxDrop = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Show the best trade-offs that a study has found: of schedules between accuracy, latency and MACs."""
    from vittle.cli.answers import show_front
    from vittle.storage.ranking import Ranking

    store = open_store(storage)
    found = find_study(store, study)
    asked = wanted(found, latency_budget, tolerance, max_drop)
    show_front(found, Ranking.of(store.trials(found.name), found.goals), asked, as_json)


@studies_app.command(rich_help_panel=PANEL)
def importance(study: StudyName = None, storage: Storage = None, as_json: Json = False) -> None:
    """Show which parameters mattered in a study, and what each block of its backbone can spare.

    Told from the trials so far and kept, so that the dashboard shows it, too.
    Exit code 1 where they are too few to tell.
    """
    from vittle.dashboards.documents import study_document
    from vittle.dashboards.terminal import importance_tables

    store = open_store(storage)
    found = find_study(store, study)
    with working("importance"):
        from vittle.search.importance import FEWEST, explain

        told = explain(found, store)
    sensitivity = None if found.subject is None else store.sensitivity(found.subject.fingerprint)
    if as_json:
        print_json(study_document.worth(told, sensitivity))
    elif told is not None:
        out.print(importance_tables.importance_table(told))
    if sensitivity is not None and not as_json:
        for reduction in filter(sensitivity.blocks, sensitivity.points):
            out.print(importance_tables.sensitivity_table(sensitivity, reduction))
    if told is None:
        err.print(
            f"study {escape(found.name)} has too few trials to tell which parameters mattered: it takes {FEWEST} with an "
            f"accuracy; add some with: vittle extend {escape(found.name)}",
            highlight=False,
            soft_wrap=True,
        )
        raise typer.Exit(1)
