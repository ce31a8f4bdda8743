"""Quest (arXiv 2406.10774): every layer ranks pages by the most that any of their keys could score.

Code consulted: mit-han-lab/Quest, evaluation/quest_attention.py (MIT).

A page is a window. Of its keys, after RoPE, the least and the greatest number of every channel are kept; no key in it
can score more against a query than Σ_c max(q_c · least_c, q_c · greatest_c). These bounds stand where our own method
holds its leaders' keys: on the device between questions, counted as stored, spilled with the blocks. Every selectable
layer group has its own, of its first layer, and is led by it; one token votes, the question's last.

What we do differently:
- Quest chooses anew for every query head at every generated token, and reads all keys from device memory. Here a
  question chooses once, for all heads of a group's layers: the bounds of all query heads become shares of attention (a
  softmax over pages, a page's tokens counted), and the mean share ranks. Pages that are not chosen need not be on the
  device.
- Quest leaves the first two layers dense. Here every byte counts, and they are chosen for like the others.
- One layer of a group bounds for all of it: 1 / (window_size · layers per group) of the cache, where Quest's metadata
  takes 1 / page size.
- The queries that choose come of a pass over what the device holds between questions, the first and the last window;
  in Quest each layer's query comes of layers that have already read what they chose.
- Before a question, or where only the chosen windows are retained, the first and the most recent windows are kept:
  Quest drops nothing, and has no choice to make then.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import torch
from torch import Tensor

from windowkv_kernels import WindowScores
from windowkv_service.kv.layout import KVLayout
from windowkv_service.selection.base import Leader
from windowkv_service.selection.page_bounds import PageBounds
from windowkv_service.selection.question import LeaderKeys, QuestionProfile
from windowkv_service.selection.streamingllm import StreamingLLM

NAME = "quest"


@dataclass(frozen=True)
class QuestProfile(QuestionProfile):
    """A question profile whose index is page bounds; index_bits and top_p have no say."""

    vote_tokens: int = 1

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(json.dumps([self.layers, NAME]).encode()).digest()

    def index_bytes(self, layout: KVLayout, num_tokens: int) -> int:
        return len(self.leaders) * PageBounds.count_bytes(
            num_tokens,
            layout.num_kv_heads,
            layout.head_dim,
            window_size=layout.window_size,
            itemsize=layout.itemsize,
        )

    def index_of(self, keys: Tensor, layout: KVLayout) -> PageBounds:
        return PageBounds.build(keys, layout.window_size)

    def restore(self, flat: Tensor, layout: KVLayout, num_tokens: int, dtype: torch.dtype) -> PageBounds:
        return PageBounds.from_flat(
            flat,
            num_tokens=num_tokens,
            num_kv_heads=layout.num_kv_heads,
            head_dim=layout.head_dim,
            window_size=layout.window_size,
            dtype=dtype,
        )

    def score(
        self,
        queries: Tensor,
        keys: Tensor | LeaderKeys,
        *,
        window_size: int,
        scale: float,
        softcap: float | None = None,
    ) -> WindowScores:
        pages = PageBounds.build(keys, window_size) if isinstance(keys, Tensor) else keys
        assert isinstance(pages, PageBounds)
        return pages.score(queries[:, -self.vote_tokens :], scale=scale, softcap=softcap)


def quest_profile(layout: KVLayout) -> QuestProfile:
    """Every selectable group led by its own first layer."""
    return QuestProfile(tuple(Leader(group.layers[0], (group.index,)) for group in layout.selectable_groups))


def quest() -> StreamingLLM:
    """What is kept before a question asks."""
    return StreamingLLM(NAME)
