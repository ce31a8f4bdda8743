"""gather_windows, scatter_windows and append_kv: the right bytes in the right place, nothing else touched."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from windowkv_kernels import append_kv, gather_windows, scatter_windows


def make_staging(num_layers, capacity, num_kv_heads=2, head_dim=4):
    shape = (num_layers, 2, capacity, num_kv_heads, head_dim)
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float32).view(shape)


def expected_block(staging, layers, window, num_tokens, window_size):
    block = torch.zeros(len(layers), 2, window_size, *staging.shape[3:])
    for place, layer in enumerate(layers):
        for offset in range(window_size):
            token = window * window_size + offset
            if token < num_tokens:
                block[place, :, offset] = staging[layer, :, token]
    return block


@pytest.mark.parametrize("num_tokens", [1, 7, 8, 9, 37])
@pytest.mark.parametrize("layers", [(0,), (1, 3), (4, 2, 0)])
def test_blocks_hold_their_windows_and_zeros_past_the_prompt(num_tokens, layers):
    window_size, num_blocks = 8, 9
    staging = make_staging(5, 40)
    staging[:, :, num_tokens:] = float("nan")  # unwritten staging may hold anything
    windows = torch.arange(-(-num_tokens // window_size)).flip(0)
    blocks = torch.full((num_blocks, len(layers), 2, window_size, 2, 4), -1.0)
    block_ids = torch.randperm(num_blocks)[: len(windows)]
    gather_windows(staging, layers, windows, num_tokens, blocks, block_ids)
    for window, block_id in zip(windows.tolist(), block_ids.tolist(), strict=True):
        expected = expected_block(staging, layers, window, num_tokens, window_size)
        assert torch.equal(blocks[block_id], expected)
    others = [block for block in range(num_blocks) if block not in block_ids.tolist()]
    assert bool((blocks[others] == -1).all())


@settings(max_examples=40, deadline=None)
@given(num_tokens=st.integers(1, 60), window_size=st.integers(1, 17), seed=st.integers(0, 1000))
def test_scatter_restores_what_gather_took_and_nothing_else(num_tokens, window_size, seed):
    torch.manual_seed(seed)
    staging = make_staging(3, 61)
    num_windows = -(-num_tokens // window_size)
    windows = torch.randperm(num_windows)[: max(1, num_windows // 2)]
    blocks = torch.full((num_windows + 3, 2, 2, window_size, 2, 4), float("nan"))
    block_ids = torch.randperm(num_windows + 3)[: len(windows)]
    gather_windows(staging, [2, 0], windows, num_tokens, blocks, block_ids)
    restored = torch.full_like(staging, -1.0)
    scatter_windows(blocks, block_ids, restored, [2, 0], windows, num_tokens)
    taken = torch.zeros(61, dtype=torch.bool)
    for window in windows.tolist():
        taken[window * window_size : min((window + 1) * window_size, num_tokens)] = True
    for layer in (0, 2):
        assert torch.equal(restored[layer][:, taken], staging[layer][:, taken])
    restored[0][:, taken] = restored[2][:, taken] = -1.0
    assert bool((restored == -1).all())


def test_no_windows_is_no_work():
    blocks = torch.ones(2, 1, 2, 4, 1, 2)
    none = torch.zeros(0, dtype=torch.int64)
    gather_windows(torch.zeros(1, 2, 5, 1, 2), [0], none, 5, blocks, none)
    assert bool((blocks == 1).all())


@pytest.mark.parametrize("window_size", [1, 5, 16])
@pytest.mark.parametrize("length", [1, 3])
def test_appended_tokens_land_in_their_slots_and_skipped_ones_nowhere(window_size, length):
    torch.manual_seed(0)
    num_blocks, num_layers, batch = 13, 3, 4
    blocks = torch.zeros(num_blocks, num_layers, 2, window_size, 2, 4)
    slots = torch.randperm(num_blocks * window_size)[: batch * length].view(batch, length)
    slots[1, 0] = slots[3, length - 1] = -1
    keys, values = torch.randn(2, batch, length, 2, 4)
    append_kv(blocks, 1, keys, values, slots)
    expected = torch.zeros_like(blocks)
    for b in range(batch):
        for i in range(length):
            slot = int(slots[b, i])
            if slot >= 0:
                expected[slot // window_size, 1, 0, slot % window_size] = keys[b, i]
                expected[slot // window_size, 1, 1, slot % window_size] = values[b, i]
    assert torch.equal(blocks, expected)


def test_all_tokens_skipped_changes_nothing():
    blocks = torch.ones(2, 1, 2, 4, 1, 2)
    append_kv(blocks, 0, torch.zeros(1, 2, 1, 2), torch.zeros(1, 2, 1, 2), torch.full((1, 2), -1))
    assert bool((blocks == 1).all())


@pytest.mark.parametrize(
    "change",
    [
        {"num_tokens": 0},
        {"num_tokens": 41},
        {"windows": torch.tensor([5])},
        {"windows": torch.tensor([-1])},
        {"windows": torch.tensor([0], dtype=torch.int32)},
        {"windows": torch.tensor([0, 1])},
        {"layers": [0]},
        {"staging": torch.zeros(2, 2, 40, 1, 4)},
        {"staging": torch.zeros(2, 2, 40, 2, 4, dtype=torch.float16)},
    ],
    ids=str,
)
def test_wrong_arguments_are_refused(change):
    arguments = {
        "staging": torch.zeros(2, 2, 40, 2, 4),
        "layers": [0, 1],
        "windows": torch.tensor([0]),
        "num_tokens": 40,
        "blocks": torch.zeros(3, 2, 2, 8, 2, 4),
        "block_ids": torch.tensor([1]),
    }
    for operation in (gather_windows, scatter_windows):
        with pytest.raises(ValueError):
            operation(**(arguments | change))


@pytest.mark.parametrize(
    "change",
    [
        {"place": 2},
        {"place": -1},
        {"keys": torch.zeros(1, 3, 2, 4)},
        {"values": torch.zeros(1, 2, 1, 4)},
        {"slots": torch.zeros(1, 2, dtype=torch.int32)},
        {"values": torch.zeros(1, 2, 2, 4, dtype=torch.float16)},
        {"blocks": torch.zeros(3, 2, 8, 2, 2, 4).transpose(2, 3)},
    ],
    ids=str,
)
def test_wrong_tokens_to_append_are_refused(change):
    arguments = {
        "blocks": torch.zeros(3, 2, 2, 8, 2, 4),
        "place": 0,
        "keys": torch.zeros(1, 2, 2, 4),
        "values": torch.zeros(1, 2, 2, 4),
        "slots": torch.zeros(1, 2, dtype=torch.int64),
    }
    with pytest.raises(ValueError):
        append_kv(**(arguments | change))
