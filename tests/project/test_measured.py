"""Every number on a page about a reduction, or about watching one, is in the file of its benchmark."""

import json
import re
import statistics
from typing import Any

from static_checks import ROOT

BACKBONES = ("photographs", "digits")


def results(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))
    return document


def missing(said: list[str], page: str) -> list[str]:
    """Which of some sentences a page lacks, however its lines break."""
    text = " ".join(page.split())
    return [words for words in said if words not in text]


def test_every_number_on_sparse_attention_is_in_the_benchmarks_file() -> None:
    document, page = results("sparsity"), (ROOT / "docs" / "sparsity.md").read_text(encoding="utf-8")
    rows, shares = document["quality"]["rows"], (0.25, 0.1, 0.05)

    def mean(key: str = "agree", **about: object) -> str:
        found = [row for row in rows if about.items() <= row.items()]
        assert found, about
        return f"{100 * sum(row[key] for row in found) / sum(row['n'] for row in found):.1f}"

    def means(key: str = "agree", **about: object) -> list[str]:
        return [mean(key, share=share, **about) for share in shares]

    def listed(numbers: list[str]) -> str:
        return f"{numbers[0]}, {numbers[1]} and {numbers[2]} %"

    photographs = {"backbone": "photographs", "form": "keys"}
    table = re.findall(r"^\| (\w*) \| (`sampled`|`trained`|random keys) \| (.+?) \| ([\d.]*) \|$", page, re.MULTILINE)
    assert len(table) == 9
    for at, (_, chosen, numbers, nothing) in enumerate(table):
        about = {**photographs, "rests": table[at - at % 3][0]}
        selection = chosen.strip("`").removesuffix(" keys")
        assert numbers.split(" | ") == means(**about, selection=selection)
        assert nothing in ("", mean(**about, selection="nothing"))
    sampled = [row for row in rows if row.get("selection") == "sampled" and "agree_less_random" in row]
    beyond = [
        least > 0
        for row in sampled
        if row["backbone"] == "photographs"
        for _, least, _ in (*row["agree_less_random"], *row["agree_less_nothing"])
    ]
    assert len(beyond) == 9 * 4
    assert all(beyond)
    said = [f"answers {mean('right', backbone='photographs', form='dense')} % of 2,000 held-out images rightly"]
    by = {(row["backbone"], row["rests"], row["share"]): row["agree"] for row in sampled}
    trained = [row for row in rows if row.get("selection") == "trained"]
    ahead = max((row["agree"] - by[row["backbone"], row["rests"], row["share"]]) / row["n"] for row in trained)
    said.append(f"No seed of `trained` is ahead of it by more than {100 * ahead:.1f} points")
    for rests in ("2x2", "4x4"):
        accuracy = [listed(means("right", **photographs, rests=rests, selection=one)) for one in ("sampled", "random")]
        said.append(f"ith {rests} rests: {accuracy[0]}, and with random keys {accuracy[1]}")
    said.append(
        f"answers {listed(means(backbone='digits', form='keys', rests='2x2', selection='sampled'))} of 449 images as before"
    )
    queries = {"backbone": "photographs", "form": "queries"}
    one, none = ({**queries, "rests": rests} for rests in ("one", "none"))
    said.append(f"With one rest {listed(means(**one, selection='fitted'))} are answered")
    said.append(f"the exact attention of each query ({listed(means(**one, selection='attention'))})")
    said.append(f"Without a rest they are {listed(means(**none, selection='fitted'))}")
    said.append(f"and with random keys {listed(means(**none, selection='random'))}. The published basis")
    assert missing(said, page) == []
    speeds = re.findall(r"^\| (deit_\w+), (\d+) px \| (.+) \|$", page, re.MULTILINE)
    assert len(speeds) == 4
    for model, size, numbers in speeds:
        found = {
            (row["batch"], row["share"]): f"{row['speedup']:.2f}"
            for row in document["speed"]["rows"]
            if (row["model"].split("_patch")[0], row["size"], row["rests"]) == (model, int(size), "2x2")
        }
        assert numbers.split(" | ") == [found[batch, share] for batch in (1, 8) for share in shares]


