"""What makes pictures readable."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from windowkv_service.quality.plots.colours import COLOURS, OTHERS, colours
from windowkv_service.quality.plots.labels import spread

PLACES = st.lists(st.floats(0.0, 100.0, allow_nan=False), min_size=1, max_size=14)


def test_labels_that_are_apart_stay_where_they_are() -> None:
    assert spread([90.0, 10.0, 50.0], 5.0, 0.0, 100.0) == [90.0, 10.0, 50.0]


def test_labels_that_would_touch_are_centred_on_what_they_want() -> None:
    assert spread([50.0, 51.0, 10.0], 5.0, 0.0, 100.0) == [48.0, 53.0, 10.0]


def test_labels_stay_inside() -> None:
    assert spread([99.0, 100.0, 100.0], 5.0, 0.0, 100.0) == [90.0, 95.0, 100.0]


@given(PLACES)
def test_no_label_lies_on_another_and_none_changes_its_order(wanted: list[float]) -> None:
    places = spread(wanted, 5.0, 0.0, 100.0)
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    steps = [places[after] - places[before] for before, after in pairwise(order)]
    assert all(step >= 5.0 - 1e-9 for step in steps)
    assert min(places) >= -1e-9 and max(places) <= 100.0 + 1e-9


def test_a_method_has_the_same_colour_in_every_picture() -> None:
    assert colours(["snapkv", "full"])["snapkv"] == colours(["kvzip", "snapkv"])["snapkv"]
    assert len(set(COLOURS.values())) == len(COLOURS)


def test_names_that_are_not_known_have_colours_too() -> None:
    assert set(colours(["windowkv@full", "random@question"]).values()) == set(OTHERS[:2])
