"""PromQL, parsed by a real parser: which series an expression reads, and with which labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import promql_parser


@dataclass(frozen=True)
class Selected:
    name: str
    labels: dict[str, str]  # matcher's label → its value or pattern


def selected(expression: str) -> list[Selected]:
    """Every series that the expression reads. ValueError when it is not PromQL."""
    return [
        Selected(node.name, {matcher.name: matcher.value for matcher in node.matchers.matchers})
        for node in _nodes(promql_parser.parse(expression))
        if isinstance(node, promql_parser.VectorSelector)
    ]


def _nodes(node: Any) -> Iterator[Any]:
    yield node
    for name in ("expr", "lhs", "rhs", "param", "vector_selector"):
        if (child := getattr(node, name, None)) is not None:
            yield from _nodes(child)
    for child in getattr(node, "args", None) or ():
        yield from _nodes(child)
