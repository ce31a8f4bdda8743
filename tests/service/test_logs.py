"""Logs as an operator meets them: lines, with the request's id and without a caller's words."""

from __future__ import annotations

import io
import json
import logging
import math
from collections.abc import Iterator

import pytest
import structlog

from windowkv_service.telemetry import Metrics, configure_logging, get_logger, request_context


@pytest.fixture
def output() -> Iterator[io.StringIO]:
    """What is logged, from loggers configured for this test and put back after it."""
    root = logging.getLogger()
    loggers = [root, *(one for one in root.manager.loggerDict.values() if isinstance(one, logging.Logger))]
    before = [(one, one.handlers[:], one.propagate) for one in loggers]
    level = root.level
    yield io.StringIO()
    logging.captureWarnings(False)
    structlog.reset_defaults()
    root.setLevel(level)
    for logger, handlers, propagate in before:
        logger.handlers[:], logger.propagate = handlers, propagate


def lines(output: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in output.getvalue().splitlines()]


def test_a_line_is_json_with_the_requests_id(output: io.StringIO) -> None:
    configure_logging("info", "json", output)
    with request_context("request-7", call="generate"):
        get_logger("windowkv_service.engine").info("answered", kept_tokens=12)
    (line,) = lines(output)
    assert line["request_id"] == "request-7"
    assert (line["call"], line["event"], line["kept_tokens"]) == ("generate", "answered", 12)
    assert (line["level"], line["logger"]) == ("info", "windowkv_service.engine")
    assert str(line["timestamp"]).endswith("Z")


def test_the_standard_librarys_loggers_come_out_alike(output: io.StringIO) -> None:
    configure_logging("info", "json", output)
    with request_context("request-8"):
        logging.getLogger("transformers").warning("%d weights unused", 3, extra={"shard": 1})
    (line,) = lines(output)
    assert (line["event"], line["shard"], line["request_id"]) == ("3 weights unused", 1, "request-8")


def test_a_library_that_writes_for_itself_is_taken_over(output: io.StringIO) -> None:
    theirs = io.StringIO()
    library = logging.getLogger("windowkv_test_library")
    library.addHandler(logging.StreamHandler(theirs))
    library.propagate = False
    configure_logging("info", "json", output)
    library.warning("slow path taken")
    assert theirs.getvalue() == ""
    assert lines(output)[0]["event"] == "slow path taken"


def test_a_requests_id_ends_with_its_context(output: io.StringIO) -> None:
    configure_logging("info", "json", output)
    with request_context("request-9"):
        pass
    get_logger("windowkv").info("idle")
    assert "request_id" not in lines(output)[0]


@pytest.mark.parametrize(
    "field", ["text", "prompt", "messages", "question", "token_ids", "secret", "authorization"]
)
def test_a_callers_words_are_withheld_even_if_somebody_logs_them(output: io.StringIO, field: str) -> None:
    configure_logging("debug", "json", output)
    get_logger("windowkv").debug("received", **{field: "the patient's name is"})
    logging.getLogger("windowkv").debug("received", extra={field: "the patient's name is"})
    assert "patient" not in output.getvalue()
    assert len(lines(output)) == 2


def test_a_traceback_never_shows_local_variables(output: io.StringIO) -> None:
    configure_logging("info", "json", output)
    held = "".join(["pa", "tient"])
    try:
        math.sqrt(-len(held))
    except ValueError:
        get_logger("windowkv").exception("step failed")
    (line,) = lines(output)
    assert "ValueError" in str(line["exception"])
    assert "patient" not in output.getvalue()


def test_lines_below_the_level_are_not_written(output: io.StringIO) -> None:
    configure_logging("warning", "json", output)
    get_logger("windowkv").info("quiet")
    assert output.getvalue() == ""


def test_only_a_redis_that_has_answered_can_be_lost(output: io.StringIO) -> None:
    configure_logging("info", "json", output)
    tiers = Metrics().tiers
    for is_open in (True, False, True, False):
        tiers.breaker_changed(is_open)
    assert [line["level"] for line in lines(output)] == ["info", "warning", "info"]


def test_the_console_format_is_for_people(output: io.StringIO) -> None:
    configure_logging("info", "console", output)
    with request_context("request-10"):
        get_logger("windowkv").info("serving", port=50051)
    assert "serving" in output.getvalue()
    assert "request_id=request-10" in output.getvalue()
    assert not output.getvalue().startswith("{")


def test_grpcs_inside_is_never_logged_below_info(output: io.StringIO) -> None:
    for level, lowest in (("debug", logging.INFO), ("error", logging.ERROR)):
        configure_logging(level, "json", output)
        assert logging.getLogger("grpc._cython.cygrpc").getEffectiveLevel() == lowest


def test_configuring_again_replaces_the_first_output(output: io.StringIO) -> None:
    first = io.StringIO()
    log = get_logger("windowkv")
    configure_logging("info", "json", first)
    configure_logging("info", "json", output)
    log.info("once")
    assert first.getvalue() == ""
    assert len(lines(output)) == 1
