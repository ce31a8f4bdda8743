"""windowkv size: what a KV cache takes, full and compressed, tier by tier. Needs neither the service nor torch."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from windowkv_client._models import Codec
from windowkv_client.cli._kv_size import DTYPE_BYTES, KVShape, KVSize, kv_size, read_shape
from windowkv_client.cli._terminal import Terminal, size

BUILTIN = "builtin"


def add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], parents: list[argparse.ArgumentParser]
) -> None:
    parser = commands.add_parser(
        "size", parents=parents, help="what a KV cache takes, by a model's config.json"
    )
    parser.add_argument("--model", default=BUILTIN, help="a model's directory, its config.json, or 'builtin'")
    parser.add_argument("--tokens", type=int, required=True, metavar="N", help="length of one prompt")
    parser.add_argument("--batch", type=int, default=1, metavar="B", help="how many such prompts")
    parser.add_argument("--kept-ratio", type=float, default=0.12, metavar="R")
    parser.add_argument("--window-size", type=int, default=16, metavar="W")
    parser.add_argument(
        "--codec",
        type=Codec,
        choices=list(Codec),
        default=Codec.EXACT,
        help="how blocks are written below the device",
    )
    parser.add_argument("--dtype", choices=list(DTYPE_BYTES), help="of the KV cache; else the model's own")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    shape = read_shape(model_path(args.model), args.dtype)
    sizes = kv_size(
        shape,
        tokens=args.tokens,
        batch=args.batch,
        kept_ratio=args.kept_ratio,
        window_size=args.window_size,
        codec=args.codec,
    )
    if terminal.is_json:
        asked = {
            "model": args.model,
            "tokens": args.tokens,
            "batch": args.batch,
            "kept_ratio": args.kept_ratio,
            "codec": args.codec,
        }
        terminal.result(asked | {"window_size": args.window_size, **asdict(shape), **asdict(sizes)})
    else:
        _tell(shape, sizes, args, terminal)
    return 0


def model_path(model: str) -> Path:
    """The built-in model's folder is found without importing the service. Raises ValueError where it is not there."""
    if model != BUILTIN:
        return Path(model)
    spec = find_spec("windowkv_service")
    folders = (spec.submodule_search_locations or ()) if spec else ()
    path = next((Path(folder) / "model" / BUILTIN for folder in folders), None)
    if path is None or not (path / "config.json").is_file():
        raise ValueError("this installation has no built-in model; give --model DIR")
    return path


def _tell(shape: KVShape, sizes: KVSize, args: argparse.Namespace, terminal: Terminal) -> None:
    sliding = sum(window is not None for window in shape.sliding_windows)
    reading = shape.num_layers - len(shape.sliding_windows)
    layers = f"{shape.num_layers}" + (f", of which {reading} read another's KV" if reading else "")
    terminal.facts(
        f"{shape.architecture}, {args.batch} × {args.tokens} tokens",
        {
            "layers": layers + (f", {sliding} with a sliding window" if sliding else ""),
            "KV heads": f"{shape.num_kv_heads} × {shape.head_dim}, {shape.dtype}",
            "one token": f"{len(shape.sliding_windows)} × 2 × {shape.num_kv_heads} × {shape.head_dim} × "
            f"{DTYPE_BYTES[shape.dtype]} = {sizes.bytes_per_token} B",
        },
    )
    rows = [
        ("device, full", "tokens × one token × batch", *_both(sizes.full_bytes)),
        ("device, compressed", f"at most {args.kept_ratio} × full", *_both(sizes.device_bytes)),
        (
            "host, all windows",
            f"whole windows, {args.codec}, 128 B before each block",
            *_both(sizes.lower_tier_bytes),
        ),
        ("Redis, all windows", "the same", *_both(sizes.lower_tier_bytes)),
    ]
    if sizes.needed_bytes != sizes.full_bytes:
        rows.insert(
            1, ("device, full", "sliding layers without what they no longer see", *_both(sizes.needed_bytes))
        )
    terminal.table(("tier", "how", "#size", "#bytes"), rows)


def _both(num_bytes: int) -> tuple[str, str]:
    return size(num_bytes), str(num_bytes)
