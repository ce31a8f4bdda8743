"""Shapes, dtypes, strides and devices that operations accept; both twins of an operation refuse the same. Raises
ValueError."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from windowkv_kernels.formats import BLOCK_CODECS, CODE_BITS, QuantizedBlocks, QuantizedKeys


def score_windows(
    queries: Tensor,
    keys: Tensor,
    num_observed: int,
    window_size: int,
    top_p: int | None,
    lse: Tensor | None,
) -> None:
    _attention_pair(queries, keys.shape, window_size, top_p)
    _floating("keys", keys)
    _one_device(queries=queries, keys=keys, lse=lse)
    if lse is not None:
        _shape("lse", lse.shape, queries.shape[:2])
        if lse.dtype != torch.float32:
            raise ValueError(f"lse must be float32, not {lse.dtype}")
    limit = min(queries.shape[1], keys.shape[0])
    if not 1 <= num_observed <= limit:
        raise ValueError(f"num_observed must be in 1 … {limit} (queries given, tokens), not {num_observed}")


def score_leader_keys(
    queries: Tensor, keys: Tensor | QuantizedKeys, window_size: int, top_p: int | None
) -> None:
    if isinstance(keys, QuantizedKeys):
        shape: Sequence[int] = (keys.num_tokens, keys.num_kv_heads, keys.head_dim)
        _one_device(queries=queries, keys=keys.codes, low=keys.low, step=keys.step)
    else:
        _floating("keys", keys)
        _one_device(queries=queries, keys=keys)
        shape = keys.shape
    _attention_pair(queries, shape, window_size, top_p)


def select_windows(scores: Tensor, counts: Sequence[int], forced: Sequence[int]) -> None:
    _dims("scores", scores, 2)
    if scores.dtype != torch.float32:
        raise ValueError(f"scores must be float32, not {scores.dtype}")
    num_rows, num_windows = scores.shape
    _shape("counts", (len(counts),), (num_rows,))
    _positive("number of windows", num_windows)
    if any(not 0 <= window < num_windows for window in forced) or len(set(forced)) < len(forced):
        raise ValueError(
            f"forced windows must be different ones of 0 … {num_windows - 1}, not {list(forced)}"
        )
    if any(not len(forced) <= count <= num_windows for count in counts):
        raise ValueError(f"counts must be in {len(forced)} (forced) … {num_windows}, not {list(counts)}")


def quantize_keys(keys: Tensor, bits: int, group_tokens: int) -> None:
    _dims("keys", keys, 3)
    _floating("keys", keys)
    _positive("number of keys", keys.shape[0])
    _positive("group_tokens", group_tokens)
    if bits not in CODE_BITS:
        raise ValueError(f"bits must be one of {CODE_BITS}, not {bits}")
    if bits == 4 and keys.shape[2] % 2:
        raise ValueError(f"4 bits need an even head_dim, not {keys.shape[2]}")


def quantize_blocks(blocks: Tensor, block_ids: Tensor, codec: str) -> None:
    _blocks(blocks, 0)
    _floating("blocks", blocks)
    _dims("block_ids", block_ids, 1)
    _integers("block_ids", block_ids)
    _one_device(blocks=blocks, block_ids=block_ids)
    if codec not in BLOCK_CODECS:
        raise ValueError(f"codec must be one of {BLOCK_CODECS}, not {codec!r}")
    if blocks.shape[5] % 2:
        raise ValueError(f"quantized blocks need an even head_dim, not {blocks.shape[5]}")


def dequantize_blocks(quantized: QuantizedBlocks, blocks: Tensor, block_ids: Tensor) -> None:
    quantize_blocks(blocks, block_ids, quantized.codec)
    _shape("blocks", blocks.shape[1:], quantized.block_shape)
    _shape("block_ids", block_ids.shape, (quantized.num_blocks,))
    _contiguous("packed", quantized.packed)
    _one_device(blocks=blocks, packed=quantized.packed)


def move_windows(
    staging: Tensor,
    layers: Sequence[int],
    windows: Tensor,
    num_tokens: int,
    blocks: Tensor,
    block_ids: Tensor,
) -> None:
    _dims("staging", staging, 5)
    _blocks(blocks, 0)
    _shape("staging", staging.shape[3:], blocks.shape[4:])
    _contiguous("the tokens of a layer of staging", staging[0, 0])
    _one_device(staging=staging, blocks=blocks, windows=windows, block_ids=block_ids)
    if staging.dtype != blocks.dtype:
        raise ValueError(f"staging is {staging.dtype}, blocks are {blocks.dtype}")
    if len(layers) != blocks.shape[1]:
        raise ValueError(f"{len(layers)} layers for blocks of {blocks.shape[1]}")
    if not all(0 <= layer < staging.shape[0] for layer in layers):
        raise ValueError(f"layers must be rows of staging, 0 … {staging.shape[0] - 1}, not {list(layers)}")
    _shape("block_ids", block_ids.shape, windows.shape)
    _dims("windows", windows, 1)
    _integers("windows", windows)
    _integers("block_ids", block_ids)
    if not 0 < num_tokens <= staging.shape[2]:
        raise ValueError(
            f"num_tokens must be in 1 … {staging.shape[2]} (staging's capacity), not {num_tokens}"
        )
    num_windows = -(-num_tokens // blocks.shape[3])
    if windows.device.type != "cpu" or not windows.numel():
        return  # looking at numbers on a GPU would wait for it
    if not (int(windows.min()) >= 0 and int(windows.max()) < num_windows):
        raise ValueError(f"windows must be in 0 … {num_windows - 1}")


def append_kv(blocks: Tensor, place: int, keys: Tensor, values: Tensor, slots: Tensor) -> None:
    _blocks(blocks, place)
    _dims("keys", keys, 4)
    _shape("keys", keys.shape[2:], blocks.shape[4:])
    _shape("values", values.shape, keys.shape)
    _shape("slots", slots.shape, keys.shape[:2])
    _integers("slots", slots)
    _one_device(blocks=blocks, keys=keys, values=values, slots=slots)
    if not keys.dtype == values.dtype == blocks.dtype:
        raise ValueError(f"keys are {keys.dtype}, values {values.dtype}, blocks {blocks.dtype}")


def decode_attention(
    queries: Tensor,
    blocks: Tensor,
    place: int,
    block_table: Tensor,
    key_positions: Tensor,
    query_positions: Tensor,
    num_filled: Tensor | None,
    sinks: Tensor | None,
) -> None:
    _blocks(blocks, place)
    _dims("queries", queries, 4)
    batch, heads, length, head_dim = queries.shape
    if head_dim != blocks.shape[5] or heads % blocks.shape[4]:
        raise ValueError(f"queries {tuple(queries.shape)} do not fit blocks {tuple(blocks.shape)}")
    if queries.dtype != blocks.dtype:
        raise ValueError(f"queries are {queries.dtype}, blocks are {blocks.dtype}")
    _dims("block_table", block_table, 2)
    _shape("block_table", block_table.shape[:1], (batch,))
    _positive("number of blocks per table", block_table.shape[1])
    _shape("key_positions", key_positions.shape, (batch, block_table.shape[1] * blocks.shape[3]))
    _shape("query_positions", query_positions.shape, (batch, length))
    for name, tensor in (("block_table", block_table), ("key_positions", key_positions)):
        _integers(name, tensor)
    _integers("query_positions", query_positions)
    _one_device(
        queries=queries,
        blocks=blocks,
        block_table=block_table,
        key_positions=key_positions,
        query_positions=query_positions,
        num_filled=num_filled,
        sinks=sinks,
    )
    if num_filled is not None:
        _shape("num_filled", num_filled.shape, (batch,))
        _integers("num_filled", num_filled)
    if sinks is not None:
        _shape("sinks", sinks.shape, (heads,))
        _floating("sinks", sinks)


def shared_prefix(
    blocks: Tensor, shared_table: Tensor, shared_positions: Tensor, num_shared: Tensor | None
) -> None:
    if num_shared is not None:
        _shape("num_shared", num_shared.shape, (1,))
        _integers("num_shared", num_shared)
    _dims("blocks", blocks, 6)
    _dims("shared_table", shared_table, 1)
    _positive("number of shared blocks", shared_table.shape[0])
    _shape("shared_positions", shared_positions.shape, (shared_table.shape[0] * blocks.shape[3],))
    _integers("shared_table", shared_table)
    _integers("shared_positions", shared_positions)
    _one_device(
        blocks=blocks, shared_table=shared_table, shared_positions=shared_positions, num_shared=num_shared
    )


def _attention_pair(queries: Tensor, keys: Sequence[int], window_size: int, top_p: int | None) -> None:
    _dims("queries", queries, 3)
    _floating("queries", queries)
    heads, length, head_dim = queries.shape
    if len(keys) != 3 or keys[2] != head_dim or heads == 0 or keys[1] == 0 or heads % keys[1]:
        raise ValueError(f"queries {tuple(queries.shape)} do not fit keys {tuple(keys)}")
    _positive("number of queries", length)
    _positive("number of keys", keys[0])
    _positive("window_size", window_size)
    if top_p is not None:
        _positive("top_p", top_p)


def _blocks(blocks: Tensor, place: int) -> None:
    _dims("blocks", blocks, 6)
    _contiguous("blocks", blocks)
    if not 0 <= place < blocks.shape[1]:
        raise ValueError(f"place must be in 0 … {blocks.shape[1] - 1}, not {place}")


def _dims(name: str, tensor: Tensor, dims: int) -> None:
    if tensor.dim() != dims:
        raise ValueError(f"{name} must have {dims} dimensions, not shape {tuple(tensor.shape)}")


def _shape(name: str, shape: Sequence[int], expected: Sequence[int]) -> None:
    if tuple(shape) != tuple(expected):
        raise ValueError(f"{name} must have shape {tuple(expected)} here, not {tuple(shape)}")


def _contiguous(name: str, tensor: Tensor) -> None:
    if not tensor.is_contiguous():
        raise ValueError(
            f"{name} must be contiguous, not of shape {tuple(tensor.shape)} and strides {tensor.stride()}"
        )


def _one_device(**tensors: Tensor | None) -> None:
    """A kernel would read the others' memory at an address of its own."""
    devices = {name: tensor.device for name, tensor in tensors.items() if tensor is not None}
    if len(set(devices.values())) > 1:
        told = ", ".join(f"{name} on {device}" for name, device in devices.items())
        raise ValueError(f"all tensors must be on one device, not {told}")


def _floating(name: str, tensor: Tensor) -> None:
    if not tensor.is_floating_point():
        raise ValueError(f"{name} must be floating point, not {tensor.dtype}")


def _integers(name: str, tensor: Tensor) -> None:
    if tensor.dtype != torch.int64:
        raise ValueError(f"{name} must be int64, not {tensor.dtype}")


def _positive(name: str, number: int) -> None:
    if number < 1:
        raise ValueError(f"{name} must be at least 1, not {number}")
