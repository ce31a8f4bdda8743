"""windowkv cache create | get | list | update | delete"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta
from itertools import islice

from windowkv_client._models import Cache
from windowkv_client.cli._connection import connect, timeout
from windowkv_client.cli._prompts import chosen, description_flags, label, read_document
from windowkv_client.cli._terminal import Terminal, size

COMPRESSION = ("kept_ratio", "min_fidelity", "method", "task", "retention", "codec", "durability", "ttl")
DESCRIPTION = ("display_name", "labels", "alias", "pinned")


def add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    parents: list[argparse.ArgumentParser],
    compression: argparse.ArgumentParser,
) -> None:
    cache = commands.add_parser("cache", help="make, show, change and forget caches")
    verbs = cache.add_subparsers(required=True, metavar="VERB")
    make = verbs.add_parser("create", parents=[*parents, compression], help="prefill a document and keep it")
    make.add_argument("document", help="a text file, or - for standard input")
    description_flags(make)
    make.set_defaults(run=create)
    get = verbs.add_parser("get", parents=parents, help="show a cache")
    get.add_argument("name", help="caches/… or aliases/…")
    get.set_defaults(run=show)
    index = verbs.add_parser("list", parents=parents, help="show all caches, newest first")
    index.add_argument("--label", dest="labels", action="append", type=label, metavar="KEY=VALUE")
    index.add_argument("--limit", type=int, metavar="N", help="at most so many")
    index.set_defaults(run=show_all)
    change = verbs.add_parser("update", parents=parents, help="change a cache's expiry, pin or description")
    change.add_argument("cache", metavar="name", help="caches/… or aliases/…")
    change.add_argument("--ttl", help="from now: 90s, 1h30m, 7d")
    description_flags(change)
    change.set_defaults(run=update)
    forget = verbs.add_parser("delete", parents=parents, help="forget caches in every tier")
    forget.add_argument("names", nargs="+", metavar="name", help="caches/… or aliases/…")
    forget.add_argument("--allow-missing", action="store_true", help="what is not there is no error")
    forget.set_defaults(run=delete)


def create(args: argparse.Namespace, terminal: Terminal) -> int:
    document = read_document(args.document)
    options = chosen(args, *COMPRESSION, *DESCRIPTION) | timeout(args)
    with connect(args) as client, terminal.progress("prefilling") as on_progress:
        if on_progress is not None:
            options["on_progress"] = on_progress
        cache = client.caches.create(document, **options)
    _show(cache, terminal)
    return 0


def show(args: argparse.Namespace, terminal: Terminal) -> int:
    with connect(args) as client:
        _show(client.caches.get(args.name, **timeout(args)), terminal)
    return 0


def show_all(args: argparse.Namespace, terminal: Terminal) -> int:
    with connect(args) as client:
        labels = dict(args.labels) if args.labels else None
        caches = list(islice(client.caches.list(labels=labels, **timeout(args)), args.limit))
    if terminal.is_json:
        terminal.result(caches)
        return 0
    columns = ("name", "title", "#tokens", "#kept", "#full", "#stored", "tier", "expires in", "pinned")
    terminal.table(columns, [_row(cache) for cache in caches])
    return 0


def update(args: argparse.Namespace, terminal: Terminal) -> int:
    with connect(args) as client:
        changes = chosen(args, "ttl", *DESCRIPTION)
        _show(client.caches.update(args.cache, **changes, **timeout(args)), terminal)
    return 0


def delete(args: argparse.Namespace, terminal: Terminal) -> int:
    receipts = {}
    with connect(args) as client:
        for name in args.names:
            receipts[name] = client.caches.delete(name, allow_missing=args.allow_missing, **timeout(args))
    if terminal.is_json:
        terminal.result(receipts)
        return 0
    rows = [(name, ", ".join(each.confirmed), ", ".join(each.unreachable)) for name, each in receipts.items()]
    terminal.table(("name", "confirmed by", "not reached"), rows)
    return 0


def _show(cache: Cache, terminal: Terminal) -> None:
    if terminal.is_json:
        terminal.result(cache)
        return
    facts = {
        "model": cache.model,
        "title": cache.display_name,
        "alias": cache.alias,
        "labels": ", ".join(f"{key}={value}" for key, value in cache.labels.items()),
        "tokens": f"{cache.token_count}, {cache.kept_token_count} kept",
        "bytes": f"{size(cache.full_bytes)} full, {size(cache.stored_bytes)} stored ({cache.stored_ratio:.3f})"
        " between questions",
        "compression": f"{cache.method}, kept ratio {cache.kept_ratio}, {cache.task}, retains {cache.retention},"
        f" {cache.codec} below the device",
        "min fidelity": "" if cache.min_fidelity is None else f"{cache.min_fidelity}",
        "tiers": ", ".join(f"{tier} {size(held)}" for tier, held in cache.bytes_by_tier.items()),
        "fidelity": f"{cache.fidelity:.3f}",
        "expires in": _remaining(cache),
        "used": f"{cache.hit_count} times",
        "pinned": "yes" if cache.pinned else "no",
    }
    terminal.facts(cache.name, {name: fact for name, fact in facts.items() if fact})


def _row(cache: Cache) -> tuple[object, ...]:
    return (
        cache.name,
        cache.display_name or cache.alias,
        cache.token_count,
        cache.kept_token_count,
        size(cache.full_bytes),
        size(cache.stored_bytes),
        cache.tier or "",
        _remaining(cache),
        "yes" if cache.pinned else "",
    )


def _remaining(cache: Cache) -> str:
    seconds = max(0, round((cache.expire_time - datetime.now(UTC)).total_seconds()))
    return str(timedelta(seconds=seconds))
