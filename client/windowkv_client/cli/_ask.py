"""windowkv ask: questions on a document or on a cache, answers as they come."""

from __future__ import annotations

import argparse
from typing import Any

from windowkv_client._client import Client
from windowkv_client._models import Answer, Cache, Chunk, Selection, Usage
from windowkv_client.cli._cache import COMPRESSION
from windowkv_client.cli._connection import connect, timeout
from windowkv_client.cli._prompts import chosen, read_document
from windowkv_client.cli._terminal import Terminal, size

SAMPLING = (
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "seed",
    "stop",
    "selection",
    "min_fidelity",
    "reselect_every",
)


def add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    parents: list[argparse.ArgumentParser],
    compression: argparse.ArgumentParser,
) -> None:
    ask = commands.add_parser("ask", parents=[*parents, compression], help="ask a document or a cache")
    source = ask.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--document", metavar="FILE", help="a text file, or - for standard input; cached first"
    )
    source.add_argument("--cache", metavar="NAME", help="caches/… or aliases/…")
    ask.add_argument("questions", nargs="+", metavar="question", help="the text that follows the document")
    ask.add_argument("--max-tokens", type=int, metavar="N")
    ask.add_argument("--temperature", type=float, metavar="T")
    ask.add_argument("--top-p", type=float, metavar="P")
    ask.add_argument("--top-k", type=int, metavar="K")
    ask.add_argument("--seed", type=int, metavar="N")
    ask.add_argument("--stop", action="append", metavar="TEXT")
    ask.add_argument("--selection", choices=list(map(str, Selection)))
    ask.add_argument(
        "--reselect-every", type=int, metavar="N", help="choose windows again after N generated tokens"
    )
    ask.set_defaults(run=run)


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    with connect(args) as client:
        document = read_document(args.document) if args.document else client.caches.get(args.cache)
        answers = [_answer(client, document, question, args, terminal) for question in args.questions]
    if terminal.is_json:
        terminal.result([_shown(*pair) for pair in zip(args.questions, answers, strict=True)])
    return 0


def _answer(
    client: Client, document: str | Cache, question: str, args: argparse.Namespace, terminal: Terminal
) -> Answer:
    options: dict[str, Any] = chosen(args, *SAMPLING) | timeout(args)
    if isinstance(document, str):
        cache_options = chosen(args, *COMPRESSION) | timeout(args)
        with terminal.progress("prefilling") as on_progress:
            if on_progress is not None:
                cache_options["on_progress"] = on_progress
            document = client.caches.create(document, **cache_options)

    def tell(chunk: Chunk) -> None:
        if not terminal.is_json:
            terminal.text(chunk.text, end="")

    answer = client.ask(document, question, on_chunk=tell, **options)
    if not terminal.is_json:
        terminal.text("")
        if answer.usage is not None:
            terminal.note(_summary(answer.usage))
    return answer


def _summary(usage: Usage) -> str:
    source = usage.source_tier or "computed"
    return (
        f"{usage.generated_tokens} tokens, first after {usage.time_to_first_token_s * 1000:.0f} ms; "
        f"read {usage.kept_tokens} of {usage.cached_tokens} cached tokens ({source}), "
        f"{size(usage.device_bytes)} on the device, "
        f"fidelity {usage.fidelity:.3f}"
    )


def _shown(question: str, answer: Answer) -> dict[str, object]:
    return {
        "question": question,
        "answer": answer.text,
        "token_ids": answer.token_ids,
        "finish_reason": answer.finish_reason,
        "usage": answer.usage,
        "cache": answer.cache.name,
    }
