"""What the service's own parts must do on a real GPU; each raises AssertionError where it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import torch
from paged_sequences import GROWING_ROPE, WINDOW, PagedSequences, generate
from torch import Tensor

from windowkv_service.domain.codec import Codec
from windowkv_service.domain.requests import Sampling
from windowkv_service.engine.passes import Passes
from windowkv_service.kv.copies import StreamCopies
from windowkv_service.kv.packing import Packing
from windowkv_service.kv.page_locked import forget_error, page_locked
from windowkv_service.model.decode_steps import EXACT, PADDED, DecodeSteps
from windowkv_service.model.graphs import Graphs
from windowkv_service.model.prompt_attention import Terms, masked_attention, prompt_attention, visible_keys
from windowkv_service.model.sampler import Drawn, SamplerBatch, SamplerState

Check = Callable[[torch.device], None]
VOCAB_SIZE = 128_256
SAMPLINGS = [
    Sampling(),
    Sampling(temperature=1.3, seed=3),
    Sampling(temperature=0.8, seed=4, top_k=40, logprobs=5),
    Sampling(frequency_penalty=1.5, min_tokens=3, stop_token_ids=(5,)),
    Sampling(temperature=2.0, seed=5, top_p=0.7, min_p=0.001, repetition_penalty=1.7),
]
_NO_SINKS = torch.full((8,), float("-inf"))  # they change nothing, and have the softmax written out
ROW = (8, 2, 16, 8, 128)
ROW_BYTES = 2 * 8 * 2 * 16 * 8 * 128


@contextmanager
def nobody_waits() -> Iterator[None]:
    """Whatever waits for the GPU in here raises."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def _draw(device: torch.device) -> list[Drawn]:
    states = [SamplerState.make(one, [2, 3, 40], frozenset({1}), fresh_seed=0) for one in SAMPLINGS]
    with nobody_waits() if device.type == "cuda" else nullcontext():
        batch = SamplerBatch(states, VOCAB_SIZE, device)
    rows = [torch.randn(len(states), VOCAB_SIZE, generator=torch.manual_seed(step)) * 3 for step in range(6)]
    on_device = [each.to(device) for each in rows]
    if device.type == "cpu":
        return [batch.sample(logits) for logits in on_device]
    with nobody_waits():
        return [batch.sample(logits) for logits in on_device]


def the_gpu_draws_what_the_processor_draws(device: torch.device) -> None:
    """And nothing waits for the host meanwhile."""
    for here, there in zip(_draw(torch.device("cpu")), _draw(device), strict=True):
        assert [one.token_id for one in here.read()] == [one.token_id for one in there.read()]


def reading_a_step_waits_for_no_later_one(device: torch.device) -> None:
    states = [SamplerState.make(Sampling(logprobs=2), (), frozenset(), fresh_seed=0)]
    batch = SamplerBatch(states, 1000, device)
    logits = torch.arange(1000.0, device=device)[None]
    busy = torch.randn(8192, 8192, device=device)
    batch.sample(logits).read()
    drawn = batch.sample(logits)
    for _ in range(200):
        busy = busy @ busy / 64
    later = torch.cuda.Event()
    later.record()
    assert drawn.read()[0].token_id == 999
    assert not later.query(), "the host waited for work that was queued after the step"


def blocks_go_out_and_come_back_beside_the_model(device: torch.device) -> None:
    copies = StreamCopies(device, 64 * ROW_BYTES)
    busy = torch.randn(4096, 4096, device=device)
    source = torch.randn(40, *ROW, device=device).bfloat16()
    expected = source.cpu()
    rooms = [copies.take(ROW_BYTES) for _ in range(40)]
    with nobody_waits():
        for _ in range(50):
            busy = busy @ busy / 64
        landing = copies.out(list(source), rooms)
    del source
    torch.randn(40, *ROW, device=device)  # what was forgotten is others' only when it has been copied
    landing.wait()
    assert landing.is_done()
    told = [torch.frombuffer(room, dtype=torch.bfloat16).view(ROW) for room in rooms]
    assert torch.equal(torch.stack(told), expected)
    arena = torch.zeros(64, *ROW, device=device, dtype=torch.bfloat16)
    with nobody_waits():
        back = copies.into(rooms, [arena[2 + number] for number in range(40)])
    back.wait()
    assert torch.equal(arena[2:42].cpu(), expected)
    assert not arena[42:].any()


def quantized_blocks_come_back_as_if_they_had_never_left(device: torch.device) -> None:
    copies = StreamCopies(device, 64 * ROW_BYTES)
    blocks = torch.randn(40, *ROW, device=device).bfloat16()
    for packing in (Packing(codec, in_strips) for codec in Codec for in_strips in (False, True)):
        packed = packing.pack(blocks)
        rooms = [copies.take(packed.shape[1]) for _ in range(40)]
        copies.out(packed.unbind(), rooms).wait()
        arena, stayed = torch.zeros_like(blocks), blocks.clone()
        arrival = packing.arrive(arena, range(39, -1, -1))
        copies.into(rooms, arrival.targets).wait()
        arrival.unpack()
        packing.round(stayed, range(40))
        assert torch.equal(arena.flip(0), stayed)
        assert torch.equal(stayed, blocks) == packing.codec.is_exact


def memory_is_page_locked_as_long_as_anybody_sees_it(device: torch.device) -> None:
    """And a lock that the system refuses troubles nobody's next launch."""
    memory = page_locked(1 << 20, device)
    assert memory.is_pinned()
    part = memory.numpy()[100:200]
    address = memory.data_ptr()
    del memory
    lock = torch.cuda.cudart().cudaHostRegister
    assert int(lock(address, 1 << 20, 0)) != 0, "it is locked already"
    forget_error(device)
    assert torch.ones(3, device=device).sum().item() == 3
    del part
    again = page_locked(1 << 20, device)
    assert again.is_pinned()


