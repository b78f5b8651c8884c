"""Sparse attention against what it stands for and against its controls: how well keys are chosen, and what that saves.

    python benchmarks/sparsity.py quality photographs.npz      an hour on an idle thread, see `photographs.py` for the file
    python benchmarks/sparsity.py speed                        a quarter of an hour on an idle machine

`quality`: every block of the digits' and of the photographs' backbone reads a share of its keys. Rows say how many held-out
images, which chose nothing, are answered as the backbone answers them, and how many rightly. `sampled` and `trained` are what
the product has. Its controls are `random` keys, `nothing` (rests alone, no key of a patch is read) and `attention` (the mean
attention of all queries, which no cheap rule can know); `dense` chooses with all queries by the rule of `sampled`. In form
`queries`, `attention` is each query's own. Trained predictors and random keys have three seeds. The differences of `sampled`
are paired, image by image, with 95 % intervals.

`speed`: whole models at 384 and 512 pixels against their fused dense selves, timed in turn on one thread.

`benchmarks/results/sparsity.json` holds `environment`, and of each part its rows.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import timm
import torch
import typer
from numpy.typing import NDArray
from torch import Tensor

import photographs
from report import keep, run_command
from vittle.objectives.latency.turns import take_turns
from vittle.objectives.quality import paired
from vittle.reductions import digits
from vittle.reductions.backbone import Backbone, load_backbone, shape_of
from vittle.reductions.sparsity import Sparsify, apart, attended, parts_of
from vittle.reductions.sparsity_predictor import SparsityPredictor
from vittle.reductions.tokens import Heads
from vittle.reductions.vit import ReducedViT
from vittle.spaces import costs
from vittle.spaces.schedule import Schedule
from vittle.spaces.shape import BackboneShape
from vittle.spaces.sparsity import SIDES, Form, Rests, Sparsity
from vittle.training import sparsity
from vittle.training.judging import Parts, logits

HERE = Path(__file__).parent
OUTPUT = HERE / "results" / "sparsity.json"
SHARES = (0.25, 0.1, 0.05)
RESTS: tuple[Rests, ...] = ("one", "2x2", "4x4")
SEEDS = (0, 1, 2)
TRAINED_ON, VALIDATION, HELD_OUT = 8000, 1000, 2000  # photographs
MODELS = ("deit_tiny_patch16_224", "deit_small_patch16_224")
SIZES, BATCHES, ROUNDS = (384, 512), (1, 8), 7

Output = Annotated[Path, typer.Option(help="The file to write.")]
Rule = Callable[[Heads], Tensor]
app = typer.Typer()


class Answers(NamedTuple):
    """To the held-out images."""

    agree: NDArray[np.bool_]  # with the backbone
    right: NDArray[np.bool_]


@app.command()
def quality(
    images: Annotated[Path, typer.Argument(help="The photographs, see photographs.py.")],
    backbone: Annotated[Path, typer.Option(help="Weights that were trained on them.")] = HERE / "photographs.safetensors",
    trained: Annotated[int, typer.Option(min=1, max=len(SEEDS), help="Seeds of trained predictors.")] = len(SEEDS),
    output: Output = OUTPUT,
) -> None:
    """How well keys are chosen."""
    torch.set_num_threads(1)  # another number of threads rounds differently and so ends at other weights
    of_digits = Parts(*(digits.splits()[name] for name in ("train", "search", "held-out")))
    splits = photographs.training_splits(images, VALIDATION)
    shown = ((splits.train, TRAINED_ON), (splits.validation, VALIDATION), (splits.verdict, HELD_OUT))
    of_photographs = Parts(
        *((part.pixels[:count], None if part.labels is None else part.labels[:count]) for part, count in shown)
    )
    rows: list[dict[str, Any]] = []
    for name, model, parts in (
        ("digits", load_backbone(), of_digits),
        ("photographs", load_backbone(checkpoint=backbone), of_photographs),
    ):
        for row in _quality(model, parts, images.parent, name, SEEDS[:trained]):
            rows.append({"backbone": name, **row})
            print(" ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    keep(output, "quality", rows)


@app.command()
def speed(output: Output = OUTPUT) -> None:
    """What sparse attention saves of a whole model's time."""
    torch.set_num_threads(1)
    rows = []
    for name in MODELS:
        for size in SIZES:
            model: Any = timm.create_model(name, img_size=size).eval()
            shape = shape_of(model)
            cases = [(share, rests) for share in SHARES for rests in RESTS]
            sparse = [ReducedViT(model, _schedule(shape, share, rests)) for share, rests in cases]
            dense = ReducedViT(model, Schedule((), "prefix"))  # with the class-token tail, as the sparse ones
            for batch in BATCHES:
                pixels = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
                reference, *calls = (partial(one, pixels) for one in (dense, *sparse))
                with torch.inference_mode():
                    turns = take_turns(reference, calls, torch.device("cpu"), rounds=ROUNDS)
                about = {"model": name, "size": size, "batch": batch, "dense_ms": round(float(np.median(turns.reference)), 2)}
                for (share, rests), ratios, one in zip(cases, turns.ratios.T, sparse, strict=True):
                    low, middle, high = np.quantile(1 / ratios, (0.025, 0.5, 0.975))
                    macs = costs.macs(shape, one.schedule) / costs.macs(shape, dense.schedule)
                    found = {"speedup": round(float(middle), 3), "interval": [round(float(low), 3), round(float(high), 3)]}
                    rows.append(
                        {**about, "share": share, "rests": rests, **found, "macs": round(macs, 3), "noise": turns.noise}
                    )
                    print(" ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    keep(output, "speed", rows)


def _quality(backbone: Backbone, parts: Parts, folder: Path, name: str, trained: Sequence[int]) -> Iterator[dict[str, Any]]:
    model, held_out = backbone.model.eval(), parts.verdict
    expected = logits(model, held_out[0], backbone.preprocessing).argmax(-1).numpy()
    predictors = [_predictor(backbone, parts, folder / f"{name}.{seed}.sparsity.safetensors", seed) for seed in trained]

    def ask(share: float, rests: Rests, rule: Rule | None = None, *, by: SparsityPredictor | None = None, form: Form = "keys",
            read: int | None = None) -> Answers:  # fmt: skip
        schedule = _schedule(backbone.shape, share, rests, by, form)
        reduced = ReducedViT(model, schedule, {} if by is None else {Sparsity.name: by}, form="mask")
        for operator in (one for one in reduced.modules() if isinstance(one, Sparsify)):
            changed: Any = operator
            changed.scores = changed.scores if rule is None else rule
            changed.read = changed.read if read is None else read
        answers = logits(reduced, held_out[0], backbone.preprocessing).argmax(-1).numpy()
        return Answers(answers == expected, answers == held_out[1])

    def row(found: Answers, **about: Any) -> dict[str, Any]:
        return {**about, "n": len(expected), "agree": int(found.agree.sum()), "right": int(found.right.sum())}

    yield {"form": "dense", "n": len(expected), "right": int((expected == held_out[1]).sum())}
    for rests in RESTS:
        nothing = ask(SHARES[-1], rests, read=0)
        yield row(nothing, form="keys", rests=rests, share=0.0, selection="nothing")
        for share in SHARES:
            about = {"form": "keys", "rests": rests, "share": share}
            chance = [ask(share, rests, _random(seed)) for seed in SEEDS]
            sampled = ask(share, rests)
            yield {
                **row(sampled, **about, selection="sampled"),
                "agree_less_random": _differences(sampled, chance),
                "agree_less_nothing": _differences(sampled, [nothing]),
            }
            yield from (row(found, **about, selection="random", seed=seed) for seed, found in zip(SEEDS, chance, strict=True))
            for seed, predictor in zip(trained, predictors, strict=True):
                yield row(ask(share, rests, by=predictor), **about, selection="trained", seed=seed)
            yield row(ask(share, rests, _by_all), **about, selection="attention")
            yield row(ask(share, rests, _dense(rests, backbone.shape)), **about, selection="dense")
    for share in SHARES:
        yield row(ask(share, "none"), form="keys", rests="none", share=share, selection="sampled")
        for rests in ("none", "one"):
            about = {"form": "queries", "rests": rests, "share": share}
            fitted = predictors[0]  # the same images, so all seeds are the same
            yield row(ask(share, rests, by=fitted, form="queries"), **about, selection="fitted")
            yield row(ask(share, rests, _own, by=fitted, form="queries"), **about, selection="attention")
            yield row(ask(share, rests, _random(0, each=True), by=fitted, form="queries"), **about, selection="random", seed=0)


def _schedule(
    shape: BackboneShape, share: float, rests: Rests, by: SparsityPredictor | None = None, form: Form = "keys"
) -> Schedule:
    chosen: dict[str, Any] = {} if by is None else {"selection": "trained", "predictor": by.name}
    settings = Sparsity(shares=(share,) * shape.depth, rests=rests, form=form, **chosen)
    return Schedule((settings,), "prefix" if shape.reads_prefix_only else "full")


def _predictor(backbone: Backbone, parts: Parts, file: Path, seed: int) -> SparsityPredictor:
    if file.exists():
        return SparsityPredictor.load(file, backbone)
    return sparsity.train(backbone, parts, output=file, seed=seed).predictor


def _by_all(heads: Heads) -> Tensor:
    return attended(heads, torch.arange(heads.queries.shape[2]))


def _dense(rests: Rests, shape: BackboneShape) -> Rule:
    parts = parts_of(shape.grid, SIDES[rests])
    return lambda heads: _by_all(heads) * apart(heads.values, parts)


def _own(heads: Heads) -> Tensor:
    """Each query's own logits."""
    return heads.queries @ heads.keys.mT * heads.scale


def _random(seed: int, *, each: bool = False) -> Rule:
    generator = torch.Generator().manual_seed(seed)

    def rule(heads: Heads) -> Tensor:
        b, h, p, _ = heads.keys.shape
        return torch.rand((b, h, p, p) if each else (b, h, p), generator=generator)

    return rule


def _differences(ours: Answers, theirs: Sequence[Answers]) -> list[list[float]]:
    """How much more often ours agree than each of theirs, with 95 % intervals."""
    return [[round(value, 4) for value in paired.difference(ours.agree, other.agree)] for other in theirs]


def main() -> None:
    """Run the benchmark; bad input is one line on stderr and exit code 2."""
    run_command(app)


if __name__ == "__main__":
    main()
