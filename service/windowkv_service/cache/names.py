"""What caches are called: identities, aliases, and the names that were in use until a moment ago."""

from __future__ import annotations

from collections import OrderedDict

from windowkv_service.cache.entry import Entry
from windowkv_service.errors import BadName, CacheExpired, CacheNotFound

_REMEMBERED = 10_000


class Names:
    """An alias points to one entry of its tenant; giving it to another entry repoints it."""

    def __init__(self) -> None:
        self._aliases: dict[tuple[str, str], Entry] = {}
        self._expired: OrderedDict[tuple[str, str], None] = OrderedDict()  # (tenant, name), oldest first

    def give(self, entry: Entry, alias: str) -> None:
        """Let alias ("" for none) be the entry's only one."""
        self.take(entry)
        if not alias:
            return
        previous = self._aliases.get((entry.tenant, alias))
        if previous is not None:
            previous.alias = ""
        self._aliases[entry.tenant, alias] = entry
        self._expired.pop((entry.tenant, f"aliases/{alias}"), None)
        entry.alias = alias

    def reclaim(self, entry: Entry, alias: str) -> None:
        """Give, unless the alias is held by an entry that was changed later: records below may be old."""
        holder = self.holder(entry.tenant, alias)
        if holder is None or holder.update_time <= entry.update_time:
            self.give(entry, alias)

    def take(self, entry: Entry) -> None:
        if self._aliases.get((entry.tenant, entry.alias)) is entry:
            del self._aliases[entry.tenant, entry.alias]
        entry.alias = ""

    def holder(self, tenant: str, alias: str) -> Entry | None:
        return self._aliases.get((tenant, alias))

    def remember_expired(self, entry: Entry) -> None:
        """Its owner, who asks for it by a name it had, is told that it expired."""
        names = [entry.name] + ([f"aliases/{entry.alias}"] if entry.alias else [])
        for name in names:
            self._expired[entry.tenant, name] = None
            self._expired.move_to_end((entry.tenant, name))
        while len(self._expired) > _REMEMBERED:
            self._expired.popitem(last=False)

    def forget_expired(self, entry: Entry) -> None:
        """It is there again."""
        self._expired.pop((entry.tenant, entry.name), None)

    def refusal(self, tenant: str, name: str) -> CacheNotFound:
        """Unknown and foreign names are answered alike."""
        if (tenant, name) in self._expired:
            return CacheExpired(f"{name} has expired", field="name")
        return CacheNotFound(f"there is no {name}", field="name")

    def check_integrity(self, entries: set[Entry]) -> None:
        for (tenant, alias), entry in self._aliases.items():
            assert entry in entries, f"alias {alias} points to an entry that left"
            assert (entry.tenant, entry.alias) == (tenant, alias), f"alias {alias} and its entry disagree"
        assert sum(1 for entry in entries if entry.alias) == len(self._aliases), "an alias is not on record"


def parse(name: str) -> tuple[str, str]:
    """("caches" | "aliases", what follows)."""
    kind, _, rest = name.partition("/")
    if kind not in ("caches", "aliases") or not rest or "/" in rest or len(rest) > 256:
        raise BadName(f"a cache is named caches/{{id}} or aliases/{{alias}}, not {name[:64]!r}", field="name")
    return kind, rest
