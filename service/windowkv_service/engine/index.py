"""The leader index: the keys of the leader layers, quantized, of a whole cached prompt.

It is all that a question needs on the device to choose its windows: 1 / (2 * layers per leader) of the cache, at a few
bits per number. It is spilled as pieces beside the blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from windowkv_service.cache.frame import Frame
from windowkv_service.domain.keys import Address
from windowkv_service.engine.prompt import Prompt
from windowkv_service.engine.resources import Resources, landed
from windowkv_service.engine.task import Walk
from windowkv_service.kv.buffers import Staging
from windowkv_service.kv.layout import KVLayout
from windowkv_service.selection.question import LeaderKeys, QuestionProfile

INDEX_PIECE_BYTES = (1 << 20) - 4096  # a Redis value of a power of two costs a quarter more memory


@dataclass(frozen=True)
class LeaderIndex:
    """keys: leader layer → its keys of all tokens as the profile holds them, in its order of leaders."""

    profile: QuestionProfile
    keys: Mapping[int, LeaderKeys]

    @property
    def size_bytes(self) -> int:
        return sum(keys.size_bytes for keys in self.keys.values())

    @property
    def pieces(self) -> tuple[tuple[int, int], ...]:
        """(leader, number of pieces it is spilled in)."""
        return tuple((layer, ceil(keys.size_bytes / INDEX_PIECE_BYTES)) for layer, keys in self.keys.items())

    @classmethod
    def build(
        cls, profile: QuestionProfile, layout: KVLayout, staging: Staging, num_tokens: int
    ) -> LeaderIndex:
        keys = {layer: profile.index_of(staging.keys(layer, num_tokens), layout) for layer in profile.layers}
        return cls(profile, keys)


def cut(flat: Tensor) -> list[Tensor]:
    """The pieces that one leader's bytes are spilled in, views of them."""
    return [flat[start : start + INDEX_PIECE_BYTES] for start in range(0, len(flat), INDEX_PIECE_BYTES)]


def index_addresses(prompt: Prompt, profile: QuestionProfile) -> list[Address]:
    """Where a prompt's index lies below the device: known from its tokens and the profile alone."""
    num_pieces = ceil(_leader_bytes(prompt, profile) / INDEX_PIECE_BYTES)
    return [
        prompt.namespace.index(prompt.chain[-1], profile.digest, layer, piece)
        for layer in profile.layers
        for piece in range(num_pieces)
    ]


def assemble_index(
    resources: Resources, prompt: Prompt, profile: QuestionProfile, frames: Sequence[Frame]
) -> Walk[LeaderIndex | None]:
    """The index from its pieces in the order of index_addresses; None when they are not of its size."""
    model, size_bytes = resources.model, _leader_bytes(prompt, profile)
    flat = {
        layer: torch.empty(size_bytes, dtype=torch.uint8, device=model.device) for layer in profile.layers
    }
    pieces = [piece for each in flat.values() for piece in cut(each)]
    if [frame.payload.nbytes for frame in frames] != [piece.nbytes for piece in pieces]:
        return None
    yield from landed(resources.copies.into([frame.payload for frame in frames], pieces))
    layout, num_tokens = prompt.layout, prompt.num_tokens
    keys = {layer: profile.restore(each, layout, num_tokens, model.dtype) for layer, each in flat.items()}
    return LeaderIndex(profile, keys)


def _leader_bytes(prompt: Prompt, profile: QuestionProfile) -> int:
    """Bytes of one leader's keys in the index."""
    return profile.index_bytes(prompt.layout, prompt.num_tokens) // len(profile.leaders)
