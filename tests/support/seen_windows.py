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
        rows = []
        for table in decoding.sequence.tables.groups:
            positions = table.key_positions[: table.num_prefix_blocks * layout.window_size].tolist()
            rows.append([position for position in positions if position >= 0])
        return {layer: rows[group] for layer, (group, _) in layout.places.items()}

    return service.ask(look)
