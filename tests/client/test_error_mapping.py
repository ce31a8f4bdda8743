"""Every reason on the wire has one exception here, and says all it knows."""

from __future__ import annotations

import re

import pytest

import windowkv_client
from windowkv.v1 import types_pb2
from windowkv_client import QueueFull, WindowKVError, _errors
from windowkv_client._errors import class_for, family
from windowkv_client.testing import InProcessServer
from windowkv_service import errors as service_errors

REASONS = [name.removeprefix("ERROR_REASON_") for name in types_pb2.ErrorReason.keys()][1:]  # noqa: SIM118
NAMED = [kind for kind in family() if "reason" in vars(kind) and kind is not WindowKVError]
TREE = re.compile(r"\b[A-Z]\w+[a-z]\b")


def service_family(
    root: type[service_errors.WindowKVError] = service_errors.WindowKVError,
) -> list[type[service_errors.WindowKVError]]:
    return [root, *(each for child in root.__subclasses__() for each in service_family(child))]


def test_every_reason_of_the_wire_has_exactly_one_exception() -> None:
    assert sorted(kind.reason for kind in NAMED) == sorted(REASONS)


@pytest.mark.parametrize("error", service_family(), ids=lambda error: error.__name__)
def test_every_error_of_the_service_arrives_with_its_status(
    error: type[service_errors.WindowKVError],
) -> None:
    arrived = class_for(error.reason, error.status)
    assert (arrived.reason, arrived.status) == (error.reason, error.status)


def test_a_child_in_the_service_is_a_child_here() -> None:
    for error in service_family():
        for child in error.__subclasses__():
            if error is not service_errors.WindowKVError:
                here = class_for(error.reason, error.status)
                assert issubclass(class_for(child.reason, child.status), here), child


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_crosses_the_wire_with_all_it_knows(reason: str) -> None:
    kind = class_for(reason, "")
    error = kind("it is so", field="some.field", retry_after_s=99.0)
    with InProcessServer() as server, server.client() as client:
        for _ in range(4):  # gRPC itself tries again what is unavailable
            server.fail_next(error, method="Tokenize")
        with pytest.raises(WindowKVError) as raised:
            client.models.tokenize("x")
    assert type(raised.value) is kind
    told = raised.value
    assert (told.reason, told.status, told.message) == (reason, kind.status, "it is so")
    assert (told.field, told.retry_after_s) == ("some.field", 99.0)
    assert told.request_id and str(told) == "it is so"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("INVALID_ARGUMENT", "InvalidRequest"),
        ("NOT_FOUND", "CacheNotFound"),
        ("RESOURCE_EXHAUSTED", "ResourceExhausted"),
        ("UNAVAILABLE", "Unavailable"),
        ("INTERNAL", "InternalError"),
        ("FAILED_PRECONDITION", "WindowKVError"),
        ("UNIMPLEMENTED", "WindowKVError"),
    ],
)
def test_a_reason_from_the_future_is_the_broadest_of_its_status(status: str, kind: str) -> None:
    assert class_for("SOMETHING_NEW", status) is getattr(windowkv_client, kind)
    assert class_for(None, status) is getattr(windowkv_client, kind)


def test_a_new_reason_is_told_as_it_came() -> None:
    with InProcessServer() as server, server.client() as client:
        server.fail_next(WindowKVError("new", reason="SOMETHING_NEW", status="FAILED_PRECONDITION"))
        with pytest.raises(WindowKVError) as raised:
            client.models.get()
    assert (raised.value.reason, raised.value.status) == ("SOMETHING_NEW", "FAILED_PRECONDITION")


def test_the_family_tree_in_the_docstring_is_the_family() -> None:
    assert _errors.__doc__ is not None
    drawn = _errors.__doc__.partition("Every exception")[0]
    names = {kind.__name__ for kind in family()}
    assert names <= set(TREE.findall(drawn))


def test_the_cause_stays_reachable() -> None:
    with InProcessServer() as server, server.client() as client:
        server.fail_next(QueueFull("full"))
        with pytest.raises(QueueFull) as raised:
            client.models.get()
    assert raised.value.__cause__ is not None
