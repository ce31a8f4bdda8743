"""Passes over static, padded memory say what the same tokens say by themselves, and write the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from device_alone import DEVICE, device_alone
from paged_sequences import TAIL_BLOCKS, WINDOW, PagedSequences

from windowkv_kernels import ops
from windowkv_kernels.ops._launch import Launch
from windowkv_service.engine import passes as module
from windowkv_service.engine.passes import Passes
from windowkv_service.model.graphs import Hold, as_it_is

CPU = torch.device("cpu")
LAYERS = frozenset({1, 2})
CAPACITY = TAIL_BLOCKS * WINDOW


def passes_of(paged: PagedSequences, hold: Hold | None) -> Passes:
    return Passes(paged.runner, WINDOW, paged.device, hold)


@pytest.mark.parametrize("row", [0, 1, 2])
@pytest.mark.parametrize(
    ("first", "length"), [(0, 1), (0, WINDOW - 1), (0, WINDOW), (0, WINDOW + 1), (2, 7), (0, CAPACITY)]
)
def test_a_padded_pass_says_and_writes_what_the_tokens_do(row: int, first: int, length: int) -> None:
    held, plain = PagedSequences.make(), PagedSequences.make()
    got = passes_of(held, as_it_is).logits(*held.new_tokens(row, first, length))
    expected = passes_of(plain, None).logits(*plain.new_tokens(row, first, length))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(held.arenas.tensors[2], plain.arenas.tensors[2], equal_nan=True)


def test_the_leaders_are_heard_and_nothing_after_them_is_run() -> None:
    held, plain = PagedSequences.make(), PagedSequences.make()
    got = passes_of(held, as_it_is).listen(*held.new_tokens(1, 0, 5), LAYERS)
    expected = passes_of(plain, None).listen(*plain.new_tokens(1, 0, 5), LAYERS)
    assert got.keys() == expected.keys() == LAYERS
    for layer, (queries, terms) in expected.items():
        torch.testing.assert_close(got[layer][0], queries, rtol=1e-5, atol=1e-5)
        assert got[layer][1] == terms
    torch.testing.assert_close(held.arenas.tensors[2], plain.arenas.tensors[2], equal_nan=True)


def test_what_was_heard_stays_when_others_are_heard() -> None:
    paged = PagedSequences.make()
    passes = passes_of(paged, as_it_is)
    heard = passes.listen(*paged.new_tokens(1, 0, 5), LAYERS)
    before = heard[1][0].clone()
    passes.listen(*paged.new_tokens(2, 0, 5), LAYERS)
    assert torch.equal(heard[1][0], before)


def counting(made: list[int]) -> Callable[..., Callable[[], object]]:
    def hold(compute: Callable[[], object]) -> Callable[[], object]:
        made.append(1)
        compute()  # as a capture does, before there is anything in it
        return compute

    return hold


def test_a_bucket_is_made_once_writes_nothing_and_takes_all_that_fit() -> None:
    made: list[int] = []
    paged, plain = PagedSequences.make(), PagedSequences.make()
    passes = passes_of(paged, counting(made))  # type: ignore[arg-type]
    for row, length in ((1, 5), (2, 3), (0, 9)):
        new = (row, 0, length)
        got = passes.logits(*paged.new_tokens(*new))
        torch.testing.assert_close(
            got, passes_of(plain, None).logits(*plain.new_tokens(*new)), rtol=1e-5, atol=1e-5
        )
    assert len(made) == 1
    torch.testing.assert_close(paged.arenas.tensors[2], plain.arenas.tensors[2], equal_nan=True)
    passes.listen(*paged.new_tokens(1, 0, 5), LAYERS)
    passes.listen(*paged.new_tokens(1, 0, 6), LAYERS)
    assert len(made) == 2


def test_no_more_are_held_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_HELD", 1)
    made: list[int] = []
    paged = PagedSequences.make()
    passes = passes_of(paged, counting(made))  # type: ignore[arg-type]
    new = paged.new_tokens(1, 0, 5)
    for _ in range(2):
        passes.logits(*new)
        passes.listen(*new, LAYERS)
    assert len(made) == 4


def test_a_longer_pass_runs_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LENGTHS", (4,))
    made: list[int] = []
    paged, plain = PagedSequences.make(), PagedSequences.make()
    got = passes_of(paged, counting(made)).logits(*paged.new_tokens(1, 0, 5))  # type: ignore[arg-type]
    assert torch.equal(got, passes_of(plain, None).logits(*plain.new_tokens(1, 0, 5)))
    assert made == []


def test_a_pass_needs_nothing_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a graph can hold it."""
    launched: list[Launch] = []
    monkeypatch.setattr("windowkv_kernels.twins", lambda device: ops)
    monkeypatch.setattr(Launch, "run", lambda self: launched.append(self))
    held: list[Callable[[], object]] = []

    def hold(compute: Callable[[], object]) -> Callable[[], object]:
        held.append(compute)
        return compute

    paged = PagedSequences.make(DEVICE)
    passes = passes_of(paged, hold)  # type: ignore[arg-type]
    new = paged.new_tokens(1, 0, 5)
    passes.logits(*new)
    passes.listen(*new, LAYERS)
    for compute in held:
        launched.clear()
        with device_alone():
            compute()
        assert launched
