"""What may be searched for through the web: models and images that the operator named, within limits, and nothing else."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from vittle.spaces.errors import VittleError
from vittle.spaces.plain_yaml import read_yaml
from vittle.spaces.validation import first_mistake
from vittle.storage.settings import ImageSize, SearchSettings, Settings

DIGITS = "digits"  # the embedded default

Name = Annotated[str, StringConstraints(pattern=r"^\S(.{0,98}\S)?$")]
Device = Literal["cpu", "cuda"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Model(_Part):
    """A model by the name that people choose it by; the rest as `vittle launch` takes it."""

    name: Name
    model: str
    checkpoint: str | None = None
    image_size: ImageSize | None = None


class Images(_Part):
    """Images by the name that people choose them by; `source` and `classes` as `launch` takes `--data` and `--classes`."""

    name: Name
    source: str
    classes: str | None = None


class Limits(_Part):
    """The most that one search, and all of them together, may ask for; of `devices` the first one is the default."""

    trials: int = Field(default=1000, ge=1)
    workers: int = Field(default=1, ge=1)
    batch_size: int = Field(default=1024, ge=1)
    jobs: int = Field(default=4, ge=1)
    devices: tuple[Device, ...] = Field(default=("cpu",), min_length=1)


class Catalog(_Part):
    """What `serve.yaml` holds."""

    models: tuple[Model, ...] = Field(default=(Model(name=DIGITS, model=DIGITS),), min_length=1)
    data: tuple[Images, ...] = Field(default=(Images(name=DIGITS, source=DIGITS),), min_length=1)
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _one_of_each_name(self) -> Self:
        for part in (self.models, self.data):
            names = [one.name for one in part]
            if len(set(names)) < len(names):
                raise ValueError("two entries have the same name")
        return self

    @classmethod
    def load(cls, path: Path | None) -> Self:
        """Read a file; without one there are the embedded digits.

        Raises:
            VittleError: it cannot be read, or says something else.
        """
        if path is None:
            return cls()
        found = read_yaml(path, "give --config a YAML file with models, data and limits")
        try:
            return cls.model_validate(found if found is not None else {})
        except ValidationError as error:
            raise VittleError(f"{path}: {first_mistake(error)}; accepted: models, data and limits") from None

    def model(self, name: str) -> Model:
        """The model of that name.

        Raises:
            VittleError: there is none; the message names those there are.
        """
        return self.models[_place(name, [one.name for one in self.models], "model")]

    def images(self, name: str) -> Images:
        """The images of that name.

        Raises:
            VittleError: there are none; the message names those there are.
        """
        return self.data[_place(name, [one.name for one in self.data], "data")]

    def holds(self, settings: SearchSettings) -> bool:
        """Whether a study could have been launched from here: its model, its images and its device are in the catalog."""
        if not isinstance(settings, Settings):
            return False
        models = {(one.model, place, one.image_size) for one in self.models for place in _places(one.checkpoint)}
        sources = {(place, names) for one in self.data for place in _places(one.source) for names in _places(one.classes)}
        known = (settings.model, settings.checkpoint, settings.image_size) in models
        known = known and (settings.data, settings.classes) in sources
        return known and not settings.adapters and settings.device in self.limits.devices


def _place(name: str, there: list[str], what: str) -> int:
    if name not in there:
        raise VittleError(f"no {what} named {name!r} in the catalog; there are: {', '.join(there)}")
    return there.index(name)


def _places(path: str | None) -> set[str | None]:
    """A path as it was given, and as a study keeps it."""
    return {path} if path is None or not Path(path).exists() else {path, str(Path(path).resolve())}
