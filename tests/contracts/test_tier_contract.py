"""What every tier promises (cache/tiers/base.py), on each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace

import pytest
from cache_events import address, block
from tiers_under_test import TIERS, TIERS_BELOW, TierBelow, TierUnderTest

from windowkv_service.cache.events import Lookup
from windowkv_service.cache.frame import HEADER_BYTES, Frame, FrameKind
from windowkv_service.cache.tiers.base import MAX_FRAME_BYTES, Miss
from windowkv_service.domain.codec import Codec
from windowkv_service.domain.results import MissReason, TierHealth

ABSENT = Miss(MissReason.NOT_CACHED)
CORRUPT = Miss(MissReason.CORRUPT)
Fresh = Callable[[], AbstractContextManager[TierUnderTest]]
FreshBelow = Callable[[], AbstractContextManager[TierBelow]]


@pytest.fixture(scope="module", params=TIERS)
def fresh(request: pytest.FixtureRequest) -> Iterator[Fresh]:
    with TIERS[request.param]() as fresh:
        yield fresh


@pytest.fixture
def under_test(fresh: Fresh) -> Iterator[TierUnderTest]:
    with fresh() as under_test:
        yield under_test


@pytest.fixture(scope="module", params=TIERS_BELOW)
def fresh_below(request: pytest.FixtureRequest) -> Iterator[FreshBelow]:
    with TIERS_BELOW[request.param]() as fresh:
        yield fresh


@pytest.fixture
def below(fresh_below: FreshBelow) -> Iterator[TierBelow]:
    with fresh_below() as below:
        yield below


def get(under_test: TierUnderTest, number: int) -> Frame | Miss:
    return under_test.tier.get([address(number)], FrameKind.BLOCK)[0]


def put(under_test: TierUnderTest, *numbers: int, ttl_s: float = 60.0) -> None:
    assert all(under_test.tier.put([under_test.frame(number) for number in numbers], ttl_s))


def test_what_was_put_is_what_is_got(under_test: TierUnderTest) -> None:
    put(under_test, 1, 2)
    assert under_test.tier.get([address(2), address(1)], FrameKind.BLOCK) == [
        under_test.frame(2),
        under_test.frame(1),
    ]


def test_dtype_and_shape_travel_with_the_bytes(below: TierBelow) -> None:
    frame = Frame(FrameKind.BLOCK, address(1), "bfloat16", (2, 2, 3, 1, 4), memoryview(bytes(range(96))))
    assert below.tier.put([frame], 60.0) == [True]
    assert get(below, 1) == frame


@pytest.mark.parametrize("codec", Codec)
def test_the_codec_travels_with_the_bytes(below: TierBelow, codec: Codec) -> None:
    size = codec.code_bytes(2 * 2 * 3 * 1 * 4, 2) + (0 if codec.is_exact else 20)
    payload = memoryview(bytes(range(size)))
    frame = Frame(FrameKind.BLOCK, address(1), "bfloat16", (2, 2, 3, 1, 4), payload, codec)
    assert below.tier.put([frame], 60.0) == [True]
    assert get(below, 1) == frame


def test_an_empty_payload_is_kept(below: TierBelow) -> None:
    frame = Frame.of(FrameKind.BLOCK, address(1), b"")
    assert below.tier.put([frame], 60.0) == [True]
    assert get(below, 1) == frame


def test_later_changes_of_the_putters_memory_are_not_seen(below: TierBelow) -> None:
    memory = bytearray(b"before")
    below.tier.put([Frame.of(FrameKind.BLOCK, address(1), memory)], 60.0)
    memory[:] = b"after!"
    found = get(below, 1)
    assert isinstance(found, Frame)
    assert bytes(found.payload) == b"before"


def test_answers_are_aligned_with_the_addresses_asked_for(under_test: TierUnderTest) -> None:
    put(under_test, 1, 3)
    asked = [address(n) for n in (0, 1, 2, 3, 1)]
    assert under_test.tier.get(asked, FrameKind.BLOCK) == [
        ABSENT,
        under_test.frame(1),
        ABSENT,
        under_test.frame(3),
        under_test.frame(1),
    ]
    assert under_test.tier.has(asked) == [False, True, False, True, True]


def test_nothing_asked_is_nothing_answered(under_test: TierUnderTest) -> None:
    assert under_test.tier.put([], 60.0) == []
    assert under_test.tier.get([], FrameKind.BLOCK) == []
    assert under_test.tier.has([]) == []
    assert under_test.tier.drop([]) is True


def test_many_frames_at_once(under_test: TierUnderTest) -> None:
    frames = [under_test.frame(n) for n in range(1000)]
    assert all(under_test.tier.put(frames, 60.0))
    assert under_test.tier.get([one.address for one in frames], FrameKind.BLOCK) == frames


def test_a_frame_of_a_mebibyte_comes_back_whole(below: TierBelow) -> None:
    frame = block(1, (1 << 20) - 4096)
    assert below.tier.put([frame], 60.0) == [True]
    assert get(below, 1) == frame


def test_a_frame_that_it_cannot_hold_is_refused(under_test: TierUnderTest) -> None:
    too_long = Frame.of(FrameKind.BLOCK, address(1), bytes(MAX_FRAME_BYTES))
    assert under_test.tier.put([too_long], 60.0) == [False]
    assert get(under_test, 1) == ABSENT


def test_a_life_of_no_length_is_refused(under_test: TierUnderTest) -> None:
    assert under_test.tier.put([under_test.frame(1)], 0.0) == [False]
    assert get(under_test, 1) == ABSENT


def test_another_kind_is_not_served(below: TierBelow) -> None:
    put(below, 1)
    assert below.tier.get([address(1)], FrameKind.INDEX) == [CORRUPT]


def test_a_frame_dies_when_its_life_is_over(under_test: TierUnderTest) -> None:
    put(under_test, 1, ttl_s=0.05)
    under_test.pass_time(0.1)
    assert get(under_test, 1) == ABSENT
    assert under_test.tier.has([address(1)]) == [False]


def test_extending_lets_it_live_longer(under_test: TierUnderTest) -> None:
    put(under_test, 1, ttl_s=60.0)
    under_test.tier.extend([address(1), address(2)], 600.0)
    assert under_test.life_s(address(1)) > 500
    assert get(under_test, 2) == ABSENT


def test_a_shorter_extension_does_not_shorten_a_life(under_test: TierUnderTest) -> None:
    put(under_test, 1, ttl_s=600.0)
    under_test.tier.extend([address(1)], 1.0)
    assert under_test.life_s(address(1)) > 500


def test_putting_again_for_shorter_does_not_shorten_a_life(under_test: TierUnderTest) -> None:
    put(under_test, 1, ttl_s=600.0)
    put(under_test, 1, ttl_s=1.0)
    assert under_test.life_s(address(1)) > 500


def test_healing_for_shorter_does_not_shorten_a_life(below: TierBelow) -> None:
    put(below, 1, ttl_s=600.0)
    below.overwrite(address(1), b"rubbish")
    put(below, 1, ttl_s=1.0)
    assert below.life_s(address(1)) > 500


def test_putting_again_for_longer_lengthens_it(under_test: TierUnderTest) -> None:
    put(under_test, 1, ttl_s=60.0)
    put(under_test, 1, ttl_s=600.0)
    assert under_test.life_s(address(1)) > 500


def test_a_manifest_replaces_the_one_before_it(below: TierBelow) -> None:
    for payload in (b"first", b"the second"):
        below.tier.put([Frame.of(FrameKind.MANIFEST, address(1), payload)], 60.0)
    (found,) = below.tier.get([address(1)], FrameKind.MANIFEST)
    assert isinstance(found, Frame)
    assert bytes(found.payload) == b"the second"


def test_dropped_frames_are_gone_and_the_others_stay(under_test: TierUnderTest) -> None:
    put(under_test, 1, 2)
    assert under_test.tier.drop([address(1), address(9)]) is True
    assert [get(under_test, 1), get(under_test, 2)] == [ABSENT, under_test.frame(2)]


def test_a_dropped_frame_can_be_put_again(under_test: TierUnderTest) -> None:
    put(under_test, 1)
    under_test.tier.drop([address(1)])
    put(under_test, 1)
    assert get(under_test, 1) == under_test.frame(1)


def test_a_flipped_bit_is_a_miss_and_is_forgotten(below: TierBelow) -> None:
    for byte in [*range(HEADER_BYTES), HEADER_BYTES, HEADER_BYTES + 299]:
        put(below, 1, 2)
        raw = bytearray(below.raw(address(1)))
        raw[byte] ^= 1 << byte % 8
        below.overwrite(address(1), raw)
        found = below.tier.get([address(1), address(2)], FrameKind.BLOCK)
        assert found == [CORRUPT, block(2)], f"byte {byte}"
        assert get(below, 1) == ABSENT


@pytest.mark.parametrize(
    "size", [0, 1, 4, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 1, HEADER_BYTES + 299]
)
def test_a_truncated_value_is_a_miss_and_is_forgotten(below: TierBelow, size: int) -> None:
    put(below, 1)
    below.overwrite(address(1), below.raw(address(1))[:size])
    assert get(below, 1) == CORRUPT
    assert get(below, 1) == ABSENT


def test_a_longer_value_is_a_miss(below: TierBelow) -> None:
    put(below, 1)
    below.overwrite(address(1), below.raw(address(1)) + b"\0")
    assert get(below, 1) == CORRUPT


def test_two_swapped_values_are_misses(below: TierBelow) -> None:
    put(below, 1, 2)
    one, other = below.raw(address(1)), below.raw(address(2))
    below.overwrite(address(1), other)
    below.overwrite(address(2), one)
    assert below.tier.get([address(1), address(2)], FrameKind.BLOCK) == [CORRUPT, CORRUPT]


def test_a_corrupt_frame_is_healed_by_putting_it_again(below: TierBelow) -> None:
    put(below, 1)
    below.overwrite(address(1), b"rubbish")
    assert get(below, 1) == CORRUPT
    put(below, 1)
    assert get(below, 1) == block(1)


def test_each_corrupt_frame_is_counted_once(below: TierBelow) -> None:
    put(below, 1, 2)
    below.overwrite(address(1), b"rubbish")
    below.tier.get([address(1), address(2), address(3)], FrameKind.BLOCK)
    tier, events = below.tier.tier, below.events
    assert events.checksum_failures == {tier: 1}
    assert {outcome: n for (_, outcome), n in events.lookups.items() if n} == {
        Lookup.CORRUPT: 1,
        Lookup.HIT: 1,
        Lookup.MISS: 1,
    }


def test_payloads_of_other_dtypes_are_not_confused(below: TierBelow) -> None:
    frames = [
        replace(block(1, 8), dtype=dtype, shape=shape) for dtype, shape in (("float32", (2,)), ("int8", (8,)))
    ]
    below.tier.put(frames[:1], 60.0)
    assert get(below, 1) == frames[0]


def test_a_block_is_no_index_piece(under_test: TierUnderTest) -> None:
    put(under_test, 1)
    (found,) = under_test.tier.get([address(1)], FrameKind.INDEX)
    assert isinstance(found, Miss)


def test_a_working_tier_says_that_it_is_up(under_test: TierUnderTest) -> None:
    assert under_test.tier.status().health is TierHealth.UP
    assert under_test.tier.status().tier is under_test.tier.tier
