"""decode_attention against a softmax written out in fp64, on shapes that hurt and blocks full of NaN."""

import math

import pytest
import torch

from windowkv_kernels import decode_attention

SHAPES = [  # B, H, Hkv, D, ω, kept tokens, m
    (1, 1, 1, 16, 16, 1, 1),
    (1, 4, 2, 64, 16, 15, 1),
    (2, 8, 1, 96, 16, 16, 1),
    (3, 4, 4, 16, 16, 17, 2),
    (5, 8, 1, 16, 8, 101, 3),
    (2, 6, 3, 16, 1, 13, 1),
    (1, 4, 2, 16, 7, 601, 5),
    (4, 16, 2, 64, 32, 64, 1),
]


class Case:
    """Random sequences of different lengths over one pool; whatever no query may see is NaN."""

    def __init__(self, shape, dtype=torch.float32, num_layers=3, poison=math.nan):
        batch, heads, kv_heads, dim, window_size, num_kept, length = shape
        generator = torch.Generator().manual_seed(0)
        num_blocks = -(-(num_kept + length) // window_size) + 1  # one empty block at the end of each table
        pool = batch * num_blocks + 2
        self.blocks = torch.full((pool, num_layers, 2, window_size, kv_heads, dim), poison, dtype=dtype)
        self.place = num_layers - 1
        self.block_table = torch.randperm(pool, generator=generator)[: batch * num_blocks].view(
            batch, num_blocks
        )
        self.key_positions = torch.full((batch, num_blocks * window_size), -1)
        self.query_positions = torch.empty(batch, length, dtype=torch.int64)
        self.queries = torch.randn(batch, heads, length, dim, generator=generator).to(dtype)
        self.scale = dim**-0.5
        for b in range(batch):
            count = max(1, num_kept - 3 * b) + length
            gaps = torch.randint(1, 9, (count,), generator=generator)  # positions of a compressed cache jump
            positions = gaps.cumsum(0)
            self.key_positions[b, :count] = positions
            self.query_positions[b] = positions[-length:]
            for slot in range(count):
                block = int(self.block_table[b, slot // window_size])
                kv = torch.randn(2, kv_heads, dim, generator=generator).to(dtype)
                self.blocks[block, self.place, :, slot % window_size] = kv

    def run(self, **options):
        names = ("queries", "blocks", "place", "block_table", "key_positions", "query_positions", "scale")
        return decode_attention(**({name: getattr(self, name) for name in names} | options))

    def expected(self, sliding_window=None, softcap=None, sinks=None):
        batch, heads, length, dim = self.queries.shape
        window_size, kv_heads = self.blocks.shape[3:5]
        out = torch.zeros(batch, heads, length, dim, dtype=torch.float64)
        for b in range(batch):
            kv = self.blocks[self.block_table[b], self.place].double()  # [NB, 2, ω, Hkv, D]
            for i in range(length):
                position = int(self.query_positions[b, i])
                low = -1 if sliding_window is None else max(-1, position - sliding_window)
                slots = [s for s, p in enumerate(self.key_positions[b].tolist()) if low < p <= position]
                for head in range(heads if slots else 0):
                    rows = [kv[s // window_size, :, s % window_size, head * kv_heads // heads] for s in slots]
                    keys, values = torch.stack(rows).unbind(1)
                    logits = keys @ self.queries[b, head, i].double() * self.scale
                    if softcap is not None:
                        logits = softcap * torch.tanh(logits / softcap)
                    if sinks is not None:
                        logits = torch.cat([logits, sinks[head : head + 1].double()])
                    out[b, head, i] = logits.softmax(0)[: len(slots)] @ values
        return out


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("sliding_window", [None, 1, 40])
def test_output_is_the_softmax_over_the_visible_slots(shape, sliding_window):
    case = Case(shape)
    got = case.run(sliding_window=sliding_window)
    assert got.shape == case.queries.shape
    assert got.dtype == case.queries.dtype
    torch.testing.assert_close(got.double(), case.expected(sliding_window), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("has_sinks", [False, True])
def test_soft_cap_and_sinks_change_the_softmax_as_written(shape, softcap, has_sinks):
    case = Case(shape)
    sinks = torch.linspace(-3, 8, shape[1]) if has_sinks else None
    got = case.run(softcap=softcap, sinks=sinks)
    torch.testing.assert_close(got.double(), case.expected(None, softcap, sinks), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 3e-3)])
def test_short_dtypes_stay_within_their_rounding(shape, dtype, tolerance):
    case = Case(shape, dtype)
    for options in ({}, {"softcap": 30.0}):
        got = case.run(**options)
        assert got.dtype == dtype
        torch.testing.assert_close(got.double(), case.expected(**options), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("options", [{}, {"softcap": 5.0}, {"sinks": torch.zeros(4)}], ids=str)
@pytest.mark.parametrize("length", [1, 3])
def test_a_query_that_sees_nothing_gives_zeros(options, length):
    case = Case((2, 4, 2, 16, 8, 20, length))
    case.key_positions[1] = -1
    got = case.run(**options)
    assert bool((got[1] == 0).all())
    assert bool(torch.isfinite(got[0]).all())
    assert bool((got[0] != 0).any())


@pytest.mark.parametrize("options", [{}, {"softcap": 5.0}, {"sliding_window": 30}], ids=str)
def test_what_invisible_slots_hold_does_not_matter(options):
    shape = (3, 4, 2, 16, 8, 50, 2)
    nan, zero = Case(shape), Case(shape, poison=0.0)
    future = nan.key_positions[0].max() + 5
    for case in (nan, zero):  # slots that are reserved for tokens to come carry their positions already
        case.key_positions[0, -8:] = future + torch.arange(8)
    assert torch.equal(nan.run(**options), zero.run(**options))


def test_padding_the_table_does_not_change_the_output_beyond_rounding():
    case = Case((1, 4, 2, 16, 8, 50, 1))
    alone = case.run()
    case.block_table = torch.cat([case.block_table, torch.zeros(1, 9, dtype=torch.int64)], dim=1)
    case.key_positions = torch.cat([case.key_positions, torch.full((1, 72), -1)], dim=1)
    torch.testing.assert_close(case.run(), alone, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("options", [{}, {"sliding_window": 50}, {"softcap": 5.0}], ids=str)
def test_sequences_of_very_different_length_share_a_batch(options):
    """So different that the table's padding would cost more than running one after the other."""
    case = Case((1, 4, 2, 16, 8, 4400, 1))
    short = Case((1, 4, 2, 16, 8, 20, 1), poison=0.0)
    width = case.block_table.shape[1]
    table = torch.zeros(3, width, dtype=torch.int64)
    positions = torch.full((3, width * 8), -1)
    table[0], positions[0] = case.block_table[0], case.key_positions[0]
    size = short.block_table.shape[1]
    table[1, :size] = short.block_table[0] + case.blocks.shape[0]
    positions[1, : size * 8] = short.key_positions[0]  # the third sees nothing
    expected = [case.expected(**options), short.expected(**options), torch.zeros(1, 4, 1, 16)]
    case.blocks = torch.cat([case.blocks, short.blocks])
    case.block_table, case.key_positions = table, positions
    case.queries = torch.cat([case.queries, short.queries, short.queries])
    case.query_positions = torch.cat([case.query_positions, short.query_positions, short.query_positions])
    got = case.run(**options)
    torch.testing.assert_close(got.double(), torch.cat(expected).double(), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"place": 3},
        {"queries": torch.zeros(2, 3, 1, 16)},
        {"queries": torch.zeros(2, 4, 1, 8)},
        {"queries": torch.zeros(2, 4, 1, 16, dtype=torch.float16)},
        {"block_table": torch.zeros(1, 4, dtype=torch.int64)},
        {"block_table": torch.zeros(2, 0, dtype=torch.int64)},
        {"key_positions": torch.zeros(2, 3, dtype=torch.int64)},
        {"query_positions": torch.zeros(2, 2, dtype=torch.int64)},
        {"sinks": torch.zeros(3)},
    ],
    ids=str,
)
def test_wrong_arguments_are_refused(change):
    with pytest.raises(ValueError):
        Case((2, 4, 2, 16, 8, 20, 1)).run(**change)