def ordinary_memory_serves_where_the_page_locked_is_used_up(device: torch.device) -> None:
    copies = StreamCopies(device, ROW_BYTES)
    source = torch.randn(3, *ROW, device=device).bfloat16()
    rooms = [copies.take(ROW_BYTES) for _ in range(3)]
    copies.out(list(source), rooms).wait()
    told = [torch.frombuffer(room, dtype=torch.bfloat16).view(ROW) for room in rooms]
    assert torch.equal(torch.stack(told), source.cpu())


def graphs_say_what_single_launches_say(device: torch.device) -> None:
    """Each batch by a graph of its bucket, captured for others or for itself; replays do not wait."""
    held = PagedSequences.make(device)
    graphs = DecodeSteps(held.runner, WINDOW, device, PADDED, Graphs(device))
    for rows in ([0], [1, 2], [0, 1, 2], [2, 0], [1]):
        _agree(graphs, held, PagedSequences.make(device), rows)
    token_ids = torch.ones(3, dtype=torch.long, device=device)
    with nobody_waits():
        held.begin(graphs, [0, 1, 2])
        graphs.logits()
        graphs.feed(token_ids)
        graphs.logits()


def graphs_hold_shared_blocks_and_rotations_that_follow_the_length(device: torch.device) -> None:
    for made, min_shared in (({"num_common": 5}, 1), ({"rope": GROWING_ROPE}, None)):
        held, plain = (PagedSequences.make(device, **made) for _ in range(2))
        graphs = DecodeSteps(held.runner, WINDOW, device, PADDED, Graphs(device))
        _agree(graphs, held, plain, [0, 1, 2], min_shared)


def _agree(
    graphs: DecodeSteps,
    held: PagedSequences,
    plain: PagedSequences,
    rows: list[int],
    min_shared: int | None = None,
) -> None:
    expected = generate(plain, DecodeSteps(plain.runner, WINDOW, plain.device, EXACT), rows)
    for one, other in zip(expected, generate(held, graphs, rows, min_shared=min_shared), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def a_question_runs_as_a_graph(device: torch.device) -> None:
    """Of different lengths, each by the graph of its bucket; replays do not wait."""
    held, plain = (PagedSequences.make(device) for _ in range(2))
    graphs, single = (
        Passes(each.runner, WINDOW, device, hold) for each, hold in ((held, Graphs(device)), (plain, None))
    )
    for row, first, length in ((1, 0, 5), (2, 1, 9), (0, 0, 1), (1, 5, 3)):
        pass_of = [each.new_tokens(row, first, length) for each in (held, plain)]
        got, expected = (passes.logits(*new) for passes, new in zip((graphs, single), pass_of, strict=True))
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)
        heard, told = (
            passes.listen(*new, frozenset({1, 2}))
            for passes, new in zip((graphs, single), pass_of, strict=True)
        )
        for layer in (1, 2):
            torch.testing.assert_close(heard[layer][0], told[layer][0], rtol=1e-3, atol=1e-3)
    assert torch.equal(held.arenas.tensors[2].isnan(), plain.arenas.tensors[2].isnan())
    with nobody_waits():
        graphs.logits(*held.new_tokens(1, 0, 5))


def chunks_of_a_prompt_attend_as_by_the_definition(device: torch.device) -> None:
    """Grouped heads, whole prompts and chunks, with and without a sliding window, in bf16 against fp64."""
    torch.manual_seed(0)
    for num_queries, num_keys in ((300, 300), (128, 1000), (1, 77)):
        queries = torch.randn(1, num_queries, 8, 128, device=device).bfloat16().transpose(1, 2)
        keys, values = torch.randn(2, 1, 2, num_keys, 128, device=device).bfloat16()
        for sliding_window in (None, 50):
            terms = Terms(128**-0.5, sliding_window, None, None)
            visible = visible_keys(num_queries, num_keys, sliding_window, device)
            got = prompt_attention(queries, keys, values, terms, lambda mask=visible: mask)
            exact = masked_attention(
                queries.double(),
                keys.double(),
                values.double(),
                visible,
                replace(terms, sinks=_NO_SINKS.to(device)),
            )
            torch.testing.assert_close(got.output.double(), exact, rtol=2e-2, atol=2e-2)
            if sliding_window is None:
                assert got.lse is not None, "window scores would read the keys twice"
                _is_log_of_sums(got.lse, queries, keys, visible)


def _is_log_of_sums(lse: Tensor, queries: Tensor, keys: Tensor, visible: Tensor) -> None:
    repeated = keys.double().repeat_interleave(queries.shape[1] // keys.shape[1], dim=1)
    logits = queries.double() @ repeated.transpose(2, 3) * 128**-0.5
    exact = logits.masked_fill(~visible, float("-inf")).logsumexp(-1)
    torch.testing.assert_close(lse.double(), exact, rtol=1e-5, atol=1e-4)


CHECKS: list[Check] = [
    chunks_of_a_prompt_attend_as_by_the_definition,
    the_gpu_draws_what_the_processor_draws,
    reading_a_step_waits_for_no_later_one,
    blocks_go_out_and_come_back_beside_the_model,
    quantized_blocks_come_back_as_if_they_had_never_left,
    memory_is_page_locked_as_long_as_anybody_sees_it,
    ordinary_memory_serves_where_the_page_locked_is_used_up,
    graphs_say_what_single_launches_say,
    graphs_hold_shared_blocks_and_rotations_that_follow_the_length,
    a_question_runs_as_a_graph,
]
