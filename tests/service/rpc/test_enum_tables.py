"""Enums match by name, completely, in both directions."""

from __future__ import annotations

import re
from enum import Enum

import pytest

from windowkv.v1 import cache_pb2, generation_pb2, model_pb2, types_pb2
from windowkv_service.domain import requests, results
from windowkv_service.errors import BadOption
from windowkv_service.rpc.convert import enums

WIRE_ENUMS = {
    name: enum
    for module in (types_pb2, cache_pb2, generation_pb2, model_pb2)
    for name, enum in module.DESCRIPTOR.enum_types_by_name.items()
}
DOMAIN_ENUMS = {
    name: member
    for module in (requests, results)
    for name, member in vars(module).items()
    if isinstance(member, type) and issubclass(member, Enum) and member is not Enum
}
TABLES = {table.name: table for table in vars(enums).values() if isinstance(table, enums.EnumTable)}
ERROR_REASON = "ErrorReason"  # its other half is the error family: test_statuses.py


def test_every_enum_has_a_table() -> None:
    assert set(TABLES) == set(DOMAIN_ENUMS) == set(WIRE_ENUMS) - {ERROR_REASON}


@pytest.mark.parametrize("name", TABLES)
def test_every_member_goes_both_ways(name: str) -> None:
    table, members = TABLES[name], list(DOMAIN_ENUMS[name])
    numbers = [table.to_wire(member) for member in members]
    assert sorted(numbers) == [value.number for value in WIRE_ENUMS[name].values if value.number]
    for member, number in zip(members, numbers, strict=True):
        assert table.to_domain(number, "field", default=members[0]) is member


@pytest.mark.parametrize("name", WIRE_ENUMS)
def test_zero_is_unspecified(name: str) -> None:
    prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", name).upper()
    assert WIRE_ENUMS[name].values_by_number[0].name == f"{prefix}_UNSPECIFIED"


def test_unspecified_is_the_default_and_none_is_unspecified() -> None:
    default = requests.Task.AGGREGATION
    assert enums.TASK.to_domain(0, "field", default=default) is default
    assert enums.TIER.to_wire(None) == 0


def test_a_number_of_a_newer_client_is_refused() -> None:
    with pytest.raises(BadOption) as refusal:
        enums.TASK.to_domain(99, "cache.compression.task", default=requests.Task.AUTO)
    assert refusal.value.field == "cache.compression.task"
