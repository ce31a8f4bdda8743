"""A staged prompt as frames for the tiers below. The frames are there before their bytes are: these land beside the
model, and who stores a frame waits for it.

What is kept whatever is chosen goes while the rest of the prompt is still being computed: at the end little is left to
copy, and the first answer does not wait for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from windowkv_service.cache.frame import HEADER_BYTES, Frame, FrameKind
from windowkv_service.domain.codec import Codec
from windowkv_service.domain.keys import Address
from windowkv_service.engine.index import LeaderIndex, cut
from windowkv_service.engine.prompt import Prompt, Windows
from windowkv_service.engine.resources import Resources, landed
from windowkv_service.engine.task import Walk
from windowkv_service.kv.buffers import Staging
from windowkv_service.kv.copies import Landing
from windowkv_service.kv.layout import KVGroup
from windowkv_service.kv.snapshot import dtype_name

PIECE_BYTES = 64 << 20  # gathered at once
IN_FLIGHT_BYTES = 64 << 20  # with so many on their way, beside staging, no piece is added

InRoom = Callable[[memoryview, Callable[[], None]], Frame]  # room, what waits until it is filled → the frame


@dataclass(frozen=True)
class _Row:
    """Windows of one layer group that have not been sent, ascending."""

    prompt: Prompt
    group: KVGroup
    staging: Staging
    left: deque[int]

    def take(self, num_tokens: int) -> list[int]:
        """The next of those that the first num_tokens make up, as many as are gathered at once."""
        layout, taken = self.prompt.layout, list[int]()
        at_once = max(1, PIECE_BYTES // layout.block_bytes(self.group))
        is_all = num_tokens >= self.prompt.num_tokens
        while (
            self.left and len(taken) < at_once and (is_all or self.left[0] < num_tokens // layout.window_size)
        ):
            taken.append(self.left.popleft())
        return taken


class Outgoing:
    """What of one prompt is to be kept below."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._frames: list[Frame] = []
        self._rows: list[_Row] = []
        self._under_way: deque[tuple[Landing, int]] = deque()  # and their bytes

    def add(self, prompt: Prompt, windows: Windows, staging: Staging) -> None:
        """Windows of each layer group."""
        for group in prompt.layout.groups:
            self._rows.append(_Row(prompt, group, staging, deque(windows[group.index])))

    def send(self, num_tokens: int) -> None:
        """What the first num_tokens of the prompt make up, as far as there is room: nobody waits."""
        for row in self._rows:
            while self._has_room() and (windows := row.take(num_tokens)):
                self._send(row, windows)

    def rest(self) -> Walk[list[Frame]]:
        """All that has not been sent. Ends when the last pieces are under way, with the frames of everything."""
        for row in self._rows:
            while windows := row.take(row.prompt.num_tokens):
                yield from self._room()
                self._send(row, windows)
        return self._frames

    def send_index(self, index: LeaderIndex, addresses: Sequence[Address]) -> Walk[None]:
        """The leader keys, in pieces, leader by leader."""
        where = iter(addresses)
        for keys in index.keys.values():
            yield from self._room()
            pieces = cut(keys.flat())
            self._out(pieces, [_index_frame(next(where), piece.shape[0]) for piece in pieces])

    def _send(self, row: _Row, windows: Sequence[int]) -> None:
        prompt, group = row.prompt, row.group
        shape, dtype = prompt.layout.block_shape(group), dtype_name(self._resources.model.dtype)
        blocks = row.staging.tensor.new_empty((len(windows), *shape))
        prompt.gather(row.staging, group, windows, blocks, range(len(windows)))
        packed = prompt.packing(group).pack(blocks)
        facts = (dtype, shape, prompt.codec)
        frames = [
            partial(Frame.in_room, FrameKind.BLOCK, prompt.address(group, window), *facts)
            for window in windows
        ]
        self._out(packed.unbind(), frames)

    def _out(self, sources: Sequence[Tensor], frames: Sequence[InRoom]) -> None:
        copies = self._resources.copies
        rooms = [copies.take(HEADER_BYTES + source.nbytes) for source in sources]
        landing = copies.out(sources, [room[HEADER_BYTES:] for room in rooms])
        self._frames += [frame(room, landing.wait) for frame, room in zip(frames, rooms, strict=True)]
        self._under_way.append((landing, sum(source.nbytes for source in sources)))

    def _has_room(self) -> bool:
        while self._under_way and self._under_way[0][0].is_done():
            self._under_way.popleft()
        return sum(size_bytes for _, size_bytes in self._under_way) < IN_FLIGHT_BYTES

    def _room(self) -> Walk[None]:
        while not self._has_room():
            yield from landed(self._under_way[0][0])


def _index_frame(address: Address, size_bytes: int) -> InRoom:
    return partial(Frame.in_room, FrameKind.INDEX, address, "uint8", (size_bytes,), Codec.EXACT)
