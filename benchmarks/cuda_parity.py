"""Whether every reduction computes on a device what it should: against timm, and against the same in float64.

The reference of a type has weights and images that were rounded to it and computes in float64, so what differs is arithmetic.
Which tokens merge is a decision, and in a narrow type a decision can fall otherwise; then the answers differ more, and nothing
is wrong. So beside each error stand the backbone's own, and the share of tokens that went where they go in float64.
Convolutions do not round to TF32 here, as torch lets them by default, because that would hide everything else.
"""

import copy
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

import vittle
from cuda_material import lively, random_images
from parts import Row, Task
from vittle.reductions.attention import Form, fastest_form, forms, weighted_attention
from vittle.reductions.backbone import shape_of
from vittle.reductions.merge_embedding import MergeEmbedding
from vittle.reductions.recursive_blocks import RecursiveBlocks
from vittle.reductions.vit import ReducedViT
from vittle.spaces.errors import VittleError
from vittle.spaces.pruning import Pruning
from vittle.spaces.recursion import Recursion
from vittle.spaces.reduction import Tail
from vittle.spaces.schedule import Schedule

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
BATCHES = (3, 1)
WORST = 12  # entries of each type that are told one by one
STRICT = {torch.float32: 1e-4}  # what an error may be where every token went where it should
SPARE = 12.0  # seconds that are left for what comes after

