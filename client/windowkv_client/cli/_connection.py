"""Flags that say which service is meant and how to reach it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from windowkv_client._channel import Tls
from windowkv_client._client import Client


def common_flags() -> argparse.ArgumentParser:
    """For every command: how to answer."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--json", action="store_true", help="answer in JSON, for machines")
    return parser


def connection_flags() -> argparse.ArgumentParser:
    """For every command that talks to a service."""
    parser = argparse.ArgumentParser(add_help=False)
    group = parser.add_argument_group("connection")
    group.add_argument("--target", help="host:port, unix:PATH or dns:///name:port; else WINDOWKV_TARGET")
    group.add_argument("--token", help="API token; better in WINDOWKV_TOKEN, where no process list shows it")
    group.add_argument("--tls", action="store_true", help="encrypt, trusting the system's certificates")
    group.add_argument("--tls-ca", type=Path, metavar="FILE", help="encrypt, trusting these certificates")
    group.add_argument("--tls-cert", type=Path, metavar="FILE", help="own certificate, for mutual TLS")
    group.add_argument("--tls-key", type=Path, metavar="FILE", help="own key, for mutual TLS")
    group.add_argument("--timeout", type=float, metavar="SECONDS", help="give up after so long")
    return parser


def connect(args: argparse.Namespace) -> Client:
    files = (args.tls_ca, args.tls_key, args.tls_cert)
    tls = Tls(*(file.read_bytes() if file else None for file in files)) if any(files) else args.tls
    return Client(args.target, token=args.token, tls=tls)


def timeout(args: argparse.Namespace) -> dict[str, Any]:
    """The timeout as an option of the SDK's calls, when one is given."""
    return {} if args.timeout is None else {"timeout": args.timeout}
