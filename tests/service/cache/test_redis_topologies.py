"""The Redis tier on a real cluster and behind a real Sentinel."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cache_events import address, block
from eventually import eventually
from redis_fleets import Cluster, cluster, watched_pair

from windowkv_service.cache.frame import Frame, FrameKind
from windowkv_service.cache.tiers.base import Miss
from windowkv_service.cache.tiers.redis import RedisTier
from windowkv_service.domain.results import MissReason

NUMBERS = range(60)
FRAMES = [block(number) for number in NUMBERS]
ADDRESSES = [address(number) for number in NUMBERS]
MANIFEST = Frame.of(FrameKind.MANIFEST, address(99), b"manifest")


@pytest.fixture(scope="module")
def shared() -> Iterator[Cluster]:
    with cluster() as nodes:
        yield nodes


@pytest.fixture
def nodes(shared: Cluster) -> Cluster:
    shared.flush()
    return shared


@pytest.fixture
def tier(nodes: Cluster) -> Iterator[RedisTier]:
    tier = RedisTier(nodes.url)
    yield tier
    tier.close()


def works(tier: RedisTier) -> bool:
    return all(tier.put(FRAMES, 60.0)) and tier.get(ADDRESSES, FrameKind.BLOCK) == FRAMES


def test_frames_are_spread_over_a_cluster(nodes: Cluster, tier: RedisTier) -> None:
    assert tier.is_up
    assert works(tier)
    assert all(number > 5 for number in nodes.num_keys())
    assert tier.put_manifest(b"list", MANIFEST, 60.0)
    assert tier.list_manifests(b"list") == [MANIFEST]
    assert tier.drop_manifest(b"list", MANIFEST.address)
    assert tier.drop(ADDRESSES)
    assert nodes.num_keys() == [0, 0, 0]


def test_slots_that_moved_are_found_again(nodes: Cluster, tier: RedisTier) -> None:
    with nodes.moved_slots(0, 1):
        assert eventually(lambda: works(tier))
        assert nodes.num_keys()[0] < 5
        nodes.flush()
    assert eventually(lambda: works(tier))
    assert nodes.num_keys()[0] > 5


def test_a_lost_node_costs_what_it_held(nodes: Cluster, tier: RedisTier) -> None:
    """Last on the shared cluster, which is not whole afterwards."""
    assert works(tier)
    nodes.nodes[2].kill()
    lost, kept = Miss(MissReason.TIER_DOWN), sum(nodes.num_keys())
    assert kept > 0

    def serves_the_rest() -> bool:
        found = tier.get(ADDRESSES, FrameKind.BLOCK)
        assert all(one in (frame, lost) for one, frame in zip(found, FRAMES, strict=True))
        return sum(isinstance(one, Frame) for one in found) == kept

    assert eventually(serves_the_rest)
    assert not eventually(lambda: not tier.is_up, limit_s=1.5)  # through at least one ping
    assert serves_the_rest()


def test_behind_sentinel_the_new_primary_is_found() -> None:
    with watched_pair() as pair:
        tier = RedisTier(pair.url)
        assert works(tier)
        assert pair.primary.client.wait(1, 5000) == 1
        pair.primary.kill()
        assert eventually(lambda: tier.is_up and works(tier))
        assert len(pair.replica.all_keys()) == len(FRAMES)
        tier.close()
