"""Steps over static, padded memory say what the same sequences say by themselves, and touch nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from paged_sequences import WINDOW, PagedSequences, generate
from torch import Tensor

from windowkv_service.engine.tables import stack_up
from windowkv_service.model.decode_steps import EXACT, PADDED, Buckets, Compute, DecodeSteps
from windowkv_service.model.graphs import as_it_is
from windowkv_service.model.step_buffers import Stack, StackShape

CPU = torch.device("cpu")


def steps_of(
    paged: PagedSequences, buckets: Buckets, hold: Callable[[Compute], Compute] = as_it_is
) -> DecodeSteps:
    return DecodeSteps(paged.runner, WINDOW, CPU, buckets, hold)


def said(buckets: Buckets, rows: Sequence[int]) -> list[Tensor]:
    paged = PagedSequences.make()
    return generate(paged, steps_of(paged, buckets), rows)


@pytest.mark.parametrize("rows", [[0], [1], [0, 1, 2], [2, 0]])
def test_padding_changes_nothing_that_is_said(rows: list[int]) -> None:
    exact, padded = said(EXACT, rows), said(PADDED, rows)
    assert all(bool(each.isfinite().all()) for each in padded)
    for one, other in zip(exact, padded, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
        assert one.argmax(-1).tolist() == other.argmax(-1).tolist()


def test_each_says_what_it_says_alone() -> None:
    together = said(PADDED, [0, 1, 2])
    for place, row in enumerate([0, 1, 2]):
        alone = said(EXACT, [row])
        for one, other in zip(together, alone, strict=True):
            torch.testing.assert_close(one[place], other[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("buckets", [EXACT, PADDED], ids=["exact", "padded"])
@pytest.mark.parametrize(("num_common", "rows"), [(1, [1, 2]), (5, [0, 1, 2]), (12, [2, 0])])
def test_what_is_read_once_for_all_changes_nothing_that_is_said(
    buckets: Buckets, num_common: int, rows: list[int]
) -> None:
    plain, shared = (PagedSequences.make(num_common=num_common) for _ in range(2))
    expected = generate(plain, steps_of(plain, EXACT), rows)
    for one, other in zip(
        expected, generate(shared, steps_of(shared, buckets), rows, min_shared=1), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_blocks_stand_apart_only_where_enough_are_in_all_tables() -> None:
    paged = PagedSequences.make(num_common=5)
    assert [stack.shape.num_shared for stack in stack_up(paged.tables, 5)] == [5, 5]
    for few in (stack_up(paged.tables, 6), stack_up(paged.tables), stack_up(paged.tables[:1], 1)):
        assert [stack.shape.num_shared for stack in few] == [0, 0]
    apart = stack_up(paged.tables, 1)[0]
    assert apart.shared is not None
    assert apart.shared.key_positions.tolist() == list(range(5 * WINDOW))
    assert apart.num_prefix_blocks.tolist() == [0, 7, 2]
    assert not set(apart.shared.block_table.tolist()) & set(apart.block_table[1].tolist())


@pytest.mark.parametrize("buckets", [EXACT, PADDED], ids=["exact", "padded"])
def test_only_the_tails_are_written(buckets: Buckets) -> None:
    paged, rows = PagedSequences.make(), [0, 1, 2]
    before = paged.bits().clone()
    generate(paged, steps_of(paged, buckets), rows)
    changed = (paged.bits() != before).flatten(4).any(-1).any(1).any(1).flatten().nonzero()
    allowed = set.union(*paged.written_slots(rows).values())
    written = set(changed.flatten().tolist())
    assert written <= allowed
    assert len(written) == sum(8 for _ in rows) * len(paged.layout.groups)


def test_a_bucket_is_made_once_and_taken_by_every_batch_that_fits() -> None:
    paged, made = PagedSequences.make(), []

    def hold(compute: Compute) -> Compute:
        made.append(compute())  # as a capture does, before there is anybody in it
        return compute

    before = paged.bits().clone()
    steps = steps_of(paged, PADDED, hold)
    expected = PagedSequences.make()
    for rows in ([1, 2], [0, 1], [2, 1]):
        paged.begin(steps, rows)
        if len(made) == 1 and rows == [1, 2]:
            assert torch.equal(paged.bits(), before), "holding it wrote nothing"
        logits = steps.logits()
        twin = steps_of(expected, EXACT)
        expected.begin(twin, rows)
        torch.testing.assert_close(logits, twin.logits(), rtol=1e-5, atol=1e-5)
    assert len(made) == 1
    assert made[0].shape[0] == 2
    paged.begin(steps, [0, 1, 2])
    steps.logits()
    assert [each.shape[0] for each in made] == [2, 4]


def test_no_more_buckets_are_held_than_allowed() -> None:
    paged, made = PagedSequences.make(), []

    def hold(compute: Compute) -> Compute:
        made.append(1)
        return compute

    steps = steps_of(paged, Buckets(has_padding=True, max_held=1), hold)
    for rows in ([0], [1, 2], [0], [0]):
        paged.begin(steps, rows)
        steps.logits()
    assert len(made) == 3


def test_no_more_bytes_of_tables_are_held_than_allowed() -> None:
    paged, made = PagedSequences.make(), []

    def hold(compute: Compute) -> Compute:
        made.append(1)
        return compute

    two = sum(PADDED.shape(stack.shape).size_bytes(WINDOW) for stack in stack_up(paged.tables[1:]))
    steps = steps_of(paged, Buckets(has_padding=True, max_held=9, max_bytes=two * 3 // 2), hold)
    for rows in (
        [0],
        [1, 2],
        [0],
        [0],
        [0, 1, 2],
        [0, 1, 2],
    ):  # one and two fit; three, padded to four, never do
        paged.begin(steps, rows)
        steps.logits()
    assert len(made) == 3


@pytest.mark.parametrize(
    "shape", [StackShape((0, 1), None, 3, 5, 7), StackShape((1,), 2, 3, 5, 7, num_shared=4)], ids=str
)
def test_a_shape_knows_what_its_tables_take(shape: StackShape) -> None:
    stack = Stack.padding(shape, WINDOW, CPU)
    tables = [stack.block_table, stack.key_positions, stack.tail_slots, stack.num_prefix_blocks]
    if stack.shared is not None:
        tables += [stack.shared.block_table, stack.shared.key_positions]
    assert shape.size_bytes(WINDOW) == sum(table.nbytes for table in tables)


@pytest.mark.parametrize(
    ("shape", "padded"),
    [
        ((1, 1, 1), (1, 64, 256)),
        ((3, 64, 256), (4, 64, 256)),
        ((16, 65, 257), (16, 256, 1024)),
        ((17, 257, 1), (32, 1024, 256)),
        ((49, 5000, 3), (64, 16384, 256)),
    ],
)
def test_buckets_are_few_and_never_too_small(
    shape: tuple[int, int, int], padded: tuple[int, int, int]
) -> None:
    exact = StackShape((0, 1), None, *shape)
    assert PADDED.shape(exact) == StackShape((0, 1), None, *padded)
    assert EXACT.shape(exact) == exact
