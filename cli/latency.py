"""`vittle profile`, `profiles`, `retime` and `verify`: latency measured, kept, and measured again."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vittle.cli.options import (
    BUDGET,
    DIGITS,
    FLAG,
    IMAGES,
    MEASURING,
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
    Model,
    Storage,
    StudyName,
    cpus,
    find_study,
    open_store,
    parse_adapters,
    parse_seconds,
    resolved,
    source,
    weights,
)
from vittle.dashboards.terminal.console import counting, err, escape, note, out, print_json, working
from vittle.objectives.budget import LatencyBudget
from vittle.spaces.errors import VittleError
from vittle.spaces.inputs import parse_image_size

if TYPE_CHECKING:
    from vittle.dashboards.terminal.latency_tables import ExampleRow
    from vittle.spaces.shape import BackboneShape

latency_app = typer.Typer()
PANEL = "Latency"  # of the list of commands


@latency_app.command(rich_help_panel=PANEL)
def profile(
    model: Model = DIGITS,
    checkpoint: Checkpoint = None,
    image_size: ImageSize = None,
    data: Data = None,
    classes: Classes = None,
    latency_budget: Annotated[
        str | None,
        typer.Option(
            metavar="BUDGET",
            rich_help_panel=BUDGET,
            help="Can it be met? For example 4ms, or 60% of the backbone.",
            show_default=False,
        ),
    ] = None,
    batch_size: BatchSize = 64,
    device: Device = None,
    dtype: Dtype = "float32",
    compiled: Compiled = False,
    images: Annotated[
        int, typer.Option(min=2, metavar="N", rich_help_panel=IMAGES, help="Images to look for the start of merging on.")
    ] = 256,
    time_limit: Annotated[
        str,
        typer.Option(metavar="TIME", rich_help_panel=MEASURING, help="How long measuring latency may take, about: 30s, 5m."),
    ] = "2m",
    again: Annotated[
        bool, typer.Option("--again", metavar=FLAG, rich_help_panel=MEASURING, help="Measure anew what is known already.")
    ] = False,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Measure a backbone on this device: what each block costs, what a schedule will take, and where merging may start.

    Latency needs no weights: without --checkpoint and --data nothing is
    downloaded. With --data, or for digits, the block from which tokens grow
    alike is looked for, too. Both are kept and used by every later study.
    """
    budget = None if latency_budget is None else LatencyBudget.parse(latency_budget, batch_size)
    if budget is not None and budget.tail:
        raise VittleError(f"budget {budget} is not predicted: profiles predict medians; accepted: 4ms, 60% or 1000 images/s")
    seconds, size = parse_seconds(time_limit), parse_image_size(image_size)
    where = source(model, data) if data is not None or model == DIGITS else None
    given = weights(checkpoint)
    with working("loading"):
        from vittle.dashboards import text
        from vittle.dashboards.terminal import latency_tables, study_tables
        from vittle.objectives.backbones.merge_start_measurement import find_merge_start
        from vittle.objectives.quality.images import load_images
        from vittle.reductions.backbone import load_architecture, load_backbone
        from vittle.reductions.device import choose_device
        from vittle.search.feasibility import example_schedules, find_profile, out_of_reach
        from vittle.spaces.space import Space, fitting
        from vittle.storage.settings import Settings
    settings = Settings.of(
        model=model,
        batch_size=batch_size,
        device=choose_device(device),
        dtype=dtype,
        compiled=compiled,
        cpus_per_worker=cpus(),
    )
    weightless = where is None and given is None
    backbone = load_architecture(model, size) if weightless else load_backbone(model, given, size)
    note(backbone.notes)
    merge_start = None
    splits = None
    if where is not None:
        with counting("images") as progress:
            splits = load_images(
                where, backbone.preprocessing, backbone.classes, class_names=resolved(classes), progress=progress
            )
        note(splits.notes)
    store = open_store(storage, create=True)
    if splits is not None:
        with counting("attention") as progress:
            digest = "" if splits.digest is None else splits.digest.id
            merge_start = find_merge_start(
                backbone, splits.search, settings.device, limit=images, digest=digest, progress=progress
            )
        store.save_merge_start(merge_start)
    with counting("latency") as progress:
        found = find_profile(backbone, settings, store, again=again, seconds=seconds, progress=progress)
    offered = example_schedules(found, Space(backbone.shape, fitting(backbone.shape)))
    nearest = None if budget is None else out_of_reach(budget, offered[0].latency)
    if as_json:
        examples = _plain(offered, budget)
        latency = {"profile": found.to_dict(), "mape": found.mape, "spearman": found.spearman, "trusted": found.trusted}
        print_json(
            {
                "model": model,
                "merge_start": merge_start and merge_start.to_dict(),
                "latency": latency,
                "examples": examples,
                "choices": examples,  # their name of before, for a release more
            }
        )
        raise typer.Exit(int(nearest is not None))
    if merge_start is not None:
        out.print(study_tables.merge_start_table(merge_start))
        out.print(text.merge_start(merge_start), highlight=False, soft_wrap=True)
    out.print(latency_tables.profile_table(found))
    out.print(text.latency(found), highlight=False, soft_wrap=True)
    out.print(latency_tables.examples_table([_shown(one, found.shape, budget) for one in offered]))
    if nearest is not None:
        err.print(f"no schedule fits {budget}; {nearest}", highlight=False, soft_wrap=True)
        raise typer.Exit(1)


