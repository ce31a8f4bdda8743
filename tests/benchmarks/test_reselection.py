"""The cost of choosing anew: measured on a worker, tabled as ratios."""

from cached_documents import untrained_builtin
from reselection import EVERY, STREAMS, measure, table
from running_service import running
from serving import Case

from windowkv_client import Client


def test_every_way_is_measured_as_often(tmp_path):
    model = untrained_builtin(tmp_path)
    with (
        running(model=str(model.directory), device_tier_bytes=1 << 24) as worker,
        Client(worker.target) as client,
    ):
        seconds = measure(client, Case.draw(1, 150), 3, 0.5, 2)
    assert {key: len(rounds) for key, rounds in seconds.items()} == {
        (streams, every): 2 for streams in STREAMS for every in EVERY
    }


def test_ratios_are_of_medians():
    seconds = {(n, every): [every + 1.0, every + 2.0, 100.0] for n in STREAMS for every in EVERY}
    rows = table(seconds).splitlines()[2:]
    assert rows[0] == "| never | 1.00 | 1.00 |"
    assert rows[-1] == "| after every 1 | 1.50 | 1.50 |"
