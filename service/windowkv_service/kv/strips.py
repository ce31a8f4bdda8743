"""Tokens that are kept for each layer and KV head by itself, and how they lie in blocks.

A lane is one layer and one KV head. A strip is the K and V of window_size tokens of one lane, [2, window_size,
head_dim]: kept ones in order of position, whatever lies between them; a lane's last strip may be ragged. A block has
room for as many strips as its group has lanes, so a prompt that keeps tokens takes blocks of the same arenas as every
other, and its strips lie in them one after the other, lane by lane. Nothing is kept twice and nothing is masked.

Groups of as many layers have blocks of one shape. Their strips follow each other in common blocks, which the first of
them, their home, holds for all: what is lost by rounding is less than one block.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise, product

import torch
from torch import Tensor

from windowkv_service.domain.kept_tokens import KeptTokens, digest_of
from windowkv_service.domain.keys import TOKEN_ARRAY
from windowkv_service.kv.buffers import Staging
from windowkv_service.kv.layout import KVGroup, KVLayout
from windowkv_service.kv.sending import on_device


@dataclass(frozen=True)
class Strips:
    """tokens: what each lane of a group keeps; groups that are not in it keep whole windows. method made the choice."""

    layout: KVLayout
    tokens: KeptTokens
    method: str

    @classmethod
    def of(cls, layout: KVLayout, tokens: Mapping[tuple[int, int], Tensor], method: str) -> Strips:
        """From (layer, KV head) → positions; a group's layers are all in it, or none."""
        heads = range(layout.num_kv_heads)
        kept = {
            group.index: tuple(
                array(TOKEN_ARRAY, tokens[lane].tolist()) for lane in product(group.layers, heads)
            )
            for group in layout.groups
            if (group.layers[0], 0) in tokens
        }
        return cls(layout, kept, method)

    def __contains__(self, group: KVGroup) -> bool:
        return group.index in self.tokens

    @cached_property
    def digest(self) -> bytes:
        return digest_of(self.tokens, self.method)

    def family(self, group: KVGroup) -> list[KVGroup]:
        """The groups whose strips share blocks with the group's, its home first."""
        return [one for one in self.layout.groups if one in self and len(one.layers) == len(group.layers)]

    def home(self, group: KVGroup) -> KVGroup:
        return self.family(group)[0]

    def num_blocks(self, group: KVGroup) -> int:
        """How many blocks the group holds: its family's, where it is their home."""
        family = self.family(group)
        num_strips = self.numbers(family[-1])[-1].stop
        return -(-num_strips // self.layout.num_lanes(group)) if group == family[0] else 0

    def numbers(self, group: KVGroup) -> list[range]:
        """Per lane of the group, which of its family's strips are its own."""
        return self._numbers[group.index]

    @cached_property
    def _numbers(self) -> dict[int, list[range]]:
        numbers, taken = {}, dict.fromkeys(map(self.layout.num_lanes, self.layout.groups), 0)
        for group in filter(self.__contains__, self.layout.groups):
            lanes = self.layout.num_lanes(group)
            sizes = [self.layout.num_windows(len(lane)) for lane in self.tokens[group.index]]
            ends = list(accumulate(sizes, initial=taken[lanes]))
            taken[lanes] = ends[-1]
            numbers[group.index] = [range(first, last) for first, last in pairwise(ends)]
        return numbers

    def positions(self, group: KVGroup) -> list[Tensor]:
        """Per lane, the position of each slot of its strips; -1 where a ragged strip has nothing."""
        padded = []
        for lane, own in zip(self.tokens[group.index], self.numbers(group), strict=True):
            slots = torch.full((len(own) * self.layout.window_size,), -1, dtype=torch.long)
            slots[: len(lane)] = torch.tensor(lane, dtype=torch.long)
            padded.append(slots)
        return padded

    def gather(self, staging: Staging, home: KVGroup, numbers: Tensor, blocks: Tensor, ids: Tensor) -> None:
        """Copy the blocks of these numbers that home holds from a prefilled prompt to places ids of blocks, an arena or
        a tensor of its shape. What a block holds beyond its strips is zero: all of its bytes are determined."""
        strips = staging.tensor.new_zeros(
            self.num_blocks(home) * self.layout.num_lanes(home), 2, self.layout.window_size, blocks.shape[-1]
        )
        for group in self.family(home):
            self._fill(strips, staging, group)
        blocks[ids] = strips.view(-1, *blocks.shape[1:])[numbers]

    def _fill(self, strips: Tensor, staging: Staging, group: KVGroup) -> None:
        lanes = product(group.layers, range(self.layout.num_kv_heads))
        for (layer, head), kept, own in zip(
            lanes, self.tokens[group.index], self.numbers(group), strict=True
        ):
            tokens = on_device(kept, strips.device)
            kv = staging.tensor[staging.rows[layer], :, :, head].index_select(1, tokens)  # [2, num_kept, D]
            slots = kv.new_zeros(2, len(own) * self.layout.window_size, kv.shape[2])
            slots[:, : len(kept)] = kv
            strips[own.start : own.stop] = slots.view(2, len(own), -1, kv.shape[2]).transpose(0, 1)


def rounding_bytes(layout: KVLayout) -> int:
    """What strips of all selectable groups lose at most by not filling their last blocks."""
    block_bytes = {len(group.layers): layout.block_bytes(group) for group in layout.selectable_groups}
    return sum(each - layout.strip_bytes for each in block_bytes.values())
