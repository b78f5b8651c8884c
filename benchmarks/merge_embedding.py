"""The learned merge embedding (DTEM, arXiv 2412.10569) against the attention's keys, on photographs.

    python benchmarks/merge_embedding.py photographs.npz      25 minutes on an idle thread, see `photographs.py` for the file

The embedding is trained as `vittle train merge-embedding` trains it by default: modular, on a frozen backbone, the rate drawn
anew in each step, on the 28,000 photographs to train on; 2,000 of those to search on choose the epoch. It is compared with the
keys on the 4,000 that are held out and chose nothing, at six constant schedules: as published at equal tokens, and at equal
MACs, for which the keys keep a few tokens more, because to make the embedding takes MACs too. The verdict is of equal MACs.
Before training it merges as the keys do. Not on the embedded digits: nearly all of them are answered by both.

What is trained lies beside the photographs, so that the same command goes on where it was interrupted, and trains nothing
where it had ended. `benchmarks/results/merge_embedding.json` holds `environment`, `rows` (tokens that it merges per block, what
is `equal`, share of the backbone's MACs of both, how many of n images each answers rightly and alone, the difference of
accuracy with its 95 % interval, and the exact paired p) and `summary`.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

import photographs
from report import environment, run_command, write
from vittle import presets
from vittle.objectives.quality import paired
from vittle.objectives.quality.images import Images, TrainingSplits
from vittle.reductions.backbone import Backbone, load_backbone
from vittle.reductions.merge_embedding import MergeEmbedding
from vittle.reductions.verdict import Comparison, Verdict
from vittle.reductions.vit import ReducedViT
from vittle.spaces import costs
from vittle.spaces.schedule import Schedule
from vittle.training import merge_embedding
from vittle.training.judging import Judge, LabelledImages, Parts

REMOVED = (4, 6, 8, 10, 12, 16)  # tokens per block: 61 to 20 % of the MACs
EPOCHS = 6
VALIDATION = 2000
HERE = Path(__file__).parent


def compare(
    images: Annotated[Path, typer.Argument(help="The photographs, see photographs.py.")],
    backbone: Annotated[Path, typer.Option(help="Weights that were trained on them.")] = HERE / "photographs.safetensors",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the photographs to train on.")] = EPOCHS,
    output: Annotated[Path, typer.Option(help="The file to write.")] = HERE / "results" / "merge_embedding.json",
) -> None:
    """Train a merge embedding on photographs and compare it with the keys."""
    model = load_backbone(checkpoint=backbone)
    splits = photographs.training_splits(images, VALIDATION)
    embedding = _trained(model, splits, images.with_suffix(".embedding.safetensors"), epochs)
    judge = Judge(model.model, _labelled(splits.verdict), model.preprocessing)
    rows: list[dict[str, Any]] = []
    compared: list[Comparison] = []
    for removed in REMOVED:
        learned = merge_embedding.decoupled(presets.constant(model.model, removed), embedding)
        macs = costs.macs(model.shape, learned)
        rivals = {
            "tokens": presets.constant(model.model, removed),
            "macs": merge_embedding.as_dear(model.shape, removed, macs),
        }
        models = [ReducedViT(model.model, one, {"merging": embedding}, form="mask") for one in (learned, *rivals.values())]
        ours, *theirs = map(judge.right, models)
        for (equal, rival), right in zip(rivals.items(), theirs, strict=True):
            shares = [costs.macs(model.shape, one) / costs.macs(model.shape, Schedule()) for one in (learned, rival)]
            comparison = Comparison.of(f"{shares[0]:.0%}", ours, right)
            rows.append({"removed": removed, "equal": equal, **_row(shares, comparison, paired.difference(ours, right))})
            print(" ".join(f"{name} {value}" for name, value in rows[-1].items()), flush=True)
        compared.append(comparison)  # that of equal MACs
    verdict = Verdict(rival=MergeEmbedding.rival, comparisons=tuple(compared))
    worth_it, sentence = verdict.tell("it", "the search keeps metric key")
    summary = {
        "aim": "beats the keys at equal MACs and at one of the rates at least, on images that chose nothing",
        "met": worth_it,
        "sentence": sentence,
        "embedding": embedding.name,
        "epochs": embedding.metadata["epochs"],
        "best_epoch": embedding.metadata["best_epoch"],
        "images": {"train": len(splits.train), "validation": len(splits.validation), "verdict": len(splits.verdict)},
    }
    write(output, {"environment": environment(torch.device("cpu")), "rows": rows, "summary": [summary]})
    print(sentence)


def _trained(backbone: Backbone, splits: TrainingSplits, file: Path, epochs: int) -> MergeEmbedding:
    if file.exists():
        return MergeEmbedding.load(file, backbone)
    parts = Parts(*map(_labelled, (splits.train, splits.validation, splits.verdict)))
    return merge_embedding.train(backbone, parts, output=file, epochs=epochs).embedding


def _row(shares: Sequence[float], comparison: Comparison, difference: paired.Interval) -> dict[str, Any]:
    decoupled, key = (round(share, 4) for share in shares)
    return {
        "macs": {"decoupled": decoupled, "key": key},
        "n": comparison.images,
        "decoupled": comparison.right,
        "key": comparison.rival_right,
        "only_decoupled": comparison.ours,
        "only_key": comparison.theirs,
        "difference": [round(value, 4) for value in difference],
        "p": float(f"{comparison.p_value:.2g}"),
    }


def _labelled(images: Images) -> LabelledImages:
    return images.pixels, images.labels


def main() -> None:
    """Run the benchmark; bad input is one line on stderr and exit code 2."""
    torch.set_num_threads(1)  # another number of threads rounds differently and so ends at other weights
    run_command(partial(typer.run, compare))


if __name__ == "__main__":
    main()
