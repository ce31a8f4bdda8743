"""Prompts as a prefill would show them to a selector: random queries and keys over any layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from windowkv_service.kv.layout import KVLayout
from windowkv_service.selection import Observation, Repeated, TokenSelection


def make_layout(
    num_layers: int = 4,
    *,
    group_size: int = 1,
    window_size: int = 8,
    num_kv_heads: int = 2,
    head_dim: int = 8,
    itemsize: int = 4,
    sliding: dict[int, int] | None = None,
    readers: dict[int, int] | None = None,
) -> KVLayout:
    """sliding: layer → its window in tokens. readers: layer → the layer whose KV it reads."""
    owners = [(readers or {}).get(layer, layer) for layer in range(num_layers)]
    return KVLayout.plan(
        owners,
        [(sliding or {}).get(layer) for layer in range(num_layers)],
        group_size=group_size,
        window_size=window_size,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        itemsize=itemsize,
    )


class ObservedPrompt:
    """Queries and keys of every layer, made once; observation(size) shows the last size tokens' queries."""

    def __init__(
        self,
        layout: KVLayout,
        num_tokens: int,
        *,
        heads_per_kv: int = 2,
        seed: int = 0,
        sharpness: float = 2.0,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        num_heads = layout.num_kv_heads * heads_per_kv
        layers = range(len(layout.owners))
        self.layout = layout
        self.num_tokens = num_tokens
        self.queries = {
            layer: torch.randn(num_heads, num_tokens, layout.head_dim, generator=generator) * sharpness
            for layer in layers
        }
        self.keys = {
            layer: torch.randn(num_tokens, layout.num_kv_heads, layout.head_dim, generator=generator)
            for layer in layers
        }
        self.values = {
            layer: torch.randn(num_tokens, layout.num_kv_heads, layout.head_dim, generator=generator)
            for layer in layers
        }
        self.token_ids = torch.randint(0, 50, (num_tokens,), generator=generator).tolist()
        self.scales = dict.fromkeys(layers, layout.head_dim ** (-0.5))

    def observation(self, size: int, dtype: torch.dtype = torch.float32) -> Observation:
        queries = {
            layer: queries[:, max(0, self.num_tokens - size) :].to(dtype)
            for layer, queries in self.queries.items()
        }
        return Observation(
            queries,
            lambda layer: self.keys[layer].to(dtype),
            self.num_tokens,
            self.scales,
            self.layout,
            values=lambda layer: self.values[layer].to(dtype),
            rotary=self.rotary,
            token_ids=self.token_ids,
            repeat=self.repeat,
        )

    def rotary(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """RoPE with base 100, half-split: cos and sin [m, head_dim]."""
        half = torch.arange(self.layout.head_dim // 2) / (self.layout.head_dim // 2)
        angles = positions[:, None] * 100.0**-half
        return torch.cat([angles, angles], dim=1).cos(), torch.cat([angles, angles], dim=1).sin()

    def repeat(self, token_ids: Sequence[int]) -> Mapping[int, Repeated]:
        """Of no model, but of the tokens and the layer alone: the same tokens always give the same."""
        repeated = {}
        for layer, queries in self.queries.items():
            generator = torch.Generator().manual_seed(hash((layer, *token_ids)) % 2**31)
            repeated[layer] = Repeated(
                torch.randn(queries.shape[0], len(token_ids), queries.shape[2], generator=generator) * 2,
                torch.randn(len(token_ids), self.layout.num_kv_heads, queries.shape[2], generator=generator),
            )
        return repeated


def packed_bytes_of(layout: KVLayout, selection: TokenSelection, num_tokens: int) -> int:
    """What a selection of tokens takes: packed blocks made for each list, and what sliding layers keep."""
    dtypes = {2: torch.float16, 4: torch.float32}
    shape = (1, 2, layout.window_size, 1, layout.head_dim)
    blocks = [
        torch.empty((-(-kept.numel() // layout.window_size), *shape), dtype=dtypes[layout.itemsize])
        for kept in selection.tokens.values()
    ]
    packed = sum(block.numel() * block.element_size() for block in blocks)
    sliding = tuple(
        () if group.is_selectable else tuple(layout.full_windows(group, num_tokens))
        for group in layout.groups
    )
    return packed + block_bytes_of(layout, sliding)


def block_bytes_of(layout: KVLayout, windows: tuple[tuple[int, ...], ...]) -> int:
    """What the blocks of windows take, counted from tensors made for them."""
    dtypes = {2: torch.float16, 4: torch.float32}
    total = 0
    for group, chosen in zip(layout.groups, windows, strict=True):
        blocks: Tensor = torch.empty((len(chosen), *layout.block_shape(group)), dtype=dtypes[layout.itemsize])
        total += blocks.numel() * blocks.element_size()
    return total
