"""Arguments become requests; mistakes are told before anything is sent."""

from __future__ import annotations

from typing import Any, get_type_hints

import pytest

from windowkv.v1 import cache_pb2, generation_pb2
from windowkv_client import BadOption, BadSampling, Cache, InvalidText, TokenOutOfVocabulary, _calls
from windowkv_client._options import SamplingOptions, UpdateOptions


def test_the_sampling_options_are_the_wires() -> None:
    assert list(get_type_hints(SamplingOptions)) == [
        field.name for field in generation_pb2.Sampling.DESCRIPTOR.fields
    ]


def test_the_update_options_are_what_can_be_updated() -> None:
    assert set(get_type_hints(UpdateOptions)) == {*_calls.UPDATABLE, "timeout"}


def test_absent_and_none_are_the_services_default() -> None:
    request = _calls.generate("caches/x", "hi", temperature=None, seed=None).request
    assert isinstance(request, generation_pb2.GenerateRequest)
    assert request.sampling == generation_pb2.Sampling()


def test_zero_is_a_value() -> None:
    request = _calls.generate("caches/x", "hi", temperature=0, seed=0, top_k=0).request
    assert isinstance(request, generation_pb2.GenerateRequest)
    assert {field.name for field, _ in request.sampling.ListFields()} == {"temperature", "seed", "top_k"}


def test_one_stop_string_may_stand_alone() -> None:
    request = _calls.generate("caches/x", "hi", stop="END").request
    assert isinstance(request, generation_pb2.GenerateRequest)
    assert list(request.sampling.stop) == ["END"]


def test_an_update_names_only_what_it_changes_and_empty_clears() -> None:
    request = _calls.update_cache("caches/x", alias="", labels={}, pinned=False, ttl=5).request
    assert isinstance(request, cache_pb2.UpdateCacheRequest)
    assert list(request.update_mask.paths) == ["alias", "labels", "pinned", "ttl"]
    assert request.cache.ttl.seconds == 5


def test_equal_documents_are_sent_to_the_same_worker() -> None:
    one, other = _calls.create_cache("text", ttl=1), _calls.create_cache("text", ttl=2)
    assert one.routing_key == other.routing_key != _calls.create_cache("other").routing_key


@pytest.mark.parametrize(
    "prompt",
    [{"text": "a", "token_ids": [1]}, {"messages": [], "token_ids": [1]}, {"text": "", "messages": []}],
)
def test_two_forms_of_a_prompt_are_one_too_many(prompt: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="one of"):
        _calls.create_cache(**prompt)


def test_no_prompt_at_all_is_a_mistake() -> None:
    with pytest.raises(TypeError, match="needs a prompt"):
        _calls.create_cache()
    with pytest.raises(TypeError, match="needs a cache"):
        _calls.generate()


@pytest.mark.parametrize("token_id", [-1, 1 << 32])
def test_a_number_that_is_no_token_is_refused(token_id: int) -> None:
    with pytest.raises(TokenOutOfVocabulary) as raised:
        _calls.create_cache(token_ids=[1, token_id])
    assert raised.value.field == "input.token_ids"


@pytest.mark.parametrize(
    "prompt", [{"text": "\ud800"}, {"messages": [{"role": "user", "content": "\udfff"}]}]
)
def test_text_that_is_not_unicode_is_refused(prompt: dict[str, Any]) -> None:
    with pytest.raises(InvalidText):
        _calls.create_cache(**prompt)


@pytest.mark.parametrize(
    ("name", "value"), [("max_tokens", 1 << 40), ("seed", 1 << 70), ("top_k", -(1 << 33))]
)
def test_a_sampling_value_too_large_for_its_field_is_refused(name: str, value: int) -> None:
    with pytest.raises(BadSampling) as raised:
        _calls.generate("caches/x", **{name: value})
    assert raised.value.field == f"sampling.{name}"


def test_an_option_too_large_for_its_field_is_refused() -> None:
    with pytest.raises(BadOption) as raised:
        _calls.generate("caches/x", reselect_every=1 << 40)
    assert raised.value.field == "selection.reselect_every"


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(TypeError, match="temprature"):
        _calls.generate("caches/x", "hi", temprature=0.5)
    with pytest.raises(TypeError, match="model"):
        _calls.update_cache("caches/x", model="other")


@pytest.mark.parametrize(
    "option", [{"task": "sorting"}, {"retention": "some"}, {"codec": "int3"}, {"durability": "paper"}]
)
def test_an_unknown_choice_is_refused(option: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is not a valid"):
        _calls.create_cache("text", **option)


def test_a_cache_may_be_given_as_itself_or_by_name(shelved: Cache) -> None:
    assert _calls.cache_name(shelved) == shelved.name == _calls.cache_name(shelved.name)