@latency_app.command("profiles", rich_help_panel=PANEL)
def list_profiles(storage: Storage = None, as_json: Json = False) -> None:
    """List the latency profiles of all devices: what `vittle launch --target` can search for."""
    from vittle.dashboards.terminal import latency_tables

    found = open_store(storage).all_profiles()
    profiles = [one for one in found if one is not None]
    if as_json:
        print_json([one.to_dict() for one in profiles])
    else:
        out.print(latency_tables.profiles_table(profiles))
    if len(profiles) < len(found):
        note([f"{len(found) - len(profiles)} of {len(found)} latency profiles cannot be read; vittle profile measures anew"])


@latency_app.command(rich_help_panel=PANEL)
def retime(study: StudyName = None, device: Device = None, storage: Storage = None, as_json: Json = False) -> None:
    """Time a study's front on this machine, without its images, and show which ranks change."""
    store = open_store(storage)
    found = find_study(store, study)
    with working("loading"):
        from vittle.dashboards.terminal import latency_tables
        from vittle.dashboards.terminal import verify as measured_again
        from vittle.reductions.device import choose_device
        from vittle.search.remeasure import retime as measure_again
    with counting("front") as progress:
        retiming = measure_again(found, store, choose_device(device), progress)
    rows = measured_again.retimed(retiming.trials, retiming.measured, found.budget)
    if as_json:
        print_json(
            {
                "device": retiming.device,
                "before": retiming.before,
                "trials": [measured_again.plain_retimed(row) for row in rows],
            }
        )
    else:
        out.print(f"there: {retiming.before}; here: {retiming.device}", highlight=False, soft_wrap=True)
        out.print(latency_tables.retimed_table(rows))


@latency_app.command(rich_help_panel=PANEL)
def verify(
    certificate: Annotated[
        Path, typer.Argument(metavar="FILE", help="What `vittle export` wrote, such as best.yaml.", show_default=False)
    ],
    checkpoint: Checkpoint = None,
    adapter: Adapters = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Measure an exported schedule again: exit code 0 where it holds, 1 drifted, 3 on another device, 4 cannot tell.

    It cannot tell where the noise of measuring exceeds the claim: its interval reaches over the limit, or it was disturbed.
    """
    from vittle.storage.certificate import EXIT_CODES, Certificate

    adapters = parse_adapters(adapter)
    weights(checkpoint)
    Certificate.load(certificate).check_adapters(adapters)
    with working("loading"):
        from vittle.dashboards.terminal import verify as measured_again
        from vittle.reductions.device import choose_device
        from vittle.search.remeasure import verify as measure_again
    with working("measuring"):
        verdict = measure_again(certificate, device=choose_device(device), checkpoint=checkpoint, adapters=adapters)
    if as_json:
        print_json(measured_again.plain_verdict(verdict))
    else:
        for line in measured_again.verdict_lines(verdict):
            out.print(escape(line), highlight=False, soft_wrap=True)
    raise typer.Exit(EXIT_CODES[verdict.state])


def _plain(offered: list[Any], budget: LatencyBudget | None) -> list[dict[str, Any]]:
    return [
        {
            "name": one.name,
            "schedule": one.schedule.to_dict(),
            "latency_ratio": one.latency["latency_ratio"].value,
            "latency_ms": one.latency["latency_ms"].value,
            "within_budget": _within(one, budget),
        }
        for one in offered
    ]


def _shown(one: Any, shape: "BackboneShape", budget: LatencyBudget | None) -> "ExampleRow":
    from vittle.dashboards.terminal.latency_tables import ExampleRow
    from vittle.spaces import costs

    left = costs.computed(shape, one.schedule)
    latency, within = one.latency, _within(one, budget)
    return ExampleRow(one.name, left, latency["latency_ratio"], latency["latency_ms"], within)


def _within(one: Any, budget: LatencyBudget | None) -> bool | None:
    return None if budget is None else budget.excess(one.latency) <= 0
