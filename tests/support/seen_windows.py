"""What a running answer attends to, read from the block tables that its attention reads."""

from __future__ import annotations

from running_service import RunningService

from windowkv_service.engine.resources import Resources


def seen_positions(service: RunningService) -> dict[int, list[int]]:
    """Every layer's visible positions of the cached prompt, of the one answer that is decoding now."""
    worker = service.service.engine._worker
    assert worker is not None

    def look(resources: Resources) -> dict[int, list[int]]:
        (decoding,) = worker._decoding.values()
        layout = resources.model.layout
        seen = {}
        for part in decoding.sequence.tables.layers:
            (row,) = part.rows
            positions = row.key_positions[: row.num_prefix_blocks * layout.window_size].tolist()
            kept = [position for position in positions if position >= 0]
            seen.update((layer, kept) for layer in part.layers)
        return {layer: seen[owner] for layer, owner in enumerate(layout.owners)}

    return service.ask(look)
