"""The worker's settings, and the only place that reads the environment (WINDOWKV_*).

Flags of `windowkv serve` win over the environment. Measured facts (how many blocks fit, what the model is) are
results of starting, not settings.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB = 1 << 20
DEVELOPMENT_SECRET = "windowkv-development-secret"  # a deployment sets its own


class Settings(BaseSettings):
    """Everything an operator chooses. Sizes in bytes, durations in seconds."""

    model_config = SettingsConfigDict(env_prefix="WINDOWKV_", frozen=True, extra="forbid")

    listen: str = Field(
        "127.0.0.1:50051", description="HOST:PORT or unix:PATH to serve gRPC on; port 0 picks a free one"
    )
    model: str = Field(
        "builtin", description="'builtin' or a directory with a Hugging Face model and its tokenizer"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where the model runs")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="of weights and KV")
    num_threads: int = Field(0, ge=0, description="torch threads; 0 leaves torch's own choice")

    redis_url: str | None = Field(
        None, description="redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://"
    )
    window_size: int = Field(16, ge=1, le=256, description="tokens per window, and so per block")
    group_size: int | None = Field(
        None, ge=1, description="layers per storage group; default: a quarter of the layers, at most 8"
    )
    device_tier_bytes: int = Field(
        512 * MIB,
        ge=1,
        description="KV blocks on the device; leader keys may take a quarter of it beside them",
    )
    host_tier_bytes: int = Field(2048 * MIB, ge=1, description="KV frames in host memory")
    codec: Literal["exact", "int8", "fp8", "int4"] = Field(
        "exact", description="how blocks are written below the device where a cache's creation does not say"
    )

    default_ttl_s: float = Field(
        3600.0, gt=0, description="how long a cache lives when its creation does not say"
    )
    max_ttl_s: float = Field(30 * 86400.0, gt=0, description="the longest life a caller may ask for")
    chunk_tokens: int = Field(
        512, ge=16, description="prompt tokens per prefill step; decode steps run in between"
    )
    max_running: int = Field(32, ge=1, description="sequences decoding at the same time")
    max_waiting: int = Field(256, ge=1, description="requests that may wait before new ones are refused")
    load_budget_s: float = Field(
        2.0, gt=0, description="longest wait for a lower tier before computing instead"
    )
    poison_blocks: bool = Field(
        False, description="debugging: fill every block with NaN before it is used again"
    )
    drain_s: float = Field(30.0, ge=0, description="how long running requests may finish after SIGTERM")

    secret: SecretStr = Field(
        SecretStr(DEVELOPMENT_SECRET), description="root of every tenant's address secret"
    )
    tokens_file: Path | None = Field(
        None, description="JSON object of bearer token to tenant; without it, one open tenant"
    )
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    tls_client_ca_file: Path | None = Field(None, description="require client certificates signed by these")
    reflection: bool = True

    metrics_listen: str = Field("", description="HOST:PORT for Prometheus; empty is off")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"

    @field_validator("redis_url")
    @classmethod
    def _empty_is_none(cls, value: str | None) -> str | None:
        return value or None

    @property
    def has_development_secret(self) -> bool:
        return self.secret.get_secret_value() == DEVELOPMENT_SECRET

    def tokens(self) -> dict[str, str]:
        """Bearer tokens and their tenants; empty when the service is open."""
        if self.tokens_file is None:
            return {}
        tokens = json.loads(self.tokens_file.read_text())
        if not isinstance(tokens, dict) or not all(
            isinstance(tenant, str) and tenant for tenant in tokens.values()
        ):
            raise ValueError(f"{self.tokens_file}: a JSON object of token to tenant is expected")
        return tokens
