"""Which tokens may be drawn, how often, and what penalties do to logits, against plain arithmetic."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from windowkv_service.domain.requests import Sampling
from windowkv_service.model.sampler import SamplerBatch, SamplerState, sample

EOS = 1
CPU = torch.device("cpu")


def draw(
    logits: Sequence[float],
    sampling: Sampling,
    *,
    prompt: Sequence[int] = (),
    said: Sequence[int] = (),
    fresh_seed: int = 0,
) -> int:
    state = SamplerState.make(sampling, prompt, frozenset({EOS}), fresh_seed=fresh_seed)
    state.generated_ids.extend(said)
    return sample(torch.tensor([list(logits)]), [state])[0].token_id


def allowed(logits: Sequence[float], sampling: Sampling) -> dict[int, float]:
    """Token → probability, by the definitions: temperature, min-p, top-k, top-p of what is left, as vLLM does."""
    highest = max(logits)
    weights = [math.exp((value - highest) / sampling.temperature) for value in logits]
    total = sum(weights)
    ranked = sorted(((weight / total, -token) for token, weight in enumerate(weights)), reverse=True)
    ranked = [(share, token) for share, token in ranked if share >= sampling.min_p * ranked[0][0]]
    ranked = ranked[: sampling.top_k or len(ranked)]
    left = sum(share for share, _ in ranked)
    kept, seen = {}, 0.0
    for share, token in ranked:
        if seen < sampling.top_p * left or sampling.top_p == 1.0:
            kept[-token] = share
        seen += share
    return {token: share / sum(kept.values()) for token, share in kept.items()}


LOGITS = [2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -3.0]


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=1.0),
        Sampling(temperature=0.5),
        Sampling(temperature=3.0),
        Sampling(temperature=1.0, top_k=3),
        Sampling(temperature=1.0, top_p=0.6),
        Sampling(temperature=1.0, min_p=0.3),
        Sampling(temperature=2.0, top_k=5, top_p=0.7, min_p=0.1),
        Sampling(temperature=1.0, top_k=100, top_p=0.999),
    ],
)
def test_tokens_come_as_often_as_they_should_and_no_others(sampling: Sampling) -> None:
    expected, num_rows, num_steps = allowed(LOGITS, sampling), 60, 50
    num_draws = num_rows * num_steps
    states = [SamplerState.make(sampling, (), frozenset(), fresh_seed=seed) for seed in range(num_rows)]
    batch, logits = SamplerBatch(states, len(LOGITS), CPU), torch.tensor([LOGITS]).expand(num_rows, -1)
    counts = Counter(one.token_id for _ in range(num_steps) for one in batch.sample(logits).read())
    assert counts.keys() <= expected.keys()
    for token, share in expected.items():
        spread = math.sqrt(share * (1 - share) / num_draws)
        assert abs(counts[token] / num_draws - share) <= 5 * spread + 1e-9, f"token {token}"


@settings(deadline=None, max_examples=200)
@given(
    # Far enough apart that float32 ranks them as the reference's float64 does.
    st.lists(st.integers(-800, 800).map(lambda number: number / 100), min_size=2, max_size=12, unique=True),
    st.floats(0.2, 5),
    st.integers(0, 12),
    st.floats(0.05, 1.0),
    st.floats(0, 1.0),
    st.integers(0, 2**31),
)
def test_what_is_drawn_is_allowed(
    logits: list[float], temperature: float, top_k: int, top_p: float, min_p: float, seed: int
) -> None:
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=seed)
    generous = replace(sampling, top_p=min(1.0, top_p + 1e-6), min_p=max(0.0, min_p - 1e-6))
    assert draw(logits, sampling) in allowed(logits, generous)


def test_temperature_nought_takes_the_likeliest() -> None:
    assert draw(LOGITS, Sampling(temperature=0.0)) == 0
    assert draw(LOGITS[::-1], Sampling(temperature=0.0)) == 7


@pytest.mark.parametrize("temperature", [5e-324, 1e-30, 1e-6])
def test_a_temperature_next_to_nought_is_greedy_and_no_accident(temperature: float) -> None:
    assert draw([3.0, 9.0, 8.999], Sampling(temperature=temperature)) == 1


def test_one_seed_is_one_answer_whatever_the_fresh_seed() -> None:
    seeded = Sampling(temperature=2.0, seed=9)
    assert len({draw(LOGITS, seeded, fresh_seed=fresh) for fresh in range(20)}) == 1
    assert len({draw(LOGITS, replace(seeded, seed=None), fresh_seed=fresh) for fresh in range(20)}) > 1


def test_who_shares_the_batch_changes_nothing() -> None:
    def states() -> list[SamplerState]:
        return [
            SamplerState.make(Sampling(temperature=2.0, seed=n), (), frozenset(), fresh_seed=0)
            for n in range(4)
        ]

    logits = torch.randn(4, 50, generator=torch.manual_seed(0))
    together = [one.token_id for one in sample(logits, states())]
    alone = [
        sample(logits[n : n + 1], [state])[0].token_id for n, state in zip(range(4), states(), strict=True)
    ]
    assert together == alone


MIXED = [
    Sampling(),
    Sampling(temperature=1.3, seed=3),
    Sampling(temperature=0.8, seed=4, top_k=7, logprobs=2),
    Sampling(frequency_penalty=1.5, min_tokens=3, stop_token_ids=(5,)),
    Sampling(temperature=2.0, seed=5, top_p=0.7, min_p=0.01, repetition_penalty=1.7, logprobs=0),
    Sampling(temperature=1.0, seed=3, presence_penalty=-2.0, min_tokens=6),
]


def states_of(samplings: Sequence[Sampling]) -> list[SamplerState]:
    return [SamplerState.make(one, [2, 3, 3, 40], frozenset({EOS}), fresh_seed=0) for one in samplings]


def test_a_batch_that_is_kept_says_what_each_row_says_alone_and_made_anew() -> None:
    together, alone = states_of(MIXED), states_of(MIXED)
    batch = SamplerBatch(together, 50, CPU)
    for step in range(8):
        logits = 3 * torch.randn(len(MIXED), 50, generator=torch.manual_seed(step))
        kept = batch.sample(logits).read()
        anew = [sample(logits[row : row + 1], [state])[0] for row, state in enumerate(alone)]
        assert kept == anew, f"step {step}"
        for state, one in zip(alone, anew, strict=True):
            state.generated_ids.append(one.token_id)


def test_a_batch_that_changes_goes_on_from_what_each_has_said() -> None:
    logits = [3 * torch.randn(len(MIXED), 50, generator=torch.manual_seed(step)) for step in range(6)]
    whole = [SamplerBatch(states_of(MIXED), 50, CPU)] * 6
    said = [
        [one.token_id for one in batch.sample(rows).read()] for batch, rows in zip(whole, logits, strict=True)
    ]
    order = [4, 2, 3, 5]  # two leave after the third step, and the others are in other rows
    states = [states_of(MIXED)[row] for row in order]
    for state, row in zip(states, order, strict=True):
        state.generated_ids.extend(tokens[row] for tokens in said[:3])
    batch = SamplerBatch(states, 50, CPU)
    for step in range(3, 6):
        rest = [one.token_id for one in batch.sample(logits[step][order]).read()]
        assert rest == [said[step][row] for row in order], f"step {step}"


def test_equal_logits_rank_by_token_id() -> None:
    sampling = Sampling(temperature=1.0, top_k=2)
    drawn = {draw([1.0, 5.0, 5.0, 5.0], sampling, fresh_seed=seed) for seed in range(40)}
    assert drawn == {1, 2}


# Penalties


def test_the_repetition_penalty_divides_what_is_positive_and_multiplies_what_is_not() -> None:
    penalized = Sampling(repetition_penalty=2.0)
    assert draw([3.0, 0.0, 1.6], penalized, prompt=[0]) == 2, "3 becomes 1.5"
    assert draw([-1.0, -9.0, -1.9], penalized, said=[0]) == 2, "-1 becomes -2"
    assert draw([3.0, 0.0, 1.4], penalized, prompt=[0, 0, 0], said=[0]) == 0, "however often it came"


def test_presence_is_charged_once_and_frequency_every_time() -> None:
    assert draw([2.0, 0.0, 1.5], Sampling(presence_penalty=1.0), said=[0, 0, 0]) == 2
    assert draw([2.0, 0.0, 0.9], Sampling(presence_penalty=1.0), said=[0, 0, 0]) == 0
    assert draw([2.0, 0.0, 0.9], Sampling(frequency_penalty=0.5), said=[0, 0, 0]) == 2
    assert draw([2.0, 0.0, 0.9], Sampling(frequency_penalty=0.5), said=[0]) == 0


def test_presence_and_frequency_do_not_count_the_prompt() -> None:
    sampling = Sampling(presence_penalty=2.0, frequency_penalty=2.0)
    assert draw([2.0, 0.0, 1.9], sampling, prompt=[0, 0]) == 0


def test_negative_penalties_encourage() -> None:
    assert draw([2.0, 0.0, 1.9], Sampling(presence_penalty=-1.0), said=[2]) == 2


@pytest.mark.parametrize("penalty", [5e-324, 1e-300, 100.0])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_absurd_penalty_still_draws_a_token(penalty: float, temperature: float) -> None:
    sampling = Sampling(repetition_penalty=penalty, temperature=temperature)
    assert draw(LOGITS, sampling, prompt=[0, 3, 7]) in range(len(LOGITS))


# Ends


def test_ends_are_not_drawn_before_min_tokens() -> None:
    sampling = Sampling(min_tokens=2, stop_token_ids=(0,))
    logits = [9.0, 8.0, 7.0]  # a stop token, the end of sequence, and another
    assert draw(logits, sampling) == 2
    assert draw(logits, sampling, said=[2]) == 2
    assert draw(logits, sampling, said=[2, 2]) == 0


def test_an_end_of_sequence_that_is_ignored_may_come_any_time() -> None:
    assert draw([0.0, 9.0], Sampling(min_tokens=5, ignore_eos=True)) == EOS


def test_forbidding_everything_forbids_nothing() -> None:
    sampling = Sampling(min_tokens=1, temperature=1.0, stop_token_ids=(0, 1, 2))
    assert draw([1.0, 2.0, 3.0], sampling) in range(3)


# Log-probabilities


def test_logprobs_are_of_the_models_own_distribution() -> None:
    sampling = Sampling(temperature=0.0, logprobs=3, repetition_penalty=4.0)
    state = SamplerState.make(sampling, [0], frozenset(), fresh_seed=0)
    (sampled,) = sample(torch.tensor([LOGITS]), [state])
    expected = torch.tensor(LOGITS).log_softmax(-1)
    assert sampled.token_id == 1, "the penalty moved the choice"
    assert sampled.logprob is not None
    assert math.isclose(sampled.logprob.logprob, float(expected[1]), abs_tol=1e-6)
    assert [token for token, _ in sampled.logprob.top] == [0, 1, 2]
    assert all(math.isclose(value, float(expected[n]), abs_tol=1e-6) for n, value in sampled.logprob.top)


def test_without_being_asked_there_are_none() -> None:
    state = SamplerState.make(Sampling(), (), frozenset(), fresh_seed=0)
    assert sample(torch.tensor([LOGITS]), [state])[0].logprob is None
