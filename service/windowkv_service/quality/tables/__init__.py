"""Results as Markdown."""

from __future__ import annotations

from windowkv_service.quality.tables.page import insert, render

__all__ = ["insert", "render"]
