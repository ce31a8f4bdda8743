"""The longest cached prefix of a prompt, brought into staging instead of being computed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

import windowkv_kernels as kernels
from windowkv_service.cache.frame import Frame, FrameKind
from windowkv_service.cache.prefix import longest_prefix
from windowkv_service.domain.keys import Address
from windowkv_service.domain.results import Tier
from windowkv_service.engine.fetch import MEASURED_BYTES, FetchReport, fetch
from windowkv_service.engine.prompt import Prompt
from windowkv_service.engine.resources import Resources, finished, landed
from windowkv_service.engine.task import Walk
from windowkv_service.kv.buffers import Staging
from windowkv_service.kv.copies import Landing
from windowkv_service.kv.layout import KVGroup
from windowkv_service.kv.sending import on_device

PIECE_BYTES = 32 << 20  # brought up at once
MAX_PIECES = 2


def reuse(
    resources: Resources, prompt: Prompt, staging: Staging, keep_last: int, report: FetchReport
) -> Walk[int]:
    """Fill staging with the longest prefix of whole windows that any tier holds exactly; returns how many tokens that
    is. The last keep_last tokens are left to be computed: selection wants to see their queries."""
    prompt = prompt.exact
    limit = max(0, prompt.num_tokens - keep_last) // prompt.layout.window_size
    likely = yield from _likely(resources, prompt, limit)
    if likely == 0 or not _is_worth_loading(resources, prompt, likely):
        return 0
    missing = [address for _, row in _lacking(resources, prompt, likely) for address in row]
    fetched = yield from fetch(resources, missing, FrameKind.BLOCK, report)
    frames = {frame.address: frame for frame in fetched.found if isinstance(frame, Frame)}
    found = [_Found.of(resources, prompt, group, likely, frames) for group in prompt.layout.groups]
    reaches = [None if group.is_selectable else prompt.layout.reach(group) for group in prompt.layout.groups]
    num_windows = longest_prefix([each.is_there for each in found], reaches)
    needed = [range(0 if reach is None else max(0, num_windows - reach), num_windows) for reach in reaches]
    for each, windows in zip(found, needed, strict=True):  # before anybody else may want their room
        each.scatter_resident(staging, windows)
    for each, windows in zip(found, needed, strict=True):
        yield from each.bring(staging, windows)
    return num_windows * prompt.layout.window_size


def _likely(resources: Resources, prompt: Prompt, limit: int) -> Walk[int]:
    """Leading windows that look present: on the device, or below, in every group that needs all of them."""
    groups = prompt.layout.selectable_groups
    rows = [[(group, prompt.address(group, window)) for group in groups] for window in range(limit)]
    on_device = 0
    while on_device < limit and all(resources.device.pool(g).find(a) is not None for g, a in rows[on_device]):
        on_device += 1
    below = [[address for _, address in row] for row in rows[on_device:]]
    probed = yield from finished(resources.transfers.submit_probe(below))
    return on_device + probed.leading_windows


def _is_worth_loading(resources: Resources, prompt: Prompt, num_windows: int) -> bool:
    """Whether fetching what the device lacks is quicker than computing it again, by the speeds measured so far."""
    missing = [(group, address) for group, row in _lacking(resources, prompt, num_windows) for address in row]
    host = resources.tiers[0]
    source = Tier.HOST if all(host.has([address for _, address in missing])) else Tier.REDIS
    size_bytes = sum(prompt.layout.block_bytes(group) for group, _ in missing)
    if size_bytes < MEASURED_BYTES:
        return True
    return resources.store.speeds.is_load_cheaper(source, size_bytes, num_windows * prompt.layout.window_size)


def _lacking(
    resources: Resources, prompt: Prompt, num_windows: int
) -> Iterator[tuple[KVGroup, list[Address]]]:
    """Per group, the blocks of the first windows that the device does not have."""
    for group in prompt.layout.groups:
        row = [prompt.address(group, window) for window in range(num_windows)]
        yield group, [address for address in row if resources.device.pool(group).find(address) is None]


@dataclass(frozen=True)
class _Found:
    """Where the first windows of one layer group are: in blocks of the device, else in verified frames."""

    resources: Resources
    prompt: Prompt
    group: KVGroup
    where: Sequence[int | Frame | None]

    @classmethod
    def of(
        cls,
        resources: Resources,
        prompt: Prompt,
        group: KVGroup,
        num_windows: int,
        frames: Mapping[Address, Frame],
    ) -> _Found:
        """What is no block of the group is left out."""
        pool, packing = resources.device.pool(group), prompt.packing(group)

        def place(address: Address) -> int | Frame | None:
            block_id, frame = pool.find(address), frames.get(address)
            if block_id is None and frame is not None and resources.device.fits(group, packing, frame):
                return frame
            return block_id

        where = [place(prompt.address(group, window)) for window in range(num_windows)]
        return cls(resources, prompt, group, where)

    @property
    def is_there(self) -> list[bool]:
        return [each is not None for each in self.where]

    def scatter_resident(self, staging: Staging, windows: Sequence[int]) -> None:
        """What the device has, straight from its blocks."""
        there = {window: each for window in windows if isinstance(each := self.where[window], int)}
        if there:
            self._scatter(
                self.resources.device.arenas.of(self.group), list(there.values()), list(there), staging
            )

    def bring(self, staging: Staging, windows: Sequence[int]) -> Walk[None]:
        """What came from below, in pieces: beside staging the device holds no more than MAX_PIECES of them."""
        frames = [(window, each) for window in windows if isinstance(each := self.where[window], Frame)]
        at_once = max(1, PIECE_BYTES // self.prompt.layout.block_bytes(self.group))
        under_way: deque[tuple[Landing, Tensor, list[int]]] = deque()
        try:
            for start in range(0, len(frames), at_once):
                if len(under_way) == MAX_PIECES:
                    yield from self._land(*under_way[0], staging)
                    under_way.popleft()
                under_way.append(self._send(frames[start : start + at_once], staging))
            while under_way:
                yield from self._land(*under_way[0], staging)
                under_way.popleft()
        finally:
            for landing, *_ in under_way:  # their memory is others' after that
                landing.wait()

    def _send(
        self, frames: Sequence[tuple[int, Frame]], staging: Staging
    ) -> tuple[Landing, Tensor, list[int]]:
        blocks = staging.tensor.new_empty((len(frames), *self.prompt.layout.block_shape(self.group)))
        landing = self.resources.copies.into([frame.payload for _, frame in frames], blocks.unbind())
        return landing, blocks, [window for window, _ in frames]

    def _land(self, landing: Landing, blocks: Tensor, windows: list[int], staging: Staging) -> Walk[None]:
        yield from landed(landing)
        self._scatter(blocks, list(range(len(blocks))), windows, staging)

    def _scatter(self, blocks: Tensor, block_ids: list[int], windows: list[int], staging: Staging) -> None:
        ids, numbers = (on_device(each, blocks.device) for each in (block_ids, windows))
        layers = [staging.rows[layer] for layer in self.group.layers]
        kernels.scatter_windows(blocks, ids, staging.tensor, layers, numbers, self.prompt.num_tokens)
