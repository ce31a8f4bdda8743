"""The command line against a real gRPC server: what it prints, for people and for machines, and how it ends."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from windowkv_client import CacheFull, Client, InternalError
from windowkv_client.cli import main
from windowkv_client.testing import InProcessServer

QUESTION = "Who?"


@pytest.fixture
def document(tmp_path: Path) -> str:
    path = tmp_path / "document.txt"
    path.write_text("Nobody knows. " * 50)
    return str(path)


@pytest.fixture(autouse=True)
def _target(server: InProcessServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINDOWKV_TARGET", server.target)


def last_json(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_cache_is_made_shown_changed_listed_and_forgotten(
    document: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [
        "--ttl",
        "1h",
        "--name",
        "doc",
        "--label",
        "kind=test",
        "--alias",
        "doc",
        "--kept-ratio",
        "0.25",
    ]
    assert main(["cache", "create", document, "--json", *options]) == 0
    made = last_json(capsys)
    assert (made["display_name"], made["alias"], made["labels"]) == ("doc", "doc", {"kind": "test"})
    assert main(["cache", "get", "aliases/doc", "--json"]) == 0
    assert last_json(capsys)["name"] == made["name"]
    assert main(["cache", "update", made["name"], "--pinned", "--ttl", "2h", "--json"]) == 0
    assert last_json(capsys)["pinned"] is True
    assert main(["cache", "list", "--label", "kind=test", "--json"]) == 0
    assert [each["name"] for each in last_json(capsys)] == [made["name"]]
    assert main(["cache", "delete", made["name"], "--json"]) == 0
    assert last_json(capsys) == {made["name"]: {"confirmed": ["device"], "unreachable": []}}
    assert main(["cache", "list", "--json"]) == 0
    assert last_json(capsys) == []


def test_people_get_tables(document: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "create", document, "--name", "a [bold] name"]) == 0
    shown = capsys.readouterr().out
    assert "a [bold] name" in shown
    assert "700, 80 kept" in shown
    assert main(["cache", "list"]) == 0
    assert "caches/" in capsys.readouterr().out


def test_a_document_may_come_from_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("naïve".encode())))
    assert main(["cache", "create", "-", "--json"]) == 0
    assert last_json(capsys)["token_count"] == 6


def test_a_document_is_asked_and_the_answer_streams(
    document: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ask", "--document", document, QUESTION, QUESTION]) == 0
    printed = capsys.readouterr()
    assert printed.out == "Ada, naïvely.\nAda, naïvely.\n"
    assert "read 700 of 700 cached tokens" in printed.err


def test_a_cache_is_asked_for_machines(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    cache = client.caches.create("a document")
    assert main(["ask", "--cache", cache.name, QUESTION, "--max-tokens", "3", "--json"]) == 0
    (answer,) = last_json(capsys)
    assert (answer["answer"], answer["finish_reason"], answer["cache"]) == ("Ada", "length", cache.name)
    assert answer["usage"]["cached_tokens"] == cache.token_count


def test_health_ends_well_only_when_it_is(
    server: InProcessServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["health"]) == 0
    assert "copying" in capsys.readouterr().out
    server.set_serving(False)
    assert main(["health", "--json"]) == 1
    assert last_json(capsys)["is_serving"] is False


def test_an_error_is_one_line_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "get", "caches/" + "0" * 40]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("windowkv: CACHE_NOT_FOUND (name): ")
    assert len(printed.err.splitlines()) == 1


def test_machines_get_the_error_too(document: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "create", document, "--kept-ratio", "7", "--json"]) == 1
    error = last_json(capsys)["error"]
    assert (error["reason"], error["status"]) == ("BAD_BUDGET", "INVALID_ARGUMENT")
    assert error["field"] == "cache.compression.kept_ratio"


def test_a_fault_of_the_service_names_the_request(
    server: InProcessServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.fail_next(InternalError("it broke"), method="ListCaches")
    assert main(["cache", "list"]) == 1
    assert "[request " in capsys.readouterr().err


def test_no_room_is_told_when_waiting_would_take_too_long(
    server: InProcessServer, document: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server.fail_next(CacheFull("no room", retry_after_s=500.0), method="CreateCache")
    assert main(["cache", "create", document]) == 1
    assert "CACHE_FULL: no room" in capsys.readouterr().err


def test_nobody_there_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["health", "--target", "127.0.0.1:1", "--timeout", "5"]) == 1
    assert capsys.readouterr().err.startswith("windowkv: UNAVAILABLE: ")


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["cache"],
        ["frobnicate"],
        ["cache", "create"],
        ["cache", "list", "--lable", "a=b"],
        ["cache", "list", "--label", "nonsense"],
        ["ask", QUESTION],
        ["size"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_ends_with_2(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(command)
    assert raised.value.code == 2
    assert "usage: windowkv" in capsys.readouterr().err


def test_a_missing_file_and_bytes_that_are_no_text_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cache", "create", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    assert main(["cache", "create", str(tmp_path / "bytes")]) == 2
    assert "not UTF-8" in capsys.readouterr().err


def test_a_ttl_that_cannot_be_read_is_told(document: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "create", document, "--ttl", "soon"]) == 1
    assert "BAD_TTL" in capsys.readouterr().err


def test_sizes_are_told_for_people_and_machines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = {"num_hidden_layers": 4, "num_attention_heads": 4, "hidden_size": 64, "torch_dtype": "float16"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    asked = ["size", "--model", str(tmp_path), "--tokens", "100", "--batch", "2"]
    assert main(asked) == 0
    assert "4 × 2 × 4 × 16 × 2 = 1024 B" in capsys.readouterr().out
    assert main([*asked, "--json", "--kept-ratio", "0.5"]) == 0
    sizes = last_json(capsys)
    assert (sizes["full_bytes"], sizes["device_bytes"]) == (204_800, 102_400)


def test_serve_passes_its_flags_to_the_worker(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["serve", "--help"])
    assert raised.value.code == 0
    shown = capsys.readouterr().out
    assert all(flag in shown for flag in ("--listen", "--model", "--redis", "--metrics-port"))


def test_ctrl_c_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("windowkv_client._client.Client.health", interrupted)
    assert main(["health"]) == 130
