"""What several commands take: their options, the study that is meant, and where images come from."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from vittle.objectives.budget import LatencyBudget
from vittle.objectives.goals import Asked, parse_quality
from vittle.spaces.errors import VittleError
from vittle.spaces.schedule import Schedule
from vittle.spaces.table import adapter_files
from vittle.storage.records import Study
from vittle.storage.store import Store

DIGITS = "digits"

Model = Annotated[str, typer.Option(help="A timm name, hf-hub:owner/name, local-dir:path, or digits.")]
Checkpoint = Annotated[
    Path | None, typer.Option(help="Weights (.safetensors, .pth) in place of the published ones.", show_default=False)
]
Data = Annotated[
    str | None, typer.Option(help="Image folder, .npz, timm dataset, or digits (with the model digits).", show_default=False)
]
Device = Annotated[str | None, typer.Option(help="cpu or cuda. Default: cuda where there is one.", show_default=False)]

BatchSize = Annotated[int, typer.Option(min=1, help="Batch that latency is measured at.")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16 or float16: what the model computes in.")]
Compiled = Annotated[
    bool, typer.Option("--compile", help="Time schedules through torch.compile, and the backbone's fastest form with it.")
]
Adapters = Annotated[
    list[str] | None,
    typer.Option(
        "--adapter",
        metavar="NAME=FILE",
        help="Trained weights of a reduction, such as merging=embedding.safetensors; may be given once for each.",
        show_default=False,
    ),
]
StudyName = Annotated[str | None, typer.Argument(help="Name of the study; the newest where none is given.", show_default=False)]
Storage = Annotated[
    str | None,
    typer.Option(
        envvar="VITTLE_STORAGE", help="SQLAlchemy URL of the database. Default: SQLite in your data folder.", show_default=False
    ),
]
Budget = Annotated[
    str | None,
    typer.Option(
        help="4ms or 'p95 4ms' per batch, 60% of the backbone, or '1000 images/s'. Default: the study's.", show_default=False
    ),
]
Tolerance = Annotated[
    str | None,
    typer.Option(
        help="Recommend the fastest within so many points of the best accuracy; 0: the best. Default: the study's, 0.3%.",
        show_default=False,
    ),
]
MaxDrop = Annotated[
    str | None,
    typer.Option(
        "--max-accuracy-drop",
        help="In its place: the fastest that loses at most so many points against the backbone, such as 0.5%.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON in place of tables.")]


def find_study(store: Store, name: str | None) -> Study:
    """The study of that name, or the newest one.

    Raises:
        VittleError: there is none.
    """
    if name is not None:
        return store.study(name)
    studies = store.studies()
    if not studies:
        raise VittleError("there are no studies yet; make one with: vittle launch")
    return studies[0]


def wanted(study: Study, budget: str | None, tolerance: str | None, max_drop: str | None) -> Asked:
    """What a trial is to be chosen for, as it was asked for or else as the study was launched for.

    Raises:
        VittleError: a text that cannot be read, a latency budget where the study's is none, or a tolerance and a drop at once.
    """
    goals = study.goals
    amounts = [None if text is None else parse_quality(text, goals.quality) for text in (tolerance, max_drop)]
    read = None if budget is None else LatencyBudget.parse(budget, study.inference.batch_size)
    return goals.asking(read, *amounts)


def parse_adapters(given: Sequence[str] | None) -> dict[str, str]:
    """Read `merging=embedding.safetensors`, of each reduction once; a file alone is a merge embedding.

    A path is made absolute, so that a resumed study finds it from any folder.

    Raises:
        VittleError: two files of one reduction.
    """
    files: dict[str, str] = {}
    for one in given or ():
        match = re.fullmatch(r"(\w+)=(.+)", one)
        found = adapter_files({match[1]: match[2]} if match else one)
        for name, path in found.items():
            if name in files:
                raise VittleError(f"two files are given as adapter of {name}; accepted: one for each reduction")
            files[name] = str(Path(path).resolve())
    return files


def parse_seconds(text: str) -> float:
    """Read 90s, 10m or 2h.

    Raises:
        VittleError: anything else.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh])\s*", text)
    if match is None or float(match[1]) <= 0:
        raise VittleError(f"time limit {text!r} is not a time; accepted: 90s, 10m or 2h")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def parse_bytes(text: str) -> int:
    """Read 512MiB, 2GiB or 0.

    Raises:
        VittleError: anything else.
    """
    match = re.fullmatch(r"\s*(?:0|(\d+(?:\.\d+)?)\s*([MG])i?B)\s*", text)
    if match is None:
        raise VittleError(f"cache {text!r} is not a size; accepted: 512MiB, 2GiB, or 0 for none")
    return int(float(match[1]) * {"M": 2**20, "G": 2**30}[match[2]]) if match[1] else 0


def cpus() -> int:
    """The processors that this process may use, in a container as many as its limit allows."""
    from joblib import cpu_count  # here, because few commands count them, and it takes a while to import

    there: int = cpu_count()
    return there


def source(model: str, data: str | None) -> str:
    """Where the images are; a path is made absolute, so that a resumed study finds it from any folder.

    Raises:
        VittleError: a model of one's own without images.
    """
    if data is None and model != DIGITS:
        raise VittleError(f"model {model!r} needs images; give --data with a folder, an .npz file or a timm data set")
    return str(Path(data).resolve()) if data is not None and Path(data).exists() else data or DIGITS


def illustrate(study: Study, schedule: Schedule, indices: Sequence[int]) -> dict[str, Any]:
    """As `vittle.search.illustrator` has it, which only the process that it is called in has to load."""
    from vittle.search import illustrator

    return illustrator.illustrate(study, schedule, indices)
