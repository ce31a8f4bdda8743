"""Fields to blame, named by the path that they have in each request."""

from __future__ import annotations

import pytest
from google.protobuf.message import Message

from windowkv.v1 import cache_pb2, generation_pb2, model_pb2
from windowkv_service.domain.requests import CreateRequest, UpdateRequest
from windowkv_service.rpc.field_paths import wire_path

CREATE = cache_pb2.CreateCacheRequest()
UPDATE = cache_pb2.UpdateCacheRequest()
GET = cache_pb2.GetCacheRequest()
LIST = cache_pb2.ListCachesRequest()
GENERATE = generation_pb2.GenerateRequest()
DETOKENIZE = model_pb2.DetokenizeRequest()


@pytest.mark.parametrize(
    ("request_", "field", "path"),
    [
        (CREATE, "compression.method", "cache.compression.method"),
        (CREATE, "compression.kept_ratio", "cache.compression.kept_ratio"),
        (CREATE, "compression.min_fidelity", "cache.compression.min_fidelity"),
        (CREATE, "ttl_s", "cache.ttl"),
        (CREATE, "token_ids", "input"),
        (CREATE, "messages", "input.messages"),
        (CREATE, "cache.alias", "cache.alias"),
        (UPDATE, "alias", "cache.alias"),
        (UPDATE, "name", "cache.name"),
        (UPDATE, "ttl_s", "cache.ttl"),
        (UPDATE, "update_mask", "update_mask"),
        (GET, "name", "name"),
        (LIST, "page_token", "page_token"),
        (GENERATE, "name", "cache"),
        (GENERATE, "token_ids", "input"),
        (GENERATE, "input.token_ids[7]", "input.token_ids[7]"),
        (GENERATE, "input.messages.messages[0].role", "input.messages.messages[0].role"),
        (GENERATE, "sampling.top_p", "sampling.top_p"),
        (GENERATE, "selection.kept_ratio", "selection.kept_ratio"),
        (GENERATE, "selection.min_fidelity", "selection.min_fidelity"),
        (GENERATE, "selection.reselect_every", "selection.reselect_every"),
        (DETOKENIZE, "token_ids[2]", "token_ids[2]"),
        (GET, "nothing.like.it", "nothing.like.it"),
    ],
)
def test_a_field_is_found_in_the_request(request_: Message, field: str, path: str) -> None:
    assert wire_path(field, request_) == path


@pytest.mark.parametrize(("domain", "message"), [(CreateRequest, CREATE), (UpdateRequest, UPDATE)])
def test_every_field_of_a_request_is_found_on_the_wire(domain: type, message: Message) -> None:
    of_the_call = {"tenant", "deadline", "request_id"}
    for field in set(domain.__dataclass_fields__) - of_the_call:
        assert wire_path(field, message).startswith(("cache.", "input"))


def test_a_request_that_could_not_be_read_has_no_paths() -> None:
    assert wire_path("ttl_s", b"garbage") == "ttl_s"
