"""What the kernel benchmark measures: operations on models of real shape, with the work that cannot be avoided."""

from __future__ import annotations

import math
from collections.abc import Iterator

import flashinfer_decode
import torch
from kernel_problem import BF16, LLAMA, QWEN, Model, Problem, Work, pool, tables
from torch import Tensor

import windowkv_kernels as kernels
from windowkv_kernels import BLOCK_CODECS, BlockCodec, QuantizedBlocks, QuantizedKeys

NUM_OBSERVERS = 32  # of a prompt; half as many of a question's tokens vote
PROMPT = 131_072


def problems() -> Iterator[Problem]:
    """Every operation, most of them in several shapes."""
    for model, batch, kept, window_size in (
        (LLAMA, 1, 32_768, 16),
        (LLAMA, 16, 32_768, 16),
        (LLAMA, 16, 32_768, 128),
        (LLAMA, 16, 32_768, 8),
        (LLAMA, 64, 4096, 16),
        (QWEN, 16, 32_768, 32),
    ):
        yield decode(model, batch, kept, window_size)
    yield decode(LLAMA, 1, 16_384, 16, length=256)
    yield shared_prefix(LLAMA, 64, 32_768, 512)
    for model in (LLAMA, QWEN):
        for top_p in (None, 8):
            yield score_windows(model, top_p)
    for top_p in (None, 8):
        yield score_windows(LLAMA, top_p, knows_lse=False)
    for bits in (4, 8):
        yield score_leader_keys(LLAMA, bits)
    yield select(4, PROMPT // 16)
    yield from moves(LLAMA, num_windows=2000, window_size=16)
    yield append(LLAMA, 64)
    for bits in (4, 8):
        yield from quantized_keys(LLAMA, bits)
    for codec in BLOCK_CODECS:
        yield from quantized_blocks(LLAMA, codec, num_blocks=1000)


def decode(model: Model, batch: int, kept: int, window_size: int, length: int = 1) -> Problem:
    def memory(device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        blocks = pool(model, batch * kept // window_size, 1, window_size, device)
        queries = torch.randn(batch, model.heads, length, model.head_dim, dtype=BF16, device=device)
        return queries, blocks, *tables(batch, kept, window_size, device)

    def prepare(device: torch.device) -> Work:
        queries, blocks, table, positions = memory(device)
        asked = torch.arange(kept - length, kept, device=device).expand(batch, -1).contiguous()
        filled = torch.full((batch,), kept, device=device) if length == 1 else None
        return lambda: kernels.decode_attention(
            queries, blocks, 0, table, positions, asked, filled, scale=model.head_dim**-0.5
        )

    shape = f"{model.name}, batch {batch}, {kept} kept, ω {window_size}"
    size, flops = batch * kept * model.token_bytes, 4 * batch * length * model.heads * kept * model.head_dim
    if length > 1:
        return Problem("decode_attention", f"{shape}, {length} tokens", size, flops, None, prepare)
    goal = 0.85 if batch >= 16 else None

    def peer(device: torch.device) -> Work | None:
        return flashinfer_decode.prepare(model, *memory(device)[:3])

    return Problem("decode_attention", shape, size, flops, goal, prepare, peer)


def shared_prefix(model: Model, batch: int, shared: int, own: int) -> Problem:
    window_size = 16

    def prepare(device: torch.device) -> Work:
        num_shared = shared // window_size
        blocks = pool(model, num_shared + batch * own // window_size, 1, window_size, device)
        table, positions = tables(1, shared, window_size, device)
        own_table, own_positions = tables(batch, own, window_size, device)
        queries = torch.randn(batch, model.heads, 1, model.head_dim, dtype=BF16, device=device)
        asked = torch.full((batch, 1), shared + own, device=device)
        filled = torch.full((batch,), own, device=device)
        both = (table[0], positions[0], own_table + num_shared, own_positions + shared)
        common = torch.tensor([shared], device=device)
        return lambda: kernels.shared_prefix_decode(
            queries, blocks, 0, *both, asked, filled, common, scale=model.head_dim**-0.5
        )

    shape = f"{model.name}, batch {batch}, {shared} common, {own} own"
    flops = 4 * batch * model.heads * (shared + own) * model.head_dim
    return Problem(
        "shared_prefix_decode", shape, (shared + batch * own) * model.token_bytes, flops, None, prepare
    )


def score_windows(model: Model, top_p: int | None, *, knows_lse: bool = True) -> Problem:
    """knows_lse: as a prefill leaves it. Without it a top-p mean takes two readings, and so has no goal."""
    is_twice = top_p is not None and not knows_lse

    def prepare(device: torch.device) -> Work:
        staging = torch.randn(2, PROMPT, model.kv_heads, model.head_dim, dtype=BF16, device=device)
        queries = torch.randn(model.heads, NUM_OBSERVERS, model.head_dim, dtype=BF16, device=device)
        # Of random keys and queries every denominator is near this one; the time is what counts.
        known = torch.full(queries.shape[:2], math.log(PROMPT) + 0.5, device=device)
        lse = known if knows_lse else None
        terms = {"window_size": 16, "scale": model.head_dim**-0.5, "top_p": top_p, "lse": lse}
        return lambda: kernels.score_windows(queries, staging[0], **terms)

    statistic = "mean" if top_p is None else f"top-{top_p} mean"
    flops = (2 if is_twice else 1) * 2 * model.heads * NUM_OBSERVERS * PROMPT * model.head_dim
    shape = f"{model.name}, {PROMPT} tokens, α {NUM_OBSERVERS}, ω 16, {statistic}"
    if not knows_lse:
        shape += ", denominators unknown"
    size = PROMPT * model.token_bytes // 2
    return Problem("score_windows", shape, size, flops, None if is_twice else 0.75, prepare)


def score_leader_keys(model: Model, bits: int) -> Problem:
    votes = NUM_OBSERVERS // 2

    def prepare(device: torch.device) -> Work:
        keys = torch.randn(PROMPT, model.kv_heads, model.head_dim, dtype=BF16, device=device)
        index = kernels.quantize_keys(keys, bits=bits)
        queries = torch.randn(model.heads, votes, model.head_dim, dtype=BF16, device=device)
        return lambda: kernels.score_leader_keys(queries, index, window_size=16, scale=model.head_dim**-0.5)

    size = QuantizedKeys.count_bytes(PROMPT, model.kv_heads, model.head_dim, bits=bits)
    flops = 2 * model.heads * votes * PROMPT * model.head_dim
    shape = f"{model.name}, {PROMPT} tokens, {votes} votes, int{bits} keys, mean"
    return Problem("score_leader_keys", shape, size, flops, None, prepare)


def select(num_leaders: int, num_windows: int) -> Problem:
    counts = [num_windows // 8] * num_leaders

    def prepare(device: torch.device) -> Work:
        scores = torch.rand(num_leaders, num_windows, device=device)
        return lambda: kernels.select_windows(scores, counts, forced=(0, num_windows - 1))

    shape = f"{num_leaders} leaders, {counts[0]} of {num_windows} windows"
    return Problem("select_windows", shape, 0, 0, None, prepare)


def moves(model: Model, num_windows: int, window_size: int) -> Iterator[Problem]:
    num_layers = 8

    def tensors(device: torch.device) -> tuple[Tensor, Tensor, Tensor, int]:
        num_tokens = 2 * num_windows * window_size
        staging = torch.randn(
            num_layers, 2, num_tokens, model.kv_heads, model.head_dim, dtype=BF16, device=device
        )
        windows = torch.randperm(2 * num_windows, device=device)[:num_windows].sort().values
        return staging, windows, torch.randperm(num_windows, device=device), num_tokens

    def gather(device: torch.device) -> Work:
        staging, windows, ids, num_tokens = tensors(device)
        blocks = pool(model, num_windows, num_layers, window_size, device)
        return lambda: kernels.gather_windows(staging, range(num_layers), windows, num_tokens, blocks, ids)

    def scatter(device: torch.device) -> Work:
        staging, windows, ids, num_tokens = tensors(device)
        blocks = pool(model, num_windows, num_layers, window_size, device)
        return lambda: kernels.scatter_windows(blocks, ids, staging, range(num_layers), windows, num_tokens)

    shape = f"{model.name}, {num_windows} windows of {window_size}, {num_layers} layers"
    size = 2 * num_windows * window_size * num_layers * model.token_bytes
    yield Problem("gather_windows", shape, size, 0, 0.85, gather)
    yield Problem("scatter_windows", shape, size, 0, 0.85, scatter)


def append(model: Model, batch: int) -> Problem:
    def prepare(device: torch.device) -> Work:
        blocks = pool(model, batch, 8, 16, device)
        new = torch.randn(batch, 1, model.kv_heads, model.head_dim, dtype=BF16, device=device)
        slots = (torch.arange(batch, device=device) * 16 + 5)[:, None]
        return lambda: kernels.append_kv(blocks, 3, new, new, slots)

    return Problem("append_kv", f"{model.name}, batch {batch}", 0, 0, None, prepare)


def quantized_keys(model: Model, bits: int) -> Iterator[Problem]:
    def plain(device: torch.device) -> Tensor:
        return torch.randn(PROMPT, model.kv_heads, model.head_dim, dtype=BF16, device=device)

    def quantize(device: torch.device) -> Work:
        keys = plain(device)
        return lambda: kernels.quantize_keys(keys, bits=bits)

    def dequantize(device: torch.device) -> Work:
        quantized = kernels.quantize_keys(plain(device), bits=bits)
        return lambda: kernels.dequantize_keys(quantized, dtype=BF16)

    size = QuantizedKeys.count_bytes(PROMPT, model.kv_heads, model.head_dim, bits=bits)
    size += PROMPT * model.token_bytes // 2
    shape = f"{model.name}, {PROMPT} tokens, int{bits}"
    yield Problem("quantize_keys", shape, size, 0, 0.85, quantize)
    yield Problem("dequantize_keys", shape, size, 0, 0.85, dequantize)


def quantized_blocks(model: Model, codec: BlockCodec, num_blocks: int) -> Iterator[Problem]:
    block = (8, 2, 16, model.kv_heads, model.head_dim)

    def quantize(device: torch.device) -> Work:
        blocks, ids = (
            pool(model, num_blocks, block[0], block[2], device),
            torch.arange(num_blocks, device=device),
        )
        return lambda: kernels.quantize_blocks(blocks, ids, codec=codec)

    def dequantize(device: torch.device) -> Work:
        blocks, ids = (
            pool(model, num_blocks, block[0], block[2], device),
            torch.arange(num_blocks, device=device),
        )
        quantized = kernels.quantize_blocks(blocks, ids, codec=codec)
        return lambda: kernels.dequantize_blocks(quantized, blocks, ids)

    plain = block[0] * block[2] * model.token_bytes
    size = num_blocks * (plain + QuantizedBlocks.count_bytes(block, codec))
    shape = f"{model.name}, {num_blocks} blocks of {block[2]} tokens, {codec}"
    yield Problem("quantize_blocks", shape, size, 0, 0.85, quantize)
    yield Problem("dequantize_blocks", shape, size, 0, 0.85, dequantize)
