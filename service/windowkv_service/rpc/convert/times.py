"""Points in time and durations: seconds as floats in the domain, protobuf's well-known types on the wire."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

NANOS = 1_000_000_000


def to_timestamp(time_s: float) -> Timestamp:
    """Seconds since the epoch."""
    seconds, nanos = divmod(round(time_s * NANOS), NANOS)
    return Timestamp(seconds=seconds, nanos=nanos)


def to_duration(duration_s: float) -> Duration:
    """Not negative."""
    seconds, nanos = divmod(round(duration_s * NANOS), NANOS)
    return Duration(seconds=seconds, nanos=nanos)


def to_seconds(value: Timestamp | Duration) -> float:
    """Since the epoch, or long."""
    return value.seconds + value.nanos / NANOS
