"""Watching against its controls: how often it is wrong about ordinary images, what it sees, whether falling back helps there.

    python benchmarks/watching.py quality digits.0.recursion4.safetensors     three minutes on an idle thread
    python benchmarks/watching.py speed digits.0.recursion4.safetensors       a minute on an idle machine

The weights are those that `recursion.py quality` leaves beside the photographs. A recursion is watched, in as many steps as
it was trained for, and merging, both of the digits' backbone. The 898 images that trained nothing are halved again and again:
one half is calibrated on, the other is what enters.

`false_alarms`: it enters as it is, in one order after another. Rows say which share of its windows exceeds a threshold, on
average over all halvings with the 95 % interval of that, and in the worst of them; the control is the share that is stated.
`alarms` are the orders in which windows in a row made one. All halvings are of the same images, so the interval is of these.

`worst_cases`: its first window is spoilt in each way in which `vittle.worst_cases` spoils images. Rows say in how many halvings
that is `seen`, in how many of these uniform mode sees it too, so that it `stays`, and how many of all 898 images, spoilt alike,
are answered rightly: `scheduled`, which is to do nothing, `uniform`, which is to fall back blindly, whatever enters, and
`watched`, the one or the other as each halving's watch decides, on average. The control are the images as they are. What
falling back gains, `uniform_less_scheduled`, is paired, image by image, with its 95 % interval. `macs` are of the backbone's,
of scheduled and of uniform mode.

`dilution`: a share of the first window is noisy. The control is a window without any.

`speed`: watched models against the same ones that are not, timed in turn on one thread.

`benchmarks/results/watching.json` holds `environment`, and of each part its rows.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import typer
from numpy.typing import NDArray

import vittle
from report import keep, run_command
from vittle.objectives.latency.turns import take_turns
from vittle.objectives.measurement import NORMAL_95
from vittle.objectives.quality import paired
from vittle.objectives.quality.accuracy import to_input
from vittle.objectives.quality.corruptions import WORST, Kind, corrupted
from vittle.objectives.watching.calibration import Calibration, WatchedSignal
from vittle.objectives.watching.histograms import counted, distances
from vittle.objectives.watching.monitor import Monitor
from vittle.objectives.watching.watched import FALSE_ALARMS, Watched, calibrated
from vittle.objectives.watching.worst_cases import MODES
from vittle.reductions import digits
from vittle.reductions.backbone import Backbone, load_backbone
from vittle.reductions.data import Preprocessing
from vittle.reductions.recursive_blocks import RecursiveBlocks
from vittle.reductions.vit import ReducedViT
from vittle.spaces import costs
from vittle.spaces.recursion import Router, falling
from vittle.spaces.schedule import Schedule
from vittle.training import merge_embedding, recursion

OUTPUT = Path(__file__).parent / "results" / "watching.json"
MACS = 0.6  # of the backbone's, that merging is near to
LAST = 0.2  # of the patches, that take part in the last step of the recursion
FALL_BACKS = {"merging": ("backbone",), "recursion": ("mean depth", "full depth")}
WINDOWS = (56, 200)  # images: an eighth of those that are calibrated on, as is advised, and nearly as many as can be
STATED = 0.01  # share of windows; one as rare as the product's own needs more images to be told
HALVINGS, ORDERS = 100, 20
SEEN_IN = 20  # halvings, with thresholds as rare as the product's own
NOISE: tuple[Kind, float] = ("noise", 0.3)
ODD = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5)  # of a window
AT_ONCE = 64
BATCH, ROUNDS = 16, 31
NEVER = 10**9  # windows in a row

Weights = Annotated[Path, typer.Argument(help="A recursion of the digits' backbone, see above.")]
Output = Annotated[Path, typer.Option(help="The file to write.")]
Case = tuple[Kind | None, float]
Images = NDArray[np.int64]  # by their numbers
Signals = Sequence[WatchedSignal]
Rows = list[dict[str, Any]]
CLEAN: Case = (None, 0.0)
app = typer.Typer()


class Pass(NamedTuple):
    """What a mode makes of n images."""

    answers: NDArray[np.int64]  # (n,)
    values: list[NDArray[np.float32]]  # (n, m) of each signal

    def of(self, images: Images) -> list[NDArray[np.float32]]:
        """The values of some of them."""
        return [one[images] for one in self.values]


@app.command()
def quality(weights: Weights, output: Output = OUTPUT) -> None:
    """How often it is wrong, what it sees, and what that is good for."""
    torch.set_num_threads(1)
    backbone = load_backbone()
    blocks = RecursiveBlocks.load(weights, backbone)
    parts = [digits.splits()[name] for name in ("search", "held-out")]
    pixels, labels = (np.concatenate(one) for one in zip(*parts, strict=True))
    spoilt = {case: corrupted(pixels, *case, range(len(pixels))) for case in WORST}
    orders = [np.random.default_rng(seed).permutation(len(pixels)) for seed in range(HALVINGS)]
    halvings = [(order[: len(order) // 2], order[len(order) // 2 :]) for order in orders]
    whole = costs.macs(backbone.shape, Schedule())
    found: dict[str, Rows] = {"false_alarms": [], "worst_cases": [], "dilution": []}
    for name, fall_backs in FALL_BACKS.items():
        model = _model(backbone, blocks, name)
        some = to_input(pixels[:2], backbone.preprocessing, torch.device("cpu"))
        watches = {one: vittle.watch(model, some, window=1, full_depth=one == "full depth") for one in fall_backs}
        scheduled, *others = (
            _passes(mode, {CLEAN: pixels, **spoilt}, backbone.preprocessing)
            for mode in (model, *(_mode(one, "uniform") for one in watches.values()))
        )
        for window in WINDOWS:
            about = {"schedule": name, "weights": _weights(model), "calibrated_on": len(halvings[0][0]), "window": window}
            ordinary = next(iter(watches.values())).calibration.model_copy(update={"window": window})
            found["false_alarms"].append({**about, **_false_alarms(ordinary, model, scheduled[CLEAN], halvings)})
            shown = [entering[:window] for _, entering in halvings[:SEEN_IN]]
            limits = [calibrated(model, scheduled[CLEAN].of(calm), window, FALSE_ALARMS) for calm, _ in halvings[:SEEN_IN]]
            found["dilution"] += [{**about, **row} for row in _dilution(limits, scheduled, shown)]
            for one, uniform in zip(fall_backs, others, strict=True):
                mode = _mode(watches[one], "uniform")
                there = [calibrated(mode, uniform[CLEAN].of(calm), window, FALSE_ALARMS) for calm, _ in halvings[:SEEN_IN]]
                rows = _worst_cases((limits, there), (scheduled, uniform), shown, labels)
                share = [round(costs.macs(each.shape, each.schedule) / whole, 3) for each in (model, mode)]
                found["worst_cases"] += [{**about, "fall_back": one, "macs": share, **row} for row in rows]
    for part, rows in found.items():
        for row in rows:
            print(" ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        keep(output, part, rows)


@app.command()
def speed(weights: Weights, output: Output = OUTPUT) -> None:
    """What it takes to watch."""
    torch.set_num_threads(1)
    backbone = load_backbone()
    blocks = RecursiveBlocks.load(weights, backbone)
    pixels = digits.splits()["search"][0]
    noisy = corrupted(pixels[:BATCH], "noise", 1.0, range(BATCH))
    calm, images, odd = (to_input(one, backbone.preprocessing, torch.device("cpu")) for one in (pixels, pixels[:BATCH], noisy))
    rows = []
    for name, router in (("merging", None), ("recursion", "learned"), ("recursion", "random")):
        model = _model(backbone, blocks, name, router or "random")
        calibration = vittle.watch(model, calm, window=WINDOWS[-1]).calibration
        for mode in MODES:
            # A window of the same few images is an alarm, and the mode has to be the one that is timed.
            patience = {"alarm_after": NEVER if mode == "scheduled" else 1, "return_after": NEVER}
            watched = vittle.watch(model, calibration, **patience)
            with torch.inference_mode():
                while watched.mode != mode:
                    watched(odd)
                plain = partial(_mode(watched, mode), images)
                turns = take_turns(plain, [partial(watched, images)], torch.device("cpu"), rounds=ROUNDS)
            low, middle, high = np.quantile(turns.ratios[:, 0], (0.025, 0.5, 0.975))
            known = calibration.modes[mode]
            rows.append(
                {
                    "schedule": name, "weights": _weights(model), "router": router, "mode": mode, "batch": BATCH,
                    "macs": known.macs, "watching_macs": known.watching_macs,
                    "unwatched_ms": round(float(np.median(turns.reference)), 2), "ratio": round(float(middle), 3),
                    "interval": [round(float(low), 3), round(float(high), 3)], "noise": turns.noise,
                }
            )  # fmt: skip
            print(" ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    keep(output, "speed", rows)


def _model(backbone: Backbone, blocks: RecursiveBlocks, name: str, router: Router = "learned") -> ReducedViT:
    if name == "merging":
        return ReducedViT(backbone.model, merge_embedding.constant(backbone.shape, merge_embedding.rate(backbone.shape, MACS)))
    schedule = Schedule(recursion.recurring(blocks, falling(len(blocks.routers), LAST), router).reductions, "prefix")
    return ReducedViT(backbone.model, schedule, {"recursion": blocks})


def _weights(model: ReducedViT) -> str | None:
    """The name of what was trained; None where nothing was."""
    return next((adapter.name for adapter in model.adapters.values()), None)


def _mode(watched: Watched, name: str) -> ReducedViT:
    signalled: Any = watched.modes[name]
    model: ReducedViT = signalled.model
    return model


@torch.inference_mode()
def _passes(model: ReducedViT, seen: Mapping[Case, NDArray[np.uint8]], preprocessing: Preprocessing) -> dict[Case, Pass]:
    found = {}
    for case, pixels in seen.items():
        batches = [pixels[start : start + AT_ONCE] for start in range(0, len(pixels), AT_ONCE)]
        passed = [model.forward_signals(to_input(batch, preprocessing, torch.device("cpu"))) for batch in batches]
        logits, signals = zip(*passed, strict=True)
        values = [torch.cat(one).numpy() for one in zip(*signals, strict=True)]
        found[case] = Pass(torch.cat(logits).argmax(-1).numpy(), values)
    return found


def _false_alarms(
    ordinary: Calibration, model: ReducedViT, clean: Pass, halvings: Sequence[tuple[Images, Images]]
) -> dict[str, Any]:
    shares, alarms, scheduled = [], 0, ordinary.modes["scheduled"]
    for seed, (calm, entering) in enumerate(halvings):
        signals = calibrated(model, clean.of(calm), ordinary.window, STATED)
        modes = {**ordinary.modes, "scheduled": scheduled.model_copy(update={"signals": signals})}
        known = ordinary.model_copy(update={"modes": modes})
        histograms, rng, over, judged = _histograms(signals, clean.of(entering)), np.random.default_rng(seed), 0, 0
        for _ in range(ORDERS):
            patient, usual = Monitor(known, alarm_after=NEVER), Monitor(known)
            entered = histograms[rng.permutation(len(entering))]
            patient.take("scheduled", entered)
            alarms += len(usual.take("scheduled", entered))
            report = patient.report()
            over, judged = over + report["windows_over"], judged + report["windows"]
        shares.append(over / judged)
    mean, half = np.mean(shares), NORMAL_95 * np.std(shares, ddof=1) / np.sqrt(len(shares))
    about = {"stated": STATED, "halvings": len(halvings), "orders": len(halvings) * ORDERS, "windows": len(halvings) * judged}
    values = {"over": mean, "interval": [mean - half, mean + half], "worst": max(shares)}
    return {**about, **{key: np.round(value, 4).tolist() for key, value in values.items()}, "alarms": alarms}


def _worst_cases(
    limits: tuple[Sequence[Signals], Sequence[Signals]],
    passes: tuple[Mapping[Case, Pass], Mapping[Case, Pass]],
    shown: Sequence[Images],
    labels: NDArray[np.int64],
) -> Rows:
    """Of both modes: what is ordinary in each halving, and what they make of all images in each case."""
    rows: Rows = []
    for kind, strength in passes[0]:
        scheduled, uniform = (of[kind, strength] for of in passes)
        seen, there = (
            np.array([_over(one, of.of(images)) for one, images in zip(known, shown, strict=True)])
            for known, of in zip(limits, (scheduled, uniform), strict=True)
        )
        right, fallen = (of.answers == labels for of in (scheduled, uniform))
        watched = seen.mean() * fallen.sum() + (1 - seen.mean()) * right.sum()
        rows.append(
            {
                "kind": kind, "strength": strength, "halvings": len(seen), "seen": int(seen.sum()),
                "stays": int((seen & there).sum()), "n": len(labels), "scheduled": int(right.sum()),
                "uniform": int(fallen.sum()), "watched": round(float(watched), 1),
                "uniform_less_scheduled": [round(value, 4) for value in paired.difference(fallen, right)],
            }
        )  # fmt: skip
    return rows


def _dilution(limits: Sequence[Signals], scheduled: Mapping[Case, Pass], shown: Sequence[Images]) -> Rows:
    rows: Rows = []
    for share in ODD:
        odd = round(share * len(shown[0]))
        seen = 0
        for signals, images in zip(limits, shown, strict=True):
            parts = zip(scheduled[NOISE].of(images[:odd]), scheduled[CLEAN].of(images[odd:]), strict=True)
            seen += _over(signals, [np.concatenate(one) for one in parts])
        rows.append({"kind": NOISE[0], "strength": NOISE[1], "share": share, "odd": odd, "halvings": len(shown), "seen": seen})
    return rows


def _histograms(signals: Signals, values: Sequence[NDArray[np.float32]]) -> NDArray[np.int64]:
    return counted(values, [np.array(one.edges, np.float32) for one in signals])


def _over(signals: Signals, values: Sequence[NDArray[np.float32]]) -> bool:
    """Whether a window of images with such values is unlike what is ordinary."""
    apart = distances(_histograms(signals, values).sum(0), np.array([one.counts for one in signals]))
    return bool((apart > [one.threshold for one in signals]).any())


def main() -> None:
    """Run the benchmark; bad input is one line on stderr and exit code 2."""
    run_command(app)


if __name__ == "__main__":
    main()
