"""Who might lead."""

from __future__ import annotations

from collections.abc import Iterator

from windowkv_service.kv.layout import KVLayout
from windowkv_service.selection import Leader, QuestionProfile, default_profile


def leader_candidates(layout: KVLayout) -> Iterator[tuple[str, QuestionProfile]]:
    """Every layer as the leader of all; teams of half, a quarter … of the layers, led from one place; the default."""
    groups = layout.selectable_groups
    num_teams = 1
    while num_teams <= len(groups):
        size = -(-len(groups) // num_teams)
        teams = [groups[start : start + size] for start in range(0, len(groups), size)]
        members = [[layer for group in team for layer in group.layers] for team in teams]
        for place in range(max(map(len, members))):
            led = [
                Leader(layers[min(place, len(layers) - 1)], tuple(group.index for group in team))
                for layers, team in zip(members, teams, strict=True)
            ]
            yield f"{len(led)} × layer {place} of {len(members[0])}", QuestionProfile(tuple(led))
        num_teams *= 2
    yield "default rule", default_profile(layout)


def leaders_of(profile: QuestionProfile) -> str:
    return " ".join(map(str, profile.layers))