WORST_CASES = {
    "as they are": (None, 0.0),
    "black": ("blank", 0.0),
    "grey": ("blank", 0.5),
    "noise of 0.3": ("noise", 0.3),
    "noise of 1": ("noise", 1.0),
    "turned by a quarter": ("turned", 1),
    "over-exposed 3 times": ("exposure", 3.0),
    "inverted": ("inversion", 1.0),
    "blurred by 4 % of the side": ("blur", 0.04),
    "a fifth of the contrast": ("contrast", 0.2),
}


def test_every_number_on_watching_is_in_the_benchmarks_file() -> None:
    document, page = results("watching"), (ROOT / "docs" / "watching.md").read_text(encoding="utf-8")
    watched = [(name, window) for name in ("merging", "recursion") for window in (56, 200)]

    def rows(part, **about):
        return [row for row in document[part]["rows"] if about.items() <= row.items()]

    def percent(share):
        return f"{100 * share:.1f}"

    def fallen(row):
        """How many are answered rightly after falling back, in bold where the difference is beyond its interval."""
        _, low, high = row["uniform_less_scheduled"]
        return f"**{percent(row['uniform'] / row['n'])}**" if low > 0 or high < 0 else percent(row["uniform"] / row["n"])

    lines = []
    for name, window in watched:
        (row,) = rows("false_alarms", schedule=name, window=window)
        over, low, high, worst = map(percent, (row["over"], *row["interval"], row["worst"]))
        lines.append(
            f"| {name} | {window} | {over} % | {low} to {high} % | {worst} % | {row['alarms']} of {row['orders']:,} orders |"
        )
    for name, case in WORST_CASES.items():
        found = [row for row in rows("worst_cases", window=56) if (row["kind"], row["strength"]) == case]
        backbone, mean, full = found
        assert [row["fall_back"] for row in found] == ["backbone", "mean depth", "full depth"]
        scheduled = [percent(row["scheduled"] / row["n"]) for row in (backbone, mean)]
        numbers = [backbone["seen"], scheduled[0], fallen(backbone), mean["seen"], scheduled[1], fallen(mean), fallen(full)]
        lines.append(f"| {name} | {' | '.join(map(str, numbers))} |")
    for share in (0.0, 0.02, 0.05, 0.1, 0.2, 0.5):
        seen = [row["seen"] for name, window in watched for row in rows("dilution", schedule=name, window=window, share=share)]
        lines.append(f"| {f'{share:.0%}'[:-1]} % | {' | '.join(map(str, seen))} |")
    for label, mode in (("as scheduled", "scheduled"), ("fallen back", "uniform")):
        times = [
            "{:.2f} ({:.2f} to {:.2f})".format(row["ratio"], *row["interval"])
            for router in (None, "learned", "random")
            for row in rows("speed", router=router, mode=mode)
        ]
        lines.append(f"| {label} | {' | '.join(times)} |")
    assert missing(lines, page) == []
    measured = page.split("## What was measured")[1].split("\n## ")[0]
    assert measured.count("\n|") == len(lines) + 4 * 2  # four tables, each with its head

    cases = rows("worst_cases", window=56)
    macs = {row["fall_back"]: [f"{share:.0%}"[:-1] for share in row["macs"]] for row in cases}
    (free,) = rows("speed", router="random", mode="scheduled")
    said = [
        f"merging takes {macs['backbone'][0]} % of its MACs, the recursion {macs['mean depth'][0]} %",
        f"the mean depth {macs['mean depth'][1]} % and the full depth {macs['full depth'][1]} %",
        f"{free['watching_macs']:,} of {free['macs']:,}",
        f"{100 * free['watching_macs'] / free['macs']:.2f} %",
    ]
    for kind in ("exposure", "contrast"):
        (row,) = [row for row in cases if (row["kind"], row["fall_back"]) == (kind, "mean depth")]
        value, low, high = (100 * value for value in row["uniform_less_scheduled"])
        said.append(f"{-value:.1f} points ({-high:.1f} to {-low:.1f})")
    assert missing(said, page) == []
    assert [row["kind"] for row in cases if row["seen"] != row["stays"]] == ["blur"]
    assert {row["halvings"] for row in cases} == {20}
    gains = [row for row in cases if row["uniform_less_scheduled"][1] > 0]
    assert [(row["kind"], row["fall_back"]) for row in gains] == [("turned", "full depth"), ("blur", "full depth")]


