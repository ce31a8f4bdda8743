"""Bytes go out and come in as they are, whatever the dtype."""

from __future__ import annotations

import pytest
import torch
from late_copies import LateCopies

from windowkv_service.kv.copies import Copies, PlainCopies


@pytest.fixture(params=[PlainCopies, LateCopies])
def copies(request: pytest.FixtureRequest) -> Copies:
    made: Copies = request.param()
    return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn])
def test_rows_go_out_and_come_back(copies: Copies, dtype: torch.dtype) -> None:
    source = torch.randn(5, 2, 3, 4).to(dtype)
    rooms = [copies.take(24 * dtype.itemsize) for _ in range(5)]
    copies.out(list(source), rooms).wait()
    assert b"".join(rooms) == source.flatten().view(torch.uint8).numpy().tobytes()
    arena = torch.zeros(8, 2, 3, 4).to(dtype)
    landing = copies.into(rooms[::-1], [arena[number] for number in (6, 0, 3, 2, 5)])
    landing.wait()
    assert landing.is_done()
    back = arena[[5, 2, 3, 0, 6]].float()
    assert torch.equal(back, source.float())
    assert not arena[[1, 4, 7]].float().any()


def test_read_only_memory_may_be_copied_from(copies: Copies) -> None:
    target = torch.zeros(1, 4, dtype=torch.uint8)
    copies.into([memoryview(b"abcd")], [target[0]]).wait()
    assert bytes(target[0].tolist()) == b"abcd"


def test_another_size_is_refused(copies: Copies) -> None:
    with pytest.raises((ValueError, RuntimeError)):
        copies.into([memoryview(b"abc")], [torch.zeros(4, dtype=torch.uint8)]).wait()


def test_nothing_is_no_trouble(copies: Copies) -> None:
    copies.out([], []).wait()
    assert copies.into([], []).is_done() in (True, False)
