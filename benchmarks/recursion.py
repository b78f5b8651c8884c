"""Recursion against its controls: what is kept of a backbone's accuracy at which MACs, weights and time.

    python benchmarks/recursion.py quality photographs.npz     two hours on an idle thread, see `photographs.py` for the file
    python benchmarks/recursion.py speed                       minutes on an idle machine
    python benchmarks/recursion.py search W0 W1 W2             minutes; the digits' weights, which `quality` keeps
    python benchmarks/recursion.py search W0 W1 W2             the digits' weights, which `quality` keeps; half an hour

`quality`: the digits' and the photographs' backbone are distilled into a recursion, with three seeds, and asked for held-out
images, which chose nothing: at several depths and shares, with every router. It is trained for four steps at most, and for ten.
Its controls are `student`, three blocks that run once and are distilled for as long by the same recipe, and `merging`, the
backbone itself under merging of as many MACs, which needs no training. `seconds` are of the processor, on one thread. Routers
are compared with chance image by image, with 95 % intervals.

`speed`: the digits' recursion against the backbone in its fastest form, timed in turn on one thread.

`search`: recursion alone and together with merging, searched as long, with weights of three seeds: what the schedules of the
joint front that hold at most 30 % of the weights lose against those of the front of recursion alone, at no more MACs. All are
judged on held-out images.

`search`: recursion alone, and together with merging, each searched with as many trials, with weights of three seeds. For every
schedule on the front of recursion alone: what the best one of the joint front gives that takes no more MACs and, at most, 30 %
of the weights. Both are judged on held-out images.

`benchmarks/results/recursion.json` holds `environment`, and of each part its rows.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray

import ours
import photographs
from judging import chosen
from methods import Trial
from problem import Problem, Source, load
from report import keep, run_command, write
from vittle.objectives.latency.turns import take_turns
from vittle.objectives.quality import paired
from vittle.reductions import digits
from vittle.reductions.backbone import Backbone, load_backbone
from vittle.reductions.recursive_blocks import RecursiveBlocks
from vittle.reductions.vit import ReducedViT
from vittle.spaces import costs
from vittle.spaces.recursion import Router, falling
from vittle.spaces.schedule import Schedule
from vittle.spaces.space import Space
from vittle.training import merge_embedding, recursion
from vittle.training.judging import Judge, Parts, logits
from vittle.training.supervised import Augmentation

HERE = Path(__file__).parent
OUTPUT = HERE / "results" / "recursion.json"
SEEDS = (0, 1, 2)
RATES = ((10, 1.0), (10, 0.2), (5, 1.0), (5, 0.2), (3, 1.0), (2, 1.0), (1, 1.0))  # steps, and the share of the last one
TRAINED = {4: ((4, 1.0), (4, 0.6), (4, 0.2), (3, 1.0), (2, 1.0), (1, 1.0)), 10: RATES}  # for how many steps at most
ROUTERS: tuple[Router, ...] = ("learned", "norm", "random")
EPOCHS = {"digits": {10: 5, 4: 7, 1: 11}, "photographs": {10: 9, 4: 14, 1: 22}}  # by steps: as many as take as long
AUGMENTATION = {"digits": Augmentation(mixup=0.2), "photographs": Augmentation(rotation=0, flip=True, mixup=0.3)}
VALIDATION = 500  # photographs
BATCH, ROUNDS = 16, 15
MOST_WEIGHTS = 0.3  # of the backbone's

Output = Annotated[Path, typer.Option(help="The file to write.")]
Right = NDArray[np.bool_]
app = typer.Typer()


@app.command()
def quality(
    images: Annotated[Path, typer.Argument(help="The photographs, see photographs.py.")],
    backbone: Annotated[Path, typer.Option(help="Weights that were trained on them.")] = HERE / "photographs.safetensors",
    seeds: Annotated[int, typer.Option(min=1, max=len(SEEDS), help="Seeds of each training.")] = len(SEEDS),
    output: Output = OUTPUT,
) -> None:
    """What is kept of the accuracy. Weights are kept beside the photographs, and read where they are there."""
    torch.set_num_threads(1)  # another number of threads rounds differently and so ends at other weights
    splits = photographs.training_splits(images, VALIDATION)
    of_photographs = Parts(*((part.pixels, part.labels) for part in (splits.train, splits.validation, splits.verdict)))
    of_digits = Parts(*(digits.splits()[name] for name in ("train", "search", "held-out")))
    rows: list[dict[str, Any]] = []
    for name, model, parts in (
        ("digits", load_backbone(), of_digits),
        ("photographs", load_backbone(checkpoint=backbone), of_photographs),
    ):
        for row in _quality(name, model, parts, images.parent, SEEDS[:seeds]):
            rows.append({"backbone": name, **row})
            print(" ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    keep(output, "quality", rows)


@app.command()
def speed(output: Output = OUTPUT) -> None:
    """What is saved of the time. Which weights run makes no difference to it."""
    torch.set_num_threads(1)
    backbone = load_backbone()
    blocks = RecursiveBlocks.from_backbone(backbone.model).requires_grad_(False)
    cases = [(steps, share, router) for steps, share in RATES for router in (ROUTERS if share < 1 else ("random",))]
    models = [_model(backbone, blocks, *case) for case in cases]
    pixels = torch.randn(BATCH, 3, *backbone.preprocessing.size, generator=torch.Generator().manual_seed(0))
    dense = ReducedViT(backbone.model, Schedule((), "prefix"))  # as fast as the backbone can be, and answers the same
    with torch.inference_mode():
        calls = [partial(model, pixels) for model in models]
        turns = take_turns(partial(dense, pixels), calls, torch.device("cpu"), rounds=ROUNDS)
    rows = []
    for (steps, share, router), ratios, model in zip(cases, turns.ratios.T, models, strict=True):
        low, middle, high = np.quantile(1 / ratios, (0.025, 0.5, 0.975))
        rows.append(
            {
                "steps": steps, "share": share, "router": router, "batch": BATCH,
                "macs": _share(backbone, model.schedule), "speedup": round(float(middle), 3),
                "interval": [round(float(low), 3), round(float(high), 3)], "noise": turns.noise,
            }
        )  # fmt: skip
        print(" ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    keep(output, "speed", rows)


@app.command()
def search(
    weights: Annotated[list[Path], typer.Argument(help="The digits' trained weights, one of each seed.")],
    trials: Annotated[int, typer.Option(min=1, help="Of each search.")] = 40,
    output: Output = OUTPUT,
) -> None:
    """What is found by searching merging and recursion together, against recursion alone."""
    rows: list[dict[str, Any]] = []
    for seed, file in enumerate(weights):
        for row in _jointly(load(Source()), file, trials, seed):
            rows.append({"seed": seed, **row})
            print(" ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    keep(output, "search", rows)


def _jointly(problem: Problem, file: Path, trials: int, seed: int) -> Iterator[dict[str, Any]]:
    blocks = RecursiveBlocks.load(file, problem.backbone)
    backbone = replace(problem.backbone, adapters={"recursion": blocks})
    asked = {"objectives": ("accuracy", "latency", "parameters"), "adapters": {"recursion": str(file.resolve())}}
    most = MOST_WEIGHTS * costs.parameters(backbone.shape, Schedule())
    alone: list[Trial] = []
    jointly: list[Trial] = []
    for names, front in ((("recursion",), alone), (("merging", "recursion"), jointly)):
        space = Space(backbone.shape, names, adapters={"recursion": blocks.record})
        found = ours.run(replace(problem, backbone=backbone, space=space), trials, seed, **asked)
        light = tuple(one for one in found.trials if costs.parameters(backbone.shape, one.schedule) <= most)
        front += chosen(replace(found, trials=light), len(light))
    held_out = problem.splits.held_out
    judge = Judge(backbone.model, (held_out.pixels, held_out.labels), backbone.preprocessing)
    right = {one.schedule: judge.right(ReducedViT(backbone.model, one.schedule, backbone.adapters)) for one in alone + jointly}
    for one in alone:
        row = {"macs": _share(backbone, one.schedule), "n": len(held_out.pixels), "alone": int(right[one.schedule].sum())}
        cheaper = [other for other in jointly if other.macs <= one.macs]  # of a front, so the last one is the best
        if not cheaper:
            yield {**row, "jointly": None}
            continue
        found = right[cheaper[-1].schedule]
        difference = [round(value, 4) for value in paired.difference(found, right[one.schedule])]
        by = [reduction.name for reduction in cheaper[-1].schedule.reductions]
        yield {**row, "jointly": int(found.sum()), "by": by, "less_alone": difference}


def _quality(name: str, backbone: Backbone, parts: Parts, folder: Path, seeds: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    def right(model: torch.nn.Module) -> Right:
        found: Right = logits(model, parts.verdict[0], backbone.preprocessing).argmax(-1).numpy() == parts.verdict[1]
        return found

    def row(found: Right, schedule: Schedule, **about: Any) -> dict[str, Any]:
        weights = costs.parameters(backbone.shape, schedule) / costs.parameters(backbone.shape, Schedule())
        sizes = {"macs": _share(backbone, schedule), "parameters": round(weights, 3)}
        return {**about, **sizes, "n": len(found), "right": int(found.sum())}

    yield row(right(backbone.model.eval()), Schedule(), kind="backbone")
    for seed in seeds:
        for most, rates in TRAINED.items():
            about: dict[str, Any] = {"seed": seed, "trained_for": most}
            taken, blocks = _trained(backbone, parts, folder, name, most, seed)
            yield {"kind": "training", **about, **taken}
            for steps, share in rates:
                rules = ROUTERS if share < 1 else ("random",)
                models = {router: _model(backbone, blocks, steps, share, router) for router in rules}
                found = {router: right(model) for router, model in models.items()}
                for router, model in models.items():
                    difference = paired.difference(found[router], found["random"])
                    versus = {} if router == "random" else {"less_random": [round(value, 4) for value in difference]}
                    this = {"kind": "recursion", **about, "steps": steps, "share": share, "router": router}
                    yield {**row(found[router], model.schedule, **this), **versus}
        taken, blocks = _trained(backbone, parts, folder, name, 1, seed)
        yield {"kind": "training", "seed": seed, "trained_for": 1, **taken}
        student = _model(backbone, blocks, 1, 1.0, "random")
        yield row(right(student), student.schedule, kind="student", seed=seed)
    for steps, share in dict.fromkeys(rate for rates in TRAINED.values() for rate in rates):
        wanted = _share(backbone, recursion.recurring(blocks, falling(steps, share)))
        if wanted < 1:
            merged = merge_embedding.constant(backbone.shape, merge_embedding.rate(backbone.shape, wanted))
            yield row(right(ReducedViT(backbone.model, merged)), merged, kind="merging", steps=steps, share=share)


def _trained(
    backbone: Backbone, parts: Parts, folder: Path, name: str, steps: int, seed: int
) -> tuple[dict[str, float], RecursiveBlocks]:
    """What a training took, and what it gave."""
    weights, about = (folder / f"{name}.{seed}.recursion{steps}{ending}" for ending in (".safetensors", ".json"))
    if not (weights.exists() and about.exists()):
        begun, epochs = time.process_time(), EPOCHS[name][steps]
        recursion.train(
            backbone, parts, output=weights, epochs=epochs, patience=epochs, steps=steps, seed=seed,
            augmentation=AUGMENTATION[name], progress=False,
        )  # fmt: skip
        write(about, {"seconds": round(time.process_time() - begun, 1), "batches": epochs * recursion.STEPS})
    taken: dict[str, float] = json.loads(about.read_text())
    return taken, RecursiveBlocks.load(weights, backbone)


def _model(backbone: Backbone, blocks: RecursiveBlocks, steps: int, share: float, router: Router) -> ReducedViT:
    capacities = falling(steps, share)
    schedule = recursion.recurring(blocks, capacities, router)
    tail = "prefix" if backbone.shape.reads_prefix_only else "full"
    return ReducedViT(backbone.model, Schedule(schedule.reductions, tail), {"recursion": blocks})


def _share(backbone: Backbone, schedule: Schedule) -> float:
    """Its MACs, of the backbone's."""
    return round(costs.macs(backbone.shape, schedule) / costs.macs(backbone.shape, Schedule()), 3)


def main() -> None:
    """Run the benchmark; bad input is one line on stderr and exit code 2."""
    run_command(app)


if __name__ == "__main__":
    main()
