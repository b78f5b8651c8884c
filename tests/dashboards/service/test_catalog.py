"""The file with which an operator says what may be launched."""

import re
from pathlib import Path

import pytest

from recorded import make_study
from services import service
from static_checks import ROOT
from vittle import VittleError
from vittle.dashboards.service.catalog import Catalog

__all__ = ["service"]  # a fixture


class TestCatalog:
    @pytest.mark.parametrize(
        ("text", "error"),
        [
            ("models: [{name: a, model: digits, pickle: x}]", "models.0.pickle: Extra inputs are not permitted"),
            ("extra: 1", "extra: Extra inputs are not permitted"),
            ("models: []", "models: Tuple should have at least 1 item"),
            ("models: [{name: a, model: x}, {name: a, model: y}]", "two entries have the same name"),
            ("limits: {trials: 0}", "limits.trials: Input should be greater than or equal to 1"),
            ("limits: {devices: [tpu]}", "limits.devices.0: Input should be 'cpu' or 'cuda'"),
            ("[1]", "Input should be a valid dictionary"),
            ("a: [", "is not YAML"),
        ],
    )
    def test_a_mistake_in_the_file_is_one_line(self, tmp_path: Path, text: str, error: str) -> None:
        path = tmp_path / "serve.yaml"
        path.write_text(text)
        with pytest.raises(VittleError, match=re.escape(error)) as refused:
            Catalog.load(path)
        assert "\n" not in str(refused.value)

    def test_without_a_file_there_are_the_embedded_digits(self, tmp_path: Path) -> None:
        assert Catalog.load(None) == Catalog()
        assert [one.name for one in Catalog().models] == [one.name for one in Catalog().data] == ["digits"]
        with pytest.raises(VittleError, match="cannot read nowhere.yaml"):
            Catalog.load(Path("nowhere.yaml"))

    def test_the_documented_file_is_one(self, tmp_path: Path) -> None:
        (example,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "service.md").read_text(encoding="utf-8"), re.DOTALL)
        (tmp_path / "serve.yaml").write_text(example)
        assert Catalog.load(tmp_path / "serve.yaml").limits.devices == ("cuda",)

    def test_paths_are_known_as_a_study_keeps_them(self, tmp_path: Path, monkeypatch, store) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "w.pth").touch()
        (tmp_path / "photos").mkdir()
        given = {"models": [{"name": "a", "model": "m", "checkpoint": "w.pth"}], "data": [{"name": "b", "source": "photos"}]}
        study = make_study(store, model="m", checkpoint=str(tmp_path / "w.pth"), data=str(tmp_path / "photos"))
        assert Catalog.model_validate(given).holds(study.settings)
        given["models"][0]["image_size"] = "192x320"
        assert not Catalog.model_validate(given).holds(study.settings)
        assert Catalog.model_validate(given).holds(study.settings.model_copy(update={"image_size": (192, 320)}))
