"""Token merging against its peers: timm's backbone, Vittle, and ToMe (arXiv 2210.09461) as published.

    python benchmarks/merging.py                 about 13 minutes on two idle CPU cores; longer on CUDA, where it also compiles
    python benchmarks/merging.py --quick         seconds: that it works, not how fast

Expected: Vittle and the plain implementation give the same logits, else the run stops before anything is timed. Aimed at:
Vittle is never the slower one, from batch 8 on its latency falls almost as its MACs do, and matching takes 5 % of the
blocks' time.

The three are timed in turn, backbone, Vittle, plain, backbone, ..., and each ratio is the median over the ratios of neighbours,
so that drift of the machine cancels. Weights and images are random. The backbone and Vittle run fused attention.

`benchmarks/results/merging.json` is rewritten after each row. It holds `environment`, `rows` and `summary`: for each aim
whether it is met, in how many rows, and the worst of them.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, cast

import timm
import torch
import typer
from torch import Tensor, nn

import vittle
from report import environment, run_command, write
from tome import PlainToMe
from vittle.spaces.errors import VittleError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
MODELS = "deit_tiny_patch16_224,deit_small_patch16_224,deit_base_patch16_224"
SECONDS = 12.0  # of timing for each row, as far as `LEAST` repeats allow
LEAST = 3
SHARES = 5  # runs from which the share of matching is taken
TOLERANCE = 1e-4  # of the largest logit
CLOSE = {"cpu": 1.15, "cuda": 1.25}  # the latency ratio over the MACs ratio that is aimed at
Row = dict[str, Any]


class Models(NamedTuple):
    """What is compared, under the names of the rows' columns."""

    backbone: nn.Module
    vittle: nn.Module
    plain: nn.Module


