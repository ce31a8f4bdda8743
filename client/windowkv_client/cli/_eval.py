"""windowkv eval: measure the quality of answers. Its flags are the library's own, which comes with the server extra."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from windowkv_client.cli._serve import INSTALL
from windowkv_client.cli._terminal import Terminal


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "eval", add_help=False, help="measure answers on compressed caches (needs the server extra)"
    )
    parser.set_defaults(run=run, takes_rest=True)


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    try:
        main = evaluation_main()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("windowkv_service", "windowkv_kernels", "windowkv"):
            raise  # a broken installation, not a missing extra
        terminal.complaint(f"the evaluation needs {error.name!r}; install it with: {INSTALL}")
        return 2
    return main(args.rest)


def evaluation_main() -> Callable[[Sequence[str]], int]:
    """The library's entry. Raises ModuleNotFoundError without the extra."""
    from windowkv_service.quality.command import main

    return main
