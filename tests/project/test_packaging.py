"""The package's folders lie at the repository's root; these tests hold what that arrangement needs."""

import subprocess
import sys
import tomllib

import pytest

import vittle
from static_checks import ROOT
from vittle.spaces.table import ENTRIES

SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
NOT_PACKAGES = {"tests", "benchmarks", "docs", "build"}


def test_every_folder_with_code_is_in_the_package_list() -> None:
    top = {path.parent for path in ROOT.glob("*/__init__.py") if path.parent.name not in NOT_PACKAGES}
    folders = {path.parent.relative_to(ROOT) for folder in top for path in folder.rglob("__init__.py")}
    listed = set(SETTINGS["tool"]["setuptools"]["packages"])
    assert listed == {"vittle", *(".".join(("vittle", *folder.parts)) for folder in folders)}


def test_the_folders_cannot_be_imported_twice_by_mistake() -> None:
    banned = set(SETTINGS["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"])
    packages = set(SETTINGS["tool"]["setuptools"]["packages"]) - {"vittle"}
    assert {package.split(".")[1] for package in packages} <= banned


@pytest.mark.parametrize("module", ["vittle", "vittle.spaces", "vittle.storage.store", "vittle.dashboards.app", "vittle.cli"])
def test_starts_without_torch_timm_and_ray(module: str) -> None:
    program = f"import sys, {module}; print({{'torch', 'timm', 'ray', 'optuna'}} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_the_public_names_are_there() -> None:
    for name in vittle.__all__:
        assert getattr(vittle, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        vittle.nothing  # noqa: B018


def test_every_reduction_of_the_table_has_its_operator() -> None:
    import importlib

    for entry in ENTRIES:
        module, _, operator = entry.operator.partition(":")
        assert callable(getattr(importlib.import_module(module), operator))
        assert entry.settings.__module__.startswith("vittle.spaces.")


def test_constraints_are_names_and_versions_only() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all(line.count("==") == 1 and "/" not in line and "@" not in line for line in lines)
