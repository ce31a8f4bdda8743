"""A prompt that ends with its question: what a method keeps of it, and what is answered from that alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from offline.choice import Choice, tokens_of
from offline.document import StagedPrompt
from offline.rows import Rows
from read_prompt import ReadPrompt
from torch import Tensor

from windowkv_service.domain.requests import Task
from windowkv_service.engine.prune import Pruning
from windowkv_service.kv.strips import rounding_bytes
from windowkv_service.model.loader import LoadedModel
from windowkv_service.selection import Method, Selector, WindowSelection
from windowkv_service.selection.base import Pruner


@dataclass(frozen=True)
class Kept:
    """tokens: (layer, KV head) → the positions that stayed of prompt."""

    prompt: StagedPrompt
    tokens: Mapping[tuple[int, int], Tensor]

    def share(self, positions: Sequence[int], layers: Sequence[int]) -> float:
        """Of these positions, how many stayed; the mean over the layers' KV heads."""
        wanted = torch.tensor(list(positions))
        found = [
            torch.isin(wanted, tokens).float().mean()
            for (layer, _), tokens in self.tokens.items()
            if layer in layers
        ]
        return float(torch.stack(found).mean())

    def choice(self) -> Choice:
        """What the prompt's last token reads when it is run again: not its own KV."""
        return Choice([self._of(group.layers[0]) for group in self.prompt.layout.groups], 1.0, 0)

    def _of(self, layer: int) -> Tensor:
        """[num_kv_heads, S]; -1 behind the positions of a head that kept fewer."""
        last = self.prompt.num_tokens - 1
        rows = [self.tokens[layer, head] for head in range(self.prompt.layout.num_kv_heads)]
        rows = [row[row < last] for row in rows]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)


class VisiblePrompt:
    """Read once, for every method. model: in blocks of one layer."""

    def __init__(self, model: LoadedModel, token_ids: Sequence[int]) -> None:
        self._model = model
        self._last_id = token_ids[-1]
        self._read = ReadPrompt(model, token_ids)

    def keep(self, method: Method, kept_ratio: float) -> Kept:
        """As the service does at prefill, within as many bytes."""
        layout, num_tokens = self._read.layout, self._read.num_tokens
        budget_bytes = int(kept_ratio * layout.full_bytes(num_tokens))
        if method.chooses_tokens:
            budget_bytes -= rounding_bytes(layout)
        if isinstance(method, Pruner):
            pruning = Pruning(method, layout, num_tokens, budget_bytes)
            prompt = self._read.pruned(pruning)
            return Kept(prompt, pruning.selection().tokens)
        return Kept(self._read.staged(), self._select(method, budget_bytes))

    def _select(self, selector: Selector, budget_bytes: int) -> Mapping[tuple[int, int], Tensor]:
        layout, num_tokens = self._read.layout, self._read.num_tokens
        observation = self._read.observation(selector.observation_size)
        chosen = selector.select(observation, budget_bytes=budget_bytes, task=Task.AUTO)
        if not isinstance(chosen, WindowSelection):
            return chosen.tokens
        return {
            (group.layers[0], head): tokens_of(chosen.windows[group.index], layout, num_tokens)
            for group in layout.groups
            for head in range(layout.num_kv_heads)
        }

    def answer(self, kept: Kept, max_tokens: int) -> list[int]:
        """Greedy, without the end token."""
        rows = Rows(kept.prompt.without_last(), 1)
        rows.read([kept.choice()])
        said = [self._last_id]
        while len(said) <= max_tokens:
            logits = rows.run(torch.tensor([said[-1:]]), lambda layer, queries: None)
            said.append(int(logits.argmax()))
            if said[-1] in self._model.eos_ids:
                return said[1:-1]
        return said[1:]
