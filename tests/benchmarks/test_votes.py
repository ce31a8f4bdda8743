"""Votes: what the service's kernel says, and the ways it does not know."""

import pytest
import torch
from offline.votes import by_window, combine_heads, token_votes, window_scores

import windowkv_kernels as kernels

HEADS, KV_HEADS, VOTERS, TOKENS, DIM = 4, 2, 3, 37, 8


def drawn() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    queries = 2 * torch.randn(HEADS, VOTERS, DIM, generator=generator)
    return queries, torch.randn(TOKENS, KV_HEADS, DIM, generator=generator)


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("top_p", [None, 1, 3])
def test_the_mean_over_heads_is_the_kernels_score(top_p, softcap):
    queries, keys = drawn()
    expected = kernels.score_leader_keys(
        queries, keys, window_size=8, scale=0.3, top_p=top_p, softcap=softcap
    )
    votes = token_votes(queries, keys, 0.3, softcap)
    scores = combine_heads(window_scores(votes, 8, top_p, adds_top=False), votes, "mean", KV_HEADS)[0]
    torch.testing.assert_close(scores, expected.score / VOTERS)
    torch.testing.assert_close(by_window(votes.mean(0), 8).sum(-1), expected.mass)


def test_the_largest_token_counts_once_more():
    votes = torch.tensor([0.1, 0.2, 0.3, 0.0, 0.4])
    torch.testing.assert_close(window_scores(votes, 4, None, adds_top=True), torch.tensor([0.45, 0.8]))


def test_of_several_voters_each_may_have_what_it_alone_wants():
    queries, keys = drawn()
    each = torch.stack([token_votes(queries[:, v : v + 1], keys, 2.0, None) for v in range(VOTERS)])
    torch.testing.assert_close(token_votes(queries, keys, 2.0, None, takes_most=True), each.amax(0))
    torch.testing.assert_close(token_votes(queries, keys, 2.0, None), each.mean(0))


def test_one_sure_head_outweighs_three_that_look_everywhere():
    sure, spread = torch.tensor([0.0, 0.0, 1.0, 0.0]), torch.tensor([0.28, 0.24, 0.24, 0.24])
    votes = torch.stack([sure, spread, spread, spread])
    assert combine_heads(votes, votes, "peaked", 2)[0, 2] > 0.6 > combine_heads(votes, votes, "mean", 2)[0, 2]


def test_a_list_per_kv_head_hears_its_own_query_heads():
    votes = torch.eye(4)
    got = combine_heads(votes, votes, "per_kv_head", 2)
    torch.testing.assert_close(got, torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]]))
