"""Type checkers and import rules, run where they understand a package whose folders lie at the repository's root.

They want a checkout named `vittle`, so the root is linked under that name in a temporary folder.
"""

import json
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BIN = Path(sys.executable).parent
CHECKS = {
    "mypy": ["mypy", "--config-file", "vittle/pyproject.toml", "-p", "vittle"],
    "basedpyright": ["basedpyright", "--pythonpath", sys.executable],
    "import-linter": ["lint-imports", "--config", "vittle/pyproject.toml", "--no-cache"],
}


def run(name: str) -> subprocess.CompletedProcess[str]:
    """Run one of `CHECKS` over the linked root."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "vittle").symlink_to(ROOT, target_is_directory=True)
        settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["basedpyright"]
        (Path(folder) / "pyrightconfig.json").write_text(json.dumps(settings))
        command = [str(BIN / CHECKS[name][0]), *CHECKS[name][1:]]
        environment = {**os.environ, "MYPYPATH": folder, "PYTHONPATH": folder}
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def main() -> None:
    """Run every check; print those that fail."""
    failed = False
    for name in CHECKS:
        result = run(name)
        print(f"{name}: {'ok' if result.returncode == 0 else 'failed'}")
        if result.returncode:
            failed = True
            print(result.stdout + result.stderr)
    sys.exit(failed)


if __name__ == "__main__":
    main()
