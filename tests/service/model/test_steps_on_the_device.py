"""A decode step needs the device alone, whatever the model: only then can a CUDA graph hold it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from device_alone import DEVICE, device_alone, no_waiting_copies, raises
from tiny_models import ARCHITECTURES, SHAPE
from torch import nn

from windowkv_kernels import ops
from windowkv_kernels.ops._launch import Launch
from windowkv_service.domain.requests import Sampling
from windowkv_service.engine.tables import BlockTables, stack_up
from windowkv_service.kv.buffers import Arenas
from windowkv_service.kv.layout import KVLayout
from windowkv_service.model.attention import ATTENTION_NAME
from windowkv_service.model.constants import hold_constants
from windowkv_service.model.decode_steps import PADDED, Compute, DecodeSteps
from windowkv_service.model.loader import plan_attention
from windowkv_service.model.runner import Runner
from windowkv_service.model.sampler import SamplerBatch, SamplerState

WINDOW, BATCH = 8, 3
LONGROPE = {
    "rope_type": "longrope",
    "factor": 2.0,
    "rope_theta": 1e4,
    "original_max_position_embeddings": 256,
    "short_factor": [1.0 + 0.1 * number for number in range(8)],
    "long_factor": [2.0] * 8,
}
# What modules work out anew in every pass: rotations that follow the length seen so far, and how sparse a layer is.
RESTLESS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama, dynamic": (
        "llama",
        {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
    ),
    "phi3, longrope": ("phi3", {"rope_parameters": LONGROPE, "max_position_embeddings": 1024}),
    "gemma3n, sparse": ("gemma3n", {"activation_sparsity_pattern": [0.9] * 3 + [0.0] * 3}),
}


def build(name: str, device: torch.device = DEVICE) -> nn.Module:
    architecture, changes = RESTLESS.get(name, (name, {}))
    model_class, config_class, options = ARCHITECTURES[architecture]
    torch.manual_seed(0)
    with torch.device(device):
        module: nn.Module = model_class(config_class(**{**options, **changes})).eval()
    module.set_attn_implementation(ATTENTION_NAME if device == DEVICE else "sdpa")  # type: ignore[operator]
    return module


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[Launch]:
    """The door gives memory without a device to the Triton twins; what they would launch is noted."""
    launches: list[Launch] = []
    monkeypatch.setattr("windowkv_kernels.twins", lambda device: ops)
    monkeypatch.setattr(Launch, "run", lambda self: launches.append(self))
    return launches


def steps_of(module: nn.Module) -> tuple[DecodeSteps, KVLayout, list[Compute]]:
    config: Any = module.config
    owners, sliding_windows = plan_attention(config)
    layout = KVLayout.plan(
        owners,
        sliding_windows,
        group_size=2,
        window_size=WINDOW,
        num_kv_heads=config.num_key_value_heads,
        head_dim=16,
        itemsize=4,
    )
    blocks = {len(group.layers): 100 for group in layout.groups}
    runner = Runner(module, layout, Arenas(layout, blocks, dtype=torch.float32, device=DEVICE), DEVICE)
    held: list[Compute] = []

    def hold(compute: Compute) -> Compute:
        held.append(compute)
        return compute

    return DecodeSteps(runner, WINDOW, DEVICE, PADDED, hold), layout, held


def begin(steps: DecodeSteps, layout: KVLayout, min_shared: int | None = None) -> None:
    """Three times the same prompt."""
    windows, blocks = [[0, 2, 5]] * len(layout.groups), [[1, 2, 3]] * len(layout.groups)
    tables = BlockTables(layout, windows, blocks, [[7, 9]] * len(layout.groups), 61, DEVICE)
    numbers = torch.zeros(BATCH, dtype=torch.long, device=DEVICE)
    with no_waiting_copies():
        steps.begin(stack_up([tables] * BATCH, min_shared), numbers, numbers, numbers)


@pytest.mark.parametrize(
    ("name", "min_shared"), [*((name, None) for name in (*ARCHITECTURES, *RESTLESS)), ("llama", 1)]
)
def test_a_step_needs_nothing_of_the_host(name: str, min_shared: int | None, launched: list[Launch]) -> None:
    module = build(name)
    hold_constants(module)
    steps, layout, held = steps_of(module)
    begin(steps, layout, min_shared)
    with device_alone():
        logits = held[0]()
        steps.feed(torch.zeros(BATCH, dtype=torch.long, device=DEVICE))
    assert logits.shape == (4, SHAPE["vocab_size"])
    num_owning, num_layers = sum(len(group.layers) for group in layout.groups), len(layout.owners)
    # What is new, and attention: in pieces, where blocks are shared of these too, and their merge.
    assert len(launched) == num_owning + (2 if min_shared is None else 3) * num_layers


@pytest.mark.parametrize("name", ["llama, dynamic", "gemma3n, sparse"])
def test_a_module_that_is_left_as_it_is_would_be_found(name: str, launched: list[Launch]) -> None:
    steps, layout, held = steps_of(build(name))
    begin(steps, layout)
    assert raises(held[0])


@pytest.mark.parametrize("name", RESTLESS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_holding_constants_changes_nothing(name: str, dtype: torch.dtype) -> None:
    module, token_ids = build(name, torch.device("cpu")).to(dtype), torch.arange(3, 203)[None]
    with torch.inference_mode():
        before = module(token_ids).logits
        hold_constants(module)
        assert torch.equal(module(token_ids).logits, before)


def test_a_batch_begins_without_waiting_for_the_last_step() -> None:
    """What its sampler takes from the host: penalties, ends, draws and logprobs."""
    samplings = [
        Sampling(frequency_penalty=1.5, min_tokens=3, stop_token_ids=(5,)),
        Sampling(temperature=2.0, seed=5, top_k=3, top_p=0.7, min_p=0.1, repetition_penalty=1.7, logprobs=2),
    ]
    states = [SamplerState.make(one, [2, 3, 40], frozenset({1}), fresh_seed=0) for one in samplings]
    with no_waiting_copies():
        SamplerBatch(states, SHAPE["vocab_size"], DEVICE)


@pytest.mark.parametrize(
    "looks",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.any()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x + torch.tensor([1.0, 2.0, 3.0]),
        lambda x: torch.tensor([1.0, 2.0, 3.0], device=DEVICE) + x,
    ],
    ids=["item", "bool", "mask", "nonzero", "host", "copy"],
)
def test_whoever_looks_is_found(looks: Any) -> None:
    assert raises(lambda: looks(torch.zeros(3, device=DEVICE)))
