"""Every Triton kernel compiled for GPUs that are not here: what it takes of them, and what it is made of.

    python benchmarks/kernels_aot.py                              all parts; writes benchmarks/results/gpu/aot.md
    python benchmarks/kernels_aot.py --part H100 --json rows.json

The launches are those that the operations plan for real shapes, with the tiles shipped for the part; their tensors have
no memory. Shared memory is held against what the part lets one program have, and tensor-core instructions against the
kernels that multiply tiles: exit status 1 where one does not keep to it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from windowkv_kernels import BLOCK_CODECS, QuantizedBlocks, QuantizedKeys
from windowkv_kernels.ops import _move_windows, _score_plan
from windowkv_kernels.ops._ahead_of_time import SHARED_LIMIT, Compiled, compile_ahead
from windowkv_kernels.ops._attend_tables import Terms
from windowkv_kernels.ops._launch import Launch
from windowkv_kernels.ops._parts import KNOWN, Part
from windowkv_kernels.ops.append_kv import plan as plan_append
from windowkv_kernels.ops.decode_attention import plan as plan_decode
from windowkv_kernels.ops.dequantize_blocks import plan as plan_dequantize_blocks
from windowkv_kernels.ops.quantize_blocks import plan as plan_quantize_blocks
from windowkv_kernels.ops.quantize_keys import plan_dequantize, plan_quantize
from windowkv_kernels.ops.select_windows import plan as plan_select
from windowkv_kernels.ops.shared_prefix_decode import plan as plan_shared

REPORT = Path(__file__).parent / "results" / "gpu" / "aot.md"
CAPABILITY = {"A100": 80, "H100": 90, "H200": 90}
PARTS = ("A100", "H100")  # an H200 compiles as an H100
MULTIPLIES = ("attend_tables", "sum_exponentials", "rate_windows")
NUM_TOKENS = 131_072
GAMMA = 8


@dataclass(frozen=True)
class Row:
    """One kernel of one case on one part."""

    case: str
    part: str
    grid: tuple[int, ...]
    compiled: Compiled

    @property
    def faults(self) -> list[str]:
        found = []
        limit = SHARED_LIMIT[self.compiled.capability]
        if self.compiled.shared_bytes > limit:
            found.append(f"takes {self.compiled.shared_bytes} bytes of shared memory; the part has {limit}")
        if self.compiled.kernel in MULTIPLIES and not self.compiled.tensor_core:
            found.append("multiplies tiles without tensor cores")
        if self.compiled.spill_bytes:
            found.append(f"spills {self.compiled.spill_bytes} bytes of registers per thread")
        return found


@dataclass(frozen=True)
class Model:
    """A model's attention, as far as kernels see it."""

    heads: int = 32
    kv_heads: int = 8
    head_dim: int = 128
    window_size: int = 16

    def empty(self, *shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    def numbers(self, *shape: int) -> Tensor:
        return self.empty(*shape, dtype=torch.int64)

    @property
    def blocks(self) -> Tensor:
        return self.empty(8192, GAMMA, 2, self.window_size, self.kv_heads, self.head_dim)

    def tables(self, count: int, num_slots: int) -> tuple[Tensor, Tensor]:
        return self.numbers(count, num_slots // self.window_size), self.numbers(count, num_slots)

    def queries(self, batch: int, length: int) -> Tensor:
        return self.empty(batch, self.heads, length, self.head_dim)

    def keys(self, bits: int = 0) -> Tensor | QuantizedKeys:
        if not bits:
            return self.empty(NUM_TOKENS, self.kv_heads, self.head_dim)
        codes = self.empty(NUM_TOKENS, self.kv_heads, self.head_dim * bits // 8, dtype=torch.uint8)
        scales = self.empty(NUM_TOKENS // 256, self.kv_heads, self.head_dim, dtype=torch.float32)
        return QuantizedKeys(codes, scales, scales, bits, 256)


LLAMA = Model()
QWEN = Model(heads=28, kv_heads=4, window_size=32)
GEMMA = Model(heads=8, kv_heads=4, head_dim=256)
PHI = Model(heads=32, kv_heads=32, head_dim=96)
SMALL = Model(heads=32, kv_heads=8, head_dim=64)
PLAIN = Terms(scale=0.09, sliding_window=None, softcap=None)


def decode(model: Model, part: Part, batch: int, length: int = 1, terms: Terms = PLAIN) -> list[Launch]:
    queries = model.queries(batch, length)
    sinks = model.empty(model.heads) if terms.softcap else None
    tables = model.tables(batch, 32_768)
    positions, filled = model.numbers(batch, length), model.numbers(batch) if length == 1 else None
    return plan_decode(queries, model.blocks, 3, *tables, positions, filled, terms, sinks, queries, part)


def shared_prefix(model: Model, part: Part, batch: int) -> list[Launch]:
    queries, positions = model.queries(batch, 1), model.numbers(batch, 1)
    shared, own = model.tables(1, 32_768), model.tables(batch, 512)
    filled = (model.numbers(1), model.numbers(batch))
    return plan_shared(queries, model.blocks, 3, shared, own, positions, filled, PLAIN, None, queries, part)


def score(
    model: Model, part: Part, top_p: int | None, bits: int | None = None, *, knows_lse: bool = False
) -> list[Launch]:
    """bits: of the leader keys that a question's 16 tokens score; None: a prompt's 32 observers on its own keys, with
    what their attention left where it is known."""
    num_observers = 32 if bits is None else 16
    num_review = NUM_TOKENS - (num_observers if bits is None else 0)
    question = _score_plan.Question(model.window_size, 0.09, top_p, None, bits is None, num_review)
    queries = model.empty(model.heads, num_observers, model.head_dim)
    lse = model.empty(model.heads, num_observers, dtype=torch.float32) if knows_lse else None
    return _score_plan.plan(queries, model.keys(bits or 0), question, part, lse)[0]


def move(model: Model, part: Part, *, is_gather: bool) -> list[Launch]:
    staging = model.empty(32, 2, NUM_TOKENS, model.kv_heads, model.head_dim)
    some = model.numbers(1000)
    arguments = (staging, range(GAMMA), some, NUM_TOKENS, model.blocks, some, part)
    return [_move_windows.plan(*arguments, is_gather=is_gather)]


def append(model: Model) -> list[Launch]:
    new = model.empty(64, 1, model.kv_heads, model.head_dim)
    return [plan_append(model.blocks, 3, new, new, model.numbers(64, 1))]


def quantized_keys(model: Model, part: Part, bits: int) -> list[Launch]:
    plain, codes = model.keys(), model.keys(bits)
    assert isinstance(plain, Tensor) and isinstance(codes, QuantizedKeys)
    return [plan_quantize(plain, bits, 256, part)[0], plan_dequantize(codes, torch.bfloat16, part)[0]]


def quantized_blocks(model: Model, part: Part) -> Iterator[tuple[str, list[Launch]]]:
    some = model.numbers(1000)
    for codec in BLOCK_CODECS:
        quantized = QuantizedBlocks.empty(1000, tuple(model.blocks.shape[1:]), codec, some.device)
        down = plan_quantize_blocks(model.blocks, some, codec, part)[0]
        yield (
            f"blocks to {codec} and back",
            [down, plan_dequantize_blocks(quantized, model.blocks, some, part)],
        )


def cases(part: Part) -> Iterator[tuple[str, list[Launch]]]:
    """What models of real shape launch."""
    capped = Terms(scale=0.06, sliding_window=1024, softcap=50.0)
    yield "decode, 32/8 heads of 128", decode(LLAMA, part, batch=16)
    yield "decode, 28/4 heads of 128", decode(QWEN, part, batch=16)
    yield "decode, 32/8 heads of 64", decode(SMALL, part, batch=16)
    yield "decode, 32/32 heads of 96", decode(PHI, part, batch=4)
    yield "decode, 8/4 heads of 256, sliding, capped, sinks", decode(GEMMA, part, batch=4, terms=capped)
    yield "question of 256 tokens, 32/8 heads of 128", decode(LLAMA, part, batch=1, length=256)
    yield "question of 256 tokens, 8/4 heads of 256", decode(GEMMA, part, batch=1, length=256)
    yield "64 sequences on one document", shared_prefix(LLAMA, part, batch=64)
    yield "new tokens", append(LLAMA)
    yield "windows to blocks", move(LLAMA, part, is_gather=True)
    yield "blocks to windows", move(LLAMA, part, is_gather=False)
    for top_p, statistic in ((None, "mean"), (8, "top-p mean")):
        yield f"windows of a prompt, {statistic}", score(LLAMA, part, top_p, knows_lse=True)
        yield f"windows of a prompt, {statistic}, denominators unknown", score(LLAMA, part, top_p)
    yield "windows of a prompt, 28/4 heads, top-p mean", score(QWEN, part, 16, knows_lse=True)
    yield "windows of a prompt, 8/4 heads of 256", score(GEMMA, part, 8)
    yield "windows of a question, int4 keys", score(LLAMA, part, None, bits=4)
    yield "windows of a question, int8 keys, top-p mean", score(LLAMA, part, 8, bits=8)
    yield (
        "the best windows",
        [plan_select(LLAMA.empty(4, 8192, dtype=torch.float32), [983] * 4, [0, 8191], part)[0]],
    )
    yield "keys to int4 and back", quantized_keys(LLAMA, part, 4)
    yield "keys to int8 and back", quantized_keys(LLAMA, part, 8)
    yield from quantized_blocks(LLAMA, part)


def compile_all(names: Sequence[str]) -> Iterator[Row]:
    for name in names:
        for case, launches in cases(KNOWN[name]):
            for launch in launches:
                yield Row(case, name, launch.grid, compile_ahead(launch, CAPABILITY[name]))


def render(rows: Sequence[Row]) -> str:
    lines = [
        "# Kernels compiled ahead of time",
        "",
        f"By `python benchmarks/kernels_aot.py`, triton {version('triton')}, without a GPU. bf16; "
        f"{NUM_TOKENS} tokens scored, 32768 slots per table. Shared memory in KiB per program, and of what the part "
        "allows one; registers per thread.",
        "",
        "| case | kernel | part | programs | warps | shared | of | registers | spilled | tensor cores | cp.async |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        one = row.compiled
        cells = [
            row.case,
            f"`{one.kernel}`",
            f"{row.part} (sm_{one.capability})",
            " × ".join(map(str, row.grid)),
            one.num_warps,
            f"{one.shared_bytes / 1024:.1f}",
            SHARED_LIMIT[one.capability] // 1024,
            "–" if one.registers is None else one.registers,
            "–" if one.spill_bytes is None else one.spill_bytes,
            one.tensor_core or "no",
            "yes" if one.has_async_copies else "no",
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=sorted(CAPABILITY), action="append")
    parser.add_argument("--json", type=Path, help="write rows there, and no report")
    args = parser.parse_args()
    rows = list(compile_all(args.part or PARTS))
    if args.json:
        as_data = [asdict(row) | {"faults": row.faults} for row in rows]
        args.json.write_text(json.dumps(as_data, indent=1) + "\n", encoding="utf-8")
    else:
        REPORT.parent.mkdir(parents=True, exist_ok=True)
        REPORT.write_text(render(rows), encoding="utf-8")
        print(f"{len(rows)} kernels compiled; written to {REPORT}")
    for row in rows:
        for fault in row.faults:
            print(f"{row.case}, {row.compiled.kernel} on {row.part}: {fault}", file=sys.stderr)
    return int(any(row.faults for row in rows))


if __name__ == "__main__":
    sys.exit(main())
