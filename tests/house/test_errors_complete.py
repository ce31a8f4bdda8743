"""An error has a status that gRPC knows, a reason that the wire knows and an exception that the client knows."""

from __future__ import annotations

from collections import Counter

import grpc
import pytest

import windowkv_client
from windowkv.v1 import types_pb2
from windowkv_client import _errors as client_errors
from windowkv_service import errors as service_errors


def family(root: type[service_errors.WindowKVError]) -> list[type[service_errors.WindowKVError]]:
    return [root, *(each for child in root.__subclasses__() for each in family(child))]


REASONS = set(types_pb2.ErrorReason.keys())
ERRORS = [each for each in family(service_errors.WindowKVError) if each.__module__ == service_errors.__name__]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_an_error_is_known_everywhere(error: type[service_errors.WindowKVError]) -> None:
    assert error.status in grpc.StatusCode.__members__
    assert f"ERROR_REASON_{error.reason}" in REASONS
    arrived = client_errors.class_for(error.reason, error.status)
    assert arrived.__name__ in windowkv_client.__all__
    if error is not service_errors.WindowKVError:
        assert arrived.__name__ == error.__name__


def test_no_two_errors_share_a_reason() -> None:
    assert [reason for reason, count in Counter(error.reason for error in ERRORS).items() if count > 1] == []


def test_every_reason_of_the_wire_is_an_error_of_the_service() -> None:
    reasons = {f"ERROR_REASON_{error.reason}" for error in ERRORS}
    assert {"ERROR_REASON_UNSPECIFIED", *reasons} == REASONS


def test_both_family_trees_are_drawn_in_full() -> None:
    for module, kinds in ((service_errors, ERRORS), (client_errors, list(client_errors.family()))):
        drawn = module.__doc__ or ""
        assert [kind.__name__ for kind in kinds if kind.__name__ not in drawn] == []