SMALL = {"img_size": 64, "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2, "num_classes": 10}
MODELS: Mapping[str, tuple[str, Row]] = {
    "plain": ("vit_tiny_patch16_224", {}),
    "odd grid": ("vit_tiny_patch16_224", {"img_size": (40, 56)}),
    "registers": ("vit_small_patch14_reg4_dinov2", {"img_size": 56, "patch_size": 7}),
    "distilled": ("deit_tiny_distilled_patch16_224", {}),
    "pooled": ("vit_base_patch16_gap_224", {}),
    "pooled with class token": ("vit_tiny_patch16_224", {"global_pool": "avg"}),
    "average and maximum": ("vit_tiny_patch16_224", {"global_pool": "avgmax"}),
    "layer scale": ("deit3_small_patch16_224", {"init_values": 0.3}),
    "qk-norm": ("vit_tiny_patch16_224", {"qk_norm": True}),
}
REAL = ("deit_small_patch16_224", "deit_tiny_distilled_patch16_224", "vit_small_patch14_reg4_dinov2")
WIDTH = 8  # of the random embeddings
DECOUPLED = {"metric": "decoupled", "embedding": "modular-0123456789ab", "embedding_width": WIDTH}  # then named as it is


def constant(**choices: Any) -> Callable[[nn.Module], Schedule]:
    """Seven tokens merged away in each block."""
    return lambda model: vittle.presets.constant(model, 7, **choices)


def pruned(model: nn.Module) -> Schedule:
    """Seven tokens pruned in each block."""
    shape = shape_of(model)
    return Schedule((Pruning(kept=tuple(shape.tokens - 7 * (block + 1) for block in range(shape.depth))),))


def pruned_to_one(model: nn.Module) -> Schedule:
    """Down to a single patch token in the second block."""
    shape = shape_of(model)
    return Schedule((Pruning(kept=(shape.tokens - 3, *[shape.prefix + 1] * (shape.depth - 1))),))


def pruned_and_merged(**choices: Any) -> Callable[[nn.Module], Schedule]:
    """Three tokens pruned and four merged away in each block."""

    def build(model: nn.Module) -> Schedule:
        shape = shape_of(model)
        kept = [shape.tokens - 7 * (block + 1) for block in range(shape.depth)]
        return vittle.presets.kept(model, kept, [count + 4 for count in kept], **choices)

    return build


def sparse_and_merged(model: nn.Module) -> Schedule:
    """A quarter of the keys are read, and seven tokens merge away, in each block."""
    parts = (vittle.presets.sparse(model, 0.25), vittle.presets.constant(model, 7))
    return Schedule(tuple(part for schedule in parts for part in schedule.reductions))


def recurring(*capacities: float, tail: Tail = "full", **choices: Any) -> Callable[[nn.Module], Schedule]:
    """Shared blocks, for fewer patches each time."""
    settings = {"weights": "distilled-000000000000", "capacities": capacities, **choices}
    return lambda _: Schedule((Recursion.model_validate(settings),), tail)


SCHEDULES: Mapping[str, Callable[[nn.Module], Schedule]] = {
    "key": constant(),
    "key, prefix tail": constant(tail="prefix"),
    "key, sizes unseen": constant(proportional="off"),
    "feature": constant(metric="feature"),
    "equal weights": constant(weights="equal"),
    "energy": constant(matching="energy"),
    "importance": constant(matching="importance"),
    "windows": lambda model: vittle.presets.delayed(model, 1, 8, window=4, global_from=3),
    "uneven windows": lambda model: vittle.presets.delayed(model, 0, 9, window=3, global_from=4),
    "half of all in each block": lambda model: vittle.presets.constant(model, 1000),
    "pruning": pruned,
    "pruning to one token": pruned_to_one,
    "pruning and merging": pruned_and_merged(),
    "pruning and merging, prefix tail": pruned_and_merged(tail="prefix"),
    "pruning and merging by key": pruned_and_merged(metric="key", matching="bipartite", weights="size"),
    "sparsity, one rest": lambda model: vittle.presets.sparse(model, 0.25, rests="one"),
    "sparsity, no rest": lambda model: vittle.presets.sparse(model, 0.5, rests="none"),
    "sparsity, 2x2 rests": lambda model: vittle.presets.sparse(model, 0.1),
    "sparsity, 4x4 rests, prefix tail": lambda model: vittle.presets.sparse(model, 0.1, rests="4x4", tail="prefix"),
    "sparsity and merging": sparse_and_merged,
    "recursion": recurring(1, 0.6, 0.3),
    "recursion by norm, prefix tail": recurring(1, 0.6, 0.3, router="norm", tail="prefix"),
    "recursion by what was learned": recurring(1, 0.5, router="learned"),
    "random embedding": constant(**DECOUPLED),
    "embedding from keys": constant(**DECOUPLED),
    "pruning, random embedding": pruned_and_merged(matching="bipartite", **DECOUPLED),
}


def measure(task: Task) -> Row:
    """Every reduction on small models, the kernels of attention, and real models in the form that is chosen for them."""
    torch.backends.cudnn.allow_tf32 = False
    device = torch.device(task.device)
    result: Row = {"identity": [], "summary": {}, "refused": [], "attention": [], "real": [], "skipped": []}
    entries: list[Row] = []
    for name in list(MODELS)[: 3 if task.small else None]:
        if task.left < 0.45 * task.seconds:
            result["skipped"].append(name)
            continue
        model = lively(MODELS[name][0], **{**SMALL, **MODELS[name][1]}).to(device)
        for dtype in DTYPES:
            identity, found, refused = compare(name, model, dtype, task.small)
            result["identity"].append(identity)
            result["refused"] += refused
            entries += found
        result["summary"] = summarise(entries)
        task.save(result)
        print(f"{name}: {len(entries)} so far, {task.left:.0f} s left", flush=True)
    for entry in compare_attention(device, task):
        result["attention"].append(entry)
        task.save(result)
    for entry in compare_real(device, task):
        result["real"].append(entry)
        task.save(result)
    return result


def compare(name: str, model: nn.Module, dtype: torch.dtype, small: bool) -> tuple[Row, list[Row], list[str]]:
    """One model in one type: its identity, every reduction in every form, and what is refused with the reason."""
    rounded = copy.deepcopy(model).to(dtype)
    return _compared(name, rounded, copy.deepcopy(rounded).double(), dtype, small)


@torch.inference_mode()
def _compared(
    name: str, rounded: nn.Module, exact: nn.Module, dtype: torch.dtype, small: bool
) -> tuple[Row, list[Row], list[str]]:
    images = random_images(rounded, max(BATCHES))
    plain, wanted = rounded(images), exact(images.double())
    unreduced = ReducedViT(rounded, Schedule())(images)
    backbone = relative(plain, wanted)
    identity = {
        "model": name,
        "dtype": str(dtype).removeprefix("torch."),
        "identity": float((unreduced - plain).abs().max() / plain.abs().max()),
        "backbone": backbone,
    }
    entries: list[Row] = []
    refused: list[str] = []
    for title, build in SCHEDULES.items():
        try:
            adapters = {"merging": embed(title, rounded), "recursion": recursive(rounded)}
            schedule = named(build(rounded), adapters)
            doubled = {name: copy.deepcopy(adapter).double() for name, adapter in adapters.items()}
            reference = ReducedViT(exact, schedule, doubled, form="mask")
        except VittleError as error:
            refused.append(f"{name}, {title}: {str(error)[:90]}")
            continue
        wanted = reference(images.double())
        for form in ("mask", "channel") if reference.proportional else ("mask",):
            reduced = ReducedViT(rounded, schedule, adapters, form=form)
            same = None if schedule.tail == "prefix" else same_places(reduced, reference, images)
            for batch in BATCHES[: 1 if small or form == "channel" else None]:
                answers = reduced(images[:batch])
                about = {"model": name, "schedule": title, "dtype": identity["dtype"], "form": form, "batch": batch}
                error, finite = relative(answers, wanted[:batch]), bool(answers.isfinite().all())
                entries.append({**about, "error": error, "finite": finite, "same_places": same, "backbone": backbone})
    return identity, entries, refused


def embed(title: str, model: nn.Module) -> nn.Module:
    """A merge embedding of a model: from its keys, or random."""
    shape = shape_of(model)
    torch.manual_seed(5)
    from_keys = "from keys" in title
    embedding = MergeEmbedding.from_keys(model) if from_keys else MergeEmbedding(shape.depth, shape.width, WIDTH)
    weight = next(model.parameters())
    return embedding.to(weight.device, weight.dtype)


def recursive(model: nn.Module) -> nn.Module:
    """Recursive blocks for a model, their routers random."""
    torch.manual_seed(5)
    blocks = RecursiveBlocks.from_backbone(model, steps=3).requires_grad_(False)
    for router in blocks.routers:
        nn.init.normal_(router.layer.weight)
    weight = next(model.parameters())
    return blocks.to(weight.device, weight.dtype)


def named(schedule: Schedule, adapters: Mapping[str, Any]) -> Schedule:
    """The schedule with the names of the trained weights that it needs."""
    document = schedule.to_dict()
    if document.get("merging", {}).get("metric") == "decoupled":
        embedding = adapters["merging"]
        document["merging"] |= {"embedding": embedding.name, "embedding_width": embedding.width}
    if "recursion" in document:
        document["recursion"]["weights"] = adapters["recursion"].name
    return Schedule.from_dict(document)


def same_places(reduced: ReducedViT, reference: ReducedViT, images: Tensor) -> float:
    """The share of tokens that end up where they do in float64."""
    here, there = reduced.forward_tokens(images).source, reference.forward_tokens(images.double()).source
    if here is None or there is None:
        return 1.0
    return float((here == there).float().mean())


def relative(answers: Tensor, wanted: Tensor) -> float:
    """The norm of the difference over that of what is wanted."""
    return float((answers.double() - wanted.double()).norm() / wanted.double().norm())


def summarise(entries: list[Row]) -> Row:
    """For each type the errors in brief, those that are worst, and those that should not be."""
    summary = {}
    for dtype in DTYPES:
        name = str(dtype).removeprefix("torch.")
        some = [one for one in entries if one["dtype"] == name]
        if not some:
            continue
        decided = [one for one in some if one["same_places"] == 1]
        limit = STRICT.get(dtype)
        summary[name] = {
            "compared": len(some),
            "not_finite": [one for one in some if not one["finite"]],
            "median_error": statistics.median(one["error"] for one in some),
            "decided_alike": len(decided),
            "worst_decided_alike": max((one["error"] for one in decided), default=None),
            "above_limit": [one for one in decided if limit is not None and not one["error"] <= limit],
            "worst": sorted(some, key=lambda one: -one["error"])[:WORST],
        }
    return summary


def compare_attention(device: torch.device, task: Task) -> Iterator[Row]:
    """Weighted attention in each form, type and awkward shape, against a softmax that is spelled out in float64."""
    generator = torch.Generator().manual_seed(2)
    for form in forms(device):
        for dtype in DTYPES:
            for queries, tokens in ((197, 197), (1, 197), (65, 65), (3, 3), (2, 7), (1, 2)):
                if task.left < 0.3 * task.seconds:
                    yield {"form": form, "dtype": str(dtype), "skipped": "no time was left"}
                    return
                q, k, v = (
                    torch.randn(3, 3, count, 64, generator=generator).to(device, dtype) for count in (queries, tokens, tokens)
                )
                log_sizes = torch.randint(1, 17, (3, 1, 1, tokens), generator=generator).log().to(device, dtype)
                about = {"form": form, "dtype": str(dtype).removeprefix("torch."), "queries": queries, "tokens": tokens}
                yield {**about, **_attended(q, k, v, log_sizes, form)}


@torch.inference_mode()
def _attended(q: Tensor, k: Tensor, v: Tensor, log_sizes: Tensor, form: Form) -> Row:
    start = time.perf_counter()
    try:
        mixed = weighted_attention(q, k, v, log_sizes, scale=0.125, dropout=0.0, form=form)
        finite = bool(mixed.isfinite().all())  # waits for the device
    except Exception as error:  # a kernel that there is not, or that does not compile
        return {"failed": f"{type(error).__name__}: {str(error)[:300]}", "seconds": round(time.perf_counter() - start, 2)}
    taken = time.perf_counter() - start
    logits = 0.125 * q.double() @ k.double().mT + log_sizes.double()
    wanted = logits.softmax(-1) @ v.double()
    return {"error": relative(mixed, wanted), "finite": finite, "graphs": graphs(), "seconds": round(taken, 2)}


def compare_real(device: torch.device, task: Task) -> Iterator[Row]:
    """Whole models as `vittle.apply` runs them, in the form of attention that is fastest here."""
    for name in ("test_vit",) if task.small else REAL:
        model = lively(name, num_classes=100).to(device)
        for dtype in DTYPES:
            if task.left < SPARE:
                yield {"model": name, "skipped": "no time was left"}
                return
            rounded = copy.deepcopy(model).to(dtype)
            yield {"model": name, "dtype": str(dtype).removeprefix("torch."), **_real(rounded, copy.deepcopy(rounded).double())}
    if task.left > SPARE:  # nobody is promised float64, and still it should choose a form that runs
        yield {"dtype": "float64", "form": fastest_form(device, torch.float64, 3, 64, 197)}


@torch.inference_mode()
def _real(rounded: nn.Module, exact: nn.Module) -> Row:
    images, schedule = random_images(rounded, 5), vittle.presets.constant(rounded, 9)
    start = time.perf_counter()
    reduced = ReducedViT(rounded, schedule)
    answers, plain = reduced(images), rounded(images)
    reference = ReducedViT(exact, schedule, form="mask")
    return {
        "form": reduced.form,
        "identity": float((ReducedViT(rounded, Schedule())(images) - plain).abs().max() / plain.abs().max()),
        "backbone": relative(plain, exact(images.double())),
        "error": relative(answers, reference(images.double())),
        "same_places": same_places(reduced, reference, images),
        "finite": bool(answers.isfinite().all()),
        "graphs": graphs(),
        "seconds": round(time.perf_counter() - start, 1),
    }


def graphs() -> int:
    """How many graphs torch has compiled in this process."""
    counters: Any = torch._dynamo.utils.counters
    return int(counters["stats"]["unique_graphs"])
