"""The longest cached prefix of a prompt, brought into staging instead of being computed."""

from __future__ import annotations

from collections.abc import Iterator

import torch
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
from windowkv_service.kv.layout import KVGroup


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
    blocks = yield from _collect(resources, prompt, likely, report)
    reaches = [None if group.is_selectable else prompt.layout.reach(group) for group in prompt.layout.groups]
    num_windows = longest_prefix([[block is not None for block in row] for row in blocks], reaches)
    for group, row, reach in zip(prompt.layout.groups, blocks, reaches, strict=True):
        first = 0 if reach is None else max(0, num_windows - reach)
        _scatter(
            prompt, group, first, [block for block in row[first:num_windows] if block is not None], staging
        )
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


def _collect(
    resources: Resources, prompt: Prompt, num_windows: int, report: FetchReport
) -> Walk[list[list[Tensor | None]]]:
    """[group][window] → the block's verified numbers, or None where no tier has them."""
    rows = [
        [prompt.address(group, window) for window in range(num_windows)] for group in prompt.layout.groups
    ]
    missing = [address for _, row in _lacking(resources, prompt, num_windows) for address in row]
    fetched = yield from fetch(resources, missing, FrameKind.BLOCK, report)
    frames = {frame.address: frame for frame in fetched.found if isinstance(frame, Frame)}
    arrived = yield from _arrive(resources, prompt, rows, frames)
    return [
        [_block(resources, group, address, arrived) for address in row]
        for group, row in zip(prompt.layout.groups, rows, strict=True)
    ]


def _arrive(
    resources: Resources, prompt: Prompt, rows: list[list[Address]], frames: dict[Address, Frame]
) -> Walk[dict[Address, Tensor]]:
    """Fetched frames as blocks on the device; what is no block of its group is left out."""
    blocks = {
        address: torch.empty_like(resources.device.arenas.of(group)[0])
        for group, row in zip(prompt.layout.groups, rows, strict=True)
        for address in row
        if address in frames and resources.device.fits(group, prompt.packing(group), frames[address])
    }
    payloads = [frames[address].payload for address in blocks]
    yield from landed(resources.copies.into(payloads, list(blocks.values())))
    return blocks


def _block(
    resources: Resources, group: KVGroup, address: Address, arrived: dict[Address, Tensor]
) -> Tensor | None:
    block_id = resources.device.pool(group).find(address)
    return arrived.get(address) if block_id is None else resources.device.arenas.of(group)[block_id]


def _scatter(prompt: Prompt, group: KVGroup, first: int, blocks: list[Tensor], staging: Staging) -> None:
    if not blocks:
        return
    device = staging.tensor.device
    numbers = torch.arange(len(blocks), device=device)
    layers = [staging.rows[layer] for layer in group.layers]
    kernels.scatter_windows(
        torch.stack(blocks), numbers, staging.tensor, layers, first + numbers, prompt.num_tokens
    )
