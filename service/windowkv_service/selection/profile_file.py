"""windowkv_profile.json, beside a model's weights: its question profile.

Groups are written as the layers they hold: how storage is cut into layer groups may change without a new
calibration.

    {"format": 1, "leaders": [{"layer": 1, "leads": [0, 1, 2, 3]}], "index_bits": 4, "vote_tokens": 2,
     "top_p": null, "keep_first": true, "keep_last_windows": 1, "reselect_every": 0}

reselect_every may be left out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from windowkv_service.errors import UnsupportedModel
from windowkv_service.kv.layout import KVLayout
from windowkv_service.selection.question import QuestionProfile, default_profile, leaders_by_layers

PROFILE_NAME = "windowkv_profile.json"

LayerNumber = Annotated[int, Field(ge=0)]


class _LeaderRecord(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    layer: LayerNumber
    leads: list[LayerNumber] = Field(min_length=1)


class _ProfileRecord(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal[1]
    leaders: list[_LeaderRecord] = Field(min_length=1)
    index_bits: Literal[4, 8]
    vote_tokens: int = Field(ge=1)
    top_p: int | None = Field(ge=1)
    keep_first: bool
    keep_last_windows: int = Field(ge=0)
    reselect_every: int = Field(default=0, ge=0)


def load_profile(model_dir: Path, layout: KVLayout) -> QuestionProfile:
    """The model's profile, or the default where none is stored. Raises UnsupportedModel for one that does not
    fit."""
    path = model_dir / PROFILE_NAME
    if not path.exists():
        return default_profile(layout)
    try:
        record = _ProfileRecord.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UnsupportedModel(f"{path}: {where}: {first['msg']}") from error
    profile = QuestionProfile(
        leaders_by_layers(layout, {leader.layer: leader.leads for leader in record.leaders}),
        record.index_bits,
        record.vote_tokens,
        record.top_p,
        record.keep_first,
        record.keep_last_windows,
        record.reselect_every,
    )
    profile.check(layout)
    return profile


def save_profile(model_dir: Path, profile: QuestionProfile, layout: KVLayout) -> Path:
    """Write profile beside the model, replacing what is there; returns the file."""
    leaders = [
        {
            "layer": leader.layer,
            "leads": sorted(layer for group in leader.groups for layer in layout.groups[group].layers),
        }
        for leader in profile.leaders
    ]
    record = {
        "format": 1,
        "leaders": leaders,
        "index_bits": profile.index_bits,
        "vote_tokens": profile.vote_tokens,
        "top_p": profile.top_p,
        "keep_first": profile.keep_first,
        "keep_last_windows": profile.keep_last_windows,
        "reselect_every": profile.reselect_every,
    }
    path = model_dir / PROFILE_NAME
    path.write_text(json.dumps(record, indent=2) + "\n")
    return path
