"""What is said of methods that see their question is measured on what the service keeps and answers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import visible
from asking import answer, asking
from cached_documents import random_ids, untrained_builtin
from read_prompt import load_by_layer
from running_service import running
from tiny_models import save_tiny_model
from visible_prompt import VisiblePrompt

from windowkv_client import Client
from windowkv_service.model.builtin.documents import Question
from windowkv_service.model.loader import LoadedModel
from windowkv_service.selection import default_profile, selectors

PROMPT = random_ids(440, 3)
LENGTH = 6


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_by_layer(save_tiny_model(tmp_path_factory.mktemp("tiny"), "llama"), 16)


@pytest.fixture(scope="module")
def prompt(model: LoadedModel) -> VisiblePrompt:
    return VisiblePrompt(model, PROMPT)


@pytest.fixture(scope="module")
def client(model: LoadedModel) -> Iterator[Client]:
    options = {"model": str(model.directory), "window_size": 16, "device_tier_bytes": 1 << 23}
    with running(**options) as worker, asking(worker) as client:
        yield client


@pytest.mark.parametrize(
    "method",
    ["windowkv", "windowkv-published", "h2o", "keydiff", "kvzip", "expected-attention", "pyramidinfer"],
)
def test_the_service_answers_alike(
    model: LoadedModel, prompt: VisiblePrompt, client: Client, method: str
) -> None:
    kept = prompt.keep(selectors(default_profile(model.layout))[method], 0.3)
    cache = client.caches.create(token_ids=PROMPT, method=method, kept_ratio=0.3, retention="selected")
    served = answer(client, [], cache, max_tokens=LENGTH, ignore_eos=False)
    assert served.token_ids == prompt.answer(kept, LENGTH)


def test_the_changed_methods_change_what_they_say(model: LoadedModel, prompt: VisiblePrompt) -> None:
    every = visible.methods(selectors(default_profile(model.layout)), len(PROMPT))
    last = range(len(PROMPT) - visible.LAST, len(PROMPT))
    layers = range(model.num_layers)
    for name, method in every.items():
        kept = prompt.keep(method, 0.3)
        assert 0.0 <= kept.share(last, layers) <= 1.0
        if "kept" in name:
            assert kept.share(last, layers) == 1.0
            assert prompt.keep(every[name.partition(",")[0]], 0.3).share(last, layers) < 1.0


def test_the_share_of_positions_counts_layers_and_heads_alike(
    prompt: VisiblePrompt, model: LoadedModel
) -> None:
    kept = prompt.keep(selectors(default_profile(model.layout))["keydiff"], 0.3)
    rows = [kept.tokens[layer, head] for layer in (0, 2) for head in range(model.layout.num_kv_heads)]
    wanted = [3, 4, 200, 439]
    expected = sum(len(set(row.tolist()) & set(wanted)) for row in rows) / (len(rows) * len(wanted))
    assert kept.share(wanted, [0, 2]) == pytest.approx(expected)


def test_the_answers_place_is_the_one_nearest_to_the_asked_name(tmp_path: Path) -> None:
    model = untrained_builtin(tmp_path)
    text = "They call Marlow amber. The home of Norwick is Highmoor. They call Norwick amber. They call Selmond amber."
    body = model.tokenizer.tokenize(text, add_special_tokens=True)
    asked = Question("Which code word does Norwick use?", "amber")
    found = visible.places(model, body, asked)
    assert model.tokenizer.detokenize(body[: found[0]]).endswith("They call Norwick")
    assert model.tokenizer.detokenize([body[place] for place in found]).strip() == "amber"
