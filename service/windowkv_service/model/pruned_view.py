"""A prefill in which deeper layers compute fewer tokens: what a layer drops reaches no layer after it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from windowkv_service.kv.buffers import Staging
from windowkv_service.kv.layout import KVLayout
from windowkv_service.model.prompt_attention import Terms, masked_attention

# A layer that owns its KV, positions [m] of the tokens that reached it, their queries [H, m, D] and keys [m, Hkv, D],
# the layer's terms → which of them go on, as ascending places in [0, m).
Survive = Callable[[int, Tensor, Tensor, Tensor, Terms], Tensor]

QUERY_ROWS = 512  # so many queries attend at once: a mask of all of a long prompt's would be its square


class PrunedView:
    """A whole prompt in one piece, from position 0. KV goes to staging at the tokens' own positions.

    enter narrows each decoder layer's input to the tokens that the layers before it passed on; the modules themselves
    know nothing of it. A layer that reads another layer's KV sees what that layer kept.
    """

    def __init__(self, layout: KVLayout, staging: Staging, num_tokens: int, survive: Survive) -> None:
        self._layout = layout
        self._staging = staging
        self._num_tokens = num_tokens
        self._survive = survive
        self._positions = torch.arange(
            num_tokens, device=staging.tensor.device
        )  # of the tokens that are left
        self._survivors: Tensor | None = None  # of these, once a layer has chosen
        self._kept: dict[
            int, tuple[Tensor, Tensor, Tensor]
        ] = {}  # positions, keys, values, for layers to come

    @contextmanager
    def narrowing(self, layers: Iterable[nn.Module]) -> Iterator[None]:
        """While it lasts, the decoder's layers run the tokens that are left, and only those."""
        with ExitStack() as hooks:
            for layer in layers:
                hooks.callback(layer.register_forward_pre_hook(self._enter, with_kwargs=True).remove)
            yield

    def _enter(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        hidden_states, *others = args
        if self._survivors is not None:
            hidden_states = hidden_states.index_select(-2, self._survivors)
            self._positions = self._positions[self._survivors]
            self._survivors = None
        others = [self._narrowed(each) for each in others]
        return (hidden_states, *others), {name: self._narrowed(each) for name, each in kwargs.items()}

    def _narrowed(self, argument: Any) -> Any:
        """What has a row for every token of the prompt (rotations, position ids, inputs of each layer's own), for the
        tokens that are left."""
        if isinstance(argument, tuple):
            return tuple(map(self._narrowed, argument))
        if not isinstance(argument, Tensor) or argument.ndim < 2:
            return argument
        dimension = -1 if argument.ndim == 2 else -2
        if argument.shape[dimension] != self._num_tokens:
            return argument
        return argument.index_select(dimension, self._positions)

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, terms: Terms) -> Tensor:
        owner = self._layout.owners[layer]
        if owner != layer:
            return self._attended(queries, *self._kept[owner], terms)
        attended = self._attended(queries, self._positions, keys, values, terms)
        tokens_first = keys[0].transpose(0, 1)
        self._staging.write_at(layer, self._positions, tokens_first, values[0].transpose(0, 1))
        survivors = self._survive(layer, self._positions, queries[0], tokens_first, terms)
        if self._layout.owners.count(layer) > 1:
            self._kept[layer] = self._positions[survivors], keys[:, :, survivors], values[:, :, survivors]
        self._survivors = survivors
        return attended

    def _attended(
        self, queries: Tensor, key_positions: Tensor, keys: Tensor, values: Tensor, terms: Terms
    ) -> Tensor:
        """Of the tokens that are left, over keys and values [1, Hkv, n, D] at key_positions [n]."""
        pieces = []
        for start in range(0, queries.shape[2], QUERY_ROWS):
            rows = slice(start, start + QUERY_ROWS)
            positions = self._positions[rows, None]
            visible = key_positions <= positions
            if terms.sliding_window is not None:
                visible &= key_positions > positions - terms.sliding_window
            pieces.append(masked_attention(queries[:, :, rows], keys, values, visible, terms))
        return torch.cat(pieces, dim=2)
