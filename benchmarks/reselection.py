"""What it costs that an answer chooses its windows anew: decode time, as ratios taken in one run.

    python benchmarks/reselection.py

A worker of its own answers the same question on the same cached document, its windows chosen once, and again after
every 8, 4, 2, 1 tokens, in turns. Everything is on the device or in host memory; the worker has one torch thread.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from pathlib import Path

from serving import Case, worker

from windowkv_client import Cache, Client
from windowkv_service.model.loader import BUILTIN

EVERY = (0, 8, 4, 2, 1)


def seconds_per_token(client: Client, cache: Cache, question: str, num_tokens: int, every: int) -> float:
    """From the first token to the last."""
    with client.generate(
        cache, question, max_tokens=num_tokens, ignore_eos=True, reselect_every=every
    ) as answer:
        chunks = iter(answer)
        next(chunks)
        started = time.perf_counter()
        for _ in chunks:
            pass
    return (time.perf_counter() - started) / (num_tokens - 1)


def measure(
    client: Client, case: Case, num_tokens: int, kept_ratio: float, rounds: int
) -> dict[int, list[float]]:
    """Every → seconds per token, one per round."""
    cache = client.caches.create(case.document, kept_ratio=kept_ratio)
    seconds: dict[int, list[float]] = {every: [] for every in EVERY}
    for _ in range(rounds):
        for every in EVERY:
            seconds[every].append(seconds_per_token(client, cache, case.question, num_tokens, every))
    return seconds


def table(seconds: dict[int, list[float]]) -> str:
    """Ratios of the shortest rounds, which other processes disturbed least, and of the medians."""
    lines = ["| windows chosen anew | time per token, over never | of medians |", "|---|---|---|"]
    for every, of_rounds in seconds.items():
        name = f"after every {every}" if every else "never"
        least = min(of_rounds) / min(seconds[0])
        middle = statistics.median(of_rounds) / statistics.median(seconds[0])
        lines.append(f"| {name} | {least:.2f} | {middle:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=BUILTIN, help="'builtin' or a model directory")
    parser.add_argument("--document-tokens", type=int, default=4000)
    parser.add_argument("--generated-tokens", type=int, default=32)
    parser.add_argument("--kept-ratio", type=float, default=0.12)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "reselection-cpu.md")
    args = parser.parse_args()
    case = Case.draw(1, args.document_tokens)
    with worker(args.model) as target, Client(target) as client:
        measure(client, case, 8, args.kept_ratio, 1)  # warms up
        seconds = measure(client, case, args.generated_tokens, args.kept_ratio, args.rounds)
    page = f"""# What choosing anew costs

    python benchmarks/reselection.py

One stream, {args.generated_tokens} tokens on a cached document of {args.document_tokens:,}, kept ratio
{args.kept_ratio}; the shortest of {args.rounds} rounds in one run, {platform.machine()}, one torch thread.

{table(seconds)}
"""
    print(page)
    args.out.write_text(page)


if __name__ == "__main__":
    main()
