"""Enums in both worlds. They match by name: domain Tier.HOST is wire TIER_HOST, and 0 is never a member."""

from __future__ import annotations

import re
from enum import Enum
from typing import Any, Generic, Protocol, TypeVar

from google.protobuf.descriptor import EnumDescriptor

from windowkv.v1 import cache_pb2, generation_pb2, model_pb2, types_pb2
from windowkv_service.domain.codec import Codec
from windowkv_service.domain.requests import Durability, QuestionSelection, Retention, Task
from windowkv_service.domain.results import CacheState, FinishReason, MissReason, Tier, TierHealth
from windowkv_service.errors import BadOption

E = TypeVar("E", bound=Enum)


class WireEnum(Protocol):
    """What protobuf generates for an enum."""

    @property
    def DESCRIPTOR(self) -> EnumDescriptor: ...

    def Value(self, name: str) -> int: ...


class EnumTable(Generic[E]):
    """One enum in both worlds; a member that one of them lacks is found when the module is imported."""

    def __init__(self, members: type[E], wire: WireEnum) -> None:
        prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", wire.DESCRIPTOR.name).upper()
        self._numbers = {member: wire.Value(f"{prefix}_{member.name}") for member in members}
        self._members = {number: member for member, number in self._numbers.items()}
        self.name = wire.DESCRIPTOR.name

    def to_wire(self, member: E | None) -> Any:
        """The member's number; for None 0, which is unspecified. Any: each wire enum is a type of its own."""
        return 0 if member is None else self._numbers[member]

    def to_domain(self, number: int, field: str, default: E) -> E:
        """The number's member; the default for 0. BadOption for a number of a newer or a confused client."""
        if number and number not in self._members:
            raise BadOption(f"{number} is no {self.name} that this service knows", field=field)
        return self._members.get(number, default)


TIER = EnumTable(Tier, types_pb2.Tier)
CODEC = EnumTable(Codec, types_pb2.Codec)
TASK = EnumTable(Task, cache_pb2.Task)
RETENTION = EnumTable(Retention, cache_pb2.Retention)
DURABILITY = EnumTable(Durability, cache_pb2.Durability)
CACHE_STATE = EnumTable(CacheState, cache_pb2.CacheState)
QUESTION_SELECTION = EnumTable(QuestionSelection, generation_pb2.QuestionSelection)
FINISH_REASON = EnumTable(FinishReason, generation_pb2.FinishReason)
MISS_REASON = EnumTable(MissReason, generation_pb2.MissReason)
TIER_HEALTH = EnumTable(TierHealth, model_pb2.TierHealth)
