"""A method as the service knows it: who chooses windows at prefill, and whether a question chooses again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from windowkv_client import Codec, Retention, Selection

CHOOSING = (Selection.AUTO, Selection.QUESTION, Selection.FULL)  # an answer's windows may not be the entry's
OURS = "windowkv"
FULL = "full"
BLIND = ("random", "streamingllm")  # choices that look at nothing; the second is sink and recent tokens


@dataclass(frozen=True)
class Method:
    """selector: its name on the wire. selection: which windows an answer reads; None: the method's own way. codec: how
    blocks are written below the device, and so which numbers an answer reads."""

    selector: str
    selection: Selection | None = None
    codec: Codec = Codec.EXACT

    @classmethod
    def parse(cls, text: str) -> Method:
        """`windowkv`, with a codec as in `windowkv+int8`, or a control such as `windowkv@full`: the same cache,
        answered with that selection.

        Raises ValueError where the selection is none that an answer can have, or the codec none that a cache can have.
        """
        rest, _, selection = text.partition("@")
        selector, _, codec = rest.partition("+")
        known = [str(each) for each in Selection if each is not Selection.AUTO]
        if selection and selection not in known:
            raise ValueError(f"{text}: after the @ goes one of {', '.join(known)}")
        if codec and codec not in list(Codec):
            raise ValueError(f"{text}: after the + goes one of {', '.join(Codec)}")
        return cls(
            selector,
            Selection(selection) if selection else None,
            Codec(codec or Codec.EXACT),
        )

    @property
    def name(self) -> str:
        codec = "" if self.codec is Codec.EXACT else f"+{self.codec}"
        selection = "" if self.selection is None else f"@{self.selection}"
        return f"{self.selector}{codec}{selection}"

    @property
    def is_full(self) -> bool:
        """Drops nothing, whatever the kept ratio."""
        return self.selector == FULL

    @property
    def selects(self) -> Selection:
        """Ours lets the question choose its windows wherever it stands, Quest does too; all others chose at prefill."""
        if self.selection is not None:
            return self.selection
        if self.selector == OURS:
            return Selection.AUTO
        return Selection.QUESTION if self.selector == "quest" else Selection.PUBLISHED

    @property
    def retains(self) -> Retention:
        """Only where an answer may read other windows are they kept below, and leader keys charged for."""
        return Retention.FULL if self.selects in CHOOSING else Retention.SELECTED


def with_references(methods: Sequence[Method]) -> list[Method]:
    """The full cache before them and the blind choices behind them, so that no table stands without either."""
    return list(dict.fromkeys([Method(FULL), *methods, *map(Method, BLIND)]))
