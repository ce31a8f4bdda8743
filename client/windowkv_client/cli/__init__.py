"""The command line: `windowkv serve | cache | ask | health | size | eval | demo`.

Exit status: 0 well, 1 the service said no, 2 the command was wrong or cannot run here, 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from windowkv_client._environment import enable_quiet_grpc
from windowkv_client._errors import WindowKVError
from windowkv_client.cli import _ask, _cache, _demo, _eval, _health, _serve, _size
from windowkv_client.cli._connection import common_flags, connection_flags
from windowkv_client.cli._prompts import compression_flags
from windowkv_client.cli._terminal import Terminal

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    enable_quiet_grpc()
    args = _parse(sys.argv[1:] if argv is None else argv)
    terminal = Terminal(is_json=getattr(args, "json", False))
    try:
        status: int = args.run(args, terminal)
    except WindowKVError as error:
        terminal.error(error)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read our output has left: nothing is left to say, at exit neither
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (OSError, ValueError) as error:
        terminal.complaint(str(error))
        return 2
    return status


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    args.rest = rest
    if rest and not getattr(args, "takes_rest", False):
        parser.error(f"unknown arguments: {' '.join(rest)}")
    return args


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="windowkv", description="Cache a document once, ask it many times.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"windowkv {version('windowkv')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    common = common_flags()
    remote = [common, connection_flags()]
    compression = compression_flags()
    _serve.add(commands)
    _cache.add(commands, remote, compression)
    _ask.add(commands, remote, compression)
    _health.add(commands, remote)
    _size.add(commands, [common])
    _eval.add(commands)
    _demo.add(commands, [common])
    return parser
