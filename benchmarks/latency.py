"""How well a latency profile predicts: schedules that it has not seen, predicted and then measured.

    python benchmarks/latency.py                 about 10 minutes on two idle CPU cores, a few on CUDA
    python benchmarks/latency.py --quick         seconds: that it works, not how well

For each model and batch the profile is measured as `vittle profile` does, and then random schedules of every reduction are
timed in turn with the backbone's fastest form. Weights and images are random: latency depends on neither. Aimed at, on an idle
machine: a mean absolute percentage error of at most 5 % and a rank correlation of at least 0.98.

`benchmarks/results/latency.json` is rewritten after each row. It holds `environment`, `rows` (device, model, batch, schedules,
mape, spearman; the same from the MACs alone, scaled to the backbone; how long the profile took; how many measurements were
noisy) and `summary`. Every schedule's predicted and measured share of the backbone is in its row.
"""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import timm
import torch
import typer

from report import environment, run_command, write
from vittle.objectives.evaluator import make_stand
from vittle.objectives.latency.profile import LatencyProfile, spearman
from vittle.objectives.latency.profiler import SECONDS, Profiler
from vittle.objectives.latency.stand import Effort, Stand
from vittle.reductions.backbone import describe_backbone
from vittle.reductions.device import choose_device
from vittle.reductions.vit import ReducedViT
from vittle.spaces.errors import VittleError
from vittle.spaces.space import Space

MODELS = "deit_tiny_patch16_224,deit_small_patch16_224"
EFFORT = Effort(rounds=9, precision=0.01)
AIMS = {"mape": 0.05, "spearman": 0.98}
SEED = 1  # not that of the profile's own schedules
Row = dict[str, Any]


def measure(
    models: Annotated[str, typer.Option(help="timm names, separated by commas.")] = MODELS,
    batches: Annotated[str, typer.Option(help="Images in a batch, separated by commas.")] = "1,8",
    schedules: Annotated[int, typer.Option(min=3, help="Random schedules to predict and measure.")] = 30,
    seconds: Annotated[float, typer.Option(min=0, help="That a profile may take.")] = SECONDS,
    device: Annotated[str | None, typer.Option(help="cpu or cuda.", show_default=False)] = None,
    output: Annotated[
        Path | None, typer.Option(help="The file to write. Default: results/latency.json beside this.", show_default=False)
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="One model, one image, few schedules; no file without --output.")
    ] = False,
) -> None:
    """Measure how far off predicted latencies are."""
    if quick:
        models, batches, schedules, seconds = "deit_tiny_patch16_224", "1", 4, 1.0
    elif output is None:
        output = Path(__file__).parent / "results" / "latency.json"
    place = choose_device(device)
    document: dict[str, Any] = {"environment": environment(torch.device(place)), "rows": [], "summary": []}
    for name in models.split(","):
        for batch in map(int, batches.split(",")):
            document["rows"].append(row(name, batch, schedules, seconds, place))
            document["summary"] = summarise(document["rows"])
            if output is not None:
                write(output, document)
            shown = {key: value for key, value in document["rows"][-1].items() if key != "checks"}
            print(" ".join(f"{key} {value}" for key, value in shown.items()), flush=True)
    for aim in document["summary"]:
        print(f"{aim['aim']}: {aim['rows_met']} of {aim['rows']} rows; worst {aim['worst']} at {aim['worst_row']}")


def row(name: str, batch: int, schedules: int, seconds: float, device: str) -> Row:
    """Profile a model at a batch, and predict and measure schedules that the profile has not seen.

    Raises:
        VittleError: an unknown model or one that cannot be reduced.
    """
    if not timm.is_model(name):
        raise VittleError(f"unknown model {name!r}; accepted: timm names such as {MODELS}")
    torch.manual_seed(0)
    backbone = describe_backbone(timm.create_model(name).eval(), name)
    stand = make_stand(backbone, device=device, batch_size=batch)
    profile = Profiler(backbone, stand, seconds=seconds).measure()
    checks = unseen(profile, stand, schedules, EFFORT)
    return {
        "device": device,
        "model": name,
        "batch": batch,
        "schedules": len(checks),
        **errors(checks, "predicted"),
        **{f"macs_{key}": value for key, value in errors(checks, "macs").items()},
        "backbone_ms": round(profile.backbone_ms, 2),
        "forms_ms": {form: round(ms, 2) for form, ms in profile.forms_ms.items()},
        "profile_seconds": round(profile.seconds, 1),
        "profile_mape": round(profile.mape, 4),
        "noisy": sum(check["noisy"] for check in checks),
        "checks": checks,
    }


def unseen(profile: LatencyProfile, stand: Stand, schedules: int, effort: Effort) -> list[Row]:
    """Random schedules of every reduction that a profile has not seen: what it predicts, and what is measured."""
    generator, space = np.random.default_rng(SEED), Space(profile.shape, ("pruning", "merging"))
    known = {check.schedule for check in profile.checks}
    checks: list[Row] = []
    while len(checks) < schedules:
        one = space.parts()[len(checks) % 3]
        schedule = one.schedule(one.draw(generator))
        if schedule.id in known:
            continue
        known.add(schedule.id)
        measured = stand.measure(ReducedViT(stand.model, schedule), effort)["latency_ratio"]
        checks.append(
            {
                "schedule": schedule.id,
                "macs": round(space.macs_share(schedule), 4),
                "predicted": round(profile.ratio(schedule), 4),
                "measured": round(measured.value, 4),
                "interval": [round(measured.low, 4), round(measured.high, 4)],
                "noisy": "noisy" in measured.protocol,
            }
        )
    return checks


def errors(checks: list[Row], name: str) -> Row:
    """Mean absolute percentage error (a share) and rank correlation of one way to predict."""
    predicted, measured = ([check[key] for check in checks] for key in (name, "measured"))
    off = np.abs(np.array(predicted) / np.array(measured) - 1)
    return {"mape": round(float(off.mean()), 4), "spearman": round(spearman(predicted, measured), 4)}


def summarise(rows: list[Row]) -> list[Row]:
    """Each aim: how many rows meet it, and the worst of them."""
    summary = []
    for name, limit in AIMS.items():
        sign = 1 if name == "mape" else -1
        worst = max(rows, key=lambda row: sign * row[name])
        met = [row for row in rows if sign * row[name] <= sign * limit]
        summary.append(
            {
                "aim": f"{name} {'at most' if sign > 0 else 'at least'} {limit}",
                "met": len(met) == len(rows),
                "worst": worst[name],
                "worst_row": f"{worst['model']}, batch {worst['batch']}",
                "rows": len(rows),
                "rows_met": len(met),
            }
        )
    return summary


def main() -> None:
    """Run the benchmark; bad input is one line on stderr and exit code 2."""
    run_command(partial(typer.run, measure))


if __name__ == "__main__":
    main()
