"""How fast merged models are on a device, how well a latency profile predicts it, and how much memory they take."""

import copy
import importlib.metadata
import math
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn

import merging
import vittle
from cuda_material import Material, material, random_images
from latency import errors, unseen
from parts import Row, Task
from tome import PlainToMe
from vittle.objectives.evaluator import make_stand
from vittle.objectives.latency import memory
from vittle.objectives.latency.baseline import compile_model
from vittle.objectives.latency.environment import clocks, environment
from vittle.objectives.latency.stand import Effort
from vittle.objectives.latency.turns import LAUNCH_BOUND, Turns, take_turns
from vittle.reductions.attention import forms, kernel
from vittle.reductions.backbone import describe_backbone, load_backbone
from vittle.reductions.recursive_blocks import RecursiveBlocks
from vittle.reductions.vit import ReducedViT
from vittle.search.feasibility import find_profile, stand_of
from vittle.spaces.errors import VittleError
from vittle.spaces.recursion import falling
from vittle.spaces.schedule import Schedule
from vittle.spaces.sparsity import Rests
from vittle.storage.settings import Settings
from vittle.storage.store import Store
from vittle.training.recursion import recurring

PACKAGES = ("torch", "timm", "triton", "ray", "optuna", "numpy", "sqlalchemy")
REMOVED = (8, 13)  # tokens a block
SPARSE: tuple[tuple[float, Rests], ...] = ((0.25, "one"), (0.25, "2x2"), (0.1, "one"), (0.1, "2x2"), (0.05, "4x4"))
RECURRING = ((10, 1.0), (10, 0.2), (5, 1.0), (5, 0.2), (3, 1.0), (1, 1.0))  # steps, the share of the last one
CALIBRATED = 64  # images that a watch is made with
NEVER = 10**9  # windows in a row
ROUNDS = 7
SPARE = 6.0  # seconds that one more row of sparse attention or recursion takes at most
COMPILING = {"cuda": 30.0, "cpu": math.inf}  # seconds that two models take to compile; a rehearsal does without
PEAKS = Effort(rounds=5)
UNSEEN = Effort(rounds=5, precision=0.01)


def describe(task: Task) -> Row:
    """Device, driver, versions, and which kernels attention runs with."""
    device = torch.device(task.device)
    found: Row = {"environment": environment(device), "versions": {name: _version(name) for name in PACKAGES}}
    task.save(found)
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "memory_gb": properties.total_memory / 1e9,
            "capability": [properties.major, properties.minor],
            **clocks(device),
        }
        found["nvidia_smi"] = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout.strip()
    found["kernels"] = {
        f"{str(dtype).removeprefix('torch.')}, {form or 'unweighted'}": kernel(device, dtype, 6, 64, (64, 197), form)
        for dtype in (torch.float32, torch.bfloat16, torch.float16)
        for form in (None, *forms(device))
    }
    return found


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def measure_operators(task: Task) -> Row:
    """Merged models in turn with plain ToMe and with the backbone, in each of the forms that a user could run it in."""
    device = torch.device(task.device)
    names, batches = (
        (("test_vit",), (1, 2)) if task.small else (("deit_small_patch16_224", "deit_base_patch16_224"), (1, 32, 256))
    )
    result: Row = {"agreement": {}, "rows": [], "compiled": []}
    for name in names:
        result["agreement"][name] = _agreement(name, device)
        for batch in batches:
            result["rows"].append(_compare(name, batch, task))
            task.save(result)
    pairs = [(name, batch) for batch in (batches[0], *batches[:0:-1]) for name in names]
    for name, batch in pairs:
        result["compiled"].append(_compare_compiled(name, batch, task))
        task.save(result)
    return result


@torch.inference_mode()
def _agreement(name: str, device: torch.device) -> str:
    try:
        merging.check(merging.build(name, REMOVED[-1], device, torch.float32))
    except (RuntimeError, VittleError) as error:
        return str(error)
    return f"within {merging.TOLERANCE} of the largest logit in float32"


def _backbone(name: str, task: Task, **arguments: Any) -> nn.Module:
    torch.manual_seed(0)
    if task.device == "cuda":
        torch.cuda.empty_cache()
    return timm.create_model(name, **arguments).eval().to(task.device, torch.float32 if task.small else torch.bfloat16)


def _compare(name: str, batch: int, task: Task) -> Row:
    """Everything that does not have to be compiled, in one measurement."""
    backbone = _backbone(name, task)
    images, eager = random_images(backbone, batch), copy.deepcopy(backbone)
    for block in eager.blocks:
        block.attn.fused_attn = False
    models: dict[str, nn.Module] = {"eager": eager}
    for removed in REMOVED:
        models[f"merged {removed}"] = ReducedViT(backbone, vittle.presets.constant(backbone, removed))
    models |= {
        "merged 13, prefix tail": ReducedViT(backbone, vittle.presets.constant(backbone, 13, tail="prefix")),
        "plain 13": PlainToMe(backbone, 13).eval(),
        "plain 13, fused": PlainToMe(backbone, 13, fused=True).eval(),
    }
    row = _in_turn(backbone, models, images, 2 if task.small else ROUNDS)
    dense = vittle.macs(backbone, Schedule())
    row["macs_ratio"] = {
        title: round(vittle.macs(backbone, model.schedule) / dense, 4)
        for title, model in models.items()
        if isinstance(model, ReducedViT)
    }
    row |= {"model": name, "batch": batch, "form": models["merged 13"].form}
    _tell(row)
    return row


