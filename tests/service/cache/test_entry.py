"""The record of a cached prompt."""

from __future__ import annotations

from array import array

import pytest
from entries import NAMESPACE, entry

from windowkv_service.cache.entry import Entry
from windowkv_service.domain.codec import Codec
from windowkv_service.domain.keys import chain_digests
from windowkv_service.domain.requests import Compression, Retention
from windowkv_service.domain.results import Tier

# What a worker that knows of no codecs makes of the same prompts.
BLOCK_BEFORE_CODECS = "1a030fc3463eaedf26679feb4db4d0b8bee5bb57597098580ee368310794c1ff"
STRIPS_BEFORE_CODECS = "a19be04e0b01b7ba04e1d7771c1516b168c64e00829053f32b5bfdc2b9a9e078"
NAME_BEFORE_CODECS = "c3782a90dc6ddb52a35c2f5957a78750c234407a"


def test_tokens_are_kept_as_an_array() -> None:
    assert entry([1, 2, 3]).token_ids == array("I", [1, 2, 3])


def test_every_retained_window_has_an_address_per_group() -> None:
    made = entry(range(10), kept=[0, 2])
    assert [sorted(row) for row in made.block_addresses] == [[0, 1, 2], [0, 1, 2]]
    assert len(set(made.addresses)) == 6


def test_without_full_retention_only_kept_windows_have_addresses() -> None:
    made = entry(range(10), kept=[0, 2], retention=Retention.SELECTED)
    assert [sorted(row) for row in made.block_addresses] == [[0, 2], [0, 2]]


def test_addresses_are_the_namespaces() -> None:
    made = entry(range(10), profile_digest=b"profile", index_pieces=((0, 1), (3, 2)))
    digests = chain_digests(range(10), 4)
    assert made.block_addresses[1][2] == NAMESPACE.block(digests[2], 1)
    assert made.index_addresses == tuple(
        NAMESPACE.index(digests[-1], b"profile", leader, piece) for leader, piece in ((0, 0), (3, 0), (3, 1))
    )
    assert made.manifest_address == NAMESPACE.manifest(made.cache_id)


def test_every_codec_has_addresses_of_its_own_and_the_exact_one_those_it_always_had() -> None:
    digests = chain_digests(range(9), 4)
    blocks = {NAMESPACE.block(digests[1], 3, codec) for codec in Codec}
    strips = {NAMESPACE.strips(digests[2], b"choice", 1, 2, codec) for codec in Codec}
    assert len(blocks | strips) == 2 * len(Codec)
    assert NAMESPACE.block(digests[1], 3).hex() == BLOCK_BEFORE_CODECS
    assert NAMESPACE.strips(digests[2], b"choice", 1, 2).hex() == STRIPS_BEFORE_CODECS


def test_every_codec_gives_a_cache_its_own_name_and_the_exact_one_that_which_it_always_had() -> None:
    names = {NAMESPACE.cache_id(range(9), Compression(codec=codec)) for codec in Codec}
    assert len(names) == len(Codec)
    assert NAMESPACE.cache_id(range(9), Compression()) == NAME_BEFORE_CODECS


def test_codecs_of_one_prompt_share_its_index_and_nothing_else() -> None:
    index = {"profile_digest": b"profile", "index_pieces": ((0, 1),)}
    exact, other = entry(range(9), **index), entry(range(9), codec=Codec.INT8, **index)
    assert set(exact.addresses) & set(other.addresses) == set(exact.index_addresses)


@pytest.mark.parametrize(
    ("on_host", "on_redis", "below"),
    [(False, False, None), (False, True, Tier.REDIS), (True, True, Tier.HOST), (True, False, Tier.HOST)],
)
def test_the_nearest_tier_below_is_known(on_host: bool, on_redis: bool, below: Tier | None) -> None:
    assert entry(range(4), on_host=on_host, on_redis=on_redis).tier_below is below


def test_blocks_of_strips_have_addresses_of_their_own_that_say_which_tokens_they_hold() -> None:
    def keeping(*positions: int) -> Entry:
        made = entry(range(10), retention=Retention.SELECTED)
        made.windows, made.retained = ((0, 1), made.windows[1]), ((), made.windows[1])
        made.tokens = {0: (array("I", positions),)}
        made.locate(NAMESPACE)
        return made

    one, other = keeping(1, 2, 3, 4, 9), keeping(1, 2, 3, 5, 9)
    assert len(one.strip_addresses) == 2
    assert one.block_addresses[0] == {}
    assert one.block_addresses[1] == other.block_addresses[1]
    assert not set(one.strip_addresses) & set(other.strip_addresses)
    assert set(one.addresses) == {*one.strip_addresses, *one.block_addresses[1].values()}
