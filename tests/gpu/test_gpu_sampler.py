"""Sampling on a real GPU: the same tokens as on the processor, and nothing that waits for the host."""

from __future__ import annotations

import pytest
import torch

from windowkv_service.domain.requests import Sampling
from windowkv_service.model.sampler import Drawn, SamplerBatch, SamplerState

pytestmark = pytest.mark.gpu

VOCAB_SIZE = 128_256
SAMPLINGS = [
    Sampling(),
    Sampling(temperature=1.3, seed=3),
    Sampling(temperature=0.8, seed=4, top_k=40, logprobs=5),
    Sampling(frequency_penalty=1.5, min_tokens=3, stop_token_ids=(5,)),
    Sampling(temperature=2.0, seed=5, top_p=0.7, min_p=0.001, repetition_penalty=1.7),
]


def run(device: torch.device, *, is_watched: bool = False) -> list[Drawn]:
    states = [SamplerState.make(one, [2, 3, 40], frozenset({1}), fresh_seed=0) for one in SAMPLINGS]
    batch, drawn = SamplerBatch(states, VOCAB_SIZE, device), []
    rows = [
        torch.randn(len(states), VOCAB_SIZE, generator=torch.manual_seed(step)).mul(3).to(device)
        for step in range(6)
    ]
    torch.cuda.set_sync_debug_mode("error" if is_watched else "default")
    try:
        for logits in rows:
            drawn.append(batch.sample(logits))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return drawn


def test_the_gpu_draws_what_the_processor_draws() -> None:
    here, there = run(torch.device("cpu")), run(torch.device("cuda"))
    for one, other in zip(here, there, strict=True):
        assert [s.token_id for s in one.read()] == [s.token_id for s in other.read()]


def test_nothing_waits_for_the_host() -> None:
    assert len(run(torch.device("cuda"), is_watched=True)) == 6