def measure_sparsity(task: Task) -> Row:
    """Sparse attention in turn with the backbone, where images are large enough for it."""
    names, sizes, batches = (
        (("test_vit",), (160,), (1, 2))
        if task.small
        else (("deit_tiny_patch16_224", "deit_small_patch16_224"), (384, 512), (1, 8, 64))
    )
    result: Row = {"rows": []}
    for name, size, batch in ((name, size, batch) for name in names for size in sizes for batch in batches):
        if task.left < SPARE:
            result["rows"].append({"model": name, "size": size, "batch": batch, "skipped": "no time was left"})
            continue
        backbone = _backbone(name, task, img_size=size)
        dense = vittle.apply(backbone, Schedule((), "prefix"))
        models: dict[str, Callable[[Tensor], Any]] = {"dense, prefix tail": dense}
        for share, rests in SPARSE:
            models[f"sparse {share:g}, {rests}"] = ReducedViT(
                backbone, vittle.presets.sparse(backbone, share, rests=rests, tail="prefix")
            )
        row = _in_turn(backbone, models, random_images(backbone, batch), 2 if task.small else ROUNDS)
        row |= {"model": f"{name} at {size}", "batch": batch}
        result["rows"].append(row)
        _tell(row)
        task.save(result)
    return result


def measure_recursion(task: Task) -> Row:
    """Recursions in turn with the backbone, and what a watch adds. Which weights run makes no difference to it."""
    names, batches = (
        (("test_vit",), (2,)) if task.small else (("deit_tiny_patch16_224", "deit_small_patch16_224"), (1, 8, 64, 256))
    )
    result: Row = {"rows": []}
    for name, batch in ((name, batch) for name in names for batch in batches):
        if task.left < SPARE:
            result["rows"].append({"model": name, "batch": batch, "skipped": "no time was left"})
            continue
        backbone: Any = _backbone(name, task)
        blocks = RecursiveBlocks.from_backbone(backbone).to(task.device).eval().requires_grad_(False)
        models: dict[str, Callable[[Tensor], Any]] = {"dense, prefix tail": vittle.apply(backbone, Schedule((), "prefix"))}
        most = len(backbone.blocks) - 2
        for steps, share in RECURRING:
            if steps <= most:
                schedule = recurring(blocks, falling(steps, share))
                model = ReducedViT(backbone, Schedule(schedule.reductions, "prefix"), {"recursion": blocks})
                models[f"{steps} steps, the last {share:g}"] = model
        images = random_images(backbone, batch)
        ordinary = images.repeat(-(-CALIBRATED // batch), 1, 1, 1)
        models["the last one, watched"] = vittle.watch(model, ordinary, window=CALIBRATED // 2, alarm_after=NEVER)
        row = _in_turn(backbone, models, images, 2 if task.small else ROUNDS)
        row |= {"model": name, "batch": batch}
        result["rows"].append(row)
        _tell(row)
        task.save(result)
    return result


def _compare_compiled(name: str, batch: int, task: Task) -> Row:
    """Backbone and merged model through torch.compile, where there is time to compile them."""
    about: Row = {"model": name, "batch": batch}
    if task.left < COMPILING[task.device]:
        return {**about, "skipped": "no time was left"}
    backbone = _backbone(name, task)
    images = random_images(backbone, batch)
    merged = ReducedViT(backbone, vittle.presets.constant(backbone, 13))
    models: dict[str, Callable[[Tensor], Any]] = {"merged 13": merged}
    seconds = {}
    for title, model in (("compiled", backbone), ("merged 13, compiled", merged)):
        start = time.perf_counter()
        try:
            models[title] = compile_model(model, images)
        except VittleError as error:
            about[f"{title} failed"] = str(error)
        seconds[title] = round(time.perf_counter() - start, 1)
    row = {**about, "compile_seconds": seconds, **_in_turn(backbone, models, images, 2 if task.small else ROUNDS)}
    _tell(row)
    return row


def _in_turn(backbone: nn.Module, models: Mapping[str, Callable[[Tensor], Any]], images: Tensor, rounds: int) -> Row:
    """Times, and shares of the fused backbone's and of one another's, from rounds in which all run in turn."""
    calls = [lambda model=model: model(images) for model in models.values()]
    turns = take_turns(lambda: backbone(images), calls, images.device, rounds=rounds)
    return {
        "dtype": str(images.dtype).removeprefix("torch."),
        "ms": {"fused": _median(turns.reference.ravel()), **_by_name(models, turns.times)},
        "of_fused": _by_name(models, turns.ratios),
        "of_each_other": _each_other(list(models), turns),
        "host_share": _by_name(models, turns.host / turns.times),
        "launch_bound": turns.clock != "monotonic" and bool(np.median(turns.host / turns.times) >= LAUNCH_BOUND),
        "rounds": len(turns.times),
        "repeated": turns.repeated,
        "noise": turns.noise,
    }


def _each_other(names: Sequence[str], turns: Turns) -> Row:
    """What each model takes as a share of every one that stands before it, the median over rounds."""
    columns = dict(zip(names, turns.times.T, strict=True))
    return {f"{one} / {other}": _median(columns[one] / columns[other]) for at, one in enumerate(names) for other in names[:at]}


def _by_name(names: Mapping[str, Any], columns: Any) -> Row:
    return {name: _median(column) for name, column in zip(names, columns.T, strict=True)}


def _median(values: Any) -> float:
    return round(float(np.median(values)), 4)


def _tell(row: Row) -> None:
    shares = ", ".join(f"{name} {share:.2f}" for name, share in row["of_fused"].items())
    print(f"{row['model']} batch {row['batch']}: fused {row['ms']['fused']:.3g} ms; {shares}", flush=True)


def measure_profile(task: Task) -> Row:
    """A latency profile as a search measures it, and how far off it is on schedules that it has not seen."""
    found = material(task)
    backbone = load_backbone(found.model, found.checkpoint)
    store = Store.open(found.url, create=True)
    result: Row = {"rows": []}
    for batch in (found.batch, 1):
        if task.left < 0.3 * task.seconds:
            result["rows"].append({"batch": batch, "skipped": "no time was left"})
            continue
        settings = settings_of(found, task, batch)
        profile = find_profile(backbone, settings, store, seconds=0.35 * task.seconds if not task.small else 5)
        row = {
            "model": found.model,
            "batch": batch,
            "dtype": found.dtype,
            "seconds": round(profile.seconds, 1),
            "backbone_ms": profile.backbone_ms,
            "forms_ms": dict(profile.forms_ms),
            "launch_bound": profile.launch_bound,
            "own_mape": profile.mape,
            "own_spearman": profile.spearman,
            "trusted": profile.trusted,
            "noisy": profile.noisy,
        }
        result["rows"].append(row)
        task.save(result)
        with stand_of(backbone, settings) as stand:
            checks = unseen(profile, stand, 4 if task.small else 20, UNSEEN)
        row |= {"schedules": len(checks), **errors(checks, "predicted"), "checks": checks}
        row |= {f"macs_{name}": value for name, value in errors(checks, "macs").items()}
        task.save(result)
        print(f"batch {batch}: mape {row['mape']}, spearman {row['spearman']}, {row['seconds']} s", flush=True)
    return result


def settings_of(found: Material, task: Task, batch: int) -> Settings:
    """The settings of a search for what is measured here."""
    return Settings(
        model=found.model, checkpoint=str(found.checkpoint), data=str(found.images), batch_size=batch, device=task.device,
        dtype=found.dtype,
    )  # fmt: skip


def measure_peaks(task: Task) -> Row:
    """Peak memory of backbone and reduced models, in every form of attention, and whether the device waits for the host."""
    names, batches = (("test_vit",), (1, 2)) if task.small else (("deit_small_patch16_224", "deit_base_patch16_224"), (1, 256))
    dtype = "float32" if task.small else "bfloat16"
    result: Row = {"rows": []}
    for name in names:
        backbone = describe_backbone(_backbone(name, task).float(), name)
        for batch in batches:
            backbone.model.float()
            stand = make_stand(backbone, device=task.device, batch_size=batch, dtype=dtype)
            schedules = {"backbone": Schedule(), **{f"merged {n}": vittle.presets.constant(stand.model, n) for n in REMOVED}}
            for title, schedule in schedules.items():
                measured = stand.measure(ReducedViT(stand.model, schedule), PEAKS)
                how = measured["latency_ms"].protocol
                row = {"model": name, "batch": batch, "what": title, "dtype": dtype}
                row |= {name: one.value for name, one in measured.items()}
                row |= {name: how.get(name) for name in ("launch_bound", "attention", "baseline", "forms_ms", "noisy")}
                row["memory_by_form"] = _peaks(stand.model, schedule, stand.images) if schedule.reductions else None
                result["rows"].append(row)
                task.save(result)
                print(f"{name} batch {batch} {title}: {row.get('memory')} MB, {row['latency_ms']:.3g} ms", flush=True)
    return result


@torch.inference_mode()
def _peaks(model: nn.Module, schedule: Schedule, images: Tensor) -> Row:
    peaks = {}
    for form in forms(images.device):
        reduced = ReducedViT(model, schedule, form=form)
        try:
            reduced(images)  # what is compiled is compiled now
            peak = memory.peak(lambda: reduced(images), reduced, images.device)  # noqa: B023, called at once
        except Exception as error:  # a form that does not run here
            peaks[form] = f"{type(error).__name__}: {str(error)[:200]}"
            continue
        peaks[form] = None if peak is None else round(peak.value, 1)
    return peaks
