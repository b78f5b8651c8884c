"""`vittle launch`, `resume`, `extend` and `stop`: searches, begun, continued and ended."""

import time
from typing import Annotated

import typer

from vittle.cli.options import (
    BUDGET,
    DIGITS,
    FLAG,
    MACHINE,
    MEASURING,
    SEARCH,
    Adapters,
    BatchSize,
    Checkpoint,
    Classes,
    Compiled,
    Data,
    Device,
    Dtype,
    ImageSize,
    Json,
    MaxDrop,
    Model,
    OtherImages,
    RayAddress,
    Storage,
    StudyName,
    check_storage,
    cpus,
    find_study,
    listed,
    open_store,
    parse_adapters,
    parse_bytes,
    parse_seconds,
    resolved,
    source,
    weights,
)
from vittle.cli.running import run_study
from vittle.dashboards.terminal.console import counting, err, escape, note, out, working
from vittle.objectives.goals import INFERENCE_OBJECTIVES, TOLERANCE
from vittle.search.ray_cluster import check_address
from vittle.spaces.inputs import parse_image_size
from vittle.spaces.table import check_adapter_files

search_app = typer.Typer()
PANEL = "Search"  # of the list of commands
WHOLE = "100%"  # of the backbone's time: any schedule that is faster at all
ASK_AGAIN = 0.5  # seconds between two looks at whether a study has ended


