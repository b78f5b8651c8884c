"""`vittle importance`: what mattered in a search."""

import typer

from vittle.arguments import Json, Storage, StudyName, find_study
from vittle.dashboards import terminal_importance, twins
from vittle.dashboards.console import err, escape, out, print_json, working
from vittle.storage.store import Store

search_app = typer.Typer()


@search_app.command()
def importance(study: StudyName = None, storage: Storage = None, as_json: Json = False) -> None:
    """Show which parameters mattered in a study, and what each block of its backbone can spare.

    Told from the trials so far and kept, so that the dashboard shows it, too. Exit code 1 where they are too few to tell.
    """
    store = Store.open(storage)
    found = find_study(store, study)
    with working("importance"):
        from vittle.search.explaining import explain
        from vittle.search.importance import FEWEST

        told = explain(found, store)
    sensitivity = store.sensitivity(found.backbone.fingerprint)
    if as_json:
        print_json(twins.worth(told, sensitivity))
    elif told is not None:
        out.print(terminal_importance.importance_table(told))
    if sensitivity is not None and not as_json:
        for reduction in sensitivity.points:
            out.print(terminal_importance.sensitivity_table(sensitivity, reduction))
    if told is None:
        err.print(
            f"study {escape(found.name)} has too few trials to tell which parameters mattered: it takes {FEWEST} with an "
            f"accuracy; add some with: vittle extend {escape(found.name)}",
            highlight=False,
            soft_wrap=True,
        )
        raise typer.Exit(1)
