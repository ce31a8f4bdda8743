"""The longest cached prefix, by content address alone."""

from __future__ import annotations

from array import array

import pytest
from cache_events import address
from hypothesis import given
from hypothesis import strategies as st

from windowkv_service.cache import prefix
from windowkv_service.cache.block_pool import BlockPool
from windowkv_service.domain.keys import Namespace, chain_digests

NAMESPACE = Namespace(b"model" * 6, b"secret")


def rows(*texts: str) -> list[list[bool]]:
    return [[mark == "x" for mark in text] for text in texts]


@pytest.mark.parametrize(
    ("present", "reaches", "length"),
    [
        (rows("xxxx"), [None], 4),
        (rows("xx.x"), [None], 2),
        (rows(".xxx"), [None], 0),
        (rows("xxxx", "xxx."), [None, None], 3),
        (rows("xxxx", "..xx"), [None, 2], 4),
        (rows("xxxx", ".xx."), [None, 2], 3),
        (rows("xxxx", "x..x"), [None, 2], 1),
        (rows("xxxx", "...x"), [None, 2], 0),
        (rows(""), [None], 0),
        ([], [], 0),
    ],
)
def test_the_longest_prefix(present: list[list[bool]], reaches: list[int | None], length: int) -> None:
    assert prefix.longest_prefix(present, reaches) == length


@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=3), st.data())
def test_the_longest_prefix_is_what_trying_every_length_finds(
    present: list[list[bool]], data: st.DataObject
) -> None:
    reach = st.none() | st.integers(1, 4)
    reaches = data.draw(st.lists(reach, min_size=len(present), max_size=len(present)))

    def suffices(n: int) -> bool:
        starts = [0 if reach is None else max(0, n - reach) for reach in reaches]
        return all(all(row[start:n]) for row, start in zip(present, starts, strict=True))

    assert prefix.longest_prefix(present, reaches) == max(n for n in range(7) if n == 0 or suffices(n))


def test_prompts_share_addresses_as_far_as_their_windows_agree() -> None:
    one, other = [*range(40)], [*range(32), 99, 98, 97]
    mine, theirs = (prefix.group_addresses(NAMESPACE, chain_digests(ids, 16), 2) for ids in (one, other))
    assert [mine[g][w] == theirs[g][w] for g in (0, 1) for w in (0, 1, 2)] == [True, True, False] * 2
    assert len({*mine[0], *mine[1]}) == 6


def test_presence_on_the_device_is_asked_of_each_groups_pool() -> None:
    pools = [BlockPool(2), BlockPool(2)]
    for pool, number in zip(pools, (1, 4), strict=True):
        pool.bind(pool.take(1)[0], address(number))
    addresses = [[address(1), address(2)], [address(3), address(4)]]
    assert prefix.on_device(addresses, pools) == rows("x.", ".x")


def test_what_is_lacking_is_asked_for_by_window() -> None:
    addresses = [[address(1), address(2)], [address(3), address(4)]]
    assert prefix.lacking(addresses, rows("x.", "xx")) == [[], [address(2)]]


def test_leading_windows_end_at_the_first_that_is_not_whole() -> None:
    windows = [[address(1)], [], [address(2), address(3)], [address(4)]]
    assert prefix.leading_windows(windows, {address(1), address(2), address(4)}.__contains__) == 2


@given(st.integers(0, 5000), st.integers(0, 3000), st.integers(0, 3000))
def test_the_common_length_of_two_prompts(common: int, more: int, other_more: int) -> None:
    shared = array("I", range(common))
    one, other = shared + array("I", [7_000_000] * more), shared + array("I", [8_000_000] * other_more)
    assert prefix.common_length(one, other) == common
