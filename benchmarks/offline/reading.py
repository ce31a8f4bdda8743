"""What the layers read of a cached document, as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from offline.choice import Choice
from offline.document import StagedPrompt
from windowkv_service.kv.layout import KVGroup


@dataclass(frozen=True)
class Reading:
    """What one layer reads, for a batch of R rows. keys, values: [R, Hkv, S, D]. positions: [R, Hkv, S].

    bias: [R, Hkv, S], added to the scores: how much a key stands for; -inf where a row reads less than others.
    """

    keys: Tensor
    values: Tensor
    positions: Tensor
    bias: Tensor

    def join(self, other: Reading) -> Reading:
        return Reading(
            torch.cat([self.keys, other.keys], 2),
            torch.cat([self.values, other.values], 2),
            torch.cat([self.positions, other.positions], 2),
            torch.cat([self.bias, other.bias], 2),
        )


def gather(document: StagedPrompt, group: KVGroup, choices: Sequence[Choice]) -> dict[int, Reading]:
    """Layer → what it reads, for the layers of one group: chosen tokens, then digests. One choice per row."""
    places, bias = _pad([choice.tokens[group.index] for choice in choices])
    for row, choice in enumerate(choices):
        if choice.weights:
            weights = choice.weights[group.index]
            bias[row, :, : len(weights)] += weights
    readings = {}
    for layer in group.layers:
        keys, values = _take(document.keys(layer), places), _take(document.values(layer), places)
        readings[layer] = Reading(keys, values, places, bias)
    if all(choice.digests is None for choice in choices):
        return readings
    digests = _gather_digests(group, choices)
    return {layer: reading.join(digests[layer]) for layer, reading in readings.items()}


def _gather_digests(group: KVGroup, choices: Sequence[Choice]) -> dict[int, Reading]:
    """The same of the digests; a batch has digests of one size, in every row."""
    (digests,) = {id(choice.digests): choice.digests for choice in choices}.values()
    assert digests is not None
    num_kv_heads = choices[0].tokens[group.index].shape[0]
    places, bias = _pad([choice.covering[group.index].expand(num_kv_heads, -1) for choice in choices])
    positions, bias = places * digests.num_tokens, bias + digests.bias
    return {
        layer: Reading(
            _take(digests.keys[layer], places), _take(digests.values[layer], places), positions, bias
        )
        for layer in group.layers
    }


def _pad(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Places per row [Hkv, S_r] → places and bias [R, Hkv, S]; what a row does not have is place 0 at -inf."""
    longest = max(row.shape[1] for row in rows)
    places = torch.zeros(len(rows), rows[0].shape[0], longest, dtype=torch.long)
    bias = torch.full(places.shape, float("-inf"))
    for number, row in enumerate(rows):
        places[number, :, : row.shape[1]] = row.clamp(min=0)
        bias[number, :, : row.shape[1]].masked_fill_(row >= 0, 0.0)
    return places, bias


def _take(numbers: Tensor, places: Tensor) -> Tensor:
    """numbers [n, Hkv, D] at places [R, Hkv, S] → [R, Hkv, S, D]."""
    return torch.stack([numbers[:, head][places[:, head]] for head in range(numbers.shape[1])], dim=1)
