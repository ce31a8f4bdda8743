"""The benchmark of whole models where there is no GPU: its code runs on a miniature, and its table lists every row."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of the benchmarks, which are scripts."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where --tiny wrote its results."""
    out = tmp_path_factory.mktemp("models")
    command = [sys.executable, str(BENCHMARKS / "models.py"), "--tiny", "--out", str(out)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    return out


def test_on_a_miniature_everything_but_the_gpus_idleness_is_measured(tiny: Path) -> None:
    rows = json.loads((tiny / "models.json").read_text(encoding="utf-8"))["rows"]
    unmeasured = [row["what"] for row in rows if row["value"] is None]
    assert unmeasured == ["the same: GPU idle between kernels"]
    assert all(row["value"] > 0 and row["ratio"] > 0 for row in rows if row["value"] is not None)


def test_the_miniature_has_the_rows_of_the_real_ones(benchmark: Any, tiny: Path) -> None:
    table, shapes = benchmark("model_table"), benchmark("model_shapes")
    rows = json.loads((tiny / "models.json").read_text(encoding="utf-8"))["rows"]
    expected = table.kinds(shapes.MINIATURE, shapes.TINY)
    assert {row["what"] for row in rows} == {kind.what for kind in expected.values()}
    assert expected.keys() == table.kinds(shapes.LLAMA, shapes.REAL).keys()


def test_results_come_as_json_csv_markdown_and_png(tiny: Path) -> None:
    assert {path.name for path in tiny.iterdir()} == {
        f"models.{kind}" for kind in ("json", "csv", "md", "png")
    }
    assert "a miniature on the processor" in (tiny / "models.md").read_text(encoding="utf-8")


def test_the_committed_table_has_the_rows_that_would_be_measured(benchmark: Any) -> None:
    table, shapes = benchmark("model_table"), benchmark("model_shapes")
    committed = json.loads((BENCHMARKS / "results" / "gpu" / "models.json").read_text(encoding="utf-8"))
    planned = [
        (shape.name, kind.what, kind.compared_with)
        for shape in (shapes.LLAMA, shapes.QWEN)
        for kind in table.kinds(shape, shapes.REAL).values()
    ]
    assert [(row["model"], row["what"], row["compared_with"]) for row in committed["rows"]] == planned


def test_without_a_gpu_nothing_is_measured_and_it_says_so() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "models.py")],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "no NVIDIA GPU" in done.stderr


def test_it_imports_nothing_that_a_bare_machine_lacks() -> None:
    """torch, triton, transformers and what these bring; not what the service needs besides."""
    code = "import sys, models; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=BENCHMARKS, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lacking = {
        "grpc",
        "redis",
        "hiredis",
        "xxhash",
        "structlog",
        "prometheus_client",
        "pydantic_settings",
        "windowkv_client",
    }
    assert lacking.isdisjoint(done.stdout.split())


def test_a_failure_is_told_and_the_others_are_measured(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, shapes, clocks = benchmark("models"), benchmark("model_shapes"), benchmark("wall_clock")

    def broken(*_: object) -> Any:
        raise RuntimeError("out of luck")
        yield

    def works(*_: object) -> Any:
        yield "restore", benchmark("model_measures").Result(1.0, 2.0, 2.0)

    monkeypatch.setattr(models, "measurements", lambda *_: [("", broken), ("", works)])
    told = list(models.measure([shapes.MINIATURE], shapes.TINY, clocks.WallClock(), 1.0))
    assert [str(fault) for _, fault in told if fault is not None] == ["out of luck"]
    measured = [row.what for row, fault in told if fault is None and row.value is not None]
    assert len(measured) == 1
    assert measured[0].startswith("restore")


def test_when_time_is_up_nothing_more_is_begun(benchmark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    models, shapes, clocks = benchmark("models"), benchmark("model_shapes"), benchmark("wall_clock")
    begun: list[str] = []

    def slow(*_: object) -> Any:
        begun.append("slow")
        times.append(10.0)
        yield "restore", benchmark("model_measures").Result(1.0, 2.0, 2.0)

    times = [0.0]
    monkeypatch.setattr(models.time, "monotonic", lambda: times[-1])
    monkeypatch.setattr(models, "measurements", lambda *_: [("", slow), ("", slow)])
    two = [shapes.MINIATURE, shapes.MINIATURE]
    rows = [row for row, _ in models.measure(two, shapes.TINY, clocks.WallClock(), 1.0, until=5.0)]
    assert begun == ["slow"]
    assert [row.what for row in rows if row.value is not None] == [rows[0].what], (
        "what was measured is told, and all else has its row"
    )
    assert len(rows) == 2 * len(benchmark("model_table").kinds(shapes.MINIATURE, shapes.TINY))


@pytest.mark.parametrize(
    ("intervals", "share"),
    [
        ([], None),
        ([(0, 10)], 0.0),
        ([(0, 2), (5, 10)], 0.3),
        ([(5, 10), (0, 6), (1, 2)], 0.0),
        ([(0, 1), (0, 4), (6, 8), (9, 10)], 0.3),
    ],
)
def test_idle_is_what_no_interval_covers(
    benchmark: Any, intervals: list[tuple[float, float]], share: float | None
) -> None:
    found = benchmark("gpu_clock").uncovered(intervals)
    assert found == (None if share is None else pytest.approx(share))
