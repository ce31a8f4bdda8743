"""Slow, plain references: transformers' own generate, and a forward pass in which dropped positions are
masked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AutoModelForCausalLM

REFERENCE_ATTENTION = "masked_reference"
Kept = Sequence[int] | Sequence[Sequence[int]]


def plain_generate(directory: Path, token_ids: Sequence[int], max_tokens: int) -> list[int]:
    """What transformers answers, greedily, without ever stopping early."""
    model = _load(directory, "sdpa")
    ids = torch.tensor([list(token_ids)])
    with torch.inference_mode():
        output = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=max_tokens,
            do_sample=False,
            eos_token_id=None,
        )
    return output[0, len(token_ids) :].tolist()


def masked_generate(
    directory: Path,
    prompt_ids: Sequence[int],
    new_ids: Sequence[int],
    kept: Mapping[int, Kept],
    max_tokens: int,
    reached: Mapping[int, Sequence[int]] | None = None,
) -> list[int]:
    """Greedy, one whole forward pass per token. Tokens after the prompt see only the kept positions of it.

    kept: layer → positions of the prompt that the layer still has, or a list of them for each KV head.
    reached: layer → positions that the prompt's own tokens see there; None: all before them.
    """
    model = _load(directory, REFERENCE_ATTENTION)
    ids = [*prompt_ids, *new_ids]
    with torch.inference_mode():
        for _ in range(max_tokens):
            logits = model(
                input_ids=torch.tensor([ids]),
                position_ids=torch.arange(len(ids))[None],
                use_cache=False,
                kept=kept,
                reached=reached or {},
                num_prompt=len(prompt_ids),
            ).logits
            ids.append(int(logits[0, -1].argmax()))
    return ids[len(prompt_ids) + len(new_ids) :]


@lru_cache(maxsize=2)
def _load(directory: Path, attention: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation=attention
    ).eval()


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    kept: Mapping[int, Kept],
    reached: Mapping[int, Sequence[int]],
    num_prompt: int,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    length = query.shape[2]
    visible = torch.ones(length, length, dtype=torch.bool).tril()
    if sliding_window is not None:
        visible &= ~torch.ones(length, length, dtype=torch.bool).tril(-sliding_window)
    unreached = sorted(set(range(num_prompt)) - set(reached.get(module.layer_idx, range(num_prompt))))
    visible[:num_prompt, unreached] = False
    visible.fill_diagonal_(fill_value=True)  # what nobody sees may see itself
    repeats = query.shape[1] // key.shape[1]
    visible = torch.stack(
        [_without(visible, num_prompt, each) for each in _lists(kept[module.layer_idx], key.shape[1])]
    )
    visible = visible.repeat_interleave(repeats, 0)
    key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    scores = (query @ key.transpose(2, 3) * scaling).masked_fill(~visible, float("-inf"))
    return (scores.softmax(-1) @ value).transpose(1, 2), None


def _lists(kept: Kept, num_kv_heads: int) -> list[Sequence[int]]:
    per_head = [each for each in kept if not isinstance(each, int)]
    return per_head or [[position for position in kept if isinstance(position, int)]] * num_kv_heads


def _without(visible: Tensor, num_prompt: int, kept: Sequence[int]) -> Tensor:
    """What tokens after the prompt do not see is taken out of visible [n, n]."""
    dropped = sorted(set(range(num_prompt)) - set(kept))
    narrowed = visible.clone()
    narrowed[num_prompt:, dropped] = False
    return narrowed


AttentionInterface.register(REFERENCE_ATTENTION, _attend)
