"""How fast the study page is, from the database to the screen, by the trials of the study.

    python benchmarks/dashboard.py
    python benchmarks/dashboard.py --quick    seconds: that it works, not how well

Studies are synthetic (`tests/dashboard_study.py`), the database is SQLite, the server is the real one in this process, and the
browser is headless Chromium on the same machine.

`benchmarks/results/dashboard.json` holds `environment`, `rows`, one for each size of study, and `summary`, the largest one.
All times are medians in milliseconds. Of the server: `first_ms` for the JSON twin of a study that nobody has looked at,
`changed_ms` where one trial has come since, `kept_ms` where nothing has. Of the page, where neither server nor browser know
anything of it: `contentful_ms` from navigation to the first text on the screen, `first_painted_ms` to the chart with every
trial; `painted_ms` to the chart where the page is visited again, `slider_ms` from a move of the budget to the next frame after
it, and `told_ms` from the commit of a trial to its point in the chart of an open page.
"""

import gc
import gzip
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from playwright.sync_api import Browser, Page, sync_playwright

from report import environment, write
from vittle.dashboards.pages import studies
from vittle.dashboards.pages.cache import CachedDocument, Watch
from vittle.dashboards.server import COLLECT_AFTER
from vittle.storage.store import Store

sys.path.append(str(Path(__file__).parent.parent / "tests" / "support"))
from browsing import CHROMIUM, CHROMIUM_OPTIONS, serving
from dashboard_study import Synthetic

TRIALS = (40, 1_000, 5_000)
REPEATS = 5
WINDOW: Any = {"width": 1400, "height": 1000}
PAINTED = "() => document.querySelectorAll('#chart .scatterlayer .point').length > 10 && performance.now()"
CONTENTFUL = "() => performance.getEntriesByName('first-contentful-paint')[0].startTime"
DRAWN = "trial => chart.data.some(({ customdata }) => customdata?.includes(trial))"
MOVED = """async () => {
    const slider = document.querySelector("input[type=range]");
    if (!slider) return null;
    const times = [];
    for (let turn = 1; turn <= 9; turn += 1) {
        const begin = performance.now();
        slider.value = Number(slider.min) + (Number(slider.max) - Number(slider.min)) * turn / 10;
        slider.dispatchEvent(new Event("input", { bubbles: true }));
        await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
        times.push(performance.now() - begin);
    }
    return times.sort((one, other) => one - other)[4];
}"""
OUTPUT = Path(__file__).parent / "results" / "dashboard.json"


def measured(folder: Path, trials: int, repeats: int, browser: Browser) -> dict[str, Any]:
    """The row of a study with so many trials, which is running."""
    store = Store.open(f"sqlite:///{folder}/{trials}.db", create=True)
    synthetic = Synthetic(store, "study", trials=trials)
    synthetic.fill(trials, "running")
    row = {"trials": trials, **of_server(store, synthetic, repeats), **of_page(store, synthetic, repeats, browser)}
    store.engine.dispose()
    return row


def of_server(store: Store, synthetic: Synthetic, repeats: int) -> dict[str, Any]:
    """What the JSON twin takes."""
    first = [took(lambda: document(Watch(store))) for _ in range(repeats)]
    watch = Watch(store)
    twin = document(watch)
    kept = [took(lambda: document(watch)) for _ in range(repeats)]
    changed = []
    for _ in range(repeats):
        time.sleep(max(0.0, document(watch).until - time.monotonic()))  # a heavy one is not made at once again
        synthetic.add(synthetic.proposal(), "sampler")
        changed.append(took(lambda: document(watch)))
    return {
        "first_ms": median(first),
        "changed_ms": median(changed),
        "kept_ms": median(kept),
        "json_bytes": len(gzip.decompress(twin.body)),
        "sent_bytes": len(twin.body),
    }


def of_page(store: Store, synthetic: Synthetic, repeats: int, browser: Browser) -> dict[str, Any]:
    """What a reader waits for."""
    first, contentful = [], []
    for _ in range(repeats):
        with serving(store) as address:
            context = browser.new_context(viewport=WINDOW)
            page = context.new_page()
            first.append(painted(page, f"{address}/studies/study"))
            contentful.append(page.evaluate(CONTENTFUL))
            context.close()
    with serving(store) as address:
        page = browser.new_context(viewport=WINDOW).new_page()
        again = []
        for _ in range(repeats + 1):
            again.append(painted(page, f"{address}/studies/study"))
            page.goto("about:blank")
        page.goto(f"{address}/studies/study")
        page.wait_for_function(PAINTED)
        moved = page.evaluate(MOVED)
        told = []
        for _ in range(repeats):
            page.wait_for_timeout(2000)
            number = synthetic.add_best()
            begin = time.perf_counter()
            page.wait_for_function(DRAWN, arg=number)
            told.append(time.perf_counter() - begin)
        page.context.close()
    return {
        "contentful_ms": round(statistics.median(contentful), 1),
        "first_painted_ms": round(statistics.median(first), 1),
        "painted_ms": round(statistics.median(again[1:]), 1),
        "slider_ms": None if moved is None else round(moved, 1),
        "told_ms": median(told),
    }


def document(watch: Watch) -> CachedDocument:
    """The JSON twin of the study page."""
    return watch.document("study", "twin", lambda snapshot: studies.twin(watch.store, snapshot.study, snapshot.trials))


def painted(page: Page, url: str) -> float:
    """Milliseconds from navigation to the chart."""
    page.goto(url, wait_until="commit")
    found: float = page.wait_for_function(PAINTED).json_value()
    return found


def took(act: Callable[[], object]) -> float:
    """Seconds."""
    begin = time.perf_counter()
    act()
    return time.perf_counter() - begin


def median(seconds: list[float]) -> float:
    """In milliseconds."""
    return round(1e3 * statistics.median(seconds), 2)


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Check that it works.")] = False,
    output: Annotated[Path, typer.Option(help="Where to write.")] = OUTPUT,
) -> None:
    """Measure and write."""
    gc.set_threshold(COLLECT_AFTER)  # as `vittle dashboard` does
    rows = []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
        for trials in (40,) if quick else TRIALS:
            rows.append(measured(Path(folder), trials, 1 if quick else REPEATS, browser))
            print(rows[-1], flush=True)
        browser.close()
    write(output, {"environment": environment(torch.device("cpu")), "rows": rows, "summary": rows[-1]})


if __name__ == "__main__":
    typer.run(main)
