"""Running a study in the terminal: its progress while it runs, and its front at the end."""

from typing import TYPE_CHECKING, Any

import typer

from vittle.dashboards.terminal.console import err, escape, note, progress_bar

if TYPE_CHECKING:
    from vittle.storage.records import Study, Trial
    from vittle.storage.settings import SearchSettings
    from vittle.storage.store import Store


def run_study(study: "Study", problem: Any, store: "Store", ray_address: str | None, as_json: bool) -> None:
    """Run a study that stands in the database to its end, and show its front.

    Raises:
        Exit: with 130 where it was interrupted, 1 where it failed or holds nothing within its budget.
    """
    from vittle.cli.answers import explain_unmet, show_front
    from vittle.dashboards.terminal import study_tables
    from vittle.search.reporter import Reporter
    from vittle.search.study import run
    from vittle.storage.ranking import Ranking

    settings = study.settings
    note(problem.notes)
    done = sum(1 for trial in store.trials(study.name) if trial.ended)
    how = "new" if not done else "complete, nothing to do" if study.state == "complete" else "continued"
    err.print(
        f"study [bold]{escape(study.name)}[/] ({how}): {done} of {settings.trials + 1} trials done, "
        f"{escape(_asked(settings))}, {settings.workers} x {settings.cpus_per_worker} CPUs",
        highlight=False,
        soft_wrap=True,
    )
    if study.state == "complete":
        show_front(study, Ranking.of(store.trials(study.name), study.goals), study.goals.asked, as_json)
        return
    with progress_bar("search", total=settings.trials + 1, completed=done) as (bar, task):
        confirmation: list[Any] = []  # its bar, once there is something to confirm

        def prepared(what: str, done: int, of: int) -> None:
            bar.update(task, note=f"{what} {done} of {of}" if done < of else "")

        def warned(what: str) -> None:
            err.print(f"[bold yellow]warning:[/] {escape(what)}", soft_wrap=True, highlight=False)

        def finished(trial: "Trial") -> None:
            bar.advance(task)
            bar.update(task, note=study_tables.trial_note(trial, study.goals))

        def confirming(count: int) -> None:
            bar.update(task, note="")
            if not confirmation:
                confirmation.append(bar.add_task("confirm", total=count, note=""))
            bar.update(confirmation[0], total=bar.tasks[-1].completed + count)

        def confirmed(trial: "Trial", _left: int) -> None:
            bar.update(confirmation[0], advance=1, note=f"trial {trial.number}")

        def ended(why: str) -> None:
            bar.update(task, note="")
            bar.stop_task(task)  # what comes now has a bar of its own
            err.print(f"search ended: {escape(why)}", highlight=False, soft_wrap=True)

        study = run(study, problem, store, Reporter(finished, confirmed, prepared, warned, ended, confirming), ray_address)
    ranking = Ranking.of(store.trials(study.name), study.goals)
    show_front(study, ranking, study.goals.asked, as_json)
    if study.state == "interrupted":
        err.print(
            f"interrupted; every finished trial is kept. Continue with: vittle resume {escape(study.name)}", highlight=False
        )
        raise typer.Exit(130)
    if study.state == "failed":
        err.print(f"search failed: {escape(str(study.ended))}", highlight=False, soft_wrap=True)
        raise typer.Exit(1)
    if ranking.best() is None:
        explain_unmet(study, ranking, study.goals.asked)
        raise typer.Exit(1)


def _asked(settings: "SearchSettings") -> str:
    """What was asked of a search, in a few words."""
    from vittle.storage.settings import Settings

    if not isinstance(settings, Settings):
        return f"{settings.kind} within {settings.goals.budget}"
    lost = "" if settings.max_accuracy_drop is None else f" losing at most {settings.max_accuracy_drop} of accuracy"
    within = f"{settings.model} within {settings.latency_budget} of latency{lost}"
    return f"{within}, batch {settings.batch_size} on {settings.device}"
