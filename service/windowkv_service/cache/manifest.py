"""An entry's lasting part as the bytes of a MANIFEST frame, and back.

What comes back was read from a place that others can write to: every number is checked before it is used, and
the identity is derived again from the tokens.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate, chain
from math import isfinite
from operator import sub

from google.protobuf.message import DecodeError

from windowkv.storage.v1 import manifest_pb2 as pb
from windowkv_service.cache.entry import Entry, Windows
from windowkv_service.cache.frame import Frame, FrameCorrupt, FrameKind
from windowkv_service.domain.codec import Codec
from windowkv_service.domain.kept_tokens import KeptTokens, Lanes
from windowkv_service.domain.keys import TOKEN_ARRAY, Namespace
from windowkv_service.domain.requests import Compression, Durability, Retention, Task
from windowkv_service.errors import BadBudget

_MAX_GROUPS = 4096
_MAX_PIECES = 1 << 20


def write(entry: Entry) -> Frame:
    """The frame to store once everything that the entry speaks of is stored. The entry is located."""
    message = pb.Manifest(
        cache_id=entry.cache_id,
        tenant=entry.tenant,
        token_ids=entry.token_ids,
        compression=_compression_message(entry.compression),
        window_size=entry.window_size,
        windows=map(_runs, entry.windows),
        retained=map(_runs, entry.retained),
        kept_tokens=[_tokens_message(group, lanes) for group, lanes in sorted(entry.tokens.items())],
        profile_digest=entry.profile_digest,
        index_parts=[pb.IndexPart(leader=leader, num_pieces=pieces) for leader, pieces in entry.index_pieces],
        fidelity=entry.fidelity,
        full_bytes=entry.full_bytes,
        stored_bytes=entry.stored_bytes,
        index_bytes=entry.index_bytes,
        create_time=entry.create_time,
        update_time=entry.update_time,
        expire_time=entry.expire_time,
        display_name=entry.display_name,
        labels=entry.labels,
        alias=entry.alias,
        pinned=entry.pinned,
        durability=entry.durability.value,
        is_named=entry.is_named,
    )
    return Frame.of(FrameKind.MANIFEST, entry.manifest_address, message.SerializeToString(deterministic=True))


def read(frame: Frame, namespace: Namespace, num_lanes: Sequence[int]) -> Entry:
    """The entry, located, on Redis and nowhere else. FrameCorrupt for a message that makes no sense here: of
    another prompt than its name says, another model's groups, windows or tokens that the prompt does not have.
    num_lanes: per layer group of the model."""
    try:
        message = pb.Manifest.FromString(bytes(frame.payload))
        compression = _compression(message.compression)
        durability = Durability(message.durability)
    except (DecodeError, ValueError, BadBudget) as error:
        raise FrameCorrupt(f"not a manifest: {type(error).__name__}") from None
    _check(message, compression, frame, namespace, len(num_lanes))
    num_windows = -(-len(message.token_ids) // message.window_size)
    tokens = _tokens(message, num_lanes)
    num_blocks = num_windows * len(num_lanes)  # groups whose strips share blocks: the first of them holds all
    windows, retained = _windows(message.windows, num_blocks), _windows(message.retained, num_windows)
    if any(
        set(kept) - set(stored)
        for group, (kept, stored) in enumerate(zip(windows, retained, strict=True))
        if group not in tokens
    ):
        raise FrameCorrupt("windows that were not retained")
    _check_strips(windows, tokens, message.window_size)
    entry = Entry(
        cache_id=message.cache_id,
        tenant=message.tenant,
        token_ids=message.token_ids,  # type: ignore[arg-type]  # made an array by Entry
        compression=compression,
        window_size=message.window_size,
        windows=windows,
        retained=retained,
        tokens=tokens,
        create_time=message.create_time,
        update_time=message.update_time,
        expire_time=message.expire_time,
        is_named=message.is_named,
        display_name=message.display_name,
        labels=dict(message.labels),
        alias=message.alias,
        pinned=message.pinned,
        durability=durability,
        fidelity=message.fidelity,
        full_bytes=message.full_bytes,
        stored_bytes=message.stored_bytes,
        index_bytes=message.index_bytes,
        profile_digest=message.profile_digest,
        index_pieces=tuple((part.leader, part.num_pieces) for part in message.index_parts),
        on_redis=True,
    )
    entry.locate(namespace)
    return entry


def _check(
    message: pb.Manifest, compression: Compression, frame: Frame, namespace: Namespace, num_groups: int
) -> None:
    if not message.token_ids or not message.window_size:
        raise FrameCorrupt("a manifest without tokens or windows")
    if namespace.cache_id(message.token_ids, compression) != message.cache_id:
        raise FrameCorrupt("the manifest's name is not its prompt's")
    if namespace.manifest(message.cache_id) != frame.address:
        raise FrameCorrupt("the manifest is another cache's")
    if not len(message.windows) == len(message.retained) == num_groups <= _MAX_GROUPS:
        raise FrameCorrupt("another number of layer groups")
    if not all(
        map(isfinite, (message.create_time, message.update_time, message.expire_time, message.fidelity))
    ):
        raise FrameCorrupt("a time that never comes")
    if sum(part.num_pieces for part in message.index_parts) > _MAX_PIECES:
        raise FrameCorrupt("an index of too many pieces")


def _runs(windows: Sequence[int]) -> pb.WindowSet:
    runs = pb.WindowSet()
    for window in windows:
        if runs.starts and window == runs.starts[-1] + runs.lengths[-1]:
            runs.lengths[-1] += 1
        else:
            runs.starts.append(window)
            runs.lengths.append(1)
    return runs


def _windows(sets: Iterable[pb.WindowSet], num_windows: int) -> Windows:
    return tuple(_expanded(runs, num_windows) for runs in sets)


def _expanded(runs: pb.WindowSet, num_windows: int) -> tuple[int, ...]:
    """Ascending, within the prompt: checked before a run is expanded."""
    windows: list[int] = []
    end = 0
    if len(runs.starts) != len(runs.lengths):
        raise FrameCorrupt("runs of windows without a length")
    for start, length in zip(runs.starts, runs.lengths, strict=True):
        if start < end or length < 1 or start + length > num_windows:
            raise FrameCorrupt("windows that the prompt does not have")
        end = start + length
        windows += range(start, end)
    return tuple(windows)


def _tokens_message(group: int, lanes: Lanes) -> pb.KeptTokens:
    """Protobuf stores small numbers in few bytes: distances instead of positions."""
    gaps = (map(sub, lane, chain([0], lane)) for lane in lanes)
    return pb.KeptTokens(group=group, lanes=[pb.Lane(gaps=each) for each in gaps])


def _tokens(message: pb.Manifest, num_lanes: Sequence[int]) -> KeptTokens:
    """Ascending, within the prompt, one list for each lane that the model has."""
    tokens = {}
    for kept in message.kept_tokens:
        if kept.group >= len(num_lanes) or len(kept.lanes) != num_lanes[kept.group] or kept.group in tokens:
            raise FrameCorrupt("tokens of lanes that the model does not have")
        tokens[kept.group] = tuple(_positions(lane.gaps, len(message.token_ids)) for lane in kept.lanes)
    return tokens


def _positions(gaps: Sequence[int], num_tokens: int) -> array[int]:
    if not gaps or not all(gaps[1:]) or sum(gaps) >= num_tokens:
        raise FrameCorrupt("tokens that the prompt does not have")
    return array(TOKEN_ARRAY, accumulate(gaps))


def _check_strips(windows: Windows, tokens: KeptTokens, window_size: int) -> None:
    """Groups with as many lanes share blocks, which the first of them holds, and have as many as their tokens fill."""
    num_strips: Counter[int] = Counter()
    homes: dict[int, int] = {}
    for group, lanes in sorted(tokens.items()):
        homes.setdefault(len(lanes), group)
        num_strips[len(lanes)] += sum(-(-len(lane) // window_size) for lane in lanes)
    for group, lanes in tokens.items():
        is_home = homes[len(lanes)] == group
        num_blocks = -(-num_strips[len(lanes)] // len(lanes)) if is_home else 0
        if windows[group] != tuple(range(num_blocks)):
            raise FrameCorrupt("another number of blocks than the tokens fill")


def _compression_message(compression: Compression) -> pb.Compression:
    return pb.Compression(
        method=compression.method,
        kept_ratio=compression.kept_ratio,
        task=compression.task.value,
        retention=compression.retention.value,
        min_fidelity=compression.min_fidelity,
        codec=compression.codec.tag.decode("ascii"),
    )


def _compression(message: pb.Compression) -> Compression:
    return Compression(
        message.method,
        message.kept_ratio,
        Task(message.task),
        Retention(message.retention),
        message.min_fidelity if message.HasField("min_fidelity") else None,
        Codec.of_tag(message.codec.encode("ascii", "replace")),
    )
