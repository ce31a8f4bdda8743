"""Writes the stubs of every .proto beside it, or into another folder. `make proto` runs this.

Messages come from protoc, gRPC stubs from grpcio-tools, types of both from mypy-protobuf. The version of
grpcio-tools is pinned in pyproject.toml to the oldest that users may have: runtimes take stubs that are older
than they are, not newer ones.
"""

from __future__ import annotations

import argparse
import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
PLUGINS = ("mypy", "mypy_grpc")


def generate(out: Path) -> list[Path]:
    """Generate every .proto under ROOT into `out`, by its package's path; answers the files written."""
    sources = sorted(path.relative_to(ROOT) for path in ROOT.glob("windowkv/**/*.proto"))
    plugins = [
        f"--plugin=protoc-gen-{name}={Path(sys.executable).parent / f'protoc-gen-{name}'}" for name in PLUGINS
    ]
    outs = [f"--{kind}_out={out}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    includes = [f"-I{ROOT}", f"-I{files('grpc_tools') / '_proto'}"]
    if protoc.main(["protoc", *includes, *plugins, *outs, *map(str, sources)]):
        raise SystemExit("protoc failed")
    return [path for source in sources for path in _stubs(out, source)]


def _stubs(out: Path, source: Path) -> list[Path]:
    """What `source` becomes. A proto without services gets no gRPC stubs: the empty ones are taken away."""
    kinds = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")
    messages, message_types, *grpc_stubs = [out / source.with_name(source.stem + kind) for kind in kinds]
    if "\nservice " in (ROOT / source).read_text():
        return [messages, message_types, *grpc_stubs]
    for path in grpc_stubs:
        path.unlink(missing_ok=True)
    return [messages, message_types]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT, help="folder that holds windowkv/ (default: beside the protos)"
    )
    generate(parser.parse_args().out)


if __name__ == "__main__":
    main()
