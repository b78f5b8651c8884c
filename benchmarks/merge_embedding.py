"""The learned merge embedding (DTEM, arXiv 2412.10569) against the attention's keys, on the embedded digits.

    python benchmarks/merge_embedding.py         about a minute and a half on two idle CPU cores

The embedding is trained as `vittle train merge-embedding` does by default: modular, on a frozen backbone, on the training
digits, its best epoch chosen on the search digits. It is then compared with the keys at several constant schedules, also on the
held-out digits, which decided nothing. Expected: at half the tokens and where it was trained it answers at least as many search
digits as the keys do; these digits are nearly all answered, so that differences are of single images.

`benchmarks/results/merge_embedding.json` holds `environment`, `rows` (mode, images, tokens merged per block, tokens left, how
many answers are right by each metric and of how many) and `summary`.
"""

import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from report import environment, write
from vittle import presets, tokens
from vittle.objectives.quality.accuracy import predict
from vittle.reductions import digits
from vittle.reductions.backbone import load_backbone
from vittle.reductions.vit import ReducedViT
from vittle.training import merge_embedding

REMOVED = (3, 6, 8, 12, 16, 20)  # 3 leaves 29 of 65 tokens, 6 is where it is trained
HALF = 3


def compare(
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training digits.")] = merge_embedding.EPOCHS_ON_DIGITS,
    output: Annotated[Path, typer.Option(help="The file to write.")] = Path(__file__).parent
    / "results"
    / "merge_embedding.json",
) -> None:
    """Train a merge embedding on the digits and compare it with the keys."""
    backbone, parts, device = load_backbone(), digits.splits(), torch.device("cpu")
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "embedding.safetensors"
        trained = merge_embedding.train(backbone, parts["train"], parts["search"], output=file, epochs=epochs)
    seconds = time.perf_counter() - start
    embedding = trained.embedding
    rows: list[dict[str, Any]] = []
    for removed in REMOVED:
        key = presets.constant(backbone.model, removed)
        by_metric = {"key": key, "decoupled": merge_embedding.decoupled(key, embedding)}
        for images in ("search", "held-out"):
            pixels, labels = parts[images]
            row = {"mode": embedding.mode, "images": images, "removed": removed, "left": tokens(backbone.model, key)[-1]}
            for metric, schedule in by_metric.items():
                model = ReducedViT(backbone.model, schedule, {"merging": embedding}, form="mask")
                row[metric] = int((predict(model, pixels, backbone.preprocessing, device) == labels).sum())
            rows.append({**row, "n": len(labels)})
            print(" ".join(f"{name} {value}" for name, value in rows[-1].items()), flush=True)
    judged = [row for row in rows if row["images"] == "search" and row["removed"] in (HALF, embedding.metadata["removed"])]
    summary = {
        "aim": "at half the tokens and where it was trained, at least as many search digits right as by the keys",
        "met": all(row["decoupled"] >= row["key"] for row in judged),
        "embedding": embedding.name,
        "epochs": epochs,
        "training_seconds": round(seconds, 1),
    }
    write(output, {"environment": environment(device), "rows": rows, "summary": [summary]})
    print(f"{summary['aim']}: {summary['met']}; trained in {summary['training_seconds']} s")


if __name__ == "__main__":
    typer.run(compare)
