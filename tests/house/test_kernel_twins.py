"""An operation has four files of one name: the kernel, its reference, its test and its benchmark."""

from __future__ import annotations

from pathlib import Path

import pytest
from house_plan import PACKAGES, ROOT

OPS = PACKAGES["windowkv_kernels"] / "ops"
REFERENCE = PACKAGES["windowkv_kernels"] / "reference"


def operations(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")}


def test_every_kernel_has_its_reference() -> None:
    assert operations(OPS) <= operations(REFERENCE)


@pytest.mark.parametrize("operation", sorted(operations(REFERENCE)))
def test_every_operation_is_tested(operation: str) -> None:
    tests = (ROOT / "tests" / "kernels").glob("test_*.py")
    assert any(operation in path.read_text(encoding="utf-8") for path in tests)
