"""`vittle launch`, `resume`, `extend` and `stop`: searches, begun, continued and ended."""

import time
from typing import Annotated, Any

import typer

from vittle.cli.answers import explain_unmet, show_front
from vittle.cli.options import (
    DIGITS,
    Adapters,
    BatchSize,
    Checkpoint,
    Compiled,
    Data,
    Device,
    Dtype,
    Json,
    Model,
    Storage,
    StudyName,
    cpus,
    find_study,
    parse_adapters,
    parse_bytes,
    parse_seconds,
    source,
)
from vittle.dashboards.terminal import study_tables
from vittle.dashboards.terminal.console import counting, err, escape, note, out, progress_bar, working
from vittle.objectives.budget import LatencyBudget
from vittle.storage import claim, records
from vittle.storage.claim import user
from vittle.storage.ranking import Ranking
from vittle.storage.records import Study, Trial
from vittle.storage.settings import SearchSettings, Settings
from vittle.storage.store import Store

search_app = typer.Typer()
ASK_AGAIN = 0.5  # seconds between two looks at whether a study has ended

RayAddress = Annotated[str | None, typer.Option(help="Join this Ray cluster in place of starting one.", show_default=False)]


@search_app.command()
def launch(
    latency_budget: Annotated[
        str, typer.Option(help="The most a schedule may take: 4ms per batch, or 60% of the backbone.")
    ] = "60%",
    model: Model = DIGITS,
    checkpoint: Checkpoint = None,
    data: Data = None,
    batch_size: BatchSize = 64,
    device: Device = None,
    dtype: Dtype = "float32",
    compiled: Compiled = False,
    target: Annotated[
        str | None,
        typer.Option(help="Another device whose budget this is, as `vittle profiles` names it.", show_default=False),
    ] = None,
    predict: Annotated[
        bool, typer.Option("--predict/--measure-all", help="Predict latencies and measure the front, or measure every trial.")
    ] = True,
    reductions: Annotated[str, typer.Option(help="What to search, separated by commas: merging, pruning.")] = "merging",
    adapter: Adapters = None,
    trials: Annotated[int, typer.Option(min=1, help="Schedules to try.")] = 40,
    time_limit: Annotated[
        str | None, typer.Option(help="Start no trial after this long: 90s, 10m, 2h.", show_default=False)
    ] = None,
    trial_time_limit: Annotated[
        str | None, typer.Option(help="Fail a trial that takes longer than this: 90s, 10m, 2h.", show_default=False)
    ] = None,
    image_passes: Annotated[
        float | None,
        typer.Option(
            min=1, help="Start no trial after as much work as this many images through the backbone.", show_default=False
        ),
    ] = None,
    until_flat: Annotated[
        bool, typer.Option("--until-flat/--all-trials", help="End where the front grows no more, or run all trials.")
    ] = True,
    sampler: Annotated[str, typer.Option(help="auto, tpe, nsga2, nsga3, gp or random.")] = "auto",
    cache: Annotated[str, typer.Option(help="Memory for activations of the backbone that schedules go on from.")] = "2GiB",
    workers: Annotated[int, typer.Option(min=1, help="Schedules to evaluate at once.")] = 1,
    cpus_per_worker: Annotated[
        int | None, typer.Option(min=1, help="Default: this machine's, shared between the workers.", show_default=False)
    ] = None,
    gpus_per_worker: Annotated[
        float | None, typer.Option(min=0, help="May be a fraction. Default: 1 on cuda, else 0.", show_default=False)
    ] = None,
    storage: Storage = None,
    study: Annotated[
        str | None, typer.Option(help="Name of the new study. Default: model and number.", show_default=False)
    ] = None,
    ray_address: RayAddress = None,
    seed: Annotated[int, typer.Option(help="Of the split of the images and of the sampler.")] = 0,
    as_json: Json = False,
) -> None:
    """Search for schedules within a latency budget."""
    LatencyBudget.parse(latency_budget)
    if study is not None:
        records.check_name(study)
    with working("loading"):
        from vittle.reductions.device import choose_device
        from vittle.search.feasibility import check_budget
        from vittle.search.inference import InferenceProblem
    settings = Settings.of(
        model=model,
        checkpoint=None if checkpoint is None else str(checkpoint.resolve()),
        data=source(model, data),
        latency_budget=latency_budget,
        batch_size=batch_size,
        device=choose_device(device),
        dtype=dtype,
        compiled=compiled,
        predict=predict,
        reductions=tuple(part.strip() for part in reductions.split(",") if part.strip()),
        adapters=parse_adapters(adapter),
        sampler=sampler,
        trials=trials,
        image_passes=image_passes,
        until_flat=until_flat,
        cache=parse_bytes(cache),
        time_limit=None if time_limit is None else parse_seconds(time_limit),
        trial_time_limit=None if trial_time_limit is None else parse_seconds(trial_time_limit),
        workers=workers,
        cpus_per_worker=cpus_per_worker or max(1, cpus() // workers),
        gpus_per_worker=gpus_per_worker if gpus_per_worker is not None else float(choose_device(device) == "cuda"),
        seed=seed,
    )
    with counting("images") as progress:
        problem = InferenceProblem.load(settings, progress)
    store = Store.open(storage, create=True)
    if target is not None:
        problem = problem.aimed_at(target, store)
    settings = problem.settings
    there = set(store.names())
    if study not in there:
        with working("budget"):
            check_budget(problem.backbone, settings, store)
    made = store.create_study(study or records.free_name(model, there), settings, problem.subject, owner=user())
    _run(made, problem, store, ray_address, as_json)


@search_app.command()
def resume(study: StudyName = None, storage: Storage = None, ray_address: RayAddress = None, as_json: Json = False) -> None:
    """Continue a study that was interrupted."""
    store = Store.open(storage)
    _continue(find_study(store, study), store, ray_address, as_json)


@search_app.command()
def extend(
    study: StudyName = None,
    trials: Annotated[int, typer.Option(min=1, help="Schedules to try in addition.")] = 20,
    storage: Storage = None,
    ray_address: RayAddress = None,
    as_json: Json = False,
) -> None:
    """Add trials to a study and run them."""
    store = Store.open(storage)
    found = find_study(store, study)
    _continue(store.set_trials(found.name, found.settings.trials + trials), store, ray_address, as_json)


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


def _continue(study: Study, store: Store, ray_address: str | None, as_json: bool) -> None:
    with working("loading"):
        from vittle.search.problem import find_problem
    with counting("images") as progress:
        problem = find_problem(study.kind).load(study.settings, progress)
    problem.check(study)
    _run(study, problem, store, ray_address, as_json)


def _run(study: Study, problem: Any, store: Store, ray_address: str | None, as_json: bool) -> None:
    from vittle.search.reporter import Reporter
    from vittle.search.study import run

    settings = study.settings
    note(problem.notes)
    done = sum(1 for trial in store.trials(study.name) if trial.state != "running")
    how = "new" if not done else "complete, nothing to do" if study.state == "complete" else "continued"
    err.print(
        f"study [bold]{escape(study.name)}[/] ({how}): {done} of {settings.trials + 1} trials done, "
        f"{escape(_asked(settings))}, {settings.workers} x {settings.cpus_per_worker} CPUs",
        highlight=False,
        soft_wrap=True,
    )
    if study.state == "complete":
        show_front(study, Ranking.of(store.trials(study.name), study.goals), study.budget, as_json)
        return
    with progress_bar("search", total=settings.trials + 1, completed=done) as (bar, task):
        confirming: list[Any] = []

        def prepared(what: str, done: int, of: int) -> None:
            bar.update(task, note=f"{what} {done} of {of}" if done < of else "")

        def warned(what: str) -> None:
            err.print(f"[bold yellow]warning:[/] {escape(what)}", soft_wrap=True, highlight=False)

        def finished(trial: Trial) -> None:
            bar.advance(task)
            bar.update(task, note=study_tables.trial_note(trial, study.goals))

        def confirmed(trial: Trial, left: int) -> None:
            if not confirming:
                bar.update(task, note="")
                confirming.append(bar.add_task("confirm", total=None, note=""))
            seen = bar.tasks[-1].completed + 1
            bar.update(confirming[0], completed=seen, total=seen + left, note=f"trial {trial.number}")

        def ended(why: str) -> None:
            bar.update(task, note="")
            err.print(f"search ended: {escape(why)}", highlight=False, soft_wrap=True)

        study = run(study, problem, store, Reporter(finished, confirmed, prepared, warned, ended), ray_address)
    ranking = Ranking.of(store.trials(study.name), study.goals)
    show_front(study, ranking, study.budget, as_json)
    if study.state == "interrupted":
        err.print(
            f"interrupted; every finished trial is kept. Continue with: vittle resume {escape(study.name)}", highlight=False
        )
        raise typer.Exit(130)
    if study.state == "failed":
        err.print(f"search failed: {escape(str(study.ended))}", highlight=False, soft_wrap=True)
        raise typer.Exit(1)
    if ranking.best() is None:
        explain_unmet(study, ranking, study.budget)
        raise typer.Exit(1)


def _asked(settings: SearchSettings) -> str:
    """What was asked of a search, in a few words."""
    if not isinstance(settings, Settings):
        return f"{settings.kind} within {settings.goals.budget}"
    within = f"{settings.model} within {settings.latency_budget} of latency"
    return f"{within}, batch {settings.batch_size} on {settings.device}"
