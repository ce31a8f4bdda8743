"""niah: one fact at a given depth of a document of a given length (Needle in a Haystack), a grid of cells. Only the
exact answer counts."""

from __future__ import annotations

from windowkv_service.model.builtin.documents import Needle
from windowkv_service.quality.suites.base import Suite
from windowkv_service.quality.suites.generated import Generated, num_facts

LENGTHS = (1000, 2000, 4000)
DEPTHS = (0, 25, 50, 75, 100)  # percent of the text before the fact


def niah() -> Suite:
    return Suite("niah", tuple(_task(num_tokens, depth) for num_tokens in LENGTHS for depth in DEPTHS))


def cell(task_name: str) -> tuple[int, int]:
    """(document tokens, depth in percent) of one of the suite's tasks."""
    _, num_tokens, depth = task_name.split("/")
    return int(num_tokens), int(depth)


def _task(num_tokens: int, depth: int) -> Generated:
    return Generated(f"niah/{num_tokens}/{depth}", Needle(num_tokens, depth / 100, num_facts(num_tokens)))
