"""A prompt as the engine handles it: its tokens, whose they are, and how its blocks are made and addressed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from torch import Tensor

import windowkv_kernels as kernels
from windowkv_service.domain.codec import Codec
from windowkv_service.domain.keys import Address, Namespace, chain_digests
from windowkv_service.kv.buffers import Staging
from windowkv_service.kv.layout import KVGroup, KVLayout
from windowkv_service.kv.packing import Packing
from windowkv_service.kv.sending import on_device
from windowkv_service.kv.strips import Strips

# Per layer group, ascending. A window is a group's block of that number; so is, where a group keeps single tokens, a
# block of its strips.
Windows = Sequence[Sequence[int]]
Blocks = list[list[int]]  # per layer group, aligned with the windows: ids in the group's arena


@dataclass(frozen=True)
class Prompt:
    """strips: the tokens that stay, where not windows do; its groups' blocks are then this choice's alone.
    codec: how its blocks lie below the device, and so which numbers they hold.
    known: per layer group, addresses of windows that have been computed before; an answer asks at every choice.
    """

    token_ids: Sequence[int]
    namespace: Namespace
    layout: KVLayout
    strips: Strips | None = None
    codec: Codec = Codec.EXACT
    known: Sequence[Mapping[int, Address]] = field(default=(), compare=False, repr=False)

    @cached_property
    def chain(self) -> list[bytes]:
        """One digest per window, over all tokens up to its end."""
        return chain_digests(self.token_ids, self.layout.window_size)

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def whole(self) -> Prompt:
        """The same prompt in windows."""
        return self if self.strips is None else replace(self, strips=None)

    @property
    def exact(self) -> Prompt:
        """The same prompt with the numbers that the model computed, the only ones that it computes more upon."""
        return self if self.codec.is_exact else replace(self, codec=Codec.EXACT, known=())

    def address(self, group: KVGroup, window: int) -> Address:
        if self.strips is not None and group in self.strips:
            choice = self.strips.digest
            return self.namespace.strips(self.chain[-1], choice, group.index, window, self.codec)
        known = self.known[group.index].get(window) if self.known else None
        return known or self.namespace.block(self.chain[window], group.index, self.codec)

    def packing(self, group: KVGroup) -> Packing:
        return Packing(self.codec, in_strips=self.strips is not None and group in self.strips)

    def gather(
        self,
        staging: Staging,
        group: KVGroup,
        windows: Sequence[int],
        blocks: Tensor,
        block_ids: Sequence[int],
    ) -> None:
        """Copy windows of the prefilled prompt to places block_ids of blocks [N, γ, 2, ω, num_kv_heads, head_dim]."""
        device = staging.tensor.device
        numbers, ids = on_device(list(windows), device), on_device(list(block_ids), device)
        if self.strips is not None and group in self.strips:
            self.strips.gather(staging, group, numbers, blocks, ids)
        else:
            rows = [staging.rows[layer] for layer in group.layers]
            kernels.gather_windows(staging.tensor, rows, numbers, self.num_tokens, blocks, ids)

    def all_windows(self) -> Windows:
        """What a full cache consists of: every window of every group that its layers can still see."""
        return [list(self.layout.full_windows(group, self.num_tokens)) for group in self.layout.groups]

    def no_windows(self) -> Windows:
        return [[] for _ in self.layout.groups]

    def strip_blocks(self) -> Windows:
        """The blocks that hold strips, of the groups that have them."""
        strips = self.strips
        return [
            list(range(strips.num_blocks(group))) if strips is not None and group in strips else []
            for group in self.layout.groups
        ]

    def own_blocks(self) -> Windows:
        """Strips of the groups that have any, else every window: what a prompt that keeps tokens consists of."""
        return [
            blocks if self.strips is not None and group in self.strips else windows
            for group, blocks, windows in zip(
                self.layout.groups, self.strip_blocks(), self.all_windows(), strict=True
            )
        ]

    def count_kept(self, windows: Windows) -> int:
        """Tokens in the windows, mean over the layer groups that select; a ragged last window counts what it holds."""
        groups = self.layout.selectable_groups or self.layout.groups
        return round(sum(self._count(group, windows[group.index]) for group in groups) / len(groups))

    def _count(self, group: KVGroup, windows: Sequence[int]) -> float:
        if self.strips is not None and group in self.strips:
            lanes = self.strips.tokens[group.index]
            return sum(map(len, lanes)) / len(lanes)
        size = self.layout.window_size
        return sum(min(size, self.num_tokens - window * size) for window in windows)

    def block_bytes(self, windows: Windows) -> int:
        """What the windows take on the device, whole blocks counted."""
        return sum(len(windows[group.index]) * self.layout.block_bytes(group) for group in self.layout.groups)

    def packed_bytes(self, windows: Windows) -> int:
        """What they take in a tier below, without the frames' headers."""
        layout = self.layout
        return sum(
            len(windows[group.index])
            * self.packing(group).size_bytes(layout.block_shape(group), layout.itemsize)
            for group in layout.groups
        )
