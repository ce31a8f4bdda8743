"""Ways in which a worker loses what it holds above Redis; to be asked between two of its steps."""

from __future__ import annotations

from windowkv_service.cache.tiers.host import HostTier
from windowkv_service.engine.resources import Resources


def forget_the_device(resources: Resources) -> None:
    """What nobody holds is gone from there too."""
    for entry in resources.store.entries():
        resources.store.evict(entry)
        for pool in resources.device.pools.values():
            for address in entry.addresses:
                pool.forget(address)


def forget_the_host(resources: Resources) -> None:
    host = resources.tiers[0]
    assert isinstance(host, HostTier)
    host.clear()


def forget_all_but_the_books(resources: Resources) -> None:
    """Above Redis nothing is left of any entry but its record."""
    forget_the_device(resources)
    forget_the_host(resources)


def forget_everything(resources: Resources) -> None:
    """All but Redis is as after a restart."""
    forget_the_device(resources)
    for entry in list(resources.store.entries()):
        resources.store.drop(entry)
    forget_the_host(resources)