@app.command()
def compare(
    device: Annotated[
        str | None, typer.Option(help="cpu or cuda. Default: cuda where there is one.", show_default=False)
    ] = None,
    models: Annotated[str, typer.Option(help="timm names, separated by commas.")] = MODELS,
    batches: Annotated[str, typer.Option(help="Images in a batch, separated by commas.")] = "1,8,32",
    removed: Annotated[str, typer.Option(help="Tokens merged away in each block, separated by commas.")] = "4,8,13,16",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. Default: torch's.", show_default=False)] = None,
    repeats: Annotated[int, typer.Option(min=1, help="The most repeats of a row; slow rows have fewer.")] = 50,
    output: Annotated[
        Path | None, typer.Option(help="The file to write. Default: results/merging.json beside this.", show_default=False)
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="One small model, two batches, one repeat; no file without --output.")
    ] = False,
) -> None:
    """Compare the latency of token merging with its peers'."""
    if quick:
        models, batches, removed, repeats = "deit_tiny_patch16_224", "1,2", "8", 1
    elif output is None:
        output = Path(__file__).parent / "results" / "merging.json"
    place = _device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    names, sizes, counts = models.split(","), _numbers("batches", batches, 1), _numbers("removed", removed, 0)
    document: dict[str, Any] = {
        "environment": environment(place),
        "rows": [],
        "summary": [],
    }
    with torch.inference_mode():
        for name in names:
            for count in counts:
                check(build(name, count, place, torch.float32))
        for row in measure(names, counts, sizes, place, repeats):
            document["rows"].append(row)
            document["summary"] = summarise(document["rows"])
            if output is not None:
                write(output, document)
            print(" ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    for aim in document["summary"]:
        print(f"{aim['aim']}: {aim['rows_met']} of {aim['rows']} rows; worst {aim['worst']} at {aim['worst_row']}")


def build(name: str, removed: int, device: torch.device, dtype: torch.dtype) -> Models:
    """The three models with the same random weights.

    Raises:
        VittleError: an unknown model, or one that is not a Vision Transformer with one class token.
    """
    if not timm.is_model(name):
        raise VittleError(f"unknown model {name!r}; accepted: timm names such as {MODELS}")
    torch.manual_seed(0)
    backbone = timm.create_model(name).eval().to(device, dtype)
    reduced = vittle.apply(backbone, vittle.presets.constant(backbone, removed))
    return Models(backbone, reduced, PlainToMe(backbone, removed).eval())


def check(models: Models) -> None:
    """Stop unless Vittle and the plain implementation give the same logits.

    Raises:
        RuntimeError: they differ by more than `TOLERANCE` of the largest one.
    """
    images = make_images(models.backbone, 2)
    expected, logits = models.plain(images), models.vittle(images)
    difference = ((logits - expected).abs().max() / expected.abs().max()).item()
    if not difference <= TOLERANCE:
        raise RuntimeError(f"Vittle's logits differ from the plain implementation's by {difference:.1e}")


def make_images(model: nn.Module, batch: int) -> Tensor:
    """Random images (b, 3, height, width) of the model's size, type and device."""
    vit: Any = model
    weight = vit.patch_embed.proj.weight
    generator = torch.Generator().manual_seed(batch)
    return torch.randn(batch, 3, *vit.patch_embed.img_size, generator=generator).to(weight.device, weight.dtype)


def measure(
    names: Sequence[str], removed: Sequence[int], batches: Sequence[int], device: torch.device, repeats: int
) -> Iterator[Row]:
    """One row after another. On CUDA each is measured eager and compiled."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    for name in names:
        for count in removed:
            eager = build(name, count, device, dtype)
            macs = [vittle.macs(eager.backbone, vittle.presets.constant(eager.backbone, merged)) for merged in (count, 0)]
            for mode in ("eager", "compiled") if device.type == "cuda" else ("eager",):
                torch.compiler.reset()  # what was compiled for the last models is not needed again
                models = eager if mode == "eager" else Models(*map(compiled, eager))
                for batch in batches:
                    images = make_images(eager.backbone, batch)
                    yield {
                        "device": device.type,
                        "dtype": str(dtype).removeprefix("torch."),
                        "mode": mode,
                        "model": name,
                        "batch": batch,
                        "removed": count,
                        **time_in_turn(models, images, repeats),
                        "macs_ratio": round(macs[0] / macs[1], 4),
                        "matching_share": round(matching_share(eager.vittle, images), 4) if mode == "eager" else None,
                    }


def compiled(model: nn.Module) -> nn.Module:
    """The model as torch.compile makes it, anew for each batch size."""
    return cast(nn.Module, torch.compile(model, dynamic=False))


def time_in_turn(models: Models, images: Tensor, repeats: int) -> Row:
    """Median milliseconds of one batch through each model, and the medians of their paired ratios."""
    for _ in range(2):  # the first run allocates or compiles
        started = time.perf_counter()
        for model in models:
            stopwatch(model, images)
        taken = time.perf_counter() - started
    repeats = min(repeats, max(LEAST, int(SECONDS / taken)))
    times = [[stopwatch(model, images) for model in models] for _ in range(repeats)]
    backbone, reduced, plain = (list(column) for column in zip(*times, strict=True))
    return {
        "backbone_ms": round(statistics.median(backbone), 3),
        "vittle_ms": round(statistics.median(reduced), 3),
        "plain_ms": round(statistics.median(plain), 3),
        "latency_ratio": _paired(reduced, backbone),
        "plain_latency_ratio": _paired(plain, backbone),
        "vittle_to_plain": _paired(reduced, plain),
        "repeats": repeats,
    }


def stopwatch(model: Callable[[Tensor], Tensor], images: Tensor) -> float:
    """Milliseconds of one call."""
    start = mark(images.device)
    model(images)
    return elapsed(start, mark(images.device))


def mark(device: torch.device) -> Any:
    """A moment on the device's own clock."""
    if device.type != "cuda":
        return time.perf_counter()
    event: Any = torch.cuda.Event
    moment = event(enable_timing=True)
    moment.record()
    return moment


def elapsed(start: Any, end: Any) -> float:
    """Milliseconds between two marks, once the device has reached the second."""
    if isinstance(end, float):
        return float(end - start) * 1000
    end.synchronize()
    return float(start.elapsed_time(end))


def matching_share(reduced: nn.Module, images: Tensor) -> float:
    """The share of the blocks' time that metric, matching and merging take, 0 to 1, while the model runs."""
    model: Any = reduced
    inside: list[tuple[Any, Any]] = []
    edges: list[Any] = []

    class Timed(nn.Module):
        def __init__(self, operator: Any) -> None:
            super().__init__()
            self.operator = operator

        def reduce(self, state: Any, attended: Any) -> Any:
            start = mark(images.device)
            result = self.operator.reduce(state, attended)
            inside.append((start, mark(images.device)))
            return result

    def edge(*_: Any) -> None:
        edges.append(mark(images.device))

    hooks = [module.register_forward_pre_hook(edge) for module in (model.backbone.blocks[0].norm1, model.backbone.norm)]
    for operators in model.operators:
        for index, operator in enumerate(operators):
            operators[index] = Timed(operator)
    shares = []
    for _ in range(SHARES):
        inside.clear()
        edges.clear()
        model(images)
        shares.append(sum(elapsed(*marks) for marks in inside) / elapsed(*edges))
    for hook in hooks:
        hook.remove()
    for operators in model.operators:
        for index, timed in enumerate(operators):
            operators[index] = timed.operator
    return statistics.median(shares)


def summarise(rows: Sequence[Row]) -> list[Row]:
    """Each aim: how many of the rows that it speaks of meet it, and the worst of them."""
    close = CLOSE[rows[0]["device"]]
    following = [row for row in rows if row["removed"] == 13 and row["batch"] >= 8]
    aims = (
        ("never slower than the plain implementation", 1.0, [(row["vittle_to_plain"], row) for row in rows]),
        (
            f"13 removed, batch 8 or more: latency ratio within {close} x MACs ratio",
            close,
            [(row["latency_ratio"] / row["macs_ratio"], row) for row in following],
        ),
        (
            "matching and merging take at most 5 % of the blocks' time",
            0.05,
            [(row["matching_share"], row) for row in rows if row["matching_share"] is not None],
        ),
    )
    return [_aim(name, limit, values) for name, limit, values in aims if values]


def _aim(name: str, limit: float, values: Sequence[tuple[float, Row]]) -> Row:
    worst, row = max(values, key=lambda pair: pair[0])
    return {
        "aim": name,
        "met": worst <= limit,
        "limit": limit,
        "worst": round(worst, 4),
        "worst_row": f"{row['model']}, batch {row['batch']}, {row['removed']} removed, {row['mode']}",
        "rows": len(values),
        "rows_met": sum(value <= limit for value, _ in values),
    }


def _paired(times: Sequence[float], others: Sequence[float]) -> float:
    return round(statistics.median(time / other for time, other in zip(times, others, strict=True)), 4)


def _device(name: str | None) -> torch.device:
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    if name not in CLOSE or (name == "cuda" and not torch.cuda.is_available()):
        there = "cpu, cuda" if torch.cuda.is_available() else "cpu (there is no CUDA device)"
        raise VittleError(f"device is {name!r}; accepted: {there}")
    return torch.device(name)


def _numbers(option: str, text: str, least: int) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < least:
        raise VittleError(f"--{option} is {text!r}; accepted: whole numbers from {least} on, separated by commas")
    return numbers


def main() -> None:
    """Run the comparison; bad input is one line on stderr and exit code 2."""
    run_command(app)


if __name__ == "__main__":
    main()
