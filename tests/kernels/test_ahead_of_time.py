"""Every Triton kernel compiles for GPUs that are not here, fits them, and multiplies on their tensor cores."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from windowkv_kernels import ops

ROOT = Path(__file__).parents[2]
# A process of its own: once Triton interprets, it no longer compiles.
pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module", params=["A100", "H100"])
def rows(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What `python benchmarks/kernels_aot.py` finds for a part."""
    path = tmp_path_factory.mktemp("aot") / "rows.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "kernels_aot.py"), "--part", request.param]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run(
        [*command, "--json", str(path)], env=environment, capture_output=True, text=True, check=False
    )
    assert path.exists(), done.stderr
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return found


def test_every_kernel_compiles_fits_and_uses_tensor_cores_where_it_multiplies(
    rows: list[dict[str, Any]],
) -> None:
    assert {row["case"]: row["faults"] for row in rows if row["faults"]} == {}


def test_no_kernel_is_left_out(rows: list[dict[str, Any]]) -> None:
    sources = [path.read_text(encoding="utf-8") for path in Path(ops.__file__).parent.glob("*.py")]
    launched = {kernel for source in sources for kernel in re.findall(r"\bLaunch\(\s*_?(\w+),", source)}
    assert {row["compiled"]["kernel"] for row in rows} == launched


def test_loads_of_the_large_kernels_run_ahead(rows: list[dict[str, Any]]) -> None:
    large = [row["compiled"] for row in rows if row["compiled"]["tensor_core"]]
    assert large
    assert all(one["has_async_copies"] for one in large)
