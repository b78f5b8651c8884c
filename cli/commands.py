"""The front door: `vittle ...`. It composes the rooms and holds no logic of its own."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from vittle import __version__
from vittle.cli.export import transfer_app
from vittle.cli.latency import latency_app
from vittle.cli.options import (
    DIGITS,
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
    illustrate,
    parse_bytes,
    parse_seconds,
    source,
)
from vittle.cli.search import search_app
from vittle.cli.serve import serve_app
from vittle.cli.train import train_app
from vittle.dashboards.documents import study_document
from vittle.dashboards.terminal import study_tables
from vittle.dashboards.terminal.console import counting, err, escape, note, out, print_json, progress_bar, working
from vittle.objectives.measurement import LatencyBudget
from vittle.spaces.errors import VittleError
from vittle.spaces.files import write_at_once
from vittle.storage import export as exports
from vittle.storage import fronts, records
from vittle.storage.claim import user
from vittle.storage.records import Settings, Study, Trial
from vittle.storage.store import Store

app = typer.Typer(
    help="Find the token-reduction schedule that makes a Vision Transformer fit a latency budget.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(latency_app)
app.add_typer(search_app)
app.add_typer(serve_app)
app.add_typer(transfer_app)
app.add_typer(train_app, name="train")

Budget = Annotated[
    str | None, typer.Option(help="For example 4ms, or 60% of the backbone. Default: the study's.", show_default=False)
]
RayAddress = Annotated[str | None, typer.Option(help="Join this Ray cluster in place of starting one.", show_default=False)]


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


@app.command()
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
    adapter: Annotated[
        Path | None, typer.Option(help="Merge embedding from `vittle train merge-embedding`.", show_default=False)
    ] = None,
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
        from vittle.search import study as studies
        from vittle.search.feasibility import check_budget
    settings = Settings(
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
        adapter=None if adapter is None else str(adapter.resolve()),
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
    job = _prepare(settings)
    store = Store.open(storage, create=True)
    if target is not None:
        job = studies.target_device(job, store, target)
    settings = job.settings
    there = {known.name for known in store.studies()}
    if study not in there:
        with working("budget"):
            check_budget(job.backbone, settings, store)
    made = store.create_study(study or records.free_name(model, there), settings, job.record, owner=user())
    _run(studies, made, job, store, ray_address, as_json)


@app.command()
def resume(study: StudyName = None, storage: Storage = None, ray_address: RayAddress = None, as_json: Json = False) -> None:
    """Continue a study that was interrupted."""
    store = Store.open(storage)
    _continue(find_study(store, study), store, ray_address, as_json)


@app.command()
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


@app.command("studies")
def list_studies(storage: Storage = None, as_json: Json = False) -> None:
    """List all studies."""
    store = Store.open(storage)
    listed = [(study, fronts.standing(store, study.name)) for study in store.studies()]
    if as_json:
        print_json([study_document.listed(*one) for one in listed])
    else:
        out.print(study_tables.studies_table(listed))


@app.command("trials")
def list_trials(study: StudyName = None, storage: Storage = None, as_json: Json = False) -> None:
    """List every trial of a study with its state."""
    store = Store.open(storage)
    found = find_study(store, study)
    trials = store.trials(found.name)
    if as_json:
        listed = zip(trials, study_document.detailed(found, trials)["trials"], strict=True)
        print_json([{**entry, "measurements": study_document.measurements(trial)} for trial, entry in listed])
    else:
        out.print(study_tables.trials_table(trials))


@app.command()
def front(study: StudyName = None, latency_budget: Budget = None, storage: Storage = None, as_json: Json = False) -> None:
    """Show the best trade-offs between accuracy, latency and MACs that a study has found."""
    store = Store.open(storage)
    found = find_study(store, study)
    _show_front(found, store.trials(found.name), _budget(found, latency_budget), as_json)


@app.command()
def export(
    study: StudyName = None,
    latency_budget: Budget = None,
    output: Annotated[Path, typer.Option(help="The file to write.")] = Path("best.yaml"),
    storage: Storage = None,
) -> None:
    """Write the most accurate schedule within the budget, with its measurements."""
    store = Store.open(storage)
    found = find_study(store, study)
    budget = _budget(found, latency_budget)
    trials = store.trials(found.name)
    chosen = records.best(trials, budget)
    if chosen is None:
        _explain_unmet(found, trials, budget)
        raise typer.Exit(1)
    exported = exports.document(found, chosen, records.backbone_trial(trials))
    write_at_once(output, exports.to_yaml(exported).encode(), "give --output a file in an existing folder")
    out.print(f"wrote {output}: trial {chosen.number} of {found.name}", highlight=False, soft_wrap=True)
    out.print(study_tables.front_table([chosen], budget, trials, shape=found.backbone.shape))


@app.command()
def dashboard(
    storage: Storage = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on this machine.")] = 8080,
) -> None:
    """Serve the studies as a web page on this machine."""
    store = Store.open(storage)
    from vittle.dashboards.server import serve

    serve(store, port, illustrate)


def _prepare(settings: Settings) -> Any:
    from vittle.search.study import prepare

    with counting("images") as progress:
        return prepare(settings, progress)


def _continue(study: Study, store: Store, ray_address: str | None, as_json: bool) -> None:
    with working("loading"):
        from vittle.search import study as studies
    job = _prepare(study.settings)
    if job.backbone.fingerprint != study.backbone.fingerprint:
        raise VittleError(
            f"the weights of {study.settings.model} are not those that study {study.name!r} began with; "
            f"give the same checkpoint, or launch a new study"
        )
    _run(studies, study, job, store, ray_address, as_json)


def _run(studies: Any, study: Study, job: Any, store: Store, ray_address: str | None, as_json: bool) -> None:
    settings = study.settings
    note(job.notes)
    done = sum(1 for trial in store.trials(study.name) if trial.state != "running")
    how = "new" if not done else "complete, nothing to do" if study.state == "complete" else "continued"
    err.print(
        f"study [bold]{escape(study.name)}[/] ({how}): {done} of {settings.trials + 1} trials done, {escape(settings.model)} "
        f"within {settings.latency_budget} of latency, batch {settings.batch_size} on {settings.device}, "
        f"{settings.workers} x {settings.cpus_per_worker} CPUs",
        highlight=False,
        soft_wrap=True,
    )
    if study.state == "complete":
        _show_front(study, store.trials(study.name), study.budget, as_json)
        return
    with progress_bar("search", total=settings.trials + 1, completed=done) as (bar, task):
        confirming: list[Any] = []

        def observed(images: int, of: int) -> None:
            bar.update(task, note=f"backbone on {images} of {of} images" if images < of else "")

        def profiled(done: int, of: int) -> None:
            bar.update(task, note=f"latency profile {done} of {of}" if done < of else "")

        def warned(what: str) -> None:
            err.print(f"[bold yellow]warning:[/] {escape(what)}", soft_wrap=True, highlight=False)

        def finished(trial: Trial) -> None:
            bar.advance(task)
            bar.update(task, note=study_tables.trial_note(trial))

        def confirmed(trial: Trial, left: int) -> None:
            if not confirming:
                bar.update(task, note="")
                confirming.append(bar.add_task("confirm", total=None, note=""))
            seen = bar.tasks[-1].completed + 1
            bar.update(confirming[0], completed=seen, total=seen + left, note=f"trial {trial.number}")

        def ended(why: str) -> None:
            bar.update(task, note="")
            err.print(f"search ended: {escape(why)}", highlight=False, soft_wrap=True)

        reporter = studies.Reporter(finished, confirmed, observed, profiled, warned, ended)
        study = studies.run(study, job, store, reporter, ray_address)
    trials = store.trials(study.name)
    _show_front(study, trials, study.budget, as_json)
    if study.state == "interrupted":
        err.print(f"interrupted; every finished trial is kept. Continue with: vittle resume {study.name}", highlight=False)
        raise typer.Exit(130)
    if study.state == "failed":
        err.print(f"search failed: {escape(str(study.ended))}", highlight=False, soft_wrap=True)
        raise typer.Exit(1)
    if records.best(trials, study.budget) is None:
        _explain_unmet(study, trials, study.budget)
        raise typer.Exit(1)


def _show_front(study: Study, trials: list[Trial], budget: LatencyBudget, as_json: bool) -> None:
    points = records.front(trials, budget)
    if as_json:
        print_json([exports.front_entry(trial) for trial in points])
    else:
        out.print(study_tables.front_table(points, budget, trials, shape=study.backbone.shape))
        for sentence in study_tables.standing(trials, budget):
            out.print(sentence, highlight=False, soft_wrap=True)


def _explain_unmet(study: Study, trials: list[Trial], budget: LatencyBudget) -> None:
    fastest = records.nearest(trials)
    if fastest is None:
        err.print(f"study {study.name} has measured nothing yet; continue it with: vittle resume {study.name}", highlight=False)
        return
    near = budget.covering(fastest.judged)
    how = "export with" if fastest.state == "complete" else "launch with"
    err.print(
        f"nothing in study {study.name} fits {budget}; the nearest feasible budget is {near} (trial {fastest.number}): "
        f"{how} --latency-budget {near}",
        highlight=False,
        soft_wrap=True,
    )


def _budget(study: Study, text: str | None) -> LatencyBudget:
    return study.budget if text is None else LatencyBudget.parse(text)
