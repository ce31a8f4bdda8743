"""An entry's lasting part, and back; and what is refused on the way back."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence

import pytest
from entries import NAMESPACE, NUM_GROUPS, entry
from hypothesis import given
from hypothesis import strategies as st

from windowkv.storage.v1 import manifest_pb2 as pb
from windowkv_service.cache import manifest
from windowkv_service.cache.entry import Entry
from windowkv_service.cache.frame import Frame, FrameCorrupt, FrameKind
from windowkv_service.domain.codec import Codec
from windowkv_service.domain.keys import TOKEN_ARRAY, Namespace
from windowkv_service.domain.requests import Durability, Retention

NUM_LANES = 2
WRITTEN_BEFORE_CODECS = bytes.fromhex(
    "0a2833303566313734333862316465333432333662633034663335363964636230323135663233366364120674656e616e741a0600"
    "0102030405221f0a0877696e646f776b7611000000000000e03f1a046175746f220466756c6c280432060a01001201023206"
    "0a01001201023a060a01001201023a060a010012010251000000000000f03f710000000080842e41790000000080842e4181"
    "0100000000a0a02e41aa0106646576696365b00101"
)

LASTING = (
    *("cache_id", "tenant", "token_ids", "compression", "window_size", "windows", "retained", "create_time"),
    *("expire_time", "is_named", "update_time", "display_name", "labels", "alias", "pinned", "durability"),
    *("fidelity", "full_bytes", "stored_bytes", "index_bytes", "profile_digest", "index_pieces"),
    *("manifest_address", "block_addresses", "strip_addresses", "index_addresses", "tokens"),
)


def rich() -> Entry:
    return entry(
        range(100, 130),
        kept=[0, 1, 2, 5, 7],
        is_named=False,
        update_time=1_000_001.5,
        display_name="Ein Dokument ✓",
        labels={"team": "a", "": "empty"},
        alias="latest",
        pinned=True,
        durability=Durability.REDIS,
        fidelity=0.93,
        full_bytes=1 << 40,
        stored_bytes=1 << 33,
        index_bytes=77,
        profile_digest=b"\0\xffprofile",
        index_pieces=((0, 2), (3, 1)),
    )


def reread(frame: Frame, namespace: Namespace = NAMESPACE, num_groups: int = NUM_GROUPS) -> Entry:
    return manifest.read(frame, namespace, [NUM_LANES] * num_groups)


def same(one: Entry, other: Entry) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in LASTING)


def test_a_promised_fidelity_comes_back_and_is_part_of_the_name() -> None:
    plain, promised = entry(range(30)), entry(range(30), min_fidelity=0.9)
    assert reread(manifest.write(promised)).compression == promised.compression
    assert plain.cache_id != promised.cache_id


@pytest.mark.parametrize("codec", Codec)
def test_the_codec_comes_back(codec: Codec) -> None:
    made = entry(range(30), codec=codec)
    assert same(reread(manifest.write(made)), made)


def test_what_was_written_before_there_were_codecs_is_read_as_exact() -> None:
    before = entry(range(6))
    frame = Frame.of(FrameKind.MANIFEST, before.manifest_address, WRITTEN_BEFORE_CODECS)
    assert same(reread(frame), before)
    assert bytes(manifest.write(before).payload) == WRITTEN_BEFORE_CODECS, "and by those who know of none"


def test_an_entry_comes_back_as_it_was_written() -> None:
    assert same(reread(manifest.write(rich())), rich())


def test_it_comes_back_as_one_that_is_on_redis_and_nowhere_else() -> None:
    back = reread(manifest.write(rich()))
    assert (back.is_resident, back.on_host, back.on_redis, back.pins, back.hit_count) == (
        False,
        False,
        True,
        0,
        0,
    )


def test_the_same_entry_is_written_as_the_same_bytes() -> None:
    assert manifest.write(rich()) == manifest.write(rich())


@given(num_tokens=st.integers(1, 60), data=st.data())
def test_any_set_of_windows_survives(num_tokens: int, data: st.DataObject) -> None:
    windows = st.sets(st.integers(0, (num_tokens - 1) // 4))
    made = entry(range(num_tokens), kept=sorted(data.draw(windows)), retention=Retention.SELECTED)
    assert same(reread(manifest.write(made)), made)


def in_tokens(
    retention: Retention = Retention.SELECTED, lanes: Sequence[Sequence[int]] = ((0, 7, 29), (5,))
) -> Entry:
    """The first group keeps tokens, the second windows."""
    num_strips = sum(-(-len(lane) // 4) for lane in lanes)
    made = entry(range(30), retention=retention)
    made.windows = (tuple(range(-(-num_strips // NUM_LANES))), made.windows[1])
    made.retained = made.retained if retention is Retention.FULL else ((), made.windows[1])
    made.tokens = {0: tuple(array(TOKEN_ARRAY, lane) for lane in lanes)}
    made.locate(NAMESPACE)
    return made


lanes = st.lists(st.sets(st.integers(0, 29), min_size=1).map(sorted), min_size=NUM_LANES, max_size=NUM_LANES)


@given(lanes, st.sampled_from(Retention))
def test_any_tokens_survive(lanes: list[list[int]], retention: Retention) -> None:
    made = in_tokens(retention, lanes)
    assert same(reread(manifest.write(made)), made)
    assert made.strip_addresses and not set(made.strip_addresses) & set(made.block_addresses[0].values())


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.kept_tokens[0].lanes.pop(),
        lambda m: m.kept_tokens[0].lanes[0].gaps.append(1),
        lambda m: m.kept_tokens[0].lanes[0].gaps.insert(1, 0),
        lambda m: m.kept_tokens[0].lanes[1].ClearField("gaps"),
        lambda m: m.kept_tokens[0].lanes[1].gaps.extend([1] * 20),
        lambda m: m.kept_tokens.append(m.kept_tokens[0]),
        lambda m: setattr(m.kept_tokens[0], "group", 2),
        lambda m: set_windows(m, [0], [2]),
        lambda m: m.windows[0].Clear(),
        lambda m: m.ClearField("kept_tokens"),
    ],
)
def test_tokens_that_make_no_sense_are_refused(change: Callable[[pb.Manifest], None]) -> None:
    with pytest.raises(FrameCorrupt):
        reread(tampered(change, in_tokens()))


def tampered(change: Callable[[pb.Manifest], None], made: Entry | None = None) -> Frame:
    """What somebody who can write to Redis could have put there, checksum and all."""
    frame = manifest.write(made or rich())
    message = pb.Manifest.FromString(bytes(frame.payload))
    change(message)
    return Frame.of(FrameKind.MANIFEST, frame.address, message.SerializeToString())


def set_windows(message: pb.Manifest, starts: list[int], lengths: list[int]) -> None:
    message.windows[0].CopyFrom(pb.WindowSet(starts=starts, lengths=lengths))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.token_ids.append(5),
        lambda m: m.ClearField("token_ids"),
        lambda m: setattr(m, "cache_id", "0" * 40),
        lambda m: setattr(m, "window_size", 0),
        lambda m: setattr(m.compression, "kept_ratio", 0.25),
        lambda m: setattr(m.compression, "kept_ratio", float("nan")),
        lambda m: setattr(m.compression, "task", "guess"),
        lambda m: setattr(m.compression, "retention", ""),
        lambda m: setattr(m.compression, "codec", "int3"),
        lambda m: setattr(m.compression, "codec", "exact"),
        lambda m: setattr(m.compression, "codec", "int8"),
        lambda m: setattr(m, "durability", "eternal"),
        lambda m: setattr(m, "expire_time", float("nan")),
        lambda m: setattr(m, "expire_time", float("inf")),
        lambda m: m.windows.add(),
        lambda m: m.retained.pop(),
        lambda m: m.index_parts.add(leader=1, num_pieces=0xFFFFFFFF),
        lambda m: set_windows(m, [0], [0xFFFFFFFF]),
        lambda m: set_windows(m, [0xFFFFFFFF], [1]),
        lambda m: set_windows(m, [8], [1]),
        lambda m: set_windows(m, [3, 1], [1, 1]),
        lambda m: set_windows(m, [0, 1], [2, 1]),
        lambda m: set_windows(m, [0], [0]),
        lambda m: set_windows(m, [0, 4], [1]),
        lambda m: m.retained[0].CopyFrom(pb.WindowSet(starts=[0], lengths=[1])),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(change: Callable[[pb.Manifest], None]) -> None:
    with pytest.raises(FrameCorrupt):
        reread(tampered(change))


def test_an_untampered_one_is_not_refused() -> None:
    assert same(reread(tampered(lambda _: None)), rich())


@pytest.mark.parametrize("payload", [b"\xff", b"not protobuf at all", b""])
def test_bytes_that_are_no_manifest_are_refused(payload: bytes) -> None:
    with pytest.raises(FrameCorrupt):
        reread(Frame.of(FrameKind.MANIFEST, rich().manifest_address, payload))


def test_a_manifest_under_another_caches_address_is_refused() -> None:
    frame = manifest.write(rich())
    with pytest.raises(FrameCorrupt, match="another cache"):
        reread(Frame.of(FrameKind.MANIFEST, bytes(32), bytes(frame.payload)))


@pytest.mark.parametrize(
    "namespace", [Namespace(b"other model", NAMESPACE.secret), Namespace(NAMESPACE.digest, b"other tenant")]
)
def test_another_models_or_tenants_manifest_is_refused(namespace: Namespace) -> None:
    with pytest.raises(FrameCorrupt):
        reread(manifest.write(rich()), namespace)


def test_another_number_of_groups_is_refused() -> None:
    with pytest.raises(FrameCorrupt, match="groups"):
        reread(manifest.write(rich()), num_groups=3)
