"""windowkv serve: run a worker. Its flags are the worker's own; the worker comes with the server extra."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from windowkv_client.cli._terminal import Terminal

INSTALL = "pip install 'windowkv[server]'"


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    serve = commands.add_parser("serve", add_help=False, help="run a worker (needs the server extra)")
    serve.set_defaults(run=run, takes_rest=True)


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    try:
        main = worker_main()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("windowkv_service", "windowkv_kernels", "windowkv"):
            raise  # a broken installation, not a missing extra
        terminal.complaint(f"the worker needs {error.name!r}; install it with: {INSTALL}")
        return 2
    return main(args.rest)


def worker_main() -> Callable[[Sequence[str]], int]:
    """The worker's entry; only here does the client meet the service. Raises ModuleNotFoundError without the extra."""
    from windowkv_service.__main__ import main

    return main
