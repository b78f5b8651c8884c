"""What all adapters have in common: a file of their own, the backbone that they belong to, and a verdict."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from vittle.reductions.backbone import Backbone, fingerprint
from vittle.reductions.verdict import Verdict
from vittle.spaces.errors import VittleError
from vittle.spaces.files import write_at_once
from vittle.spaces.reduction import AdapterRecord
from vittle.spaces.shape import BackboneShape

METADATA = "vittle"  # the key under which a file describes itself


class TrainedAdapter(nn.Module, ABC):
    """Trained weights of one reduction for one backbone.

    Attributes:
        kind: what they are, within a sentence.
        mode: how they were trained.
        command: what makes one.
        version: of the file's format.
        rival: what needs no training, against which they are judged.
        otherwise: what a search does where they are not worth it.
        metadata: what the file that they were loaded from says of their training; empty for new ones.
    """

    kind: ClassVar[str]
    mode: ClassVar[str]
    command: ClassVar[str]
    version: ClassVar[int] = 1
    rival: ClassVar[str]
    otherwise: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.metadata: dict[str, Any] = {}

    @property
    @abstractmethod
    def sizes(self) -> tuple[int, int]:
        """Blocks of the backbone that they are for, and its width; see `sizes_of`."""

    @property
    @abstractmethod
    def width(self) -> int:
        """What decides their cost, in channels."""

    @classmethod
    @abstractmethod
    def of(cls, weights: Mapping[str, Tensor]) -> Self:
        """A new module of the sizes that these weights have.

        Raises:
            LookupError, ValueError: they are none of these.
        """

    @staticmethod
    def sizes_of(shape: BackboneShape) -> tuple[int, int]:
        """The sizes that a backbone asks for."""
        return shape.depth, shape.width

    @property
    def name(self) -> str:
        """What was trained, and twelve hexadecimal digits of the weights: equal names are equal weights.

        Of weights that were loaded it is what they were saved under, whatever they have been rounded to since.
        """
        return str(self.metadata["name"]) if "name" in self.metadata else f"{self.mode}-{fingerprint(self)}"

    @property
    def record(self) -> AdapterRecord:
        """What a search has to know of them."""
        return AdapterRecord(self.name, self.width)

    def blocks_like(self, block: nn.Module) -> dict[int, nn.Module]:
        """Blocks that run in place of the backbone's, by index, with the structure of one of those; empty where none do."""
        del block
        return {}

    @property
    def compared(self) -> Verdict:
        """How they did against what needs no training; a file of old holds no such comparison."""
        return Verdict.model_validate(self.metadata.get("verdict", {"rival": self.rival}))

    def verdict(self) -> tuple[bool, str]:
        """Whether they are better at a rate at least, and at which, in words."""
        return self.compared.tell(f"{self.kind} {self.name}", self.otherwise)

    def save(self, path: str | Path, metadata: Mapping[str, Any]) -> None:
        """Write weights and `metadata` as safetensors, all at once; equal weights give equal bytes.

        Raises:
            VittleError: the file cannot be written.
        """
        # One entry, because safetensors writes several in random order.
        about = {"format": self._format(), "name": self.name, "mode": self.mode, **metadata}
        weights = {name: weight.detach().cpu().contiguous() for name, weight in self.state_dict().items()}
        write_at_once(Path(path), save(weights, {METADATA: json.dumps(about, sort_keys=True)}))

    @classmethod
    def load(cls, path: str | Path, backbone: Backbone | None = None) -> Self:
        """Read a file that `save` has written.

        Args:
            path: the file.
            backbone: refuse weights that were trained for another one.

        Raises:
            VittleError: no such file, not one of these, or one of another backbone.
        """
        try:
            with safe_open(path, "pt") as file:
                about = json.loads((file.metadata() or {})[METADATA])
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, the file is no mapping
            if about["format"] != cls._format() or about["mode"] != cls.mode:
                raise KeyError
            found = cls.of(weights)
            found.load_state_dict(weights)
            if about["name"] != found.name:
                raise ValueError
            found.metadata = about
            _ = found.compared  # what is damaged is told now
        except FileNotFoundError:
            raise VittleError(f"no {cls.kind} at {path}; put it there, or make one with: {cls.command}") from None
        except (OSError, SafetensorError, LookupError, TypeError, ValueError, RuntimeError):
            raise VittleError(f"{path} is not a {cls.kind}; accepted: what {cls.command} writes") from None
        if backbone is not None:
            found.check(backbone)
        return found.requires_grad_(False)

    def check(self, backbone: Backbone) -> None:
        """Refuse a backbone that these weights do not belong to.

        Raises:
            VittleError: another depth or width, or other weights than they were trained with.
        """
        ours, theirs = self.sizes, self.sizes_of(backbone.shape)
        if ours != theirs:
            raise VittleError(
                f"the {self.kind} is for {ours[0]} blocks of width {ours[1]}, "
                f"{backbone.name} has {theirs[0]} of width {theirs[1]}; accepted: one that was trained for this model"
            )
        trained = self.metadata.get("backbone", backbone.fingerprint)
        if trained != backbone.fingerprint:
            raise VittleError(
                f"the {self.kind} was trained for weights {trained}, those of {backbone.name} are {backbone.fingerprint}; "
                "accepted: one that was trained for these weights"
            )

    @classmethod
    def _format(cls) -> str:
        return f"vittle {cls.kind} {cls.version}"
