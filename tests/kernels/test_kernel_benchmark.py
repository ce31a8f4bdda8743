"""The kernel benchmark where there is no GPU: it says so, and its table lists every operation."""

from __future__ import annotations

import importlib
import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch

from windowkv_kernels import ops, reference
from windowkv_kernels.ops._launch import Launch
from windowkv_kernels.ops._parts import KNOWN, TILES, Part, shipped_tiles, tile_for

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of the benchmarks, which are scripts."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    return importlib.import_module


def test_without_a_gpu_nothing_is_measured_and_it_says_so() -> None:
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHON": sys.executable}
    done = subprocess.run(
        [str(BENCHMARKS / "gpu.sh")], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "no NVIDIA GPU" in done.stderr


def test_every_operation_has_a_row(benchmark: Any) -> None:
    measured = {problem.operation for problem in benchmark("kernel_problems").problems()}
    assert measured == set(reference.__all__)


def test_the_committed_table_has_the_rows_that_would_be_measured(benchmark: Any) -> None:
    committed = json.loads((BENCHMARKS / "results" / "gpu" / "kernels.json").read_text(encoding="utf-8"))
    problems = list(benchmark("kernel_problems").problems())
    assert [(row["operation"], row["shape"], row["bytes"], row["flops"]) for row in committed["rows"]] == [
        (problem.operation, problem.shape, problem.bytes, problem.flops) for problem in problems
    ]


def test_every_problem_is_one_that_its_operation_takes(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On memory without a device: what would be launched is noted, and nothing is computed."""
    launched: list[Launch] = []
    monkeypatch.setattr("windowkv_kernels.twins", lambda device: ops)
    monkeypatch.setattr(Launch, "run", lambda self: launched.append(self))
    for problem in benchmark("kernel_problems").problems():
        if problem.operation in ("quantize_keys", "dequantize_keys", "score_leader_keys"):
            continue  # quantizing looks whether keys are finite
        work = problem.prepare(torch.device("meta"))
        launched.clear()
        work()
        assert launched, problem.shape


def test_a_peer_that_is_not_installed_is_not_compared(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "flashinfer", None)
    table = torch.arange(4).view(2, 2)
    blocks, queries = torch.zeros(4, 1, 2, 8, 1, 16), torch.zeros(2, 2, 1, 16)
    model = benchmark("kernel_problem").Model("small", 2, 1, 16)
    assert benchmark("flashinfer_decode").prepare(model, queries, blocks, table) is None
    rows = [benchmark("kernel_speed").planned(each) for each in benchmark("kernel_problems").problems()]
    rendered = benchmark("kernel_speed").render(rows, {"GPU": "none"})
    compared = [line for line in rendered.splitlines() if line.endswith("not measured |")]
    assert len(compared) == sum(row.operation == "decode_attention" for row in rows)


def test_checking_tells_what_fails_and_goes_on(benchmark: Any) -> None:
    """Here: a GPU that no machine has."""
    speed = benchmark("kernel_speed")
    right = next(number for number, case in enumerate(speed.CASES) if "SelectCase" in str(case))
    assert speed.verdict(right, "cpu")[1] is None
    seconds, fault = speed.verdict(right, "cuda:99")
    assert fault
    assert seconds > 0


def test_a_chart_is_a_png_of_its_size(benchmark: Any, tmp_path: Path) -> None:
    chart = benchmark("bar_chart")
    chart.draw(tmp_path / "chart.png", "shares", [chart.Bar("one", 0.5, 0.85), chart.Bar("ω", 1.2, None)])
    data = (tmp_path / "chart.png").read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", data[16:24])
    start = data.index(b"IDAT") + 4
    assert len(zlib.decompress(data[start:-16])) == height * (1 + 3 * width)


def test_tuning_finds_the_best_tile_that_single_changes_lead_to(benchmark: Any) -> None:
    row = {"tile": {"BLOCK_N": 16}, "num_warps": 2, "num_stages": 1}

    def seconds_of(row: dict[str, Any]) -> float:
        if row["tile"]["BLOCK_N"] == 128 and row["num_warps"] < 8:
            return float("inf")  # does not fit
        return 1 / row["tile"]["BLOCK_N"] + 1 / row["num_warps"] + abs(row["num_stages"] - 3)

    best, least = benchmark("tune_kernels").improve(row, seconds_of)
    assert best == {"tile": {"BLOCK_N": 128}, "num_warps": 16, "num_stages": 3}
    assert least == seconds_of(best)


def test_the_shipped_tiles_read_as_tuning_writes_them(benchmark: Any) -> None:
    assert benchmark("tune_kernels").render(shipped_tiles()) == TILES.read_text(encoding="utf-8")


@pytest.mark.parametrize("part", [*KNOWN.values(), Part("other", 20)], ids=lambda part: part.name)
def test_every_part_has_tiles_for_every_shape(part: Part) -> None:
    for head_dim in (64, 96, 128, 256):
        for itemsize in (2, 4):
            assert tile_for("score_windows", part, head_dim=head_dim, itemsize=itemsize)["TOKENS"]
            for rows in (16, 32, 64):
                shape = {"head_dim": head_dim, "itemsize": itemsize, "rows": rows}
                assert tile_for("decode_attention", part, **shape)["BLOCK_N"]
    assert tile_for("select_windows", part, num_windows=1_000_000)["WINDOWS"]
    for operation in ("move_windows", "quantize_keys", "quantize_blocks"):
        assert tile_for(operation, part).num_warps
