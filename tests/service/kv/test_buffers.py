"""Arenas share the device's bytes as a full cache would; staging keeps each stored KV once."""

from __future__ import annotations

import pytest
import torch

from windowkv_service.kv.buffers import Arenas, Staging
from windowkv_service.kv.layout import KVLayout

CPU = torch.device("cpu")


def plan(owners: list[int], sliding: list[int | None], group_size: int = 2) -> KVLayout:
    return KVLayout.plan(
        owners, sliding, group_size=group_size, window_size=4, num_kv_heads=2, head_dim=3, itemsize=4
    )


UNEVEN = plan([0, 1, 2, 3, 4], [None] * 5)  # groups of 2, 2 and 1 layers
SHARED = plan([0, 1, 0, 1], [None, 8, None, 8])  # the last two layers read the first two


def test_groups_of_the_same_size_share_an_arena() -> None:
    arenas = Arenas(UNEVEN, {1: 7, 2: 14}, dtype=torch.float32, device=CPU)
    assert {arena: tuple(tensor.shape) for arena, tensor in arenas.tensors.items()} == {
        1: (7, 1, 2, 4, 2, 3),
        2: (14, 2, 2, 4, 2, 3),
    }
    assert arenas.of(UNEVEN.groups[0]) is arenas.of(UNEVEN.groups[1])
    assert arenas.of(UNEVEN.groups[2]) is not arenas.of(UNEVEN.groups[0])


def test_the_devices_bytes_are_shared_in_proportion_to_a_full_cache() -> None:
    window_bytes = sum(UNEVEN.block_bytes(group) for group in UNEVEN.groups)
    assert Arenas.blocks_that_fit(UNEVEN, 10 * window_bytes) == {2: 20, 1: 10}
    assert Arenas.blocks_that_fit(UNEVEN, 10 * window_bytes - 1) == {2: 18, 1: 9}


def test_no_more_bytes_are_taken_than_allowed() -> None:
    allowed = 12_345
    num_blocks = Arenas.blocks_that_fit(UNEVEN, allowed)
    arenas = Arenas(UNEVEN, num_blocks, dtype=torch.float32, device=CPU)
    assert sum(tensor.numel() * tensor.element_size() for tensor in arenas.tensors.values()) <= allowed


def test_a_device_too_small_for_anything_still_holds_one_window() -> None:
    assert Arenas.blocks_that_fit(UNEVEN, 1) == {2: 2, 1: 1}


def test_staging_gives_back_what_was_written_at_its_place() -> None:
    staging = Staging(UNEVEN, 10, dtype=torch.float32, device=CPU)
    keys, values = torch.randn(3, 2, 3), torch.randn(3, 2, 3)
    staging.write(4, 5, keys, values)
    assert torch.equal(staging.keys(4, 8)[5:], keys)
    assert torch.equal(staging.values(4, 8)[5:], values)
    assert not staging.keys(4, 5).any()
    assert not staging.keys(3, 10).any()


def test_what_was_never_written_is_nought_and_not_chance() -> None:
    staging = Staging(UNEVEN, 10, dtype=torch.float32, device=CPU)
    assert not staging.tensor.any()


def test_a_layer_that_reads_another_layers_kv_shares_its_row() -> None:
    staging = Staging(SHARED, 6, dtype=torch.float32, device=CPU)
    assert staging.tensor.shape == (2, 2, 6, 2, 3)
    staging.write(1, 0, torch.ones(6, 2, 3), torch.ones(6, 2, 3))
    assert staging.keys(3, 6).all()
    assert not staging.keys(2, 6).any()


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 4), (torch.bfloat16, 2)])
def test_its_size_is_counted_from_the_tensor(dtype: torch.dtype, size: int) -> None:
    staging = Staging(UNEVEN, 10, dtype=dtype, device=CPU)
    assert staging.size_bytes == 5 * 2 * 10 * 2 * 3 * size
