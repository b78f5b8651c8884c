"""`vittle stop` and `importance`: end a search from anywhere, and tell what mattered in it."""

import time
from typing import Annotated

import typer

from vittle.cli.options import Json, Storage, StudyName, find_study, parse_seconds
from vittle.dashboards.documents import study_document
from vittle.dashboards.terminal import importance_tables
from vittle.dashboards.terminal.console import err, escape, out, print_json, working
from vittle.storage import claim
from vittle.storage.store import Store

search_app = typer.Typer()
ASK_AGAIN = 0.5  # seconds between two looks at whether a study has ended


@search_app.command()
def stop(
    study: StudyName = None,
    wait: Annotated[str, typer.Option(help="How long to wait for its end: 30s, 5m.")] = "1m",
    storage: Storage = None,
) -> None:
    """Ask a running study to stop, wherever it runs; every finished trial is kept, and `vittle resume` goes on.

    Exit code 1 where it has not ended in time; it has been asked all the same.
    """
    end = time.monotonic() + parse_seconds(wait)
    store = Store.open(storage)
    found = find_study(store, study)
    running = claim.stop(store, found.name)
    with working(f"waiting for {running.user} on {running.host} (process {running.process})"):
        while claim.holder(store, found.name) == running:
            if time.monotonic() > end:
                err.print(
                    f"study {escape(found.name)} was asked to stop and has not ended yet", highlight=False, soft_wrap=True
                )
                raise typer.Exit(1)
            time.sleep(ASK_AGAIN)
    state = store.study(found.name).state
    out.print(f"study {escape(found.name)} is {state}; go on with: vittle resume {escape(found.name)}", highlight=False)


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
        print_json(study_document.worth(told, sensitivity))
    elif told is not None:
        out.print(importance_tables.importance_table(told))
    if sensitivity is not None and not as_json:
        for reduction in sensitivity.points:
            out.print(importance_tables.sensitivity_table(sensitivity, reduction))
    if told is None:
        err.print(
            f"study {escape(found.name)} has too few trials to tell which parameters mattered: it takes {FEWEST} with an "
            f"accuracy; add some with: vittle extend {escape(found.name)}",
            highlight=False,
            soft_wrap=True,
        )
        raise typer.Exit(1)
