"""Serve until told to stop: read the settings, assemble, answer, drain."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence

from pydantic import ValidationError

from windowkv_service.assembly import Service, assemble
from windowkv_service.config import Settings
from windowkv_service.engine.warm_up import warm_up
from windowkv_service.errors import UnsupportedModel
from windowkv_service.telemetry import MetricsEndpoint, configure_logging, get_logger, serve_metrics

log = get_logger(__name__)
ALIASES = {"redis_url": "redis"}  # the flag people reach for


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 stopped when told to, 1 could not start, 2 unusable settings."""
    try:
        settings = read_settings(argv)
    except (ValidationError, ValueError) as error:
        sys.stderr.write(f"windowkv serve: {error}\n")
        return 2
    configure_logging(settings.log_level, settings.log_format)
    try:
        asyncio.run(serve(settings))
    except (UnsupportedModel, OSError, RuntimeError) as error:
        sys.stderr.write(f"windowkv serve: {error}\n")
        return 1
    except ValueError as error:  # a setting that only its room can judge, such as the URL of Redis
        sys.stderr.write(f"windowkv serve: {error}\n")
        return 2
    return 0


def read_settings(argv: Sequence[str] | None) -> Settings:
    """Flags first, then the environment, then the defaults."""
    given = {name: value for name, value in vars(parser().parse_args(argv)).items() if value is not None}
    if port := given.pop("metrics_port", None):
        given["metrics_listen"] = f"127.0.0.1:{port}"
    return Settings(**given)


def parser() -> argparse.ArgumentParser:
    """One flag per setting, and --metrics-port N as short for --metrics-listen 127.0.0.1:N."""
    made = argparse.ArgumentParser(
        prog="windowkv serve", description="Serve a model and its compressed KV caches."
    )
    for name, setting in Settings.model_fields.items():
        if name == "secret":
            continue  # a flag would show it to everyone who can list processes
        flags = [f"--{flag.replace('_', '-')}" for flag in (name, ALIASES.get(name)) if flag]
        made.add_argument(*flags, dest=name, help=setting.description, metavar="VALUE")
    made.add_argument("--metrics-port", type=int, metavar="N", help="serve Prometheus metrics on 127.0.0.1:N")
    return made


async def serve(settings: Settings) -> None:
    """From start to drained stop. The bound address goes to standard output once calls are answered."""
    service = await asyncio.to_thread(assemble, settings)
    stop = _stop_signal()
    service.engine.start()
    endpoint = _serve_metrics(settings, service)
    try:
        if service.needs_warm_up:
            await warm_up(service.engine)
        port = await service.server.start()
        sys.stdout.write(f"listening on {_address(settings.listen, port)}\n")
        sys.stdout.flush()
        await stop.wait()
        log.info("draining", drain_s=settings.drain_s)
        service.server.drain()
        await service.engine.drain(settings.drain_s)
    finally:
        await service.server.stop(grace_s=1.0)
        await service.engine.stop()
        if endpoint is not None:
            endpoint.close()


def _stop_signal() -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT; a second ends the process at once."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def ask(number: signal.Signals) -> None:
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_DFL)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask, number)
    return stop


def _serve_metrics(settings: Settings, service: Service) -> MetricsEndpoint | None:
    if not settings.metrics_listen:
        return None
    service.metrics.watch_process()
    host, _, port = settings.metrics_listen.rpartition(":")
    return serve_metrics(service.metrics.registry, int(port), host or "127.0.0.1")


def _address(listen: str, port: int) -> str:
    return listen if listen.startswith("unix:") else f"{listen.rpartition(':')[0]}:{port}"


if __name__ == "__main__":
    sys.exit(main())