SHALLOW = ((4, 1.0), (4, 0.6), (4, 0.2), (3, 1.0), (2, 1.0), (1, 1.0))  # steps, and the share of the last one
DEEP = ((10, 1.0), (10, 0.2), (5, 1.0), (5, 0.2), (3, 1.0))


def test_every_number_on_recursion_is_in_the_benchmarks_file() -> None:
    document, page = results("recursion"), (ROOT / "docs" / "recursion.md").read_text(encoding="utf-8")

    def rows(part="quality", **about):
        return [row for row in document[part]["rows"] if about.items() <= row.items()]

    def rightly(**about):
        """The mean over seeds, and the lowest and the highest."""
        shares = [100 * row["right"] / row["n"] for row in rows(**about)]
        ends = f" ({min(shares):.1f} to {max(shares):.1f})" if len(shares) > 1 else ""
        return f"{statistics.mean(shares):.1f}{ends}"

    def line(title, **about):
        sizes = [f"{100 * rows(**about)[0][name]:.0f} %" for name in ("macs", "parameters")]
        return f"| {title} | {' | '.join(sizes)} | {' | '.join(rightly(backbone=one, **about) for one in BACKBONES)} |"

    def named(steps, share):
        last = "" if share == 1 else f", {100 * share:.0f} % in the last"
        return f"{steps} step{'s' * (steps > 1)}{last}"

    lines = [line("the backbone", kind="backbone")]
    for most, rates in ((4, SHALLOW), (10, DEEP)):
        about = {"kind": "recursion", "trained_for": most, "router": "random"}
        lines += [line(f"trained for {most}: {named(*rate)}", **about, steps=rate[0], share=rate[1]) for rate in rates]
    lines.append(line("student: three blocks, once", kind="student"))
    lines += [line(f"merging, as {named(*rate)}", kind="merging", steps=rate[0], share=rate[1]) for rate in SHALLOW]
    for steps, share in ((4, 0.6), (4, 0.2), (10, 0.2), (5, 0.2)):
        about = {"backbone": "photographs", "trained_for": 4 if steps == 4 else 10, "steps": steps, "share": share}
        by = [rightly(**about, router=router) for router in ("random", "learned", "norm")]
        lines.append(f"| {named(steps, share)} | {' | '.join(by)} |")
    for row in rows("speed"):
        if row["router"] == "random":
            low, high = row["interval"]
            macs = f"{100 * row['macs']:.0f} %"
            lines.append(f"| {named(row['steps'], row['share'])} | {macs} | {row['speedup']:.2f} ({low:.2f} to {high:.2f}) |")
    assert missing(lines, page) == []
    measured = page.split("## What was measured")[1].split("\n## ")[0]
    assert measured.count("\n|") == len(lines) + 3 * 2  # three tables, each with its head

    compared = [row for row in rows(backbone="photographs") if "less_random" in row]
    ahead, behind = (sum(row["less_random"][end] * sign > 0 for row in compared) for end, sign in ((1, 1), (2, -1)))
    joint = rows("search")
    known = [row for row in joint if row["jointly"] is not None]
    beyond = sum(row["less_alone"][2] < 0 for row in known)
    worst = min(row["less_alone"][0] for row in known)
    said = [
        f"Of {len(compared)} comparisons on photographs {ahead} are ahead beyond the 95 % interval, and {behind} behind",
        f"at {len(joint)} points: it is below the other one beyond the 95 % interval at {beyond}",
        f"and at worst by {-100 * worst:.1f} points",
    ]
    for name, most in (
        ("photographs", 4),
        ("photographs", 10),
        ("photographs", 1),
        ("digits", 4),
        ("digits", 10),
        ("digits", 1),
    ):
        took = [round(row["seconds"]) for row in rows(backbone=name, kind="training", trained_for=most)]
        said.append(f"{min(took)} to {max(took)} s")
    assert missing(said, page) == []
