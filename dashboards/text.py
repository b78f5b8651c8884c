"""Numbers and names as people read them, the same on the pages and in the terminal."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vittle.objectives.measurement import LatencyBudget, Measurement
from vittle.objectives.paired import Interval
from vittle.objectives.phase import PhaseChange
from vittle.objectives.profile import LatencyProfile
from vittle.objectives.provenance import hardware
from vittle.storage.records import MORE, Growth, Trial

MARKS = {
    "~": "predicted from the latency profile, not measured",
    "!": "noisy: something disturbed the measurement",
    "†": "estimated from the images seen before the trial was stopped",
}
STRETCHES = 3  # of free tokens that a sentence names


def percent(share: float, digits: int = 1) -> str:
    """0.978 is 97.8%."""
    return f"{100 * share:.{digits}f}%"


def milliseconds(value: float) -> str:
    """Three significant digits: 3.91 ms, 128 ms."""
    return f"{value:.0f} ms" if value >= 100 else f"{value:#.3g} ms"


def macs(value: float) -> str:
    """4.61 G or 34.2 M."""
    return f"{value / 1e9:.2f} G" if value >= 1e9 else f"{value / 1e6:.1f} M"


def tokens(counts: Sequence[int]) -> str:
    """Tokens after each block, the middle of a deep model left out: 65 65 … 9 1."""
    shown = [str(count) for count in counts]
    return " ".join(shown if len(shown) <= 5 else [*shown[:2], "…", *shown[-2:]])


def budget(limit: LatencyBudget) -> str:
    """60% of the backbone, or 4ms per batch."""
    return f"{limit} of the backbone" if limit.relative else f"{limit} per batch"


def plain(text: str) -> str:
    """A name without control characters, which a terminal would obey."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def merge_start(phase: PhaseChange) -> str:
    """Where merging may start, and how sure that is. Blocks are counted from 1."""
    dense = "no dense block" if phase.start == 0 else "1 dense block" if phase.start == 1 else f"{phase.start} dense blocks"
    where = f"in block {phase.start + 1} of {phase.depth}, after {dense}"
    if not phase.detected:
        return (
            "Similarity shows no lasting rise from a minimum in the first half of the blocks. "
            f"By rule of thumb, a sixth of the depth, merging may start {where}."
        )
    span = f"block {phase.low + 1}" + (f" to {phase.high + 1}" if phase.high > phase.low else "")
    return f"Merging may start {where} (95% interval: {span}; {phase.images} images)."


def predicted(measured: Measurement) -> bool:
    """Whether a value comes out of a latency profile."""
    return measured.protocol.get("source") == "predicted"


def estimated(measured: Measurement) -> int | None:
    """Of how many images a value is an estimate, that was told from fewer of them; None where it is of those it has seen."""
    return measured.protocol.get("of")


def noise(measured: Measurement) -> str | None:
    """What disturbed a measurement; None where nothing did."""
    reason = measured.protocol.get("noisy")
    return None if reason is None else str(reason)


def mark(measured: Measurement) -> str:
    """What stands before a value that is no plain measurement; see `MARKS`."""
    return "~" if predicted(measured) else "†" if estimated(measured) else "!" if noise(measured) else ""


def marks(measured: Iterable[Measurement]) -> list[str]:
    """What the marks before these values mean, each of them once."""
    there = {mark(one) for one in measured}
    return [f"{sign} {meaning}" for sign, meaning in MARKS.items() if sign in there]


def device(environment: Mapping[str, Any]) -> str:
    """AMD EPYC, 2 threads."""
    return plain(hardware(environment))


def staircase(profile: LatencyProfile) -> str:
    """What a dense block takes with all tokens and with half of them, and which tokens cost no time."""
    block, ms = profile.block, profile.backbone_ms
    whole, half = profile.shape.tokens, round(profile.shape.tokens / 2)
    images = profile.protocol["batch_size"]
    batch = "1 image" if images == 1 else f"{images} images"
    taken = (
        f"A dense block takes {milliseconds(ms * block.at(whole))} for {batch} with all {whole} tokens, "
        f"{milliseconds(ms * block.at(half))} with half of them."
    )
    widest = sorted(profile.flats, key=lambda flat: flat[0] - flat[1])[:STRETCHES]
    if not widest:
        return taken
    first, *others = [f"{low} to {high}" for low, high in sorted(widest)]
    more = len(profile.flats) - len(widest)
    listed = "".join(f", and so do {other}" for other in others) + (f" (and {more} shorter stretches)" if more else "")
    return f"{taken} {first} tokens cost the same time{listed}."


def trust(profile: LatencyProfile) -> str:
    """How good predictions are on schedules that they were not fitted to, and whether they are used."""
    checks = len(profile.checks)
    if not checks:
        return "Its predictions were not checked, so every latency is measured."
    off = f"Predictions for {checks} held-out schedules are {percent(profile.mape)} off on average"
    used = "so they are used" if profile.trusted else "too far off to be used, so every latency is measured"
    return f"{off} (rank correlation {profile.spearman:.3f}), {used}."


def latency(profile: LatencyProfile) -> str:
    """What a latency profile says, in two or three sentences."""
    waits = " The device waits for the host: a larger batch, or --compile, gains more here." if profile.launch_bound else ""
    return f"{staircase(profile)} {trust(profile)}{waits}"


def over_depth(shares: Mapping[str, float]) -> dict[str, list[float]]:
    """Of parameters that every block has one of, `merging.kept.0` and so on: what each block's is worth, by their name."""
    found: dict[str, dict[int, float]] = {}
    for parameter, share in shares.items():
        name, _, block = parameter.rpartition(".")
        if block.isdecimal():
            found.setdefault(name, {})[int(block)] = share
    return {name: [blocks[block] for block in sorted(blocks)] for name, blocks in found.items()}


def optimism(found: Interval) -> str:
    """How much more the front loses on images that no search saw."""
    sure = found.low > 0 or found.high < 0
    side = "more" if found.value >= 0 else "less"
    why = " (winner's curse)" if found.low > 0 else "" if sure else ", which may be chance"
    half = percent((found.high - found.low) / 2)
    return (
        f"On images that the search never saw, the front loses {percent(abs(found.value))} ± {half} {side} "
        f"than on those it chose by{why}."
    )


def outlook(grown: Growth) -> str:
    """What more trials are expected to add."""
    expected = grown.outlook
    return (
        f"Another {MORE} trials are expected to add {percent(expected.gain)} (at most {percent(expected.high)}) "
        f"to the front's hypervolume, {percent(grown.volume)} now."
    )


def worst_class(trial: Trial) -> str | None:
    """The class that loses most against the backbone, on the images that no search saw where they were looked at."""
    phase = "confirmation" if trial.confirmed else "search"
    drop = trial.measurements.get(phase, {}).get("accuracy_drop")
    worst = [] if drop is None else drop.protocol.get("worst", [])
    if not worst:
        return None
    index, lost, images = worst[0]
    return f"Loses most in class {index}: {percent(lost)} of {images} {'image' if images == 1 else 'images'}."
