"""The Redis tier: shared by all workers, outlives them, optional. this package is the only door to
redis-py."""

from windowkv_service.cache.tiers.redis.tier import RedisTier

__all__ = ["RedisTier"]
