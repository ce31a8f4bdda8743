"""Who may import whom, as pyproject.toml says it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from house_plan import ROOT

LINT = "import sys; from importlinter.cli import lint_imports_command; lint_imports_command()"


def run_linter(config: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LINT, "--no-cache", "--config", str(config)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_every_import_contract_holds() -> None:
    result = run_linter(ROOT / "pyproject.toml")
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_broken_contract_would_be_noticed(tmp_path: Path) -> None:
    settings = (ROOT / "pyproject.toml").read_text()
    rooms = ['    "cache | selection | model",\n', '    "kv",\n']
    planted = settings.replace("".join(rooms), "".join(reversed(rooms)))
    assert planted != settings
    config = tmp_path / "pyproject.toml"
    config.write_text(planted)
    result = run_linter(config)
    assert result.returncode == 1 and "BROKEN" in result.stdout, result.stdout + result.stderr
