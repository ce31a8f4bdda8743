"""StreamingLLM (arXiv 2309.17453): attention sinks and the most recent tokens.

Code consulted: mit-han-lab/streaming-llm (MIT); kvpress, streaming_llm_press.py (Apache-2.0).

What we do differently:
- Whole windows: window 0 stands for the paper's four sinks, the last windows for its recent tokens, so that the choice
  is shared by all heads and layers, as the paper's is, and stored in ordinary blocks.
- Keys keep the positions they were read at; the paper counts positions inside its cache, for streams without end.
- The last 16 tokens' windows stay even where the budget has no room for them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from windowkv_service.selection.blind import BlindSelector


@dataclass(frozen=True)
class StreamingLLM(BlindSelector):
    name: str = "streamingllm"

    @property
    def forced(self) -> frozenset[int]:
        return frozenset({0})

    def rank(self, num_windows: int, group: int) -> Tensor:
        return torch.arange(num_windows, dtype=torch.float32)
