"""A trial chooses as the service would, turns one dial at a time, and counts every byte."""

from dataclasses import replace

import pytest
import torch
from cached_documents import NUM_TOKENS, cached_document, random_ids, tiny_model
from offline.asking import Asking
from offline.choice import for_all_heads, tokens_of
from offline.digest import Digests
from offline.document import CachedDocument
from offline.experiments import experiments
from offline.extra import add_extra
from offline.trial import Trial

from windowkv_kernels import quantize_keys
from windowkv_service.selection import Leader, QuestionProfile, choose_windows

KEPT = 0.4
PROFILE = QuestionProfile((Leader(1, (0, 1, 2, 3)),), vote_tokens=2)
BASE = Trial("base", PROFILE)
QUESTION = random_ids(13, 2)


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> CachedDocument:
    return cached_document(tiny_model(tmp_path_factory.mktemp("tiny")))


def some_queries(document: CachedDocument) -> dict[int, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {layer: 3 * torch.randn(4, 2, document.layout.head_dim, generator=generator) for layer in range(4)}


def trials(document: CachedDocument) -> list[Trial]:
    """Every one that the experiments try."""
    return [BASE, *(t for each in experiments(BASE, document.layout) for t in each.trials)]


def test_the_base_chooses_what_the_service_would(document):
    queries, layout = some_queries(document), document.layout
    keys = quantize_keys(document.keys(1), bits=4)
    scores = PROFILE.score(queries[1], keys, window_size=16, scale=document.model.scales[1])
    budget = int(KEPT * document.full_bytes) - PROFILE.index_bytes(layout, NUM_TOKENS)
    expected = choose_windows({1: scores}, PROFILE, layout, NUM_TOKENS, budget)
    got = BASE.choose(document, KEPT, queries)
    for tokens, windows in zip(got.tokens, expected.windows, strict=True):
        assert torch.equal(tokens, for_all_heads(tokens_of(windows, layout, NUM_TOKENS), layout))
    assert got.fidelity == pytest.approx(expected.fidelity, abs=1e-5)


def test_no_trial_holds_more_than_its_kept_ratio_where_windows_fit(document):
    queries = some_queries(document)
    room = 0.7 * document.full_bytes  # every index and every digest fits, at 32 bits too
    for trial in trials(document):
        if trial.window_size != 64:  # three of them are the whole document
            assert trial.choose(document, 0.7, queries).size_bytes <= room, trial.name


def test_bytes_are_those_of_what_is_read_and_of_the_index(document):
    per_token = document.layout.bytes_per_token // 4  # of one layer
    index = document.stored_keys(1, 4).size_bytes
    for trial, kept in [(BASE, KEPT), (BASE, 0.7), (replace(BASE, extra_share=0.5), 0.7)]:
        choice = trial.choose(document, kept, some_queries(document))
        read = sum(tokens.shape[1] for tokens in choice.tokens)
        is_last_read = kept == 0.7  # with more room the last window stays; it is short, its block a whole one
        padding = 4 * (160 - NUM_TOKENS) if is_last_read else 0
        assert choice.size_bytes == (read + padding) * per_token + index


def test_single_tokens_are_the_best_outside_the_windows(document):
    queries = some_queries(document)
    windows = BASE.choose(document, KEPT, queries).tokens[0][0]
    mixed = replace(BASE, extra_share=0.5).choose(document, KEPT, queries).tokens[0][0]
    starts = set((mixed // 16).tolist())
    assert len(starts) > len(set((windows // 16).tolist()))
    assert mixed.tolist() == sorted(set(mixed.tolist()))


def test_a_weighted_sample_stands_for_all_that_was_not_chosen():
    chosen, votes = torch.arange(16, 32), torch.rand(150)
    more = add_extra("weighted windows", chosen, votes, 40, 16)
    sampled = more.weights > 0
    assert more.positions.tolist() == sorted(more.positions.tolist())
    assert sampled.sum() == 32 and not set(more.positions[sampled].tolist()) & set(chosen.tolist())
    assert more.weights[sampled].exp().sum() == pytest.approx(150 - 16)
    plain = add_extra("spread windows", chosen, votes, 40, 16)
    assert torch.equal(plain.positions, more.positions) and not plain.weights.any()


def test_kv_heads_choose_apart(document):
    tokens = replace(BASE, heads="per_kv_head").choose(document, KEPT, some_queries(document)).tokens[0]
    assert tokens.shape[0] == 2 and not torch.equal(tokens[0], tokens[1])


def test_digests_stand_for_what_is_not_read(document):
    choice = replace(BASE, digest_tokens=16).choose(document, 0.9, some_queries(document))
    for tokens, covering in zip(choice.tokens, choice.covering, strict=True):
        read = set((tokens[0] // 16).tolist())
        assert sorted([*covering.tolist(), *read]) == list(range(10))  # the last, short window is always read


def test_a_digest_of_equal_tokens_stands_for_them_exactly():
    key, value = torch.randn(1, 2, 8), torch.randn(1, 2, 8)
    layer = {0: (key.expand(32, 2, 8), value.expand(32, 2, 8))}
    digests = Digests.of(layer, 16)
    query = torch.randn(8)
    alone = torch.stack([query @ digests.keys[0][0, 0] + digests.bias, torch.tensor(0.5)]).softmax(0)[0]
    all_of_them = torch.cat([(key[0, 0] @ query).expand(16), torch.tensor([0.5])]).softmax(0)[:16].sum()
    torch.testing.assert_close(alone, all_of_them)
    torch.testing.assert_close(digests.values[0][1], value[0])


def test_answers_choose_anew_as_often_as_they_are_told(document):
    often = [replace(BASE, profile=replace(PROFILE, reselect_every=every)) for every in (0, 1, 3)]
    midway = replace(often[1], passes=0, chooses_midway=True)
    answers = Asking(document, [*often, midway], KEPT).answer(QUESTION, 7)
    again = [min(len(answer.token_ids), 6) for answer in answers]  # the last of seven is not run
    assert again[1] >= 3 and again[2] >= 3
    assert [answer.num_listened for answer in answers] == [1, 1 + again[1], 1 + again[2] // 3, 0]


def test_a_row_answers_alike_alone_and_among_others(document):
    all_trials = [trial for trial in trials(document) if not trial.digest_tokens]
    together = Asking(document, all_trials, KEPT).answer(QUESTION, 5)
    for number in range(0, len(all_trials), 7):
        (alone,) = Asking(document, [all_trials[number]], KEPT).answer(QUESTION, 5)
        assert alone.token_ids == together[number].token_ids, all_trials[number].name
        assert alone.fidelity == pytest.approx(together[number].fidelity, abs=1e-5)
