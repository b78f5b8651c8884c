"""The whole search against what there is without it, on the same backbone and the same images.

    python benchmarks/search.py                  the digits, five seeds of each search
    python benchmarks/search.py --quick          seconds: that it works, not how well
    python benchmarks/search.py --photographs photographs.npz --backbone benchmarks/photographs.safetensors
                                                 the photographs too, see `photographs.py`
    python benchmarks/search.py --large          what this project's search takes on a 224 px model besides forward passes

Compared are ToMe's constant and decreasing schedules, all of them; random search; Ray Tune with its stock `OptunaSearch` (see
`stock.py`); and this project's search. Objectives are accuracy and MACs, there is no budget, and each search has the same
space, the same number of trials and several seeds. What a search has found is judged on images that none of them sees
(`judging.py`). Aimed at: to reach what the stock search reaches at a fraction of its MACs and seconds, and to lose less than
ToMe's schedules.

`benchmarks/results/search.json` is rewritten after each run. It holds `environment`, `rows` (dataset, method, seed, trials,
hypervolume, image_macs, wall_s, overhead_share, front as [share of MACs, held-out accuracy, accuracy searched on], and curve as
[trials, image_macs, wall_s, hypervolume]) and `summary` (`comparing.py`). With `--methods` only those are run again, and the
other rows of the file are kept, where they come from the same environment and backbone.
"""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from comparing import PROJECT, kept, summarise
from judging import Judge, judge_run
from methods import METHODS, SWEEPS
from photographs import train
from problem import LARGE, Problem, Source, load
from report import environment, run_command, write
from vittle.spaces.errors import VittleError

Row = dict[str, Any]


def compare(
    trials: Annotated[int, typer.Option(min=1, help="Of each search.")] = 60,
    seeds: Annotated[int, typer.Option(min=1, help="Of each search: 0, 1, ...")] = 5,
    methods: Annotated[str, typer.Option(help="What to run, separated by commas.")] = ",".join(METHODS),
    photographs: Annotated[
        Path | None, typer.Option(help="An .npz to search on as well, see photographs.py.", show_default=False)
    ] = None,
    backbone: Annotated[
        Path | None, typer.Option(help="Weights for the photographs; trained and written if not there.", show_default=False)
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=32, help="Photographs to search on, and to confirm on, at most.", show_default=False)
    ] = None,
    large: Annotated[bool, typer.Option("--large", help="Also the overhead on a 224 px model.")] = False,
    output: Annotated[
        Path | None, typer.Option(help="The file to write. Default: results/search.json beside this.", show_default=False)
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few images, two trials; no file without --output.")] = False,
) -> None:
    """Compare the searches."""
    if quick:
        trials, seeds = 2, 1
    elif output is None:
        output = Path(__file__).parent / "results" / "search.json"
    chosen = _chosen(methods)
    sources = [*_sources(photographs, backbone, images), *([Source(LARGE)] if large else [])]
    if quick:
        sources = [replace(source, limit=32) for source in sources]
    problems = [load(source) for source in sources]
    abouts = [_about(problem) for problem in problems]
    around = environment(torch.device("cpu"))
    earlier = json.loads(output.read_text(encoding="utf-8")) if output is not None and output.exists() else None
    rows = kept(earlier, chosen, abouts, around) if earlier else []
    for problem, about in zip(problems, abouts, strict=True):
        judge = Judge(problem)
        alone = problem.source.dataset == LARGE
        for method in [PROJECT] if alone else chosen:
            for seed in range(1 if alone or method in SWEEPS else seeds):
                run = METHODS[method](problem, trials, seed)
                row = {**about, "method": method, "seed": seed, **judge_run(run, judge)}
                rows.append(row)
                rows.sort(key=lambda row: (row["dataset"], list(METHODS).index(row["method"]), row["seed"]))
                if output is not None:
                    write(output, {"environment": around, "rows": rows, "summary": summarise(rows)})
                shown = {key: value for key, value in row.items() if not isinstance(value, list)}
                print(" ".join(f"{key} {value}" for key, value in shown.items()), flush=True)
    for dataset, summary in summarise(rows).items():
        print(dataset, json.dumps(summary))


def _about(problem: Problem) -> Row:
    images = [len(problem.splits.search), len(problem.splits.held_out)]
    return {"dataset": problem.source.dataset, "backbone": problem.backbone.fingerprint, "images": images}


def _chosen(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        raise VittleError(f"unknown method {unknown[0]!r}; accepted: {', '.join(METHODS)}, separated by commas")
    return [name for name in METHODS if name in names]


def _sources(photographs: Path | None, backbone: Path | None, images: int | None) -> list[Source]:
    if (photographs is None) != (backbone is None):
        raise VittleError("--photographs and --backbone go together; give both, or neither")
    if photographs is None or backbone is None:
        return [Source()]
    photographs, backbone = photographs.resolve(), backbone.resolve()  # for processes that run elsewhere
    if not backbone.exists():
        train(photographs, backbone)
    return [Source(), Source("photographs", photographs, backbone, images)]


def main() -> None:
    """Run the benchmark; bad input is one line on stderr and exit code 2."""
    run_command(partial(typer.run, compare))


if __name__ == "__main__":
    main()
