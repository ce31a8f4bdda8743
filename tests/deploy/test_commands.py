"""Every command line in the deployment is one that the real command line understands."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from typing import Any

import dockerfile
import pytest
import yaml
from deployment import COMPOSE_FILE, DEPLOY, DOCKERFILE, KUBERNETES, compose

from windowkv_client import cli
from windowkv_service import __main__ as worker


def of_the_images() -> Iterator[list[str]]:
    file = dockerfile.read(DOCKERFILE)
    for target in ("server-cpu", "server-gpu"):
        yield json.loads(file.last(target, "ENTRYPOINT") or "") + json.loads(file.last(target, "CMD") or "")
        yield json.loads((file.last(target, "HEALTHCHECK") or "").partition("CMD ")[2])


def of_compose() -> Iterator[list[str]]:
    (flags,) = re.findall(r'HEALTH_FLAGS="([^"]*)"', COMPOSE_FILE.read_text())
    for service in compose()["services"].values():
        kind, *words = service["healthcheck"]["test"]
        if kind == "CMD-SHELL":
            yield shlex.split(words[0].replace("${HEALTH_FLAGS:-}", ""))
            yield shlex.split(words[0].replace("${HEALTH_FLAGS:-}", flags))


def of_kubernetes() -> Iterator[list[str]]:
    for path in sorted(KUBERNETES.rglob("deployment.yaml")):
        (container,) = yaml.safe_load(path.read_text())["spec"]["template"]["spec"]["containers"]
        if "args" in container:
            yield ["windowkv", *container["args"]]
        yield from (probe["exec"]["command"] for probe in container.values() if has_command(probe))


def has_command(value: Any) -> bool:
    return isinstance(value, dict) and "exec" in value


COMMANDS = {
    " ".join(command): command
    for source in (of_the_images, of_compose, of_kubernetes)
    for command in source()
}


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_is_understood(line: str) -> None:
    program, *arguments = COMMANDS[line]
    assert program == "windowkv"
    parsed = cli._parse(arguments)
    worker.parser().parse_args(parsed.rest)


def test_starting_and_asking_for_health_are_both_among_them() -> None:
    assert {command[1] for command in COMMANDS.values()} == {"serve", "health"}


def test_commands_named_in_the_readme_exist() -> None:
    named = set(re.findall(r"`windowkv (\w+)", (DEPLOY / "README.md").read_text()))
    (commands,) = (action.choices for action in cli._parser()._actions if action.nargs == "A...")
    assert named <= set(commands)
