"""Photographs of 32 x 32 pixels for `search.py` and `merge_embedding.py`, and the backbone that is trained on them.

The file is the caller's: an .npz with `images` (40000, 32, 32, 3) of bytes and `labels` (40000,) of ten classes, for example of
CIFAR-10. The first 28,000 are trained on, the next 8,000 searched on, and the last 4,000 confirm. The backbone has the digits'
architecture, 12 blocks and 64 patches, and its weights are rounded to float16 as the digits' are. Training takes about an hour
on one thread of a CPU, minutes on CUDA; `photographs.safetensors` beside this file is what it gave for CIFAR-10, and answers
68.6 % of the images to search on and 68.8 % of those that confirm.
"""

import zipfile
from pathlib import Path

import numpy as np
import timm
import torch
from safetensors.torch import save

from vittle.objectives.quality.images import Images, Splits, TrainingSplits, stratified
from vittle.reductions import digits
from vittle.reductions.device import choose_device
from vittle.spaces.errors import VittleError
from vittle.spaces.files import write_at_once
from vittle.training.digits import DROPPED
from vittle.training.supervised import Augmentation, fit

PARTS = {"train": slice(28_000), "search": slice(28_000, 36_000), "held-out": slice(36_000, 40_000)}
EPOCHS = 40
BATCH_SIZE = 128
AUGMENTATION = Augmentation(shift=0.1, rotation=0, scale=0.1, flip=True, mixup=0.3)


def splits(path: Path) -> Splits:
    """The images to search on and those held out.

    Raises:
        VittleError: not such a file.
    """
    search, held_out = _read(path, "search", "held-out")
    return Splits(stratified(search), held_out)


def training_splits(path: Path, validation: int) -> TrainingSplits:
    """Those to train on, as many of those to search on as validate, and those held out, which give the verdict.

    Raises:
        VittleError: not such a file.
    """
    (images,), searched = _read(path, "train"), splits(path)
    first, labels = searched.search.pixels[:validation], searched.search.labels
    return TrainingSplits(images, Images(first, None if labels is None else labels[:validation]), searched.held_out)


def train(path: Path, output: Path, *, epochs: int = EPOCHS, progress: bool = True) -> None:
    """Train the backbone on the photographs to train on, and write its weights to a .safetensors file.

    On a CPU with one thread, because another number of threads rounds differently and so ends at other weights.

    Raises:
        VittleError: not such a file, or weights that cannot be written.
    """
    (images,) = _read(path, "train")
    assert images.labels is not None
    torch.manual_seed(0)
    model = timm.create_model(digits.ARCHITECTURE, pretrained=False, patch_drop_rate=DROPPED, **digits.ARGUMENTS)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        fit(
            model,
            images.pixels,
            images.labels,
            epochs=epochs,
            mean=digits.MEAN,
            std=digits.STD,
            batch_size=BATCH_SIZE,
            augmentation=AUGMENTATION,
            device=choose_device(None),
            progress=progress,
        )
    finally:
        torch.set_num_threads(threads)
    weights = {name: tensor.half().cpu().contiguous() for name, tensor in model.state_dict().items()}
    write_at_once(output, save(weights, {"epochs": str(epochs)}), "give --backbone a file that can be written")


def _read(path: Path, *parts: str) -> list[Images]:
    last = PARTS["held-out"].stop
    try:
        with np.load(path, allow_pickle=False) as archive:
            images, labels = archive["images"], archive["labels"].astype(np.int64)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        raise VittleError(f"no images and labels in {path}; accepted: an .npz of `images` and `labels`") from None
    if images.shape != (last, 32, 32, 3) or images.dtype != np.uint8 or labels.shape != (last,):
        found = f"{images.dtype} {images.shape} and labels {labels.shape}"
        raise VittleError(f"{path} has {found}; accepted: uint8 ({last}, 32, 32, 3) and ({last},)")
    # Copied, so that what is not asked for can be given back.
    return [Images(images[PARTS[part]].copy(), labels[PARTS[part]].copy()) for part in parts]
