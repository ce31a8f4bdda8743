"""The books of one arena."""

from __future__ import annotations

import pytest
from cache_events import address

from windowkv_service.cache.block_pool import BlockPool, PoolFull


def bound(pool: BlockPool, *numbers: int) -> list[int]:
    block_ids = pool.take(len(numbers))
    for block_id, number in zip(block_ids, numbers, strict=True):
        pool.bind(block_id, address(number))
    return block_ids


def counts(pool: BlockPool) -> tuple[int, int, int]:
    pool.check_integrity()
    return pool.num_free, pool.num_cached, pool.num_used


def test_a_new_pool_is_free() -> None:
    assert counts(BlockPool(3)) == (3, 0, 0)


def test_a_pool_without_blocks_gives_none() -> None:
    pool = BlockPool(0)
    assert pool.take(0) == []
    with pytest.raises(PoolFull):
        pool.take(1)


def test_taken_blocks_are_used_once_each() -> None:
    pool = BlockPool(3)
    taken = pool.take(2)
    assert len(set(taken)) == 2
    assert [pool.references(block_id) for block_id in taken] == [1, 1]
    assert counts(pool) == (1, 0, 2)


def test_released_anonymous_blocks_are_free() -> None:
    pool = BlockPool(3)
    pool.release(pool.take(2))
    assert counts(pool) == (3, 0, 0)


def test_released_bound_blocks_are_cached_and_found() -> None:
    pool = BlockPool(3)
    block_ids = bound(pool, 1, 2)
    pool.release(block_ids)
    assert counts(pool) == (1, 2, 0)
    assert [pool.find(address(1)), pool.find(address(2)), pool.find(address(3))] == [*block_ids, None]


def test_sharing_keeps_a_block_when_the_first_user_goes() -> None:
    pool = BlockPool(2)
    (block_id,) = bound(pool, 1)
    assert pool.share(address(1)) == block_id
    pool.release([block_id])
    assert counts(pool) == (1, 0, 1)
    pool.release([block_id])
    assert counts(pool) == (1, 1, 0)


def test_sharing_brings_a_cached_block_back_into_use() -> None:
    pool = BlockPool(1)
    pool.release(bound(pool, 1))
    assert pool.share(address(1)) == 0
    assert counts(pool) == (0, 0, 1)
    with pytest.raises(PoolFull):
        pool.take(1)


def test_sharing_what_is_not_there_changes_nothing() -> None:
    pool = BlockPool(1)
    assert pool.share(address(1)) is None
    assert counts(pool) == (1, 0, 0)


def test_taking_uses_free_blocks_before_cached_ones() -> None:
    pool = BlockPool(2)
    pool.release(bound(pool, 1))
    pool.take(1)
    assert pool.find(address(1)) is not None
    assert counts(pool) == (0, 1, 1)


def test_taking_forgets_the_block_released_longest_ago() -> None:
    pool = BlockPool(3)
    first, second, third = bound(pool, 1, 2, 3)
    for block_id in (second, first, third):
        pool.release([block_id])
    assert pool.take(1) == [second]
    assert pool.find(address(2)) is None
    assert counts(pool) == (0, 2, 1)


def test_of_blocks_released_together_the_last_is_forgotten_first() -> None:
    pool = BlockPool(3)
    pool.release(bound(pool, 1, 2, 3))
    pool.take(2)
    assert [pool.find(address(n)) is not None for n in (1, 2, 3)] == [True, False, False]


def test_a_full_pool_takes_nothing() -> None:
    pool = BlockPool(3)
    pool.release(bound(pool, 1, 2))
    pool.take(1)
    with pytest.raises(PoolFull):
        pool.take(3)
    assert counts(pool) == (0, 2, 1)


def test_a_second_block_with_the_same_bytes_stays_anonymous() -> None:
    pool = BlockPool(2)
    first, second = pool.take(2)
    pool.bind(first, address(1))
    pool.bind(second, address(1))
    assert pool.find(address(1)) == first
    pool.release([first, second])
    assert counts(pool) == (1, 1, 0)


def test_a_forgotten_address_is_not_found_but_its_user_keeps_the_block() -> None:
    pool = BlockPool(1)
    block_ids = bound(pool, 1)
    pool.forget(address(1))
    assert pool.find(address(1)) is None
    assert counts(pool) == (0, 0, 1)
    pool.release(block_ids)
    assert counts(pool) == (1, 0, 0)


def test_forgetting_a_cached_block_frees_it() -> None:
    pool = BlockPool(1)
    pool.release(bound(pool, 1))
    pool.forget(address(1))
    pool.forget(address(1))
    assert counts(pool) == (1, 0, 0)


def test_a_double_release_is_our_mistake() -> None:
    pool = BlockPool(1)
    block_ids = pool.take(1)
    pool.release(block_ids)
    with pytest.raises(AssertionError, match="not used"):
        pool.release(block_ids)


def test_retaining_a_free_block_is_our_mistake() -> None:
    with pytest.raises(AssertionError, match="free"):
        BlockPool(1).retain([0])


def test_binding_used_bytes_to_another_address_is_our_mistake() -> None:
    pool = BlockPool(1)
    bound(pool, 1)
    with pytest.raises(AssertionError, match="other bytes"):
        pool.bind(0, address(2))
