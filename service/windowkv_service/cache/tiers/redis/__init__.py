"""The Redis tier: shared by all workers, outlives them, optional. servers.py is the only door to redis-py."""

from windowkv_service.cache.tiers.redis.tier import RedisTier

__all__ = ["RedisTier"]
