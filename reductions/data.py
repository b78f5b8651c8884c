"""The door to timm's data: how a backbone wants its images, the transform that brings them there, and data sets by name."""

import contextlib
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from timm.data.config import resolve_model_data_config
from timm.data.dataset_factory import create_dataset
from timm.data.transforms_factory import create_transform
from timm.utils.misc import natural_key

from vittle.spaces.errors import VittleError
from vittle.spaces.inputs import ACCEPTED


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a backbone wants its images: timm's evaluation transform in numbers.

    Attributes:
        size: (height, width) of the crop, in pixels.
        crop: its share of the resized image, along each axis.
        interpolation: how that is resized.
        mean: of each channel, subtracted from values of 0 to 1.
        std: what they are then divided by.
        crop_mode: `center` keeps the ratio of the sides and cuts, `squash` does not keep it, `border` keeps it and pads.
    """

    size: tuple[int, int]
    crop: float
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_mode: str = "center"


class Opened(NamedTuple):
    """An image of a data set: a file to decode or a decoded image, and its label, where it has one."""

    image: BinaryIO | Image.Image
    label: int | None


def preprocessing_of(model: Any) -> Preprocessing:
    """What timm resolves from the pretrained configuration of a Vision Transformer, at the model's own image size."""
    config = resolve_model_data_config(model)
    interpolation = str(config["interpolation"])
    return Preprocessing(
        size=(model.patch_embed.img_size[0], model.patch_embed.img_size[1]),
        crop=float(config["crop_pct"]),
        # To be drawn at random is for training; where nothing is drawn timm takes bilinear in its place.
        interpolation="bilinear" if interpolation == "random" else interpolation,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        crop_mode=str(config["crop_mode"]),
    )


def evaluation_transform(preprocessing: Preprocessing) -> Callable[[Image.Image], NDArray[np.uint8]]:
    """timm's transform from an RGB image to the pixels (height, width, 3) that a backbone is evaluated on, normalised later."""
    transform: Any = create_transform(
        input_size=(3, *preprocessing.size),
        is_training=False,
        interpolation=preprocessing.interpolation,
        mean=preprocessing.mean,
        std=preprocessing.std,
        crop_pct=preprocessing.crop,
        crop_mode=preprocessing.crop_mode,
        use_prefetcher=True,  # so that it ends with bytes, which timm's loader normalises on the device, as we do
    )

    def apply(image: Image.Image) -> NDArray[np.uint8]:
        pixels: NDArray[np.uint8] = transform(image).permute(1, 2, 0).numpy()
        return pixels

    return apply


def natural_order(names: Iterable[str]) -> list[str]:
    """Names as timm numbers classes by them: a2 before a10, and whatever their case."""
    listed = sorted(names)
    try:
        return sorted(listed, key=natural_key)
    except ValueError:  # digits that are no numbers, such as a lone ²
        return listed


class Dataset:
    """The validation split of a data set that timm opens, in any order.

    Args:
        source: `name[:root]`, for example `torch/cifar10:/data` or `hfds/owner/name`.
        classes: the label of each class by its name, where it is not the data set's own.

    Raises:
        VittleError: timm cannot open it.
    """

    def __init__(self, source: str, classes: Mapping[str, int] | None = None) -> None:
        name, _, root = source.partition(":")
        if name.lower().startswith("torch/") and classes is not None:
            raise VittleError(f"data {source!r} has labels of its own; accepted with --classes: folders and hfds/ data sets")
        named: Any = None if classes is None else dict(classes)
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # what they print is no answer of ours
                self._dataset: Any = create_dataset(name, root=root or None, split="validation", class_map=named)
        except ModuleNotFoundError as error:
            raise VittleError(f"data {source!r} needs the Python package {error.name}; pip install {error.name}") from None
        except Exception as error:  # timm, torchvision and the hub raise whatever they meet
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise VittleError(f"cannot open data {source!r} ({reason}); accepted: {ACCEPTED}") from None
        # timm's own data sets put another image in the place of one that cannot be decoded; their reader does not.
        self._reader = getattr(self._dataset, "reader", None)

    def __len__(self) -> int:
        return len(self._dataset)

    def name(self, index: int) -> str:
        """What an image is called: its file, else its number."""
        named = None if self._reader is None else self._reader.filename(index)
        return f"image {index}" if named is None else str(named)

    def open(self, index: int) -> Opened:
        """One image, for whoever asks to close; it raises whatever a reader meets."""
        image, label = self._dataset[index] if self._reader is None else self._reader[index]
        return Opened(image, None if label is None else int(label))
