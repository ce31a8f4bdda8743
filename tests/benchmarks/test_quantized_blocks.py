"""What codecs save and cost: measured on two workers that share a Redis, tabled as ratios."""

from __future__ import annotations

from pathlib import Path

from cached_documents import untrained_builtin
from quantized_blocks import SELECTORS, Trip, answer_table, ask, cost_table, travel
from redis_server import running as running_redis
from running_service import running
from serving import Case

from windowkv_client import Client, Codec


async def test_every_codec_travels_and_is_asked(tmp_path: Path) -> None:
    options = {"model": str(untrained_builtin(tmp_path).directory), "device_tier_bytes": 1 << 24}
    with (
        running_redis() as redis,
        running(redis_url=redis.url, **options) as one,
        running(redis_url=redis.url, **options) as other,
        Client(one.target) as maker,
        Client(other.target) as finder,
    ):
        trips = travel(maker, finder, [Case.draw(seed, 150) for seed in (1, 2)], 0.5)
        assert {codec: len(made) for codec, made in trips.items()} == dict.fromkeys(Codec, 2)
        sizes = [made[0].stored_bytes for made in trips.values()]
        assert sizes[0] > sizes[1] == sizes[2] > sizes[3] > 0
        assert list(maker.caches.list()) == list(finder.caches.list()) == []
        results = await ask(one.target, ["single/2000"], 1, 1, 0.5)
    lines = answer_table(results).splitlines()[2:]
    named = [line.split(" | ")[:2] for line in lines]
    assert named == [[f"| {selector}", str(codec)] for selector in SELECTORS for codec in Codec]


def test_costs_are_ratios_of_medians() -> None:
    exact = [Trip(100, 1.0, 1.0, 1.0), Trip(100, 2.0, 2.0, 2.0), Trip(100, 9.0, 9.0, 9.0)]
    half = [Trip(50, 3.0, 1.0, 0.5)] * 3
    rows = cost_table({Codec.EXACT: exact, Codec.INT8: half}).splitlines()[2:]
    assert rows == ["| exact | 1.00 | 1.00 | 1.00 | 1.00 |", "| int8 | 0.50 | 0.25 | 0.50 | 1.50 |"]
