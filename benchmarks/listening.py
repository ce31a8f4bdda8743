"""What it costs that a question listens and chooses before it answers: processor time to the first token.

    python benchmarks/listening.py

A worker of its own answers the same question on the same cached document, in turns: the question chooses its windows,
or those chosen before it are read (as published) and nobody listens. What both read is on the device. Worker and client
share this process, whose processor time is what counts. The deep model has random weights: its answers mean nothing.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from serving import Case
from transformers import LlamaConfig, LlamaForCausalLM

from windowkv_client import Cache, Client
from windowkv_service.model.loader import BUILTIN, BUILTIN_DIRECTORY, ModelOptions, load
from windowkv_service.quality.worker import worker
from windowkv_service.selection import PROFILE_NAME, Leader, QuestionProfile, save_profile

WAYS: tuple[Literal["question", "published"], ...] = ("question", "published")
NUM_LAYERS, LEADER = 32, 10
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja")

ABOUT = f"""The listening pass ends at the last leader: layers above it are not run. With one leader at layer {LEADER}
that is a third of the layers; without a profile, four teams of eight, the last leader is layer 27.

## Could the answering pass go on where the listening pass stopped?

It could save what the layers below the first leader take: with one leader at layer {LEADER}, {LEADER} runs of a
layer in {NUM_LAYERS + LEADER} before the first token; without a profile, whose first leader is layer 3, hardly
anything. Where windows must be fetched it is a smaller share. It was not built:

- Below the leader the question would read only what the cache holds between questions, the first and the last window.
  On the built-in model that made no difference ([ablation](ablation.md), *chooses midway*), but there one layer lies
  below the leader. On deep models Quest and ArkVale leave the first layers dense; none was at hand to try.
- All windows chosen (`min_fidelity` 1) would no longer be the full cache's answer: that case would need a second pass.
- To choose in the middle of a pass only where everything is on the device, and listen first elsewhere, would let an
  answer depend on what happens to be there.
"""


def save_deep_model(directory: Path) -> Path:
    """Random weights, as many layers as an 8B model has, each narrow enough for a CPU."""
    vocabulary = load(ModelOptions(BUILTIN, "cpu", "auto", 16, None)).vocab_size
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=512,
        intermediate_size=1792,
        num_hidden_layers=NUM_LAYERS,
        num_attention_heads=16,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(directory)
    for name in TOKENIZER_FILES:
        shutil.copy(BUILTIN_DIRECTORY / name, directory / name)
    return directory


def let_one_lead(directory: Path) -> None:
    layout = load(ModelOptions(str(directory), "cpu", "auto", 16, None)).layout
    groups = tuple(group.index for group in layout.groups)
    save_profile(directory, QuestionProfile((Leader(LEADER, groups),), vote_tokens=1), layout)


def seconds_to_answer(client: Client, cache: Cache, question: str, way: str) -> float:
    """One token, of the processor's time."""
    started = time.process_time()
    with client.generate(cache, question, max_tokens=1, ignore_eos=True, selection=way) as stream:
        stream.read()
    return time.process_time() - started


def measure(model: str, case: Case, kept_ratio: float, rounds: int) -> dict[str, float]:
    """Way → median seconds to the first token."""
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    with worker(model, "cpu") as target, Client(target) as client:
        cache = client.caches.create(case.document, kept_ratio=kept_ratio)
        for number in range(rounds + 2):
            for way in WAYS:
                took = seconds_to_answer(client, cache, case.question, way)
                if number >= 2:  # the first ones fetch and warm up
                    seconds[way].append(took)
    return {way: statistics.median(of_rounds) for way, of_rounds in seconds.items()}


def render(measured: Mapping[str, Mapping[str, float]]) -> str:
    lines = ["| model | first token with a choice / without | share of the choice |", "|---|---|---|"]
    for name, seconds in measured.items():
        ratio = seconds["question"] / seconds["published"]
        lines.append(f"| {name} | {ratio:.2f} | {1 - 1 / ratio:.0%} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--document-tokens", type=int, default=2000)
    parser.add_argument("--kept-ratio", type=float, default=0.12)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "listening-cpu.md")
    args = parser.parse_args()
    case = Case.draw(1, args.document_tokens)
    measured = {"built-in": measure(BUILTIN, case, args.kept_ratio, args.rounds)}
    with tempfile.TemporaryDirectory() as folder:
        deep = save_deep_model(Path(folder))
        without = measure(str(deep), case, args.kept_ratio, args.rounds)
        let_one_lead(deep)
        led = measure(str(deep), case, args.kept_ratio, args.rounds)
    measured[f"{NUM_LAYERS} layers, layer {LEADER} leads all"] = led
    measured[f"{NUM_LAYERS} layers, no {PROFILE_NAME}: four teams"] = without
    page = f"""# What listening costs

    python benchmarks/listening.py

Processor time up to the first token of a question of a dozen tokens: windows chosen by the question over windows chosen
before it, all on the device. Document of {args.document_tokens:,} tokens, kept ratio {args.kept_ratio}, medians of
{args.rounds} rounds in one run on {platform.machine()}, one torch thread. Client, wire and sampling are in both.

{render(measured)}

{ABOUT}"""
    print(page)
    args.out.write_text(page)


if __name__ == "__main__":
    main()
