"""More than one real redis-server: a cluster, and a primary that Sentinel replaces."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import redis
from eventually import eventually
from redis_server import RedisServer, free_port, running, server_binary

NUM_SLOTS = 16384
_HIGHEST_PORT = 55_000  # a cluster's nodes also listen 10,000 above


@dataclass
class Cluster:
    nodes: list[RedisServer]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def num_keys(self) -> list[int]:
        """On each node that lives."""
        return [len(node.all_keys()) for node in self.nodes if node.is_running]

    @contextlib.contextmanager
    def moved_slots(self, source: int, target: int) -> Iterator[None]:
        """All slots but one of a node, which must be empty, belong to another for a while. With the last slot gone
        too it would become a replica."""
        slots = _slots_of(source, len(self.nodes))[1:]
        self._assign(slots, self.nodes[target])
        yield
        self._assign(slots, self.nodes[source])

    def flush(self) -> None:
        for node in self.nodes:
            node.flush()

    def _assign(self, slots: range, owner: RedisServer) -> None:
        """Gossip under way may undo part of it: said again until all agree."""
        others = [node for node in self.nodes if node is not owner]
        owner_id = owner.client.cluster("MYID")

        def say() -> bool:
            owner.client.cluster("BUMPEPOCH")  # its word counts more than what the others still gossip
            for node in (owner, *others):  # the new owner first, so that no slot is nobody's
                with node.client.pipeline(transaction=False) as pipeline:
                    for slot in slots:
                        pipeline.execute_command("CLUSTER", "SETSLOT", slot, "NODE", owner_id)
                    pipeline.execute()
            return eventually(self._is_agreed, limit_s=1.0)

        assert eventually(say), "the nodes do not agree who has which slots"

    def _is_agreed(self) -> bool:
        views = [sorted(map(str, node.client.execute_command("CLUSTER SLOTS"))) for node in self.nodes]
        return all(view == views[0] for view in views)


@contextlib.contextmanager
def cluster(num_nodes: int = 3) -> Iterator[Cluster]:
    """Primaries only; what one node holds can be lost without the others."""
    options = ["--cluster-enabled", "yes", "--cluster-require-full-coverage", "no"]
    with contextlib.ExitStack() as stack:
        nodes = [
            stack.enter_context(running(*options, "--cluster-node-timeout", "1000", port=_low_port()))
            for _ in range(num_nodes)
        ]
        for number, node in enumerate(nodes):
            node.client.cluster("ADDSLOTS", *_slots_of(number, num_nodes))
            node.client.cluster("MEET", "127.0.0.1", nodes[0].port)
        made = Cluster(nodes)
        assert eventually(lambda: all(_is_whole(node, num_nodes) for node in nodes)), "no cluster came to be"
        yield made


@dataclass
class WatchedPair:
    primary: RedisServer
    replica: RedisServer
    sentinel_port: int

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{self.sentinel_port}/main"


@contextlib.contextmanager
def watched_pair() -> Iterator[WatchedPair]:
    """A primary, its replica, and one sentinel that promotes the replica soon after the primary has died."""
    with running() as primary, running("--replicaof", "127.0.0.1", str(primary.port)) as replica:
        assert eventually(lambda: replica.client.info("replication")["master_link_status"] == "up")
        with _sentinel(primary.port) as port:
            with redis.Redis(port=port) as client:
                assert eventually(lambda: client.execute_command("SENTINEL", "REPLICAS", "main") != [])
            yield WatchedPair(primary, replica, port)


@contextlib.contextmanager
def _sentinel(primary_port: int) -> Iterator[int]:
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="windowkv-sentinel-") as directory:
        config = Path(directory) / "sentinel.conf"
        config.write_text(
            f"port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {primary_port} 1\n"
            "sentinel down-after-milliseconds main 200\nsentinel failover-timeout main 1000\n"
        )
        command = [server_binary(), str(config), "--sentinel"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        try:
            assert eventually(lambda: _answers(port)), "the sentinel did not start"
            yield port
        finally:
            process.terminate()
            process.wait(timeout=10)


def _answers(port: int) -> bool:
    with contextlib.suppress(redis.ConnectionError), redis.Redis(port=port) as client:
        return bool(client.ping())
    return False


def _is_whole(node: RedisServer, num_nodes: int) -> bool:
    facts = node.client.cluster("INFO")
    return facts["cluster_state"] == "ok" and int(facts["cluster_known_nodes"]) == num_nodes


def _slots_of(number: int, num_nodes: int) -> range:
    return range(NUM_SLOTS * number // num_nodes, NUM_SLOTS * (number + 1) // num_nodes)


def _low_port() -> int:
    while (port := free_port()) > _HIGHEST_PORT:
        continue
    return port
