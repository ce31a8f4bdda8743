"""Reading the stream of a creation, step by step, without a server."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from windowkv.v1 import cache_pb2
from windowkv_client import _calls as calls
from windowkv_client._errors import Unavailable
from windowkv_client._flow import Open, Read, RetryPolicy
from windowkv_client._flows import create_cache


@dataclass
class Stream:
    """Remembers how much had been read when it was cancelled."""

    num_read: int = 0
    read_before_cancel: list[int] = field(default_factory=list)

    def cancel(self) -> None:
        self.read_before_cancel.append(self.num_read)


@pytest.mark.parametrize("broke", [False, True])
def test_a_created_cache_is_answered_after_the_end_of_its_stream_even_if_that_breaks(broke: bool) -> None:
    stream = Stream()
    flow = create_cache(calls.create_cache("text"), RetryPolicy(), None)
    assert isinstance(next(flow), Open)
    assert isinstance(flow.send(stream), Read)
    created = cache_pb2.CreateCacheResponse(
        created=cache_pb2.CacheCreated(cache=cache_pb2.Cache(name="caches/a"))
    )
    stream.num_read += 1
    assert isinstance(flow.send(created), Read)
    stream.num_read += 1
    with pytest.raises(StopIteration) as end:
        flow.throw(Unavailable("gone")) if broke else flow.send(None)
    assert end.value.value.name == "caches/a" and stream.read_before_cancel == [2]
