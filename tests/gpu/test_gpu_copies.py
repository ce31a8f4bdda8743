"""Copies on a GPU's own streams: the bytes are right, and the model does not wait."""

from __future__ import annotations

import pytest
import torch

from windowkv_service.kv.copies import StreamCopies

pytestmark = pytest.mark.gpu
ROW = (8, 2, 16, 8, 128)
ROW_BYTES = 2 * 8 * 2 * 16 * 8 * 128


def test_rows_go_out_and_come_back_while_the_model_computes() -> None:
    device = torch.device("cuda")
    copies = StreamCopies(device, 64 * ROW_BYTES)
    busy = torch.randn(4096, 4096, device=device)
    source = torch.randn(40, *ROW, device=device).bfloat16()
    expected = source.cpu()
    rooms = [copies.take(ROW_BYTES) for _ in range(40)]
    for _ in range(50):
        busy = busy @ busy / 64
    landing = copies.out(source, rooms)
    del source
    torch.randn(
        40, *ROW, device=device
    )  # what was forgotten may be taken by others only when it has been copied
    landing.wait()
    assert landing.is_done()
    told = torch.stack([torch.frombuffer(room, dtype=torch.bfloat16).view(ROW) for room in rooms])
    assert torch.equal(told, expected)
    arena = torch.zeros(64, *ROW, device=device, dtype=torch.bfloat16)
    back = copies.into(rooms, [arena[2 + number] for number in range(40)])
    back.wait()
    assert torch.equal(arena[2:42].cpu(), expected)
    assert not arena[42:].any()


def test_the_host_does_not_wait() -> None:
    device = torch.device("cuda")
    copies = StreamCopies(device, 64 * ROW_BYTES)
    source = torch.randn(40, *ROW, device=device).bfloat16()
    rooms = [copies.take(ROW_BYTES) for _ in range(40)]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        out = copies.out(source, rooms)
        into = copies.into(rooms, list(source))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    out.wait()
    into.wait()


def test_ordinary_memory_serves_where_the_page_locked_is_used_up() -> None:
    device = torch.device("cuda")
    copies = StreamCopies(device, ROW_BYTES)
    source = torch.randn(3, *ROW, device=device).bfloat16()
    rooms = [copies.take(ROW_BYTES) for _ in range(3)]
    copies.out(source, rooms).wait()
    told = [torch.frombuffer(room, dtype=torch.bfloat16).view(ROW) for room in rooms]
    assert torch.equal(torch.stack(told), source.cpu())
