"""The house as files: where the rooms are, and what their modules say."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "windowkv": ROOT / "proto" / "windowkv",
    "windowkv_client": ROOT / "client" / "windowkv_client",
    "windowkv_service": ROOT / "service" / "windowkv_service",
    "windowkv_kernels": ROOT / "kernels" / "windowkv_kernels",
}
FOLDERS = ("proto", "client", "service", "kernels", "tests", "deploy", "benchmarks")


def is_generated(path: Path) -> bool:
    return "_pb2" in path.name


def modules(*packages: str) -> Iterator[Path]:
    """The hand-written modules of these packages; of all of them when none is named."""
    for package in packages or PACKAGES:
        yield from (path for path in sorted(PACKAGES[package].rglob("*.py")) if not is_generated(path))


def files_of_tests() -> list[Path]:
    """Every file of tests."""
    return sorted((ROOT / "tests").rglob("test_*.py"))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported(path: Path) -> set[str]:
    """Top-level names of the modules that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names
