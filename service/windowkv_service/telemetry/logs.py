"""Structured logs: one line per event, JSON or for people, with the request's id and never a prompt's text.

Modules log with get_logger or the standard library's logging; both come out alike.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from contextlib import AbstractContextManager
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor

LogFormat = Literal["json", "console"]

GRPC_INSIDE = "grpc._cython.cygrpc"
WITHHELD = "[withheld]"
# Names under which a caller's words or tokens travel in this service; their values never reach a line.
PRIVATE_FIELDS = frozenset(
    {
        "text",
        "texts",
        "prompt",
        "prompts",
        "messages",
        "content",
        "question",
        "answer",
        "document",
        "completion",
    }
    | {"token_ids", "input_ids", "stop", "secret", "authorization", "api_token", "password"}
)


def configure_logging(level: str, format: LogFormat = "json", stream: TextIO | None = None) -> None:
    """Route structlog and the standard library's logging to one stream, stderr unless given.

    Call it after the libraries have been imported: what they set up for themselves is undone here.
    """
    output = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *_shared_processors()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _renderer(format, output),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    _take_over_libraries()
    # Never lower: gRPC logs a server's end at debug level from inside its destructor, and whoever keeps that record
    # (an error collector, a test) holds freed memory.
    logging.getLogger(GRPC_INSIDE).setLevel(max(root.level, logging.INFO))
    logging.captureWarnings(True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *_shared_processors(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,  # loggers made at import time must follow a later configuration
    )


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger whose calls take an event and fields: log.info("cache created", cache=name, tokens_kept=n)."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def request_context(request_id: str, **fields: str) -> AbstractContextManager[Any]:
    """Every line logged inside, in this task or thread, carries the request's id and the fields."""
    return structlog.contextvars.bound_contextvars(request_id=request_id, **fields)


def withhold_private(_: Any, __: str, event: EventDict) -> MutableMapping[str, Any]:
    """A last guard, for the day somebody logs a request: what a caller wrote does not belong in a log."""
    for name in PRIVATE_FIELDS & event.keys():
        event[name] = WITHHELD
    return event


def _take_over_libraries() -> None:
    """Some libraries (transformers is one) write to stderr with a handler of their own; their lines join ours."""
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.handlers.clear()
            logger.propagate = True


def _shared_processors() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,  # plain tracebacks: the structured ones print local variables
        withhold_private,
    ]


def _renderer(format: LogFormat, output: TextIO) -> Processor:
    if format == "json":
        return structlog.processors.JSONRenderer()
    return structlog.dev.ConsoleRenderer(
        colors=output.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
