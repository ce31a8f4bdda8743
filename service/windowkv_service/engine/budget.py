"""What the device may hold of a cached prompt, what it holds between questions, and what a choice begins with."""

from __future__ import annotations

from math import ceil

from windowkv_service.domain.requests import Compression
from windowkv_service.engine.prompt import Prompt, Windows
from windowkv_service.engine.resources import Resources
from windowkv_service.selection.choice import num_fitting
from windowkv_service.selection.question import QuestionProfile, resident_windows

ASKED_TOKENS = 64  # of a prompt's end that are taken for its question
ASKED_AT_LEAST = 32  # of fewer a question would be cut


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


def asked_windows(prompt: Prompt, profile: QuestionProfile, budget_bytes: int) -> range:
    """What every choice holds where nothing is asked beyond the cached prompt: its end, since the question is there. At
    most half of the windows that fit; none where these are too few for a question."""
    layout = prompt.layout
    fitting = num_fitting(layout, prompt.num_tokens, profile.leaders, budget_bytes)
    end = layout.num_windows(prompt.num_tokens)
    num_asked = min(fitting // 2, ceil(ASKED_TOKENS / layout.window_size))
    return range(max(0, end - num_asked) if num_asked * layout.window_size >= ASKED_AT_LEAST else end, end)
