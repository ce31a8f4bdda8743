"""Token ids in, logits out: the one place that calls the model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from windowkv_service.kv.buffers import Arenas, Staging
from windowkv_service.kv.layout import KVLayout
from windowkv_service.kv.sending import on_device
from windowkv_service.model.attention import (
    BlockView,
    KVView,
    LayerTables,
    LeadersHeard,
    Observed,
    PrefillView,
    RepeatView,
)
from windowkv_service.model.prompt_attention import Terms
from windowkv_service.model.pruned_view import PrunedView, Survive


class Runner:
    """Runs a module over staging (prefill) or over block tables (questions and decode). Single-threaded."""

    def __init__(self, module: nn.Module, layout: KVLayout, arenas: Arenas, device: torch.device) -> None:
        self._module = module
        self._decoder: nn.Module = module.get_decoder()  # type: ignore[operator]  # every causal model has it
        self._layout = layout
        self._arenas = arenas
        self._device = device

    @torch.inference_mode()
    def prefill(
        self,
        token_ids: Sequence[int],
        start: int,
        staging: Staging,
        observed: Observed,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        """Compute the KV of token_ids, at positions start …, into staging. No logits: prefill never samples. meanwhile
        is called while a GPU computes."""
        view = PrefillView(self._layout, staging, start, observed)
        ids = on_device([list(token_ids)], self._device)
        positions = torch.arange(start, start + len(token_ids), device=self._device)[None]
        self._call(self._decoder, ids, positions, view)
        meanwhile()
        self._finish()

    def _finish(self) -> None:
        """A chunk is done when it is computed, not when it is launched: its time is measured, and others are to have
        their step before the next."""
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()

    @torch.inference_mode()
    def prefill_pruned(self, token_ids: Sequence[int], staging: Staging, survive: Survive) -> None:
        """A whole prompt, of which deeper layers compute only the tokens that survive the layers before them."""
        view = PrunedView(self._layout, staging, len(token_ids), survive)
        ids = on_device([list(token_ids)], self._device)
        with view.narrowing(cast(nn.ModuleList, self._decoder.layers)):
            self._call(self._decoder, ids, torch.arange(len(token_ids), device=self._device)[None], view)

    @torch.inference_mode()
    def repeat(
        self, token_ids: Sequence[int], start: int, staging: Staging, layers: Iterable[int]
    ) -> dict[int, tuple[Tensor, Tensor]]:
        """Run token_ids, at positions start …, behind the staged prompt and keep nothing of them. layer → their queries
        [num_heads, m, head_dim] and keys [m, num_kv_heads, head_dim]."""
        observed = Observed(layers, len(token_ids))
        view = RepeatView(self._layout, staging, start, observed)
        ids = on_device([list(token_ids)], self._device)
        positions = torch.arange(start, start + len(token_ids), device=self._device)[None]
        self._call(self._decoder, ids, positions, view)
        return {layer: (queries, view.new_keys(layer)) for layer, queries in observed.by_layer.items()}

    @property
    def rotary(self) -> Callable[[Tensor], tuple[Tensor, Tensor]] | None:
        """positions [m] → cos and sin [m, rotary_dim] in fp32, as full-attention layers turn queries and keys."""
        table = getattr(self._decoder, "rotary_emb", None)
        if table is None:
            return None
        by_type = "layer_type" in inspect.signature(table.forward).parameters
        arguments = {"layer_type": "full_attention"} if by_type else {}
        like = torch.empty(0, dtype=torch.float32, device=self._device)

        def look_up(positions: Tensor) -> tuple[Tensor, Tensor]:
            cos, sin = table(like, positions.to(self._device)[None], **arguments)
            return cos[0], sin[0]

        return look_up

    @torch.inference_mode()
    def logits(
        self,
        token_ids: Tensor,
        positions: Tensor,
        tables: Mapping[int, LayerTables],
        last: Tensor | None = None,
    ) -> Tensor:
        """token_ids and positions [B, m] over block tables → logits [B, vocab_size] of each row's last token, or of the
        one at last [1]."""
        view = BlockView(self._layout, self._arenas, tables, positions)
        kept = 1 if last is None else last
        output = self._call(self._module, token_ids, positions, view, logits_to_keep=kept)
        logits: Tensor = output.logits
        return logits[:, -1]

    @torch.inference_mode()
    def listen(
        self,
        token_ids: Tensor,
        positions: Tensor,
        tables: Mapping[int, LayerTables],
        on_queries: Callable[[int, Tensor, Terms], None],
    ) -> None:
        """Run [B, m] new tokens only to hear the queries of their layers; ends early when on_queries has enough."""
        view = BlockView(self._layout, self._arenas, tables, positions, on_queries)
        try:
            self._call(self._decoder, token_ids, positions, view)
        except LeadersHeard:
            return

    @staticmethod
    def _call(module: nn.Module, ids: Tensor, positions: Tensor, view: KVView, **arguments: Tensor | int):  # type: ignore[no-untyped-def]
        return module(input_ids=ids, position_ids=positions, use_cache=False, kv_view=view, **arguments)
