"""The environments that the peers run in: made once, and again where a requirement changes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from importlib.metadata import version
from pathlib import Path
from typing import Final

from benchmarks.service.contenders import REQUIREMENTS

__all__ = ["FOLDER", "ROOT", "interpreter", "versions"]

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / ".venv-peers"
#: What the wheel that the peers pool with depends on.
_SOURCES: Final = (ROOT / "setup.py", *sorted((ROOT / "pyx/poolgrad").glob("*.p*")))


def interpreter(environment: str | None) -> str | None:
    """Return the interpreter of an environment, made if need be; None if that is not possible."""
    if environment is None:
        return sys.executable
    wheel, stamp = _wheel(), FOLDER / environment / "installed"
    python = FOLDER / environment / "bin" / "python"
    wanted = "\n".join([sys.version, *REQUIREMENTS[environment], wheel.parent.name])
    if stamp.exists() and stamp.read_text() == wanted:
        return str(python)
    print(f"installing {', '.join(REQUIREMENTS[environment])}", file=sys.stderr)
    venv.create(FOLDER / environment, clear=True, with_pip=True)
    try:
        _pip(str(python), "install", *REQUIREMENTS[environment], str(wheel))
    except subprocess.CalledProcessError:
        return None
    stamp.write_text(wanted)
    return str(python)


def versions(environment: str | None) -> list[str]:
    """Return what an environment's requirements are, as in ``kserve==0.21.0``."""
    return list(REQUIREMENTS[environment]) if environment else [f"poolgrad=={version('poolgrad')}"]


def _wheel() -> Path:
    """Return this library's wheel, in a folder that is named by what it was built from."""
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in _SOURCES)).hexdigest()
    folder = FOLDER / "wheels" / digest[:16]
    if not list(folder.glob("*.whl")):
        print("building the library's wheel", file=sys.stderr)
        _pip(sys.executable, "wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT))
    (wheel,) = folder.glob("*.whl")
    return wheel


def _pip(python: str, *arguments: str) -> None:
    environment = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    subprocess.run([python, "-m", "pip", *arguments, "--quiet"], env=environment, check=True)
