"""The order of leaving."""

from __future__ import annotations

from collections import Counter

from windowkv_service.cache.eviction import Stay, choose, restore_s
from windowkv_service.cache.speeds import Speeds
from windowkv_service.domain.results import Tier

SPEEDS = Speeds()


def stay(
    size_bytes: int = 1 << 20,
    token_count: int = 4000,
    below: Tier | None = Tier.HOST,
    idle_s: float = 10.0,
    hits: int = 0,
) -> Stay:
    return Stay(size_bytes, token_count, below, idle_s, hits)


def leaves_first(one: Stay, other: Stay) -> bool:
    """Between two that would each suffice."""
    for stays in ([(True, one), (False, other)], [(False, other), (True, one)]):
        if choose(stays, 1, lambda key: [int(key)], lambda _: 1, SPEEDS) != [True]:
            return False
    return True


def test_what_lies_in_host_memory_leaves_before_what_lies_in_redis() -> None:
    assert leaves_first(stay(below=Tier.HOST), stay(below=Tier.REDIS))


def test_what_lies_in_redis_leaves_before_what_must_be_computed_again() -> None:
    assert leaves_first(stay(below=Tier.REDIS), stay(below=None))


def test_what_was_not_used_for_longer_leaves_first() -> None:
    assert leaves_first(stay(idle_s=100.0), stay(idle_s=1.0))


def test_what_was_used_less_often_leaves_first() -> None:
    assert leaves_first(stay(hits=0), stay(hits=5))


def test_what_takes_less_to_compute_leaves_first() -> None:
    assert leaves_first(stay(below=None, token_count=100), stay(below=None, token_count=10_000))


def test_of_what_must_be_computed_again_the_one_that_gives_more_room_leaves_first() -> None:
    assert leaves_first(stay(below=None, size_bytes=1 << 24), stay(below=None, size_bytes=1 << 20))


def test_a_clock_that_went_back_does_no_harm() -> None:
    assert leaves_first(stay(idle_s=5.0), stay(idle_s=-3600.0))


def test_no_more_leave_than_must() -> None:
    stays = [(name, stay(idle_s=100.0 - name)) for name in range(5)]
    assert choose(stays, 2, lambda name: [name], lambda _: 1, SPEEDS) == [0, 1]


def test_who_holds_nothing_in_the_arena_stays() -> None:
    stays = [(name, stay(idle_s=100.0 - name)) for name in range(5)]
    assert choose(stays, 2, lambda name: [name] if name > 1 else [], lambda _: 1, SPEEDS) == [2, 3]


def test_none_leave_when_all_would_not_suffice() -> None:
    assert choose([(1, stay()), (2, stay())], 3, lambda name: [name], lambda _: 1, SPEEDS) is None


def test_none_leave_when_nothing_is_missing() -> None:
    assert choose([(1, stay())], 0, lambda name: [name], lambda _: 1, SPEEDS) == []


def test_a_shared_block_comes_free_with_its_last_holder_only() -> None:
    references = Counter({7: 2})
    both = [("one", stay(idle_s=9.0)), ("other", stay(idle_s=1.0))]
    assert choose(both[:1], 1, lambda _: [7], references.__getitem__, SPEEDS) is None
    assert choose(both, 1, lambda _: [7], references.__getitem__, SPEEDS) == ["one", "other"]


def test_loading_is_weighed_against_computing_again() -> None:
    slow = Speeds()
    slow.bytes_per_s[Tier.REDIS] = 1.0
    below = stay(below=Tier.REDIS)
    assert restore_s(below, slow) == slow.recompute_s(below.token_count)
    assert not slow.is_load_cheaper(Tier.REDIS, below.size_bytes, below.token_count)


def test_speeds_follow_what_is_measured() -> None:
    speeds = Speeds()
    for _ in range(100):
        speeds.observe_load(Tier.REDIS, 1000, 1.0)
        speeds.observe_prefill(100, 1.0)
    assert round(speeds.bytes_per_s[Tier.REDIS]) == 1000
    assert round(speeds.prefill_tokens_per_s) == 100


def test_measurements_of_nothing_are_ignored() -> None:
    speeds = Speeds()
    speeds.observe_load(Tier.HOST, 0, 1.0)
    speeds.observe_load(Tier.HOST, 1, 0.0)
    speeds.observe_load(Tier.DEVICE, 1, 1.0)
    speeds.observe_prefill(0, 0.0)
    assert speeds.bytes_per_s == Speeds().bytes_per_s
    assert speeds.prefill_tokens_per_s == Speeds().prefill_tokens_per_s