@search_app.command(rich_help_panel=PANEL)
def launch(
    latency_budget: Annotated[
        str | None,
        typer.Option(
            metavar="BUDGET",
            rich_help_panel=BUDGET,
            help="The most a schedule may take: 4ms or 'p95 4ms' per batch, a share such as 60% of the backbone, or "
            "'1000 images/s'. Default: 60%, with --max-accuracy-drop 100%.",
            show_default=False,
        ),
    ] = None,
    tolerance: Annotated[
        str,
        typer.Option(
            metavar="POINTS",
            rich_help_panel=BUDGET,
            help="The fastest within so many points of the best accuracy is recommended; 0: the best.",
        ),
    ] = TOLERANCE,
    max_drop: MaxDrop = None,
    model: Model = DIGITS,
    checkpoint: Checkpoint = None,
    image_size: ImageSize = None,
    data: Data = None,
    classes: Classes = None,
    batch_size: BatchSize = 64,
    dtype: Dtype = "float32",
    compiled: Compiled = False,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel=BUDGET,
            help="Another device whose budget this is, as `vittle profiles` names it.",
            show_default=False,
        ),
    ] = None,
    predict: Annotated[
        bool,
        typer.Option(
            "--predict/--measure-all",
            metavar=FLAG,
            rich_help_panel=MEASURING,
            help="Predict latencies and measure the front, or measure every trial.",
        ),
    ] = True,
    reductions: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            rich_help_panel=SEARCH,
            help="What to search, separated by commas: merging, pruning, sparsity, recursion.",
        ),
    ] = "merging",
    objectives: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            rich_help_panel=SEARCH,
            help="What the front is of: accuracy, latency, and of macs and parameters what is to be low as well.",
        ),
    ] = ",".join(INFERENCE_OBJECTIVES),
    adapter: Adapters = None,
    trials: Annotated[int, typer.Option(min=1, metavar="N", rich_help_panel=SEARCH, help="Schedules to try.")] = 40,
    time_limit: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", rich_help_panel=SEARCH, help="Start no trial after this long: 90s, 10m, 2h.", show_default=False
        ),
    ] = None,
    trial_time_limit: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            rich_help_panel=SEARCH,
            help="Fail a trial that takes longer than this: 90s, 10m, 2h.",
            show_default=False,
        ),
    ] = None,
    image_passes: Annotated[
        float | None,
        typer.Option(
            min=1,
            metavar="N",
            rich_help_panel=SEARCH,
            help="Start no trial after as much work as this many images through the backbone.",
            show_default=False,
        ),
    ] = None,
    until_flat: Annotated[
        bool,
        typer.Option(
            "--until-flat/--all-trials",
            metavar=FLAG,
            rich_help_panel=SEARCH,
            help="End where the front grows no more, or run all trials.",
        ),
    ] = True,
    sampler: Annotated[
        str, typer.Option(metavar="NAME", rich_help_panel=SEARCH, help="auto, tpe, nsga2, nsga3, gp or random.")
    ] = "auto",
    device: Device = None,
    cache: Annotated[
        str,
        typer.Option(
            metavar="SIZE",
            rich_help_panel=MACHINE,
            help="Memory for activations of the backbone that schedules go on from.",
        ),
    ] = "2GiB",
    workers: Annotated[
        int, typer.Option(min=1, metavar="N", rich_help_panel=MACHINE, help="Schedules to evaluate at once.")
    ] = 1,
    cpus_per_worker: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            rich_help_panel=MACHINE,
            help="Default: this machine's, shared between the workers.",
            show_default=False,
        ),
    ] = None,
    gpus_per_worker: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="N",
            rich_help_panel=MACHINE,
            help="May be a fraction. Default: 1 on cuda, else 0.",
            show_default=False,
        ),
    ] = None,
    storage: Storage = None,
    study: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the new study. Default: model and number.", show_default=False),
    ] = None,
    ray_address: RayAddress = None,
    seed: Annotated[
        int, typer.Option(metavar="N", rich_help_panel=SEARCH, help="Of the split of the images and of the sampler.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Search for schedules within a latency budget."""
    from vittle.storage import records
    from vittle.storage.settings import Settings

    latency_budget = latency_budget or (WHOLE if max_drop else Settings().latency_budget)
    if study is not None:
        records.check_name(study)
    check_storage(storage)
    check_address(ray_address)
    settings = Settings.of(  # all that is written wrong is refused before torch is loaded
        model=model,
        checkpoint=weights(checkpoint),
        image_size=parse_image_size(image_size),
        data=source(model, data),
        classes=resolved(classes),
        latency_budget=latency_budget,
        tolerance=tolerance,
        max_accuracy_drop=max_drop,
        batch_size=batch_size,
        device=device or "cpu",
        dtype=dtype,
        compiled=compiled,
        predict=predict,
        reductions=listed(reductions),
        objectives=listed(objectives),
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
        seed=seed,
    )
    check_adapter_files(settings.adapters)
    with working("loading"):
        from vittle.reductions.device import choose_device
        from vittle.search.feasibility import check_budget
        from vittle.search.inference import InferenceProblem
        from vittle.storage.holder import user
    found = choose_device(device)
    gpus = float(found == "cuda") if gpus_per_worker is None else gpus_per_worker
    settings = settings.model_copy(update={"device": found, "gpus_per_worker": gpus})
    with counting("images") as progress:
        problem = InferenceProblem.load(settings, progress)
    store = open_store(storage, create=True)
    if target is not None:
        problem = problem.aimed_at(target, store)
    settings = problem.settings
    there = set(store.names())
    if study not in there:
        with working("budget"):
            check_budget(problem.backbone, settings, store)
    name = study or records.free_name(model, there)
    made = store.create_study(name, settings, problem.subject, owner=user(), images=problem.images)
    problem.check(made)
    run_study(made, problem, store, ray_address, as_json)


@search_app.command(rich_help_panel=PANEL)
def resume(
    study: StudyName = None,
    other_images: OtherImages = False,
    storage: Storage = None,
    ray_address: RayAddress = None,
    as_json: Json = False,
) -> None:
    """Continue a study that was interrupted."""
    _continue(study, storage, ray_address, as_json, more=0, other_images=other_images)


@search_app.command(rich_help_panel=PANEL)
def extend(
    study: StudyName = None,
    trials: Annotated[int, typer.Option(min=1, metavar="N", help="Schedules to try in addition.")] = 20,
    other_images: OtherImages = False,
    storage: Storage = None,
    ray_address: RayAddress = None,
    as_json: Json = False,
) -> None:
    """Add trials to a study and run them."""
    _continue(study, storage, ray_address, as_json, more=trials, other_images=other_images)


@search_app.command(rich_help_panel=PANEL)
def stop(
    study: StudyName = None,
    wait: Annotated[str, typer.Option(metavar="TIME", help="How long to wait for its end: 30s, 5m.")] = "1m",
    storage: Storage = None,
) -> None:
    """Ask a running study to stop, wherever it runs; every finished trial is kept, and `vittle resume` goes on.

    Exit code 1 where it has not ended in time; it has been asked all the same.
    """
    from vittle.storage import claim

    end = time.monotonic() + parse_seconds(wait)
    store = open_store(storage)
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


def _continue(
    name: str | None, storage: str | None, ray_address: str | None, as_json: bool, *, more: int, other_images: bool
) -> None:
    """Run a study on, with so many trials more."""
    check_address(ray_address)
    store = open_store(storage)
    study = find_study(store, name)
    with working("loading"):
        from vittle.search.problem import find_problem
    trials = study.settings.trials + more
    with counting("images") as progress:
        problem = find_problem(study.kind).load(study.settings.model_copy(update={"trials": trials}), progress)
    problem.check(study, other_images=other_images)  # before anything is changed
    if more:
        study = store.set_trials(study.name, trials)
    if problem.images is not None and problem.images != study.images:
        before = "this study is from before it was kept which images it is judged on: nobody checks that they are the same"
        others = "from here on the images are others: trials of before and after are not compared image by image"
        note([before if study.images is None else others])
        study = store.set_images(study.name, problem.images)
    run_study(study, problem, store, ray_address, as_json)
