"""Train the embedded backbone: a small Vision Transformer on the scanned digits, in minutes on two cores."""

import json
from pathlib import Path

import torch
from safetensors.torch import save

from vittle.reductions import digits
from vittle.reductions.backbone import untrained_digits
from vittle.spaces.files import check_writable, write_at_once
from vittle.training.supervised import Augmentation, accuracy, fit

# Chosen on "search" alone, for the accuracy on all tokens and on a random half of them.
EPOCHS = 140
BATCH_SIZE = 32
MIXUP = 0.3
DROPPED = 0.5  # share of the patch tokens left out at random while training: about half the time


def train(output: Path, *, epochs: int | None = None, seed: int = 0, progress: bool = True) -> dict[str, float]:
    """Reproduce the shipped file: fit the model on "train", write `output`, return the accuracy (0 to 1) on each split.

    The accuracies are those of the weights as they are written, rounded to float16. All of it runs on one thread, because
    another number of threads rounds differently and so ends at other weights.

    Raises:
        VittleError: the file cannot be written.
    """
    check_writable(output)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _train(output, epochs or EPOCHS, seed, progress=progress)
    finally:
        torch.set_num_threads(threads)


def _train(output: Path, epochs: int, seed: int, *, progress: bool) -> dict[str, float]:
    parts = digits.splits()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = untrained_digits(patch_drop_rate=DROPPED)
    fit(
        model,
        *parts["train"],
        epochs=epochs,
        mean=digits.MEAN,
        std=digits.STD,
        batch_size=BATCH_SIZE,
        augmentation=Augmentation(mixup=MIXUP),
        seed=seed,
        progress=progress,
    )
    weights = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    model.load_state_dict(weights)  # back to float32, rounded
    reached = {name: accuracy(model, *part, mean=digits.MEAN, std=digits.STD) for name, part in parts.items()}
    metadata = {
        "architecture": digits.ARCHITECTURE,
        "arguments": json.dumps(digits.ARGUMENTS),
        "accuracy": json.dumps(reached),
        "command": f"vittle train backbone --output {output.name}",
        "epochs": str(epochs),
        "seed": str(seed),
    }
    write_at_once(output, save(weights, metadata), "give --output a file in an existing folder")
    return reached
