"""What host memory promises beyond the contract: its bound, and who leaves first."""

from __future__ import annotations

import threading

from cache_events import RecordedEvents, address, block
from entries import Clock

from windowkv_service.cache.events import Departure
from windowkv_service.cache.frame import HEADER_BYTES, Frame, FrameKind
from windowkv_service.cache.tiers.host import HostTier
from windowkv_service.domain.results import Tier, TierHealth

SIZE = block(0).size_bytes


def there(tier: HostTier, *numbers: int) -> list[bool]:
    return tier.has([address(number) for number in numbers])


def test_it_holds_no_more_than_its_capacity() -> None:
    events = RecordedEvents()
    tier = HostTier(3 * SIZE + 5, events=events)
    for number in range(10):
        assert tier.put([block(number)], 60.0) == [True]
        assert tier.status().used_bytes <= tier.status().capacity_bytes
    assert there(tier, 6, 7, 8, 9) == [False, True, True, True]
    assert events.departures[Tier.HOST, Departure.CAPACITY] == 7


def test_the_least_recently_used_leaves_first() -> None:
    tier = HostTier(3 * SIZE)
    tier.put([block(1), block(2), block(3)], 60.0)
    tier.get([address(1)], FrameKind.BLOCK)
    tier.put([block(2)], 60.0)
    tier.put([block(4), block(5)], 60.0)
    assert there(tier, 1, 2, 3, 4, 5) == [False, True, False, True, True]


def test_a_frame_larger_than_the_tier_is_refused_and_nobody_leaves() -> None:
    tier = HostTier(2 * SIZE)
    tier.put([block(1)], 60.0)
    assert tier.put([block(2, 5 * SIZE)], 60.0) == [False]
    assert there(tier, 1, 2) == [True, False]


def test_a_tier_without_room_is_absent() -> None:
    tier = HostTier(0)
    assert tier.put([block(1)], 60.0) == [False]
    assert tier.status().health is TierHealth.ABSENT


def test_the_expired_give_up_their_room_before_the_living() -> None:
    clock, events = Clock(), RecordedEvents()
    tier = HostTier(2 * SIZE, clock, events)
    tier.put([block(1)], 60.0)
    tier.put([block(2)], 5.0)
    clock.now += 10
    tier.put([block(3)], 60.0)
    assert there(tier, 1, 2, 3) == [True, False, True]
    assert events.departures == {(Tier.HOST, Departure.TTL): 1, (Tier.HOST, Departure.CAPACITY): 0}


def test_bytes_of_the_expired_are_not_counted() -> None:
    clock = Clock()
    tier = HostTier(10 * SIZE, clock)
    tier.put([block(1), block(2)], 5.0)
    tier.extend([address(2)], 50.0)
    clock.now += 10
    assert tier.status().used_bytes == SIZE
    clock.now += 100
    assert tier.status().used_bytes == 0


def test_an_extended_life_outlasts_the_first_look() -> None:
    clock = Clock()
    tier = HostTier(10 * SIZE, clock)
    tier.put([block(1)], 5.0)
    tier.extend([address(1)], 50.0)
    for _ in range(4):
        clock.now += 10
        tier.status()
        assert there(tier, 1) == [True]
    clock.now += 20
    assert there(tier, 1) == [False]


def test_a_frame_put_again_is_not_forgotten_at_its_first_lifes_end() -> None:
    clock = Clock()
    tier = HostTier(10 * SIZE, clock)
    tier.put([block(1)], 5.0)
    tier.drop([address(1)])
    tier.put([block(1)], 50.0)
    clock.now += 10
    assert tier.status().used_bytes == SIZE


def test_bytes_that_were_answered_survive_their_eviction() -> None:
    tier = HostTier(SIZE)
    tier.put([block(1)], 60.0)
    (found,) = tier.get([address(1)], FrameKind.BLOCK)
    tier.put([block(2)], 60.0)
    assert found == block(1)


def test_threads_leave_the_books_in_order() -> None:
    tier = HostTier(20 * SIZE)
    wrong: list[object] = []

    def use(start: int) -> None:
        for round_ in range(200):
            number = start + round_ % 30
            tier.put([block(number)], 60.0)
            (found,) = tier.get([address(number)], FrameKind.BLOCK)
            if isinstance(found, Frame) and found != block(number):
                wrong.append(found)
            if round_ % 7 == 0:
                tier.drop([address(number)])

    threads = [threading.Thread(target=use, args=[start]) for start in (0, 10, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    tier.drop([address(number) for number in range(60)])
    assert tier.status().used_bytes == 0


def in_room(landed: threading.Event | None = None) -> tuple[Frame, memoryview]:
    """block(1) with room of its own, whose bytes are there once landed is set."""
    plain = block(1)
    room = memoryview(bytearray(HEADER_BYTES) + bytearray(plain.payload))

    def wait() -> None:
        if landed is not None:
            landed.wait(5)

    return Frame.in_room(plain.kind, plain.address, plain.dtype, plain.shape, plain.codec, room, wait), room


def test_a_frame_with_room_of_its_own_is_kept_where_it_lies() -> None:
    tier = HostTier(2 * SIZE)
    frame, room = in_room()
    assert tier.put([frame], 60.0) == [True]
    assert tier.raw(address(1)) is room
    assert tier.get([address(1)], FrameKind.BLOCK) == [block(1)]
    assert tier.status().used_bytes == SIZE


def test_other_frames_are_copied_into_the_memory_it_is_given() -> None:
    taken: list[memoryview] = []

    def take(size_bytes: int) -> memoryview:
        taken.append(memoryview(bytearray(size_bytes)))
        return taken[-1]

    tier = HostTier(2 * SIZE, memory=take)
    tier.put([block(1)], 60.0)
    assert tier.raw(address(1)) is taken[0]
    assert tier.get([address(1)], FrameKind.BLOCK) == [block(1)]


def test_a_frame_is_kept_as_it_is_when_it_has_landed() -> None:
    tier, landed = HostTier(2 * SIZE), threading.Event()
    frame, room = in_room(landed)
    expected = bytes(frame.payload)
    room[HEADER_BYTES:] = bytes(len(expected))
    putting = threading.Thread(target=tier.put, args=([frame], 60.0))
    putting.start()
    assert there(tier, 1) == [False]
    room[HEADER_BYTES:] = expected
    landed.set()
    putting.join()
    assert tier.get([address(1)], FrameKind.BLOCK) == [block(1)]
