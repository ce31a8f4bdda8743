"""Parts of one piece of memory: whose they are, and when they come back."""

from __future__ import annotations

import gc
import threading

import torch

from windowkv_service.kv.slab import ALIGNMENT, Slab


def slab(num_parts: int) -> tuple[Slab, memoryview]:
    memory = torch.zeros(num_parts * ALIGNMENT, dtype=torch.uint8)
    return Slab(memory), memoryview(memory.numpy())


def test_parts_are_of_the_size_asked_for_and_apart() -> None:
    some, memory = slab(4)
    first, second = some.take(ALIGNMENT + 1), some.take(3)
    first[:], second[:] = b"a" * (ALIGNMENT + 1), b"bcd"
    assert (bytes(first), bytes(second)) == (b"a" * (ALIGNMENT + 1), b"bcd")
    assert bytes(memory).count(b"a") == ALIGNMENT + 1
    assert b"bcd" in bytes(memory)


def test_a_part_comes_back_when_its_last_view_is_gone() -> None:
    some, memory = slab(1)
    part = some.take(100)
    view = part[10:20]
    del part
    gc.collect()
    view[:] = b"still here"
    assert b"still here" in bytes(memory)
    other = some.take(100)
    other[:] = b"x" * 100
    assert bytes(view) == b"still here", "the slab was full: the other part is of other memory"
    del view
    gc.collect()
    some.take(100)[:] = b"y" * 100
    assert bytes(memory).startswith(b"y" * 100)


def test_a_tensor_on_a_part_keeps_it() -> None:
    some, _ = slab(1)
    tensor = torch.frombuffer(some.take(8), dtype=torch.uint8)
    gc.collect()
    tensor.fill_(7)
    some.take(8)[:] = bytes(8)
    assert tensor.tolist() == [7] * 8


def test_what_does_not_fit_is_ordinary_memory() -> None:
    some, memory = slab(1)
    large = some.take(5 * ALIGNMENT)
    large[:] = b"z" * len(large)
    assert not any(memory)


def test_threads_never_share_a_part() -> None:
    some, _ = slab(40)
    faults: list[int] = []

    def work(number: int) -> None:
        for _ in range(300):
            parts = [some.take(ALIGNMENT * size) for size in (1, 2, 1)]
            for part in parts:
                part[:] = bytes([number]) * len(part)
            if any(set(part) != {number} for part in parts):
                faults.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []


def test_what_came_back_in_small_parts_serves_large_ones() -> None:
    """Blocks of one codec take the place of another's."""
    some, memory = slab(6)
    for size in (1, 2, 3, 1):
        parts = [some.take(size * ALIGNMENT) for _ in range(6 // size)]
        for number, part in enumerate(parts):
            part[:] = bytes([10 * size + number]) * len(part)
        assert set(memory) == {10 * size + number for number in range(6 // size)}, "none is of other memory"
        del parts, part
        gc.collect()
