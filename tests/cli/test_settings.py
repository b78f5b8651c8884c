"""Settings of studies as they are read from a database."""

import pytest
from pydantic import ValidationError

from vittle.spaces.errors import VittleError
from vittle.storage.settings import Settings, parse_image_size


def test_settings_of_old_studies_are_read() -> None:
    settings = Settings(reductions=("pruning",), seed=3)
    assert Settings.model_validate({**settings.model_dump(mode="json"), "residuals": True}) == settings


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ValidationError, match="curves"):
        Settings.model_validate({"curves": 3})


@pytest.mark.parametrize(
    ("given", "size"), [("224", (224, 224)), ("192x320", (192, 320)), (" 64 × 96 ", (64, 96)), (None, None)]
)
def test_an_image_size_is_read_kept_and_read_again(given: str | None, size: tuple[int, int] | None) -> None:
    settings = Settings.model_validate({"image_size": given})
    assert settings.image_size == size
    assert Settings.model_validate_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize("given", ["", "0", "x", "192x", "192x0", "-1x5", "1e3", "224x224x3", "wide"])
def test_what_is_no_image_size_is_refused(given: str) -> None:
    with pytest.raises(VittleError, match="accepted: 224, or 192x320 for height x width"):
        parse_image_size(given)
