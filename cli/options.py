"""What several commands take: their options, the study that is meant, and where images come from.

What is given is read here without torch and without a database, so that a mistake is answered at once.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vittle.objectives.budget import LatencyBudget
from vittle.objectives.goals import Asked, parse_quality
from vittle.spaces.errors import VittleError
from vittle.spaces.inputs import EMBEDDED, check_checkpoint, check_images
from vittle.spaces.machine import check_device, check_dtype
from vittle.spaces.table import adapter_files

if TYPE_CHECKING:
    from vittle.spaces.schedule import Schedule
    from vittle.storage.records import Study
    from vittle.storage.store import Store

DIGITS = EMBEDDED

# What options are about: the panels of `--help`. What is about nothing in particular stands in the first, without a name here.
IMAGES, BUDGET, MEASURING, SEARCH, MACHINE = "Model and images", "Budget", "How latency is measured", "Search", "Machine"
FLAG = ""  # in place of the type of an option that takes no value


def _checked(check: Callable[[str], None]) -> Callable[[str | None], str | None]:
    """An option's callback that lets pass what `check` does, and what is not given."""

    def look(given: str | None) -> str | None:
        if given is not None:
            check(given)
        return given

    return look


Model = Annotated[
    str, typer.Option(metavar="NAME", rich_help_panel=IMAGES, help="A timm name, hf-hub:owner/name, local-dir:path, or digits.")
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        rich_help_panel=IMAGES,
        help="Weights in place of the published ones; any of timm's formats.",
        show_default=False,
    ),
]
ImageSize = Annotated[
    str | None,
    typer.Option(
        metavar="HxW",
        rich_help_panel=IMAGES,
        help="Pixels, such as 224 or 192x320. Default: what the weights were trained at.",
        show_default=False,
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        metavar="DATA",
        rich_help_panel=IMAGES,
        help="Image folder, .npz, timm dataset, or digits (with the model digits).",
        show_default=False,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        callback=_checked(check_device),
        rich_help_panel=MACHINE,
        help="cpu or cuda. Default: cuda where there is one.",
        show_default=False,
    ),
]
Classes = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        rich_help_panel=IMAGES,
        help="The head's classes in order, one name a line, by which folders are labelled.",
        show_default=False,
    ),
]

BatchSize = Annotated[
    int, typer.Option(min=1, metavar="N", rich_help_panel=MEASURING, help="Batch that latency is measured at.")
]
Dtype = Annotated[
    str,
    typer.Option(
        metavar="TYPE",
        callback=_checked(check_dtype),
        rich_help_panel=MEASURING,
        help="float32, bfloat16 or float16: what the model computes in.",
    ),
]
Compiled = Annotated[
    bool,
    typer.Option(
        "--compile",
        metavar=FLAG,
        rich_help_panel=MEASURING,
        help="Time schedules through torch.compile, and the backbone's fastest form with it.",
    ),
]
Adapters = Annotated[
    list[str] | None,
    typer.Option(
        "--adapter",
        metavar="NAME=FILE",
        rich_help_panel=IMAGES,
        help="Trained weights of a reduction, such as merging=embedding.safetensors; may be given once for each.",
        show_default=False,
    ),
]
StudyName = Annotated[
    str | None, typer.Argument(metavar="STUDY", help="Name of the study; the newest where none is given.", show_default=False)
]
Storage = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        envvar="VITTLE_STORAGE",
        help="SQLAlchemy URL of the database. Default: SQLite in your data folder.",
        show_default=False,
    ),
]
Budget = Annotated[
    str | None,
    typer.Option(
        metavar="BUDGET",
        rich_help_panel=BUDGET,
        help="4ms or 'p95 4ms' per batch, 60% of the backbone, or '1000 images/s'. Default: the study's.",
        show_default=False,
    ),
]
Tolerance = Annotated[
    str | None,
    typer.Option(
        metavar="POINTS",
        rich_help_panel=BUDGET,
        help="Recommend the fastest within so many points of the best accuracy; 0: the best. Default: the study's, 0.3%.",
        show_default=False,
    ),
]
MaxDrop = Annotated[
    str | None,
    typer.Option(
        "--max-accuracy-drop",
        metavar="POINTS",
        rich_help_panel=BUDGET,
        help="In its place: the fastest that loses at most so many points against the backbone, such as 0.5%.",
        show_default=False,
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS", rich_help_panel=MACHINE, help="Join this Ray cluster in place of starting one.", show_default=False
    ),
]
OtherImages = Annotated[
    bool,
    typer.Option("--other-images", metavar=FLAG, help="Go on though the images are not those that the study began with."),
]
Json = Annotated[bool, typer.Option("--json", metavar=FLAG, help="Print JSON in place of tables.")]


def open_store(url: str | None, *, create: bool = False) -> "Store":
    """As `Store.open` has it; SQLAlchemy is loaded here and not before.

    Raises:
        VittleError: there is no such database, or none can be made there.
    """
    from vittle.storage.store import Store

    return Store.open(url, create=create)


def check_storage(url: str | None) -> None:
    """Refuse a text that is no database, or one of a kind that nothing here can open, before what is to be kept is made.

    Raises:
        VittleError: it is none.
    """
    if url is not None:
        from vittle.storage import address

        address.make_engine(address.parse(url))


def find_study(store: "Store", name: str | None) -> "Study":
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


def wanted(study: "Study", budget: str | None, tolerance: str | None, max_drop: str | None) -> Asked:
    """What a trial is to be chosen for, as it was asked for or else as the study was launched for.

    Raises:
        VittleError: a text that cannot be read, a latency budget where the study's is none, or a tolerance and a drop at once.
    """
    goals = study.goals
    amounts = [None if text is None else parse_quality(text, goals.quality) for text in (tolerance, max_drop)]
    read = None if budget is None else LatencyBudget.parse(budget, study.inference.batch_size)
    return goals.asking(read, *amounts)


def listed(names: str) -> tuple[str, ...]:
    """Names that are separated by commas."""
    return tuple(name.strip() for name in names.split(",") if name.strip())


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
        VittleError: nothing is there, or a model of one's own without images.
    """
    if data is None:
        if model != DIGITS:
            raise VittleError(f"model {model!r} needs images; give --data with a folder, an .npz file or a timm data set")
        return DIGITS
    check_images(data)
    return str(Path(data).resolve()) if Path(data).exists() else data


def weights(checkpoint: Path | None) -> str | None:
    """A checkpoint that is there, as an absolute path, so that a resumed study finds it from any folder.

    Raises:
        VittleError: there is no such file.
    """
    if checkpoint is None:
        return None
    check_checkpoint(checkpoint)
    return str(checkpoint.resolve())


def resolved(file: Path | None) -> str | None:
    """A file that was given, as an absolute path, so that a resumed study finds it from any folder."""
    return None if file is None else str(file.resolve())


def illustrate(study: "Study", schedule: "Schedule", indices: Sequence[int]) -> dict[str, Any]:
    """As `vittle.search.illustrator` has it, which only the process that it is called in has to load."""
    from vittle.search import illustrator

    return illustrator.illustrate(study, schedule, indices)
