"""Everything at once on a machine with an NVIDIA GPU: is it right, is it fast, and what happens when something breaks.

    python benchmarks/cuda.py                            at most 8 minutes
    python benchmarks/cuda.py --device cpu --output F    a rehearsal at the smallest sizes, some minutes on two cores

Each part of `PARTS` runs in a process of its own that is ended at its limit, so an error of the device in one of them spoils
none of the others. To add one: a function in a module of this folder that takes a `parts.Task` and returns what JSON can hold,
and a line in the table.

`benchmarks/results/cuda.json` is rewritten after each part. It holds `environment`, `versions` and `parts`, for each of them
`status`, `seconds`, `limit`, and `result` or `traceback`. What does not hold of a result's `verdict` is printed at the end.
"""

import datetime
import functools
import os
import pkgutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

if __name__ == "cuda":
    # NVIDIA's packages are called `cuda.bindings` and so on, and torch asks for them. Where this folder is on the path, that
    # finds this file, which then says where they are.
    __path__ = pkgutil.extend_path([], __name__)

if str(Path(__file__).parent) not in sys.path:  # started as a module
    sys.path.append(str(Path(__file__).parent))

import typer

from parts import Part, Row, Task, run_parts, script, work, write_json
from vittle.spaces.errors import VittleError

PARTS = {
    part.name: part
    for part in (
        Part("hardware", 25, "cuda_speed:describe"),
        Part("parity", 80, "cuda_parity:measure"),
        Part("profile", 75, "cuda_speed:measure_profile"),
        Part("launch", 120, "cuda_search:kill_and_resume"),
        Part("out_of_memory", 60, "cuda_search:exhaust"),
        Part("sparsity", 20, "cuda_speed:measure_sparsity"),
        Part("recursion", 20, "cuda_speed:measure_recursion"),
        Part("peaks", 20, "cuda_speed:measure_peaks"),
        Part("operators", 60, "cuda_speed:measure_operators"),  # last, because it can use all that the others leave over
    )
}
SECONDS = 480.0
SLOWER = {"cuda": 1, "cpu": 3}  # what a rehearsal may take of a part's time
DEVICES = ("cuda", "cpu")


def main(
    device: Annotated[str, typer.Option(help="cuda; or cpu, to rehearse at the smallest sizes.")] = "cuda",
    parts: Annotated[str, typer.Option(help="Names, separated by commas.")] = ",".join(PARTS),
    seconds: Annotated[float, typer.Option(min=1, help="That all parts may take together.")] = SECONDS,
    output: Annotated[
        Path | None, typer.Option(help="The file to write. Default: results/cuda.json beside this.", show_default=False)
    ] = None,
    part: Annotated[str | None, typer.Option(hidden=True)] = None,
    folder: Annotated[Path | None, typer.Option(hidden=True)] = None,
    limit: Annotated[float, typer.Option(hidden=True)] = SECONDS,
) -> None:
    """Run the parts."""
    if device not in DEVICES:
        raise VittleError(f"device is {device!r}; accepted: {', '.join(DEVICES)}")
    if part is not None and folder is not None:
        raise typer.Exit(work(PARTS[part], Task(device, folder, limit)))
    unknown = [name for name in parts.split(",") if name not in PARTS]
    if unknown:
        raise VittleError(f"unknown part {unknown[0]!r}; accepted: {', '.join(PARTS)}")
    path = output or Path(__file__).parent / "results" / "cuda.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    chosen = [PARTS[name]._replace(seconds=SLOWER[device] * PARTS[name].seconds) for name in parts.split(",")]
    save = functools.partial(write_results, path, device)
    if device == "cpu":
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # what is so small is no faster on several
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and what runs is ended, too
    with tempfile.TemporaryDirectory(prefix="vittle-cuda-", ignore_cleanup_errors=True) as place:
        found = run_parts(chosen, (*script(__file__), "--device", device), Path(place), seconds, save)
    for name, row in found.items():
        verdict = (row.get("result") or {}).get("verdict", {})
        print(
            f"{name:14} {row['status']:10} {row['seconds']:6} s", *(f"NOT {what}" for what, held in verdict.items() if not held)
        )
    raise typer.Exit(int(any(row["status"] != "ok" for row in found.values())))


def write_results(path: Path, device: str, found: dict[str, Row]) -> None:
    """Write the document of all parts so far."""
    hardware: Any = found.get("hardware", {}).get("result") or {}
    document = {
        "device": device,
        "environment": hardware.get("environment"),
        "versions": hardware.get("versions"),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seconds": round(sum(row["seconds"] for row in found.values()), 1),
        "parts": found,
    }
    write_json(path, document)


def start() -> None:
    """Run; bad input is one line on stderr and exit code 2."""
    try:
        typer.run(main)
    except VittleError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    start()
