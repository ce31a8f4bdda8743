"""The committed stubs are what the protos give."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

PROTO = Path(__file__).resolve().parents[2] / "proto"
SUFFIXES = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with stubs generated just now."""
    out = tmp_path_factory.mktemp("generated")
    subprocess.run(
        [sys.executable, PROTO / "generate.py", "--out", out], check=True, capture_output=True, timeout=50
    )
    return out


def stubs(folder: Path) -> dict[Path, str]:
    return {
        path.relative_to(folder): path.read_text()
        for path in folder.glob("windowkv/**/*")
        if path.name.endswith(SUFFIXES)
    }


def test_the_committed_stubs_are_those_of_the_protos(fresh: Path) -> None:
    committed, generated = stubs(PROTO), stubs(fresh)
    assert committed.keys() == generated.keys()
    stale = [str(path) for path in generated if generated[path] != committed[path]]
    assert not stale, f"run `make proto`: {stale}"


def test_every_service_has_typed_stubs() -> None:
    for name in ("cache", "generation", "model"):
        assert (PROTO / f"windowkv/v1/{name}_pb2_grpc.pyi").exists()


def test_stubs_import_from_the_package_itself() -> None:
    spec = importlib.util.find_spec("windowkv.v1.cache_pb2_grpc")
    assert spec is not None
    assert spec.origin is not None
    assert "from windowkv.v1 import cache_pb2" in Path(spec.origin).read_text()
