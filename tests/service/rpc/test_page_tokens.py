"""Page tokens: good for the list that gave them out, and for no other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windowkv_service.errors import BadPageToken
from windowkv_service.rpc.page_token import unwrap, wrap

LABELS = {"team": "legal"}


@given(st.text(min_size=1), st.text(), st.dictionaries(st.text(), st.text(), max_size=3))
def test_a_token_comes_back_to_its_list(token: str, tenant: str, labels: dict[str, str]) -> None:
    assert unwrap(wrap(token, tenant, labels), tenant, labels, "page_token") == token


def test_no_token_stays_no_token() -> None:
    assert wrap("", "tenant", LABELS) == unwrap("", "tenant", LABELS, "page_token") == ""


@pytest.mark.parametrize(
    ("tenant", "labels"), [("other", LABELS), ("tenant", {}), ("tenant", {"team": "sales"})]
)
def test_another_lists_token_is_refused(tenant: str, labels: dict[str, str]) -> None:
    with pytest.raises(BadPageToken) as refusal:
        unwrap(wrap("17", "tenant", LABELS), tenant, labels, "page_token")
    assert refusal.value.field == "page_token"


@given(st.text(min_size=1))
def test_garbage_is_refused(garbage: str) -> None:
    with pytest.raises(BadPageToken):
        unwrap(garbage, "tenant", LABELS, "page_token")
