"""pyproject.toml, constraints.txt, Makefile and .ci/run agree with each other and with what is imported."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from house_plan import PACKAGES, ROOT, files_of_tests, imported, modules
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONSTRAINTS = [
    line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"
]
REGISTRIES = re.compile(
    r"pypi\.org|pythonhosted|download\.pytorch\.org|registry\.npmjs|conda\.anaconda", re.IGNORECASE
)
MADE_BY_TOOLS = {".venv", ".git", "node_modules", "dist", "build", "__pycache__"}
PROSE = ("*.md", "*.toml", "*.txt", "*.yml", "*.yaml", "Makefile", "*.py", "*.sh", "Dockerfile")


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(each).name) for each in requirements}


BASE = names(PROJECT["project"]["dependencies"])
EXTRAS = {name: names(each) for name, each in PROJECT["project"]["optional-dependencies"].items()}


def distributions(modules_: set[str]) -> set[str]:
    """What must be installed for these imports; the standard library and our own packages need nothing."""
    foreign = modules_ - set(sys.stdlib_module_names) - set(PACKAGES)
    known = packages_distributions()
    assert not (unknown := {each for each in foreign if each not in known}), f"not installed: {unknown}"
    return {canonicalize_name(known[each][0]) for each in foreign}


def test_the_base_is_all_that_the_client_imports() -> None:
    needed = distributions(set().union(*(imported(path) for path in modules("windowkv", "windowkv_client"))))
    google = {"protobuf", "googleapis-common-protos"}  # two distributions share the name `google`
    assert needed - google <= BASE
    assert not BASE & {"torch", "numpy", "redis", "transformers", "triton"}


def test_the_server_and_bench_extras_are_all_that_the_service_imports() -> None:
    packages = ("windowkv_service", "windowkv_kernels")
    needed = distributions(set().union(*(imported(path) for path in modules(*packages))))
    assert needed - {"protobuf", "googleapis-common-protos"} <= BASE | EXTRAS["server"] | EXTRAS["bench"]


def test_the_dev_extra_is_all_that_the_tests_import() -> None:
    paths = [
        *files_of_tests(),
        *(ROOT / "tests").rglob("conftest.py"),
        *(ROOT / "tests" / "support").glob("*.py"),
    ]
    own = {path.stem for folder in ("tests/support", "benchmarks") for path in (ROOT / folder).iterdir()}
    needed = distributions(set().union(*(imported(path) for path in paths)) - own)
    assert needed - {"protobuf", "googleapis-common-protos"} <= BASE | EXTRAS["server"] | EXTRAS["dev"]


def test_nothing_is_asked_for_that_nobody_uses() -> None:
    paths = [*modules(), *files_of_tests(), *(ROOT / "tests" / "support").glob("*.py")]
    used = distributions(set().union(*(imported(path) for path in paths)) & set(packages_distributions()))
    loaded_by_name = {"protobuf", "googleapis-common-protos", "triton"}
    assert (BASE | EXTRAS["server"] | EXTRAS["bench"]) - used - {"windowkv"} <= loaded_by_name


def test_a_constraint_pins_one_version() -> None:
    assert [line for line in CONSTRAINTS if not re.fullmatch(r"[a-z0-9_-]+==[0-9][0-9a-z.+]*", line)] == []


def test_everything_that_is_asked_for_is_pinned_within_its_range() -> None:
    pins = {canonicalize_name(line.partition("==")[0]): line.partition("==")[2] for line in CONSTRAINTS}
    extras = PROJECT["project"]["optional-dependencies"].values()
    every = [*PROJECT["project"]["dependencies"], *(each for extra in extras for each in extra)]
    for requirement in map(Requirement, every):
        name = canonicalize_name(requirement.name)
        if name != "windowkv":
            assert name in pins, f"{name} is not pinned"
            assert requirement.specifier.contains(pins[name]), requirement


def test_ci_runs_the_suite() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK) and "make test" in script.read_text()


@pytest.mark.parametrize(
    "target", ["setup", "test", "demo", "eval", "check", "lint", "types", "imports", "proto", "clean"]
)
def test_make_knows_its_verbs(target: str) -> None:
    dry = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert dry.returncode == 0, dry.stderr


def test_make_test_runs_kernels_in_the_interpreter_with_one_thread() -> None:
    dry = subprocess.run(["make", "-n", "test"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "TRITON_INTERPRET=1" in dry and "OMP_NUM_THREADS=1" in dry and "pytest" in dry


@pytest.mark.parametrize(("num_gpus", "is_pinned"), [(0, True), (1, False)])
def test_torch_is_pinned_where_there_is_no_gpu(num_gpus: int, is_pinned: bool, tmp_path: Path) -> None:
    """The recipe's own line is run: with a GPU pip chooses torch and its triton, without one the pin does."""
    (tmp_path / ".venv").mkdir()
    (tmp_path / "constraints.txt").write_bytes((ROOT / "constraints.txt").read_bytes())
    command = ["make", "-n", "-B", "setup", f"HAS_GPU={num_gpus}", f"VENV={tmp_path}/.venv"]
    recipe = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (line,) = (line for line in recipe.splitlines() if line.endswith("/.venv/constraints.txt"))
    subprocess.run(["bash", "-c", line], cwd=tmp_path, check=True)
    pinned = (tmp_path / ".venv" / "constraints.txt").read_text()
    assert ("torch==" in pinned, "triton==" in pinned) == (is_pinned, is_pinned)
    assert "grpcio==" in pinned


def test_no_file_names_a_package_registry() -> None:
    naming = [
        path
        for path in written_files()
        if any(path.match(pattern) for pattern in PROSE)
        and REGISTRIES.search(path.read_text(encoding="utf-8"))
    ]
    assert naming == [Path(__file__).resolve()]


def written_files() -> Iterator[Path]:
    """What people write here, without what tools have put beside it."""
    for folder, subfolders, files in os.walk(ROOT):
        subfolders[:] = [each for each in subfolders if each not in MADE_BY_TOOLS]
        yield from (Path(folder, file) for file in files)
