"""The only place that knows every room: builds the parts from the settings and hands each what it needs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

import torch

from windowkv_service.cache.block_pool import BlockPool
from windowkv_service.cache.entry import Arena
from windowkv_service.cache.store import PrefixStore
from windowkv_service.cache.tiers.host import HostTier
from windowkv_service.cache.tiers.redis import RedisTier
from windowkv_service.cache.transfers import Transfers
from windowkv_service.config import Settings
from windowkv_service.domain.codec import Codec
from windowkv_service.domain.results import ModelInfo
from windowkv_service.engine.device import DeviceTier
from windowkv_service.engine.engine import Engine
from windowkv_service.engine.mailbox import Inbox
from windowkv_service.engine.resources import Limits, Resources
from windowkv_service.kv.buffers import Arenas
from windowkv_service.kv.copies import copies_of
from windowkv_service.kv.snapshot import dtype_name
from windowkv_service.model.loader import LoadedModel, ModelOptions, load
from windowkv_service.model.runner import Runner
from windowkv_service.rpc.server import Server, ServerSettings
from windowkv_service.rpc.tls import TlsFiles
from windowkv_service.selection import QuestionProfile, load_profile, question_profiles, selectors
from windowkv_service.telemetry import Metrics, get_logger

log = get_logger(__name__)
Clock = Callable[[], float]
# On a GPU fewer blocks are as quickly read by each sequence as by a launch more; a processor has one way for both.
MIN_SHARED_BLOCKS = 32
MAX_READERS = 4  # threads that verify frames: a few are as quick as a GPU takes them in


@dataclass(frozen=True)
class Service:
    """A worker, assembled and not yet started."""

    engine: Engine
    server: Server
    metrics: Metrics
    needs_warm_up: bool  # its first request would wait for compilers


def assemble(settings: Settings, clock: Clock = time.time) -> Service:
    """Load the model and build everything around it. Raises UnsupportedModel with the reason."""
    if settings.num_threads:
        torch.set_num_threads(settings.num_threads)
    metrics = Metrics()
    resources, inbox = build_resources(settings, metrics, clock)
    engine = Engine(resources, inbox)
    server = Server(engine, resources.model.tokenizer, _server_settings(settings), metrics.grpc)
    metrics.describe_build(version("windowkv"), str(resources.model.device))
    metrics.describe_model(resources.info)
    if settings.has_development_secret:
        log.warning(
            "development secret in use", advice="set WINDOWKV_SECRET where tenants must not guess addresses"
        )
    return Service(engine, server, metrics, needs_warm_up=resources.model.device.type == "cuda")


def build_resources(
    settings: Settings, metrics: Metrics, clock: Clock = time.time
) -> tuple[Resources, Inbox]:
    """The engine's parts. The inbox comes along: transfers wake the worker through it."""
    options = ModelOptions(
        settings.model, settings.device, settings.dtype, settings.window_size, settings.group_size
    )
    model = load(options)
    num_blocks = Arenas.blocks_that_fit(model.layout, settings.device_tier_bytes)
    arenas = Arenas(model.layout, num_blocks, dtype=model.dtype, device=model.device)
    pools: dict[Arena, BlockPool] = {arena: BlockPool(count) for arena, count in num_blocks.items()}
    inbox, profile = Inbox(), _profile(model)
    events = metrics.tiers
    max_pending_bytes = settings.host_tier_bytes // 4
    # As much as host memory keeps, and what is on its way to it.
    copies = copies_of(model.device, settings.host_tier_bytes + max_pending_bytes)
    host = HostTier(settings.host_tier_bytes, events=events, memory=copies.take)
    redis = None
    if settings.redis_url is not None:
        redis = RedisTier(settings.redis_url, load_budget_s=settings.load_budget_s, events=events)
    transfers = Transfers(
        host,
        redis,
        max_pending_bytes=max_pending_bytes,
        num_threads=min(MAX_READERS, max(2, os.cpu_count() or 0)),
        wake=inbox.wake,
        events=events,
    )
    methods = selectors(profile)
    resources = Resources(
        model=model,
        info=_info(model, tuple(methods), Codec(settings.codec)),
        runner=Runner(model.module, model.layout, arenas, model.device),
        copies=copies,
        device=DeviceTier(arenas, pools, clock, is_poisoned=settings.poison_blocks),
        store=PrefixStore(clock, pools, events=events),
        transfers=transfers,
        selectors=methods,
        profiles=question_profiles(profile, model.layout),
        metrics=metrics,
        limits=_limits(settings),
        secret=settings.secret.get_secret_value().encode(),
        tiers=[host] if redis is None else [host, redis],
        clock=clock,
        min_shared=MIN_SHARED_BLOCKS if model.device.type == "cuda" else None,
        runs_ahead=model.device.type == "cuda",
    )
    return resources, inbox


def _profile(model: LoadedModel) -> QuestionProfile | None:
    """Calibrated leaders where the model's directory has them, else by rule; none where nothing is selectable."""
    if not model.layout.selectable_groups:
        return None
    return load_profile(model.directory, model.layout)


def _info(model: LoadedModel, methods: tuple[str, ...], default_codec: Codec) -> ModelInfo:
    return ModelInfo(
        name=model.name,
        digest=model.digest.hex(),
        architecture=model.architecture,
        vocab_size=model.vocab_size,
        max_tokens=model.max_tokens,
        num_layers=model.num_layers,
        num_kv_heads=model.layout.num_kv_heads,
        head_dim=model.layout.head_dim,
        window_size=model.layout.window_size,
        dtype=dtype_name(model.dtype),
        kv_bytes_per_token=model.layout.bytes_per_token,
        methods=methods,
        default_codec=default_codec,
    )


def _limits(settings: Settings) -> Limits:
    return Limits(
        chunk_tokens=settings.chunk_tokens,
        max_running=settings.max_running,
        max_waiting=settings.max_waiting,
        load_budget_s=settings.load_budget_s,
        default_ttl_s=settings.default_ttl_s,
        max_ttl_s=settings.max_ttl_s,
    )


def _server_settings(settings: Settings) -> ServerSettings:
    tls = None
    if settings.tls_cert_file is not None and settings.tls_key_file is not None:
        tls = TlsFiles(settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file)
    return ServerSettings(
        listen=settings.listen, tls=tls, tokens=settings.tokens(), has_reflection=settings.reflection
    )
