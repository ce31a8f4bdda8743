"""Results as pictures. matplotlib comes with the bench extra and is loaded when a picture is drawn."""

from __future__ import annotations

from windowkv_service.quality.plots.curves import draw_curves
from windowkv_service.quality.plots.heat_maps import draw_heat_maps

__all__ = ["draw_curves", "draw_heat_maps"]
