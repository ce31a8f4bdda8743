"""Where a Redis is, from one URL.

    redis://[user:password@]host[:port][/db][?option=value]                   one server
    rediss://...                                                              the same over TLS
    unix://[user:password@]/path/to/socket[?db=0]                             one server on this machine
    redis+sentinel://[user:password@]host:port[,host:port...]/service[/db]    the primary that Sentinel names
    redis+cluster://[user:password@]host:port[,host:port...]                  a cluster
    rediss+sentinel://, rediss+cluster://                                     the same over TLS

User names and passwords are percent-encoded. Options of the first three forms are redis-py's (ssl_ca_certs,
ssl_certfile, ssl_keyfile, ssl_check_hostname, ...); the other forms take those ssl_ options, and Sentinel
also sentinel_username and sentinel_password where the sentinels have users of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

DEFAULT_PORT = 6379
DEFAULT_SENTINEL_PORT = 26379
_TLS_OPTIONS = (
    "ssl_ca_certs",
    "ssl_ca_path",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_check_hostname",
    "ssl_cert_reqs",
)
_SENTINEL_OPTIONS = ("sentinel_username", "sentinel_password")


class Topology(Enum):
    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


@dataclass(frozen=True)
class RedisTarget:
    """A parsed URL. url is set for a single server only: redis-py reads those itself."""

    topology: Topology
    url: str = ""
    hosts: tuple[tuple[str, int], ...] = ()
    service: str = ""
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    is_tls: bool = False
    options: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @property
    def credentials(self) -> dict[str, str]:
        named = {"username": self.username, "password": self.password}
        return {name: value for name, value in named.items() if value is not None}


def parse(url: str) -> RedisTarget:
    """ValueError says what is wrong, without repeating the password."""
    parts = urlsplit(url)
    if parts.scheme in ("redis", "rediss", "unix"):
        return RedisTarget(Topology.SINGLE, url=url)
    if parts.scheme not in ("redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"):
        raise ValueError(f"not a Redis URL: scheme {parts.scheme!r}")
    tls, _, form = parts.scheme.partition("+")
    return _sentinel(parts, tls == "rediss") if form == "sentinel" else _cluster(parts, tls == "rediss")


def _sentinel(parts: SplitResult, is_tls: bool) -> RedisTarget:
    service, _, db = parts.path.strip("/").partition("/")
    if not service or not (db or "0").isdigit():
        raise ValueError("a Sentinel URL ends in /service or /service/db")
    username, password, hosts = _authority(parts, DEFAULT_SENTINEL_PORT)
    options = _options(parts, _TLS_OPTIONS + _SENTINEL_OPTIONS)
    return RedisTarget(
        Topology.SENTINEL, "", hosts, unquote(service), int(db or 0), username, password, is_tls, options
    )


def _cluster(parts: SplitResult, is_tls: bool) -> RedisTarget:
    if parts.path.strip("/") not in ("", "0"):
        raise ValueError("a cluster has no databases")
    username, password, hosts = _authority(parts, DEFAULT_PORT)
    return RedisTarget(
        Topology.CLUSTER, "", hosts, "", 0, username, password, is_tls, _options(parts, _TLS_OPTIONS)
    )


def _authority(parts: SplitResult, port: int) -> tuple[str | None, str | None, tuple[tuple[str, int], ...]]:
    user, at, hosts = parts.netloc.rpartition("@")
    name, colon, password = user.partition(":")
    username = unquote(name) if at and name else None
    places = tuple(_host(host, port) for host in hosts.split(","))
    return username, unquote(password) if colon else None, places


def _host(text: str, default_port: int) -> tuple[str, int]:
    place = urlsplit(f"//{text}")
    if not place.hostname:
        raise ValueError("a host is missing in the Redis URL")
    return place.hostname, place.port or default_port


def _options(parts: SplitResult, allowed: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    options = tuple(parse_qsl(parts.query, keep_blank_values=True))
    for name, _ in options:
        if name not in allowed:
            raise ValueError(f"unknown option {name!r} in the Redis URL")
    return options
