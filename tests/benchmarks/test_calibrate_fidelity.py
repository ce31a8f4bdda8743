"""Calibration of fidelity: every question through a worker, at every ratio and with every promise."""

from __future__ import annotations

from calibrate_fidelity import Trials
from offline.development import draw
from running_service import running

from windowkv_client import Client


def test_every_question_is_put_to_every_ratio_and_promise() -> None:
    (drawn,) = draw(["single"], 1, 2, [250])
    with running(model="builtin", device_tier_bytes=1 << 24) as service, Client(service.target) as client:
        answered = list(Trials([0.3, 0.2], [0.5, 1.0], None).of(client, 7, drawn))
        assert list(client.caches.list()) == []
    assert [(each.kept_ratio, each.min_fidelity) for each in answered] == 2 * [
        (1.0, None),
        (0.3, None),
        (0.2, None),
        (0.2, 0.5),
        (0.2, 1.0),
    ]
    assert {each.place for each in answered} == {(7, 0), (7, 1)}
    for each in answered:
        assert each.fidelity >= (each.min_fidelity or 0.0)
        assert each.is_full == (each.kept_ratio == 1.0)
        assert each.device_ratio > 0.99 if each.fidelity == 1.0 else each.device_ratio < 0.99
    assert all(each.score == 1.0 for each in answered if each.is_full or each.min_fidelity == 1.0)
