"""A Dockerfile read as far as our questions go: stages, and the instructions of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Stage:
    name: str
    base: str  # an image, or another stage's name
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, keyword: str) -> list[str]:
        return [value for name, value in self.instructions if name == keyword]


@dataclass(frozen=True)
class Dockerfile:
    stages: dict[str, Stage]
    arguments: dict[str, str]  # those before the first stage

    def lineage(self, name: str) -> list[Stage]:
        """The stage and those it is built on, itself first."""
        chain = [self.stages[name]]
        while chain[-1].base in self.stages:
            chain.append(self.stages[chain[-1].base])
        return chain

    def last(self, name: str, keyword: str) -> str | None:
        """The instruction in force at the end of a stage; None when none of its lineage has one."""
        for stage in self.lineage(name):
            if values := stage.all(keyword):
                return values[-1]
        return None

    def environment(self, name: str) -> dict[str, str]:
        lines = [line for stage in reversed(self.lineage(name)) for line in stage.all("ENV")]
        return dict(pair.split("=", 1) for line in lines for pair in line.split())


def read(path: Path) -> Dockerfile:
    stages: dict[str, Stage] = {}
    arguments: dict[str, str] = {}
    current: Stage | None = None
    for keyword, value in _instructions(path.read_text()):
        if keyword == "FROM":
            base, _, name = value.partition(" AS ")
            current = stages[name] = Stage(name, base)
        elif current is None:
            key, _, default = value.partition("=")
            arguments[key] = default
        else:
            current.instructions.append((keyword, value))
    return Dockerfile(stages, arguments)


def _instructions(text: str) -> list[tuple[str, str]]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    parts = [line.partition(" ") for line in joined.splitlines()]
    return [(keyword, value.strip()) for keyword, _, value in parts]
