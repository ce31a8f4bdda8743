"""Kept tokens fill strips, strips fill blocks, and each lane's bytes lie where its numbers say."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from windowkv_service.kv.buffers import Arenas, Staging
from windowkv_service.kv.layout import KVLayout
from windowkv_service.kv.strips import Strips, rounding_bytes

WINDOW, HEADS, HEAD_DIM, NUM_TOKENS = 4, 2, 3, 23
CPU = torch.device("cpu")
LAYOUT = KVLayout.plan(  # groups of layers (0, 1), (2, 3) and (5,), and a sliding one of layer 4
    range(6),
    [None, None, None, None, 8, None],
    group_size=2,
    window_size=WINDOW,
    num_kv_heads=HEADS,
    head_dim=HEAD_DIM,
    itemsize=4,
)
SELECTABLE = [layer for group in LAYOUT.selectable_groups for layer in group.layers]

kept_lists = st.sets(st.integers(0, NUM_TOKENS - 1), min_size=1).map(sorted)
choices = st.fixed_dictionaries({(layer, head): kept_lists for layer in SELECTABLE for head in range(HEADS)})


def strips_of(choice: dict[tuple[int, int], list[int]]) -> Strips:
    return Strips.of(LAYOUT, {lane: torch.tensor(kept) for lane, kept in choice.items()}, "method")


def staged() -> Staging:
    staging = Staging(LAYOUT, NUM_TOKENS, dtype=torch.float32, device=CPU)
    staging.tensor.copy_(torch.arange(staging.tensor.numel()).view(staging.tensor.shape))
    return staging


@settings(deadline=None, max_examples=30)
@given(choices)
def test_a_lanes_strips_hold_its_tokens_in_order_of_position(
    choice: dict[tuple[int, int], list[int]],
) -> None:
    strips, staging = strips_of(choice), staged()
    arenas = Arenas(LAYOUT, {1: 40, 2: 80}, dtype=torch.float32, device=CPU)
    for group in LAYOUT.selectable_groups:
        home = strips.home(group)
        numbers = torch.arange(strips.num_blocks(home))
        ids = numbers.flip(0) + 5
        strips.gather(staging, home, numbers, arenas.of(home), ids)
        for lane, (own, positions) in enumerate(
            zip(strips.numbers(group), strips.positions(group), strict=True)
        ):
            layer, head = group.layers[lane // HEADS], lane % HEADS
            kept = choice[layer, head]
            assert positions[: len(kept)].tolist() == kept
            assert (positions[len(kept) :] == -1).all()
            lanes = LAYOUT.num_lanes(group)
            found = torch.tensor([int(ids[strip // lanes]) * lanes + strip % lanes for strip in own])
            got = arenas.strips_of(group)[found, 0, :, :, 0].transpose(0, 1).flatten(1, 2)
            expected: Tensor = staging.tensor[staging.rows[layer], :, kept, head]
            assert torch.equal(got[:, : len(kept)], expected)
            assert not got[:, len(kept) :].any()


@given(choices)
def test_groups_of_one_shape_share_blocks_and_none_is_less_than_full_but_the_last(
    choice: dict[tuple[int, int], list[int]],
) -> None:
    strips = strips_of(choice)
    for size in (1, 2):
        family = [group for group in LAYOUT.selectable_groups if len(group.layers) == size]
        needed = sum(
            -(-len(choice[layer, head]) // WINDOW) for g in family for layer in g.layers for head in (0, 1)
        )
        held = [strips.num_blocks(group) for group in family]
        assert held == [-(-needed // (size * HEADS)), *[0] * (len(family) - 1)]
        taken = sorted(strip for group in family for own in strips.numbers(group) for strip in own)
        assert taken == list(range(needed))


@given(choices)
def test_rounding_to_blocks_loses_no_more_than_is_said(choice: dict[tuple[int, int], list[int]]) -> None:
    strips = strips_of(choice)
    held = sum(strips.num_blocks(group) * LAYOUT.block_bytes(group) for group in LAYOUT.selectable_groups)
    needed = sum(-(-len(kept) // WINDOW) for kept in choice.values()) * LAYOUT.strip_bytes
    assert needed <= held <= needed + rounding_bytes(LAYOUT)


def test_sliding_groups_keep_windows() -> None:
    strips = strips_of({(layer, head): [0] for layer in SELECTABLE for head in range(HEADS)})
    assert [group.layers for group in LAYOUT.groups if group not in strips] == [(4,)]


@given(choices, choices)
def test_another_choice_has_another_digest(
    one: dict[tuple[int, int], list[int]], other: dict[tuple[int, int], list[int]]
) -> None:
    assert (strips_of(one).digest == strips_of(other).digest) == (one == other)


def test_another_methods_same_choice_has_another_digest() -> None:
    """What a layer computes may depend on what the layers before it kept."""
    kept = strips_of({(layer, head): [0] for layer in SELECTABLE for head in range(HEADS)})
    assert Strips(LAYOUT, kept.tokens, "one").digest != Strips(LAYOUT, kept.tokens, "other").digest
