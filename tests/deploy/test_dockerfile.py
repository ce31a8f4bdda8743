"""The images: lint clean, without root, and made of files that are there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import dockerfile
import pytest
from deployment import DOCKERFILE, ROOT, settings

FILE = dockerfile.read(DOCKERFILE)
SERVERS = ["server-cpu", "server-gpu"]
TARGETS = ["client", *SERVERS]


def copied_from_the_repository() -> list[str]:
    copies = [value.split() for stage in FILE.stages.values() for value in stage.all("COPY")]
    return [source for words in copies if not words[0].startswith("--from") for source in words[:-1]]


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sysconfig.get_path("scripts")) / "hadolint"
    result = subprocess.run([hadolint, "--no-color", DOCKERFILE], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_base_image_is_pinned_to_a_release() -> None:
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", FILE.arguments["PYTHON_IMAGE"])
    assert {stage.base for stage in FILE.stages.values()} <= {"${PYTHON_IMAGE}", *FILE.stages}


def test_everything_copied_exists_and_reaches_the_builder() -> None:
    let_in = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for source in copied_from_the_repository():
        assert (ROOT / source).exists(), source
        assert source in let_in, f"{source} is not let in by .dockerignore"


def test_what_is_copied_is_enough_to_build_the_wheel(tmp_path: Path) -> None:
    for source in FILE.stages["wheel"].all("COPY"):
        for name in source.split()[:-1]:
            path = ROOT / name
            (shutil.copytree if path.is_dir() else shutil.copy)(path, tmp_path / name)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "wheels", "."]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert len(list((tmp_path / "wheels").glob("windowkv-*.whl"))) == 1


def test_stages_copied_from_exist() -> None:
    firsts = {value.split()[0] for stage in FILE.stages.values() for value in stage.all("COPY")}
    copied_from = {first.removeprefix("--from=") for first in firsts if first.startswith("--from=")}
    assert copied_from <= FILE.stages.keys()


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_runs_as_root(target: str) -> None:
    assert FILE.last(target, "USER") == "10001:10001"


@pytest.mark.parametrize("target", TARGETS)
def test_the_command_line_is_the_entry_point(target: str) -> None:
    assert FILE.last(target, "ENTRYPOINT") == '["windowkv"]'


@pytest.mark.parametrize("target", SERVERS)
def test_a_server_says_when_it_is_healthy(target: str) -> None:
    assert 'CMD ["windowkv", "health"]' in (FILE.last(target, "HEALTHCHECK") or "")


@pytest.mark.parametrize("target", SERVERS)
def test_a_server_starts_with_its_images_environment(target: str) -> None:
    made = settings(FILE.environment(target))
    ports = {made.listen.rpartition(":")[2], made.metrics_listen.rpartition(":")[2]}
    assert ports == set((FILE.last(target, "EXPOSE") or "").split())


@pytest.mark.parametrize("target", SERVERS)
def test_malloc_is_told_bytes(target: str) -> None:
    """glibc reads "256M" as 256, which is worse than saying nothing."""
    tuned = {key: value for key, value in FILE.environment(target).items() if key.startswith("MALLOC_")}
    assert {key: value.isdigit() for key, value in tuned.items()} == {
        "MALLOC_MMAP_THRESHOLD_": True,
        "MALLOC_TRIM_THRESHOLD_": True,
    }


def test_the_gpu_image_can_compile_tritons_launchers() -> None:
    assert any("gcc" in command for command in FILE.stages["server-gpu"].all("RUN"))


def test_the_marks_that_the_image_cuts_at_are_in_the_constraints() -> None:
    constraints = (ROOT / "constraints.txt").read_text()
    begin, end = constraints.index("gpu chooses itself: begin"), constraints.index("gpu chooses itself: end")
    assert re.findall(r"^torch==", constraints[begin:end], re.MULTILINE)
