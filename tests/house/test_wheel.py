"""The wheel as a user gets it: in a virtual environment that holds nothing but the base package's dependencies."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from house_plan import PACKAGES, ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HEAVY = ("torch", "numpy", "redis", "transformers", "triton", "pydantic", "structlog", "prometheus_client")
SESSION = """
import sys
import windowkv_client, windowkv_client.cli
from windowkv_client.testing import InProcessServer
with InProcessServer(answers={"Who?": "Ada"}) as server, server.client() as client:
    assert client.ask("a document", "Who?").text == "Ada"
loaded = sorted({name.partition(".")[0] for name in sys.modules} & set(sys.argv[1:]))
assert not loaded, loaded
print("well")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def clean(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment with the wheel and what its base asks for, all from this machine."""
    home = tmp_path_factory.mktemp("clean")
    venv.create(home, with_pip=False, symlinks=True)
    (packages,) = (home / "lib").glob("python*/site-packages")
    for needed in base_closure(wheel):
        copy_distribution(needed, packages)
    pip = [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python")]
    install = [*pip, "install", "--no-deps", "--no-index", "--quiet", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    return home / "bin"


def base_closure(wheel: Path) -> list[Distribution]:
    """What the base package needs, and what that needs."""
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith("METADATA"))
        lines = archive.read(metadata).decode().splitlines()
    waiting = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
    found: dict[str, Distribution] = {}
    while waiting:
        requirement = Requirement(waiting.pop())
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found[name] = distribution(name)
        waiting += found[name].requires or []
    return list(found.values())


def copy_distribution(installed: Distribution, packages: Path) -> None:
    for file in installed.files or ():
        if ".." in file.parts or file.suffix == ".pyc":
            continue
        (packages / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(str(installed.locate_file(file)), packages / file)


def run(command: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "WINDOWKV_"))
    }
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_the_client_works_and_loads_nothing_heavy(clean: Path, tmp_path: Path) -> None:
    result = run([str(clean / "python"), "-I", "-c", SESSION, *HEAVY], tmp_path)
    assert result.stdout == "well\n", result.stderr


@pytest.mark.parametrize("module", HEAVY)
def test_the_base_installs_nothing_heavy(clean: Path, tmp_path: Path, module: str) -> None:
    result = run([str(clean / "python"), "-I", "-c", f"import {module}"], tmp_path)
    assert "ModuleNotFoundError" in result.stderr


@pytest.mark.parametrize("command", ["serve", "eval", "demo"])
def test_what_needs_the_server_extra_says_how_to_get_it(clean: Path, tmp_path: Path, command: str) -> None:
    result = run([str(clean / "windowkv"), command], tmp_path)
    assert result.returncode == 2
    assert "pip install 'windowkv[server]'" in result.stderr and "Traceback" not in result.stderr


def test_sizes_are_told_without_torch(clean: Path, tmp_path: Path) -> None:
    config = {"num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 64}
    (tmp_path / "config.json").write_text(json.dumps({**config, "torch_dtype": "float16"}))
    result = run([str(clean / "windowkv"), "size", "--model", ".", "--tokens", "100", "--json"], tmp_path)
    assert json.loads(result.stdout)["full_bytes"] == 100 * 4 * 2 * 2 * 16 * 2


def test_every_file_of_every_package_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    for name, folder in PACKAGES.items():
        for path in folder.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc":
                assert f"{name}/{path.relative_to(folder).as_posix()}" in packed
    assert not {
        file for file in packed if file.partition("/")[0] in ("tests", "deploy", "benchmarks", "client")
    }


def test_the_licence_travels_along(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (licence,) = (name for name in archive.namelist() if name.endswith("licenses/LICENSE"))
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
