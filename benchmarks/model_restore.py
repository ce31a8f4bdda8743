"""A document's blocks in host memory, and ways to bring them to the device."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from model_subject import Memory, Subject, Windows
from torch import Tensor

from windowkv_service.domain.codec import Codec
from windowkv_service.kv.copies import Copies, copies_of
from windowkv_service.kv.snapshot import dtype_name

READERS, PART = 4, 64  # as the service has them: threads that verify, and frames for one of them at once
TTL_S = 3600.0


def has_checksums() -> bool:
    """The service's frames are verified by xxhash, which a bare machine may lack."""
    return importlib.util.find_spec("xxhash") is not None


def _room(size_bytes: int) -> int:
    return -(-size_bytes // 512) * 512


def _sizes(subject: Subject, windows: Windows) -> list[int]:
    """Bytes of every block, group by group."""
    groups = zip(subject.layout.groups, windows, strict=True)
    return [subject.layout.block_bytes(group) for group, chosen in groups for _ in chosen]


def _blocks(subject: Subject, memory: Memory, windows: Windows) -> list[list[Tensor]]:
    """The device's blocks, per group."""
    places = subject.place(windows)
    return [
        [memory.arenas.of(group)[block] for block in blocks]
        for group, blocks in zip(subject.layout.groups, places, strict=True)
    ]


class HostBlocks:
    """Copied to the device, as many as a question asks for."""

    def __init__(self, subject: Subject, memory: Memory, windows: Windows) -> None:
        self._memory = memory
        self._subject = subject
        self._count = [len(each) for each in windows]
        layout = subject.layout
        self._copies: Copies = copies_of(subject.device, sum(map(_room, _sizes(subject, windows))))
        self._rooms = [
            [self._copies.take(layout.block_bytes(group)) for _ in range(count)]
            for group, count in zip(layout.groups, self._count, strict=True)
        ]
        for group, rooms in zip(layout.groups, self._rooms, strict=True):
            self._copies.out(list(memory.arenas.of(group)[: len(rooms)]), rooms).wait()

    def all(self) -> None:
        self([range(count) for count in self._count])

    def __call__(self, windows: Windows) -> None:
        """Bring as many blocks as windows has, or all there are."""
        blocks = _blocks(self._subject, self._memory, windows)
        pairs = [
            pair
            for rooms, row in zip(self._rooms, blocks, strict=True)
            for pair in zip(rooms, row, strict=False)
        ]
        self._copies.into([room for room, _ in pairs], [block for _, block in pairs]).wait()


class VerifiedBlocks:
    """Out of the service's host tier, as the service brings them up: parts are verified side by side, and copied when
    they have been."""

    def __init__(self, subject: Subject, memory: Memory, windows: Windows) -> None:
        from windowkv_service.cache.frame import HEADER_BYTES, Frame, FrameKind
        from windowkv_service.cache.tiers.host import HostTier

        sizes = _sizes(subject, windows)
        capacity = sum(HEADER_BYTES + size for size in sizes)
        self._copies: Copies = copies_of(subject.device, sum(_room(HEADER_BYTES + size) for size in sizes))
        self._targets = [block for row in _blocks(subject, memory, windows) for block in row]
        self._addresses = [number.to_bytes(32, "little") for number in range(len(sizes))]
        self._kind = FrameKind.BLOCK
        rooms = [self._copies.take(HEADER_BYTES + size) for size in sizes]
        landing = self._copies.out(self._targets, [room[HEADER_BYTES:] for room in rooms])
        dtype = dtype_name(subject.sizes.dtype)
        frames = [
            Frame.in_room(self._kind, address, dtype, tuple(block.shape), Codec.EXACT, room, landing.wait)
            for address, block, room in zip(self._addresses, self._targets, rooms, strict=True)
        ]
        self._tier = HostTier(capacity)
        assert all(self._tier.put(frames, TTL_S))

    def all(self) -> None:
        starts = range(0, len(self._addresses), PART)
        with ThreadPoolExecutor(READERS) as pool:
            parts = [pool.submit(self._verified, self._addresses[start : start + PART]) for start in starts]
            landings = [
                self._copies.into(part.result(), self._targets[start : start + PART])
                for start, part in zip(starts, parts, strict=True)
            ]
        for landing in landings:
            landing.wait()

    def _verified(self, addresses: Sequence[bytes]) -> list[memoryview]:
        found: Sequence[Any] = self._tier.get(addresses, self._kind)
        return [frame.payload for frame in found]  # what is no frame has none, and that is told
