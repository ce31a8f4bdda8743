"""How much of the leaders' attention a choice captured, and wider choices that capture enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from windowkv_service.domain.requests import Task
from windowkv_service.kv.layout import KVLayout
from windowkv_service.selection.base import Attention, Leader, Windows, WindowSelection


def captured_mass(
    layout: KVLayout, leaders: Sequence[Leader], masses: Mapping[int, Tensor], windows: Sequence[Windows]
) -> float:
    """Share of the leaders' attention mass in the chosen windows: the mean over the layers led, each counting what its
    leader's heads and voters put there on average. masses: leader layer → [num_windows]."""
    captured, total = 0.0, 0
    for leader in leaders:
        mass, chosen = masses[leader.layer], windows[leader.groups[0]]
        num_layers = _num_layers(layout, leader)
        is_all = len(chosen) == mass.numel()  # then exactly 1, not 1 but for rounding
        captured += num_layers * (1.0 if is_all else min(1.0, float(mass[list(chosen)].double().sum())))
        total += num_layers
    return captured / total if total else 1.0


def measured(
    layout: KVLayout,
    leaders: Sequence[Leader],
    masses: Mapping[int, Tensor],
    windows: tuple[Windows, ...],
    task: Task,
) -> WindowSelection:
    """The choice of these windows, with its fidelity."""
    fidelity = captured_mass(layout, leaders, masses, windows)
    return WindowSelection(windows, fidelity, task, Attention(tuple(leaders), masses))


def widen(selection: WindowSelection, layout: KVLayout, min_fidelity: float | None) -> WindowSelection:
    """The choice, and as many windows more as it takes to capture min_fidelity, those with the most attention per byte
    first; 1 takes all. Sliding-window groups keep what they have."""
    attention = selection.attention
    if min_fidelity is None or selection.fidelity >= min_fidelity or attention is None:
        return selection
    added, reached = _by_attention(selection, attention, layout)
    count = len(added) if min_fidelity >= 1.0 else int((reached < min_fidelity).sum()) + 1
    while True:
        windows = _with(selection.windows, attention.leaders, added[:count])
        fidelity = captured_mass(layout, attention.leaders, attention.masses, windows)
        if fidelity >= min_fidelity or count >= len(added):
            return replace(selection, windows=windows, fidelity=fidelity)
        count += 1  # rounding of the sum


def _by_attention(
    selection: WindowSelection, attention: Attention, layout: KVLayout
) -> tuple[list[tuple[int, int]], Tensor]:
    """(number of its leader, window) of all that was not chosen, most attention first: a window's weight is its
    leader's layers, as its bytes are. And what is captured with each of them added, float64."""
    places, masses, weights = [], [], []
    for number, leader in enumerate(attention.leaders):
        mass = attention.masses[leader.layer].double().cpu()
        others = sorted(set(range(mass.numel())) - set(selection.windows[leader.groups[0]]))
        places += [(number, window) for window in others]
        masses.append(mass[others])
        weights.append(torch.full((len(others),), float(_num_layers(layout, leader)), dtype=torch.float64))
    mass, weight = torch.cat(masses), torch.cat(weights)
    order = torch.sort(mass, descending=True, stable=True).indices
    num_layers = sum(_num_layers(layout, leader) for leader in attention.leaders)
    reached = selection.fidelity + (mass * weight)[order].cumsum(0) / num_layers
    return [places[place] for place in order.tolist()], reached


def _with(
    windows: Sequence[Windows], leaders: Sequence[Leader], added: Sequence[tuple[int, int]]
) -> tuple[Windows, ...]:
    wider = list(windows)
    for number, leader in enumerate(leaders):
        more = [window for of, window in added if of == number]
        for group in leader.groups:
            wider[group] = tuple(sorted([*windows[group], *more]))
    return tuple(wider)


def _num_layers(layout: KVLayout, leader: Leader) -> int:
    return sum(len(layout.groups[group].layers) for group in leader.groups)
