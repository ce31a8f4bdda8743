"""Folders that are no packages, files that can be told apart, and a size that a reader can hold in mind."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from house_plan import FOLDERS, PACKAGES, ROOT, files_of_tests, modules, relative

MAX_LINES = 300
FORBIDDEN_NAMES = re.compile(r"(^|[_/])(utils?|helpers?|common|misc|managers?|impl|stuff)([_/.]|$)")
FORBIDDEN_CLASSES = re.compile(r"^class \w*(Manager|Helper|Impl|Util)s?\b", re.MULTILINE)
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK|NotImplementedError)\b")
SKIPPED = re.compile(r"pytest\.(skip|xfail|importorskip)\b|mark\.(skip|skipif|xfail)\b")


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_a_room_is_not_a_package() -> None:
    """An __init__.py there would make `import kernels` find us instead of the package of that name."""
    assert [folder for folder in FOLDERS if (ROOT / folder / "__init__.py").exists()] == []


def test_tests_are_no_packages_and_have_names_of_their_own() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []
    names = Counter(path.name for path in files_of_tests())
    assert [name for name, count in names.items() if count > 1] == []


def test_every_package_is_typed() -> None:
    assert [name for name, path in PACKAGES.items() if not (path / "py.typed").exists()] == []


def test_a_name_says_what_a_thing_is_for() -> None:
    assert [relative(path) for path in modules() if FORBIDDEN_NAMES.search(relative(path))] == []
    assert [relative(path) for path in modules() if FORBIDDEN_CLASSES.search(read(path))] == []


def test_a_file_can_be_held_in_mind() -> None:
    sizes = {relative(path): len(read(path).splitlines()) for path in modules()}
    assert {path: lines for path, lines in sizes.items() if lines > MAX_LINES} == {}


def test_nothing_is_left_for_later() -> None:
    assert [relative(path) for path in modules() if UNFINISHED.search(read(path))] == []


def test_no_test_is_skipped_over() -> None:
    others = [path for path in files_of_tests() if path != Path(__file__).resolve()]
    assert [relative(path) for path in others if SKIPPED.search(read(path))] == []
