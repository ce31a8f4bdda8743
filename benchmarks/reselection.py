"""What it costs that an answer chooses its windows anew: processor time per token, as ratios taken in one run.

    python benchmarks/reselection.py

A worker of its own answers the same question on the same cached document, its windows chosen once, and again after
every 8, 4, 2, 1 tokens, in turns: one answer, and eight at once. Worker and client share this process, whose processor
time is what counts: other processes do not disturb it. Redis has no part.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

from serving import Case

from windowkv_client import Cache, Client
from windowkv_service.model.loader import BUILTIN
from windowkv_service.quality.worker import worker

EVERY = (0, 8, 4, 2, 1)
STREAMS = (1, 8)


def answer(client: Client, cache: Cache, question: str, num_tokens: int, every: int) -> None:
    with client.generate(
        cache, question, max_tokens=num_tokens, ignore_eos=True, reselect_every=every
    ) as stream:
        stream.read()


def seconds_per_token(
    client: Client, cache: Cache, question: str, num_tokens: int, every: int, num_streams: int
) -> float:
    """Of num_streams answers at once, less what their questions and first tokens take."""

    def seconds(length: int) -> float:
        started = time.process_time()
        with ThreadPoolExecutor(num_streams) as pool:
            list(pool.map(lambda _: answer(client, cache, question, length, every), range(num_streams)))
        return time.process_time() - started

    return (seconds(num_tokens) - seconds(1)) / ((num_tokens - 1) * num_streams)


def measure(
    client: Client, case: Case, num_tokens: int, kept_ratio: float, rounds: int
) -> dict[tuple[int, int], list[float]]:
    """(streams, every) → seconds per token, one per round."""
    cache = client.caches.create(case.document, kept_ratio=kept_ratio)
    seconds: dict[tuple[int, int], list[float]] = {}
    for _ in range(rounds):
        for streams, every in product(STREAMS, EVERY):
            took = seconds_per_token(client, cache, case.question, num_tokens, every, streams)
            seconds.setdefault((streams, every), []).append(took)
    return seconds


def table(seconds: dict[tuple[int, int], list[float]]) -> str:
    """Ratios of medians."""
    per_token = {key: statistics.median(of_rounds) for key, of_rounds in seconds.items()}
    lines = [
        "| windows chosen anew | "
        + " | ".join(f"{n} at once" if n > 1 else "one stream" for n in STREAMS)
        + " |"
    ]
    lines.append("|---" * (1 + len(STREAMS)) + "|")
    for every in EVERY:
        name = f"after every {every}" if every else "never"
        ratios = [per_token[streams, every] / per_token[streams, 0] for streams in STREAMS]
        lines.append(f"| {name} | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=BUILTIN, help="'builtin' or a model directory")
    parser.add_argument("--document-tokens", type=int, default=4000)
    parser.add_argument("--generated-tokens", type=int, default=32)
    parser.add_argument("--kept-ratio", type=float, default=0.12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "reselection-cpu.md")
    args = parser.parse_args()
    case = Case.draw(1, args.document_tokens)
    with worker(args.model, "cpu") as target, Client(target) as client:
        measure(client, case, 8, args.kept_ratio, 1)  # warms up
        seconds = measure(client, case, args.generated_tokens, args.kept_ratio, args.rounds)
    page = f"""# What choosing anew costs

    python benchmarks/reselection.py

Processor time per token over that of never choosing anew: {args.generated_tokens} tokens on a document of
{args.document_tokens:,}, kept ratio {args.kept_ratio}. Medians of {args.rounds} rounds in one run on
{platform.machine()}, one torch thread.

{table(seconds)}
"""
    print(page)
    args.out.write_text(page)


if __name__ == "__main__":
    main()
