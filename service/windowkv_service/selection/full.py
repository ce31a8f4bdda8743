"""Everything stays: the reference that every other selector is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from windowkv_service.domain.requests import Task
from windowkv_service.kv.layout import KVLayout
from windowkv_service.selection.base import Observation, WindowSelection


@dataclass(frozen=True)
class Full:
    """Keeps all windows, whatever the budget."""

    chooses_tokens: ClassVar[bool] = False

    name: str = "full"
    observation_size: int = 0

    def observed_layers(self, layout: KVLayout) -> tuple[int, ...]:
        return ()

    def select(self, observation: Observation, *, budget_bytes: int, task: Task) -> WindowSelection:
        layout = observation.layout
        windows = [tuple(layout.full_windows(group, observation.num_tokens)) for group in layout.groups]
        return WindowSelection(tuple(windows), 1.0, Task.AUTO)
