"""Labels beside the ends of curves, pushed apart until none lies on another."""

from __future__ import annotations

from collections.abc import Sequence


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places as near to the wanted ones as can be, in their order, at least gap apart, within low and high where they
    fit. Neighbours that would touch are centred on the mean of what they want."""
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    groups: list[list[int]] = []
    for index in order:
        groups.append([index])
        while (
            len(groups) > 1
            and _ends(groups[-2], wanted, gap, low, high)[1] + gap
            > (_ends(groups[-1], wanted, gap, low, high)[0])
        ):
            groups[-2:] = [groups[-2] + groups[-1]]
    places = [0.0] * len(wanted)
    for group in groups:
        first, _ = _ends(group, wanted, gap, low, high)
        for place, index in enumerate(group):
            places[index] = first + place * gap
    return places


def _ends(
    group: Sequence[int], wanted: Sequence[float], gap: float, low: float, high: float
) -> tuple[float, float]:
    """Where the first and the last label of a group go."""
    length = gap * (len(group) - 1)
    middle = sum(wanted[index] for index in group) / len(group)
    first = max(low, min(middle - length / 2, high - length))
    return first, first + length
