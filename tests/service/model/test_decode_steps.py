"""Steps over static, padded memory say what the same sequences say by themselves, and touch nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
import torch
from tiny_models import ARCHITECTURES, SHAPE
from torch import Tensor

from windowkv_service.engine.tables import BlockTables, stack_up
from windowkv_service.kv.buffers import Arenas
from windowkv_service.kv.layout import KVLayout
from windowkv_service.model.attention import ATTENTION_NAME
from windowkv_service.model.decode_steps import EXACT, PADDED, Buckets, Compute, DecodeSteps
from windowkv_service.model.runner import Runner
from windowkv_service.model.step_buffers import StackShape

CPU = torch.device("cpu")
WINDOW, NUM_BLOCKS, TAIL_BLOCKS = 4, 60, 3
SIZES = [0, 9, 2]  # windows in front of each sequence's tail


@dataclass(frozen=True)
class Setting:
    """A tiny model, three sequences, and memory that is NaN wherever nobody has written, block 0 included, at which
    the padding of tables points."""

    runner: Runner
    arenas: Arenas
    layout: KVLayout
    tables: Sequence[BlockTables]

    @classmethod
    def make(cls) -> Setting:
        torch.manual_seed(0)
        model_class, config_class, _ = ARCHITECTURES["llama"]
        module = model_class(config_class(**SHAPE)).eval()
        module.set_attn_implementation(ATTENTION_NAME)
        layout = KVLayout.plan(
            range(4), [None] * 4, group_size=2, window_size=WINDOW, num_kv_heads=2, head_dim=16, itemsize=4
        )
        arenas = Arenas(layout, {2: NUM_BLOCKS}, dtype=torch.float32, device=CPU)
        arenas.tensors[2].fill_(float("nan"))
        ids = iter((1 + torch.randperm(NUM_BLOCKS - 1)).tolist())
        tables = []
        for size in SIZES:
            windows = [sorted(torch.randperm(12)[:size].tolist()) for _ in layout.groups]
            blocks = [[next(ids) for _ in range(size)] for _ in layout.groups]
            for row in blocks:
                arenas.tensors[2][row] = torch.randn(len(row), *arenas.tensors[2].shape[1:])
            tails = [[next(ids) for _ in range(TAIL_BLOCKS)] for _ in layout.groups]
            for row in tails:  # a question's tokens, at most two
                arenas.tensors[2][row[0], :, :, :2] = torch.randn(2, 2, 2, 2, 16)
            tables.append(BlockTables(layout, windows, blocks, tails, 12 * WINDOW + 1, CPU))
        return cls(Runner(module, layout, arenas, CPU), arenas, layout, tables)

    def steps(self, buckets: Buckets, hold: Callable[[Compute], Compute] | None = None) -> DecodeSteps:
        options = {} if hold is None else {"hold": hold}
        return DecodeSteps(self.runner, WINDOW, CPU, buckets, **options)

    def begin(self, steps: DecodeSteps, rows: Sequence[int], tail_length: int = 0) -> None:
        lengths = torch.tensor([tail_length + row for row in rows])
        positions = torch.tensor([self.tables[row].tail_start for row in rows]) + lengths
        steps.begin(stack_up([self.tables[row] for row in rows]), lengths + 7, positions, lengths)

    def bits(self) -> Tensor:
        """The arena, comparable where it is NaN."""
        return self.arenas.tensors[2].view(torch.int32)

    def written_slots(self, rows: Sequence[int]) -> dict[int, set[int]]:
        """By group, the slots that the sequences' tails have."""
        return {
            group.index: {
                int(slot) for row in rows for slot in self.tables[row].layers[group.index].rows[0].tail_slots
            }
            for group in self.layout.groups
        }


def generate(setting: Setting, buckets: Buckets, rows: Sequence[int], num_steps: int = 8) -> list[Tensor]:
    steps, logits = setting.steps(buckets), []
    setting.begin(steps, rows)
    for _ in range(num_steps):
        logits.append(steps.logits().clone())
        steps.feed(logits[-1].argmax(-1))
    return logits


@pytest.mark.parametrize("rows", [[0], [1], [0, 1, 2], [2, 0]])
def test_padding_changes_nothing_that_is_said(rows: list[int]) -> None:
    exact, padded = generate(Setting.make(), EXACT, rows), generate(Setting.make(), PADDED, rows)
    assert all(bool(each.isfinite().all()) for each in padded)
    for one, other in zip(exact, padded, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
        assert one.argmax(-1).tolist() == other.argmax(-1).tolist()


def test_each_says_what_it_says_alone() -> None:
    together = generate(Setting.make(), PADDED, [0, 1, 2])
    for place, row in enumerate([0, 1, 2]):
        alone = generate(Setting.make(), EXACT, [row])
        for one, other in zip(together, alone, strict=True):
            torch.testing.assert_close(one[place], other[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("buckets", [EXACT, PADDED], ids=["exact", "padded"])
def test_only_the_tails_are_written(buckets: Buckets) -> None:
    setting, rows = Setting.make(), [0, 1, 2]
    before = setting.bits().clone()
    generate(setting, buckets, rows)
    changed = (setting.bits() != before).flatten(4).any(-1).any(1).any(1).flatten().nonzero()
    allowed = set.union(*setting.written_slots(rows).values())
    written = set(changed.flatten().tolist())
    assert written <= allowed
    assert len(written) == sum(8 for _ in rows) * len(setting.layout.groups)


def test_a_bucket_is_made_once_and_taken_by_every_batch_that_fits() -> None:
    setting, made = Setting.make(), []

    def hold(compute: Compute) -> Compute:
        made.append(compute())  # as a capture does, before there is anybody in it
        return compute

    before = setting.bits().clone()
    steps = setting.steps(PADDED, hold)
    expected = Setting.make()
    for rows in ([1, 2], [0, 1], [2, 1]):
        setting.begin(steps, rows)
        if len(made) == 1 and rows == [1, 2]:
            assert torch.equal(setting.bits(), before), "holding it wrote nothing"
        said = steps.logits()
        twin = expected.steps(EXACT)
        expected.begin(twin, rows)
        torch.testing.assert_close(said, twin.logits(), rtol=1e-5, atol=1e-5)
    assert len(made) == 1
    assert made[0].shape[0] == 2
    setting.begin(steps, [0, 1, 2])
    steps.logits()
    assert [each.shape[0] for each in made] == [2, 4]


def test_no_more_buckets_are_held_than_allowed() -> None:
    setting, made = Setting.make(), []

    def hold(compute: Compute) -> Compute:
        made.append(1)
        return compute

    steps = setting.steps(Buckets(has_padding=True, max_held=1), hold)
    for rows in ([0], [1, 2], [0], [0]):
        setting.begin(steps, rows)
        steps.logits()
    assert len(made) == 3


@pytest.mark.parametrize(
    ("shape", "padded"),
    [
        ((1, 1, 1), (1, 64, 256)),
        ((3, 64, 256), (4, 64, 256)),
        ((16, 65, 257), (16, 256, 1024)),
        ((17, 257, 1), (32, 1024, 256)),
        ((49, 5000, 3), (64, 16384, 256)),
    ],
)
def test_buckets_are_few_and_never_too_small(
    shape: tuple[int, int, int], padded: tuple[int, int, int]
) -> None:
    exact = StackShape((0, 1), None, *shape)
    assert PADDED.shape(exact) == StackShape((0, 1), None, *padded)
    assert EXACT.shape(exact) == exact
