"""One pass for all answers that are to choose their windows again."""

from __future__ import annotations

from collections.abc import Sequence as Many

from windowkv_service.engine.listener import Audience, Listener
from windowkv_service.engine.resources import Resources
from windowkv_service.engine.sequence import Sequence
from windowkv_service.engine.tables import stack_up
from windowkv_service.kv.sending import on_device
from windowkv_service.model.attention import LayerTables


def hear(resources: Resources, sequences: Many[Sequence], listeners: Many[Listener]) -> None:
    """Run each sequence's last token, which the decode step runs again, only as far as its listener wants to hear. The
    sequences' tables are split alike."""
    device = resources.model.device
    token_ids = on_device([[sequence.last_token] for sequence in sequences], device)
    positions = on_device([[sequence.position] for sequence in sequences], device)
    tail_starts = on_device([sequence.tables.tail_start for sequence in sequences], device)
    tables: dict[int, LayerTables] = {}
    for stack in stack_up([sequence.tables for sequence in sequences]):
        tables.update(dict.fromkeys(stack.layers, stack.step(positions[:, 0] - tail_starts)))
    resources.runner.listen(token_ids, positions, tables, Audience(listeners))
