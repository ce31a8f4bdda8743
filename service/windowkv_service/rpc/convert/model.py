"""ModelService: the model and its worker, domain → wire; and the check that a request means this model."""

from __future__ import annotations

from windowkv.v1 import model_pb2
from windowkv_service.domain.results import EngineStatus, ModelInfo
from windowkv_service.errors import ModelMismatch
from windowkv_service.rpc.convert.enums import CODEC, TIER, TIER_HEALTH
from windowkv_service.rpc.convert.times import to_duration


def check_model(model: str, served: ModelInfo, field: str = "model") -> None:
    """Nothing, or the served model's name or digest, else ModelMismatch."""
    if model and model not in (served.name, served.digest):
        raise ModelMismatch(f"this worker serves {served.name!r}", field=field)


def to_wire_model(model: ModelInfo) -> model_pb2.Model:
    return model_pb2.Model(
        name=model.name,
        digest=model.digest,
        architecture=model.architecture,
        vocab_size=model.vocab_size,
        max_tokens=model.max_tokens,
        num_layers=model.num_layers,
        num_kv_heads=model.num_kv_heads,
        head_dim=model.head_dim,
        window_size=model.window_size,
        dtype=model.dtype,
        kv_bytes_per_token=model.kv_bytes_per_token,
        methods=model.methods,
        default_codec=CODEC.to_wire(model.default_codec),
    )


def to_wire_status(status: EngineStatus) -> model_pb2.WorkerStatus:
    return model_pb2.WorkerStatus(
        is_ready=status.is_ready,
        is_draining=status.is_draining,
        heartbeat_age=to_duration(status.heartbeat_age_s),
        running_count=status.num_running,
        waiting_count=status.num_waiting,
        tiers=[
            model_pb2.TierStatus(
                tier=TIER.to_wire(tier.tier),
                health=TIER_HEALTH.to_wire(tier.health),
                capacity_bytes=tier.capacity_bytes,
                used_bytes=tier.used_bytes,
            )
            for tier in status.tiers
        ],
    )
