"""Which windows stay on the device: at prefill by a selector, at a question by the question itself."""

from __future__ import annotations

from windowkv_service.kv.layout import KVLayout
from windowkv_service.selection.base import (
    Leader,
    Method,
    Observation,
    Repeated,
    Selection,
    Selector,
    TokenSelection,
    WindowSelection,
)
from windowkv_service.selection.expected_attention import expected_attention
from windowkv_service.selection.fidelity import widen
from windowkv_service.selection.full import Full
from windowkv_service.selection.h2o import h2o
from windowkv_service.selection.keydiff import keydiff
from windowkv_service.selection.kvzip import kvzip
from windowkv_service.selection.profile_file import PROFILE_NAME, load_profile, save_profile
from windowkv_service.selection.pyramidinfer import PyramidInfer
from windowkv_service.selection.pyramidkv import pyramidkv
from windowkv_service.selection.quest import NAME as QUEST
from windowkv_service.selection.quest import quest, quest_profile
from windowkv_service.selection.question import (
    QuestionProfile,
    choose_windows,
    default_profile,
    resident_windows,
)
from windowkv_service.selection.random_tokens import random_tokens
from windowkv_service.selection.random_windows import RandomWindows
from windowkv_service.selection.snapkv import snapkv
from windowkv_service.selection.streamingllm import StreamingLLM
from windowkv_service.selection.token_selector import TokenSelector
from windowkv_service.selection.tova import tova
from windowkv_service.selection.windowkv import WindowKV, published

__all__ = [
    "PROFILE_NAME",
    "Leader",
    "Method",
    "Observation",
    "QuestionProfile",
    "Repeated",
    "Selection",
    "Selector",
    "TokenSelection",
    "TokenSelector",
    "WindowKV",
    "WindowSelection",
    "choose_windows",
    "default_profile",
    "load_profile",
    "question_profiles",
    "resident_windows",
    "save_profile",
    "selectors",
    "token_selectors",
    "widen",
]


def selectors(profile: QuestionProfile | None) -> dict[str, Method]:
    """Every method by its name. profile: the model's; its leaders, voters and statistic also make our own choice at
    prefill. None: a model in which nothing can be selected."""
    ours = WindowKV(leaders=())
    if profile is not None:
        ours = WindowKV(leaders=profile.leaders, vote_tokens=profile.vote_tokens, top_p=profile.top_p)
    methods: list[Method] = [
        ours,
        published(),
        Full(),
        RandomWindows(),
        StreamingLLM(),
        quest(),
        PyramidInfer(),
    ]
    return {method.name: method for method in methods} | token_selectors()


def question_profiles(profile: QuestionProfile | None, layout: KVLayout) -> dict[str, QuestionProfile]:
    """How questions choose on a cache of each method that keeps windows: as the model's profile says, but for Quest.
    profile: the model's; None: a model in which nothing can be selected."""
    if profile is None:
        return {}
    windows = [name for name, method in selectors(profile).items() if not method.chooses_tokens]
    return dict.fromkeys(windows, profile) | {QUEST: quest_profile(layout)}


def token_selectors() -> dict[str, Selector]:
    """The methods that keep single tokens of each layer and KV head."""
    methods = [
        snapkv(),
        pyramidkv(),
        h2o(),
        tova(),
        keydiff(),
        expected_attention(),
        kvzip(),
        random_tokens(),
    ]
    return {method.name: method for method in methods}
