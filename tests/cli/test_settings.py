"""Settings of studies as they are read from a database."""

import pytest
from pydantic import ValidationError

from vittle.storage.settings import Settings


def test_settings_of_old_studies_are_read() -> None:
    settings = Settings(reductions=("pruning",), seed=3)
    assert Settings.model_validate({**settings.model_dump(mode="json"), "residuals": True}) == settings


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ValidationError, match="curves"):
        Settings.model_validate({"curves": 3})
