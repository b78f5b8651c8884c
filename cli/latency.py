"""`vittle profile`, `profiles`, `retime` and `verify`: latency measured, kept, and measured again."""

from pathlib import Path
from typing import Annotated, Any

import typer

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
    parse_seconds,
    source,
)
from vittle.dashboards import text
from vittle.dashboards.terminal import latency_tables, study_tables
from vittle.dashboards.terminal import verify as measured_again
from vittle.dashboards.terminal.console import counting, err, escape, note, out, print_json, working
from vittle.objectives.budget import LatencyBudget
from vittle.spaces import costs
from vittle.spaces.shape import BackboneShape
from vittle.storage.certificate import EXIT_CODES
from vittle.storage.settings import Settings
from vittle.storage.store import Store

latency_app = typer.Typer()


@latency_app.command()
def profile(
    model: Model = DIGITS,
    checkpoint: Checkpoint = None,
    data: Data = None,
    latency_budget: Annotated[
        str | None, typer.Option(help="Can it be met? For example 4ms, or 60% of the backbone.", show_default=False)
    ] = None,
    batch_size: BatchSize = 64,
    device: Device = None,
    dtype: Dtype = "float32",
    compiled: Compiled = False,
    images: Annotated[int, typer.Option(min=2, help="Images to look for the start of merging on.")] = 256,
    time_limit: Annotated[str, typer.Option(help="How long measuring latency may take, about: 30s, 5m.")] = "2m",
    again: Annotated[bool, typer.Option("--again", help="Measure anew what is known already.")] = False,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Measure a backbone on this device: what each block costs, what a schedule will take, and where merging may start.

    Latency needs no weights: without --checkpoint and --data nothing is downloaded. With --data, or for digits, the block from
    which tokens grow alike is looked for, too. Both are kept and used by every later study.
    """
    budget = None if latency_budget is None else LatencyBudget.parse(latency_budget)
    seconds = parse_seconds(time_limit)
    where = source(model, data) if data is not None or model == DIGITS else None
    with working("loading"):
        from vittle.objectives.backbones.merge_start_measurement import find_merge_start
        from vittle.objectives.quality.images import left_out, load_images
        from vittle.reductions.backbone import load_architecture, load_backbone
        from vittle.reductions.device import check_dtype, choose_device
        from vittle.search.feasibility import example_schedules, find_profile, out_of_reach
        from vittle.spaces.space import Space, fitting
    check_dtype(dtype)
    settings = Settings.of(
        model=model,
        batch_size=batch_size,
        device=choose_device(device),
        dtype=dtype,
        compiled=compiled,
        cpus_per_worker=cpus(),
    )
    weightless = where is None and checkpoint is None
    backbone = load_architecture(model) if weightless else load_backbone(model, checkpoint)
    merge_start = None
    splits = None
    if where is not None:
        with counting("images") as progress:
            splits = load_images(where, backbone.preprocessing, backbone.classes, progress=progress)
        note(left_out(splits.skipped))
    store = Store.open(storage, create=True)
    if splits is not None:
        with counting("attention") as progress:
            merge_start = find_merge_start(backbone, splits.search, settings.device, limit=images, progress=progress)
        store.save_merge_start(merge_start)
    with counting("latency") as progress:
        found = find_profile(backbone, settings, store, again=again, seconds=seconds, progress=progress)
    offered = example_schedules(found, Space(backbone.shape, fitting(backbone.shape)))
    nearest = None if budget is None else out_of_reach(budget, offered[0].latency)
    if as_json:
        latency = {"profile": found.to_dict(), "mape": found.mape, "spearman": found.spearman, "trusted": found.trusted}
        print_json(
            {
                "model": model,
                "merge_start": merge_start and merge_start.to_dict(),
                "latency": latency,
                "choices": _plain(offered, budget),
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


@latency_app.command("profiles")
def list_profiles(storage: Storage = None, as_json: Json = False) -> None:
    """List the latency profiles of all devices: what `vittle launch --target` can search for."""
    profiles = Store.open(storage).profiles()
    if as_json:
        print_json([one.to_dict() for one in profiles])
    else:
        out.print(latency_tables.profiles_table(profiles))


@latency_app.command()
def retime(study: StudyName = None, device: Device = None, storage: Storage = None, as_json: Json = False) -> None:
    """Time a study's front on this machine, without its images, and show which ranks change."""
    store = Store.open(storage)
    found = find_study(store, study)
    with working("loading"):
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


@latency_app.command()
def verify(
    certificate: Annotated[Path, typer.Argument(help="What `vittle export` wrote, such as best.yaml.", show_default=False)],
    checkpoint: Checkpoint = None,
    adapter: Adapters = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Measure an exported schedule again: exit code 0 where it holds, 1 where it drifted, 3 on another device."""
    adapters = parse_adapters(adapter)
    with working("loading"):
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


def _shown(one: Any, shape: BackboneShape, budget: LatencyBudget | None) -> latency_tables.ExampleRow:
    left = costs.tokens(shape, one.schedule)
    latency, within = one.latency, _within(one, budget)
    return latency_tables.ExampleRow(one.name, left, latency["latency_ratio"], latency["latency_ms"], within)


def _within(one: Any, budget: LatencyBudget | None) -> bool | None:
    return None if budget is None else budget.excess(one.latency) <= 0
