"""What the device may hold of a cached prompt, and what it holds between questions."""

from __future__ import annotations

from windowkv_service.domain.requests import Compression
from windowkv_service.engine.prompt import Prompt, Windows
from windowkv_service.engine.resources import Resources
from windowkv_service.selection.question import resident_windows


def block_budget(prompt: Prompt, kept_ratio: float, index_bytes: int) -> int:
    """Bytes that blocks may take: the kept share of the full cache, less the leader keys."""
    return int(kept_ratio * prompt.layout.full_bytes(prompt.num_tokens)) - index_bytes


def resident_of(
    resources: Resources, prompt: Prompt, compression: Compression, chosen: Windows, index_bytes: int
) -> Windows:
    """The windows that an entry holds on the device while nobody asks. With leader keys every question chooses its own:
    then only those that any choice begins with, and the rest of the budget is the question's. Else those chosen."""
    profile = resources.profiles.get(compression.method)
    if index_bytes == 0 or profile is None:
        return chosen
    budget = block_budget(prompt, compression.kept_ratio, index_bytes)
    return resident_windows(profile, prompt.layout, prompt.num_tokens, budget)
