"""What the demo has shown: tables for people, one object for machines."""

from __future__ import annotations

from collections.abc import Sequence

from windowkv_client.cli._demo._story import FirstRun, Reply, is_restored
from windowkv_client.cli._terminal import Terminal, size

LONGEST_ANSWER = 20
TIMING = ("#first token", "tier", "#read, on the device")


def report(first: FirstRun, again: Sequence[Reply] | None, terminal: Terminal) -> None:
    """again are the answers after the restart; None when there was no Redis to restart from."""
    if terminal.is_json:
        terminal.result(summary(first, again))
        return
    terminal.text("")
    title = f"{first.cache.token_count} tokens, asked {len(first.replies)} times"
    terminal.table(("question", "answer", "", "as published", "", *TIMING), _rows(first), title=title)
    if again is not None:
        rows = [(reply.question.text, *_verdict(reply), *_timing(reply)) for reply in again]
        terminal.table(("question", "answer", "", *TIMING), rows, title="after the restart")
    terminal.facts("windowkv demo", _facts(first, again))


def summary(first: FirstRun, again: Sequence[Reply] | None) -> dict[str, object]:
    cache = first.cache
    return {
        "questions": len(first.replies),
        "correct": _num_right(first.replies),
        "published_correct": _num_right(first.published),
        "full_correct": _num_right(first.full),
        "document_tokens": cache.token_count,
        "kept_ratio": cache.kept_ratio,
        "kept_tokens": cache.kept_token_count,
        "full_bytes": cache.full_bytes,
        "stored_bytes": cache.stored_bytes,
        "answering_bytes": _answering_bytes(first),
        "cold_ttft_s": round(first.cold_s, 4),
        "warm_ttft_s": round(first.warm_s, 4),
        "restored_from_redis": again is not None and is_restored(cache, again[0]),
        "restored_correct": _num_right(again or ()),
        "answers": [_told(reply) for reply in first.replies],
    }


def _told(reply: Reply) -> dict[str, object]:
    return {
        "question": reply.question.text,
        "answer": reply.text,
        "expected": reply.question.answer,
        "ttft_s": round(reply.first_token_s, 4),
        "tier": reply.usage.source_tier,
    }


def _rows(first: FirstRun) -> list[tuple[str, ...]]:
    """The first answer's time counts from the document's arrival: that is what cold means."""
    times = [f"{first.cold_s * 1000:.0f} ms cold", *(_milliseconds(reply) for reply in first.replies[1:])]
    return [
        (reply.question.text, *_verdict(reply), *_verdict(published), time, *_timing(reply)[1:])
        for reply, published, time in zip(first.replies, first.published, times, strict=True)
    ]


def _facts(first: FirstRun, again: Sequence[Reply] | None) -> dict[str, object]:
    cache, num_asked, answering = first.cache, len(first.replies), _answering_bytes(first)
    facts: dict[str, object] = {
        "document": f"{cache.token_count} tokens, KV cache {size(cache.full_bytes)}",
        "on the device": f"{size(cache.stored_bytes)} between questions ({cache.stored_ratio:.3f} of the full cache), "
        f"{size(answering)} while answering ({answering / cache.full_bytes:.3f}; {cache.kept_ratio} asked for)",
        "right": f"{_num_right(first.replies)} of {num_asked}; the full cache: {_num_right(first.full)}; "
        f"as published, chosen before the question: {_num_right(first.published)}",
        "first token": f"cold {first.cold_s:.2f} s, warm {first.warm_s * 1000:.0f} ms",
    }
    if again is not None:
        source = "from Redis, without prefilling" if is_restored(cache, again[0]) else "not from Redis"
        facts["after the restart"] = f"{_num_right(again)} of {num_asked} right, {source}"
    return facts


def _answering_bytes(first: FirstRun) -> int:
    """The most that the device held of the document while one of the questions was answered."""
    return max(reply.usage.device_bytes for reply in first.replies)


def _verdict(reply: Reply) -> tuple[str, str]:
    answer = reply.text if len(reply.text) <= LONGEST_ANSWER else f"{reply.text[: LONGEST_ANSWER - 1]}…"
    return answer, "right" if reply.is_right else "wrong"


def _timing(reply: Reply) -> tuple[str, str, str]:
    usage = reply.usage
    read = f"{usage.kept_tokens} tokens, {size(usage.device_bytes)}"
    return _milliseconds(reply), str(usage.source_tier or "computed"), read


def _milliseconds(reply: Reply) -> str:
    return f"{reply.first_token_s * 1000:.0f} ms"


def _num_right(replies: Sequence[Reply]) -> int:
    return sum(reply.is_right for reply in replies)
