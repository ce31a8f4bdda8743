"""Blocks of a staged prompt as frames for the tiers below. The frames are there before their bytes are: these land
beside the model, and who stores a frame waits for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from windowkv_service.cache.frame import HEADER_BYTES, Frame, FrameKind
from windowkv_service.engine.prompt import Prompt, Windows
from windowkv_service.engine.resources import Resources, landed
from windowkv_service.engine.task import Walk
from windowkv_service.kv.buffers import Staging
from windowkv_service.kv.copies import Landing
from windowkv_service.kv.layout import KVGroup
from windowkv_service.kv.snapshot import dtype_name

PIECE_BYTES = 64 << 20  # gathered at once
MAX_PIECES = 2  # on the device at the same time, beside staging


def block_frames(
    resources: Resources, prompt: Prompt, windows: Windows, staging: Staging
) -> Walk[list[Frame]]:
    """Frames of the windows of each layer group. Ends when the last pieces are under way."""
    frames: list[Frame] = []
    under_way: deque[Landing] = deque()
    for group in prompt.layout.groups:
        row = windows[group.index]
        at_once = max(1, PIECE_BYTES // prompt.layout.block_bytes(group))
        for start in range(0, len(row), at_once):
            if len(under_way) == MAX_PIECES:
                yield from landed(under_way.popleft())
            piece, landing = _send(resources, prompt, group, row[start : start + at_once], staging)
            frames += piece
            under_way.append(landing)
    return frames


def _send(
    resources: Resources, prompt: Prompt, group: KVGroup, windows: Sequence[int], staging: Staging
) -> tuple[list[Frame], Landing]:
    shape = prompt.layout.block_shape(group)
    blocks = staging.tensor.new_empty((len(windows), *shape))
    prompt.gather(staging, group, windows, blocks, range(len(windows)))
    packed = prompt.packing(group).pack(blocks)
    rooms = [resources.copies.take(HEADER_BYTES + packed.shape[1]) for _ in windows]
    landing = resources.copies.out(packed.unbind(), [room[HEADER_BYTES:] for room in rooms])
    dtype = dtype_name(resources.model.dtype)
    frames = [
        Frame.in_room(
            FrameKind.BLOCK, prompt.address(group, window), dtype, shape, prompt.codec, room, landing.wait
        )
        for window, room in zip(windows, rooms, strict=True)
    ]
    return frames, landing
