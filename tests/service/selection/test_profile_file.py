"""windowkv_profile.json: written, read back, and refused where it is wrong."""

import json

import pytest
from observed_prompts import make_layout

from windowkv_service.errors import UnsupportedModel
from windowkv_service.model.loader import BUILTIN_DIRECTORY
from windowkv_service.selection import (
    PROFILE_NAME,
    Leader,
    QuestionProfile,
    default_profile,
    load_profile,
    save_profile,
)

RECORD = {
    "format": 1,
    "leaders": [{"layer": 1, "leads": [0, 1, 2, 3]}],
    "index_bits": 4,
    "vote_tokens": 16,
    "top_p": None,
    "keep_first": True,
    "keep_last_windows": 1,
}


def test_a_saved_profile_is_read_back_as_it_was(tmp_path):
    layout = make_layout(6, group_size=2)
    profile = QuestionProfile((Leader(3, (0, 2)), Leader(2, (1,))), 8, 5, 3, False, 0, 7)
    assert save_profile(tmp_path, profile, layout) == tmp_path / PROFILE_NAME
    assert load_profile(tmp_path, layout) == profile


def test_a_profile_outlives_another_cut_into_layer_groups(tmp_path):
    save_profile(tmp_path, QuestionProfile((Leader(1, (0, 1)),)), make_layout(4, group_size=2))
    assert load_profile(tmp_path, make_layout(4, group_size=1)).leaders == (Leader(1, (0, 1, 2, 3)),)


def test_without_a_file_the_default_rule_applies(tmp_path):
    layout = make_layout(8, group_size=2)
    assert load_profile(tmp_path, layout) == default_profile(layout)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        *(
            json.dumps(RECORD | change)
            for change in (
                {"format": 2},
                {"leaders": []},
                {"leaders": [{"layer": -1, "leads": [0, 1, 2, 3]}]},
                {"leaders": [{"layer": 1, "leads": [0, 1, 2]}]},  # splits a layer group
                {"leaders": [{"layer": 1, "leads": [0, 1]}]},  # nobody leads the rest
                {"leaders": [{"layer": 7, "leads": [0, 1, 2, 3]}]},
                {"leaders": [{"layer": 1, "leads": [0, 1]}, {"layer": 1, "leads": [2, 3]}]},
                {"index_bits": 5},
                {"vote_tokens": "16"},
                {"vote_tokens": 0},
                {"top_p": 0},
                {"keep_first": 1},
                {"keep_last_windows": -1},
                {"reselect_every": -1},
                {"surprise": 1},
            )
        ),
        json.dumps({key: RECORD[key] for key in RECORD if key != "leaders"}),
    ],
)
def test_a_wrong_file_is_refused_with_its_name(tmp_path, text):
    (tmp_path / PROFILE_NAME).write_text(text)
    with pytest.raises(UnsupportedModel):
        load_profile(tmp_path, make_layout(4, group_size=2))


def test_the_shape_in_the_docstring_is_accepted(tmp_path):
    (tmp_path / PROFILE_NAME).write_text(json.dumps(RECORD))
    profile = load_profile(tmp_path, make_layout(4, group_size=2))
    assert profile == QuestionProfile((Leader(1, (0, 1)),), 4, 16, None, True, 1)


@pytest.mark.parametrize("group_size", [1, 2, 4])
def test_the_built_in_model_carries_a_profile_however_its_layers_are_grouped(group_size):
    assert (BUILTIN_DIRECTORY / PROFILE_NAME).is_file()
    profile = load_profile(BUILTIN_DIRECTORY, make_layout(5, group_size=group_size))
    assert profile.layers == (1,)  # the layer that finds; benchmarks/results/leaders_builtin.md
