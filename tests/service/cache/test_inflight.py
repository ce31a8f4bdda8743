"""Reads, writes and drops that meet."""

from __future__ import annotations

import threading
from dataclasses import replace

from cache_events import address, block

from windowkv_service.cache.frame import FrameKind
from windowkv_service.cache.inflight import InFlight
from windowkv_service.cache.tiers.host import HostTier

FRAMES = [block(1), block(2)]


def kept(in_flight: InFlight, reading: object) -> list[bool]:
    tier = HostTier(1 << 20)
    in_flight.keep(tier, FRAMES, reading, 60.0)  # type: ignore[arg-type]
    return tier.has([address(1), address(2)])


def test_what_is_read_is_kept() -> None:
    in_flight = InFlight()
    assert kept(in_flight, in_flight.begin_read()) == [True, True]


def test_what_is_being_dropped_is_not_kept_even_by_a_read_that_began_later() -> None:
    in_flight = InFlight()
    in_flight.begin_drop([address(1)])
    assert kept(in_flight, in_flight.begin_read()) == [False, True]


def test_what_was_dropped_during_a_read_is_not_kept_by_it() -> None:
    in_flight = InFlight()
    reading = in_flight.begin_read()
    in_flight.begin_drop([address(1)])
    in_flight.end_drop([address(1)])
    assert kept(in_flight, reading) == [False, True]


def test_a_read_that_began_after_a_drop_keeps_what_it_finds() -> None:
    in_flight = InFlight()
    in_flight.begin_drop([address(1)])
    in_flight.end_drop([address(1)])
    assert kept(in_flight, in_flight.begin_read()) == [True, True]


def test_of_two_drops_the_last_to_end_counts() -> None:
    in_flight = InFlight()
    in_flight.begin_drop([address(1)])
    in_flight.begin_drop([address(1)])
    in_flight.end_drop([address(1)])
    assert kept(in_flight, in_flight.begin_read()) == [False, True]


def test_a_spill_is_readable_until_it_ends() -> None:
    in_flight = InFlight()
    in_flight.begin_spill(FRAMES)
    assert in_flight.copy_of(address(1), FrameKind.BLOCK) == block(1)
    assert in_flight.copy_of(address(1), FrameKind.INDEX) is None
    assert in_flight.has(address(2))
    in_flight.end_spill(FRAMES)
    assert in_flight.copy_of(address(1), FrameKind.BLOCK) is None
    assert not in_flight.has(address(2))


def test_the_end_of_one_spill_leaves_the_other_readable() -> None:
    in_flight, again = InFlight(), block(1)
    in_flight.begin_spill(FRAMES)
    in_flight.begin_spill([again])
    in_flight.end_spill(FRAMES)
    assert in_flight.has(address(1))
    in_flight.end_spill([again])
    assert not in_flight.has(address(1))


def test_a_drop_hides_the_spill_before_it_and_not_the_one_after_it() -> None:
    in_flight = InFlight()
    in_flight.begin_spill(FRAMES)
    in_flight.begin_drop([address(1)])
    assert not in_flight.has(address(1))
    in_flight.begin_spill([block(1)])
    assert in_flight.has(address(1))
    in_flight.end_spill(FRAMES)
    in_flight.end_drop([address(1)])
    assert in_flight.has(address(1))


def test_a_frame_on_its_way_down_is_read_when_it_has_landed_and_meanwhile_nobody_else_waits() -> None:
    in_flight, landed, reading = InFlight(), threading.Event(), threading.Event()
    memory = bytearray(len(FRAMES[0].payload))

    def wait() -> None:
        reading.set()
        landed.wait(5)

    coming = replace(FRAMES[0], payload=memoryview(memory), landed=wait)
    in_flight.begin_spill([coming, FRAMES[1]])
    found: list[object] = []
    reader = threading.Thread(target=lambda: found.append(in_flight.copy_of(address(1), FrameKind.BLOCK)))
    reader.start()
    assert reading.wait(5)
    assert in_flight.copy_of(address(2), FrameKind.BLOCK) == block(2)
    memory[:] = FRAMES[0].payload
    landed.set()
    reader.join()
    assert found == [block(1)]


def test_a_frame_whose_spill_ends_while_it_lands_is_not_read_from_memory_that_is_no_longer_its_own() -> None:
    in_flight = InFlight()
    coming = replace(FRAMES[0], landed=lambda: in_flight.end_spill([coming]))
    in_flight.begin_spill([coming])
    assert in_flight.copy_of(address(1), FrameKind.BLOCK) is None
