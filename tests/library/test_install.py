"""The wheel, built from the sdist, and the checkout install into a fresh environment and pool."""

import os
import platform
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from poolgrad import dispatch

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="needs the checkout"),
]

# What is built, cached or unrelated; the rest is what a fresh clone would hold.
LEFT_OUT = shutil.ignore_patterns(
    ".*",
    "*.so",
    "*.c",
    "*.cpp",
    "*.html",
    "*.pyd",
    "build",
    "dist",
    "*.egg-info",
    "__pycache__",
    "output",
)

SCRIPT = """
import sys
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
import numpy as np
import poolgrad as pg

root = Path(sys.argv[1])
assert Path(pg.__file__).is_relative_to(root), pg.__file__
assert version("poolgrad") == pg.__version__
names = {item.name for item in files("poolgrad").iterdir()}
assert "py.typed" in names, names
x = np.arange(16, dtype="float32").reshape(1, 4, 4, 1)
assert pg.max_pool(x, 2).ravel().tolist() == [5, 7, 13, 15]
assert pg.avg_pool(x, 2).ravel().tolist() == [2.5, 4.5, 10.5, 12.5]
dx = pg.max_pool_backward(np.ones((1, 2, 2, 1), "float32"), x, 2)
assert np.flatnonzero(dx).tolist() == [5, 7, 13, 15]
foreign = {"fastapi", "pydantic", "torch"} & set(sys.modules)
assert not foreign, foreign
print("pooled")
"""


def run(*command, cwd, builds=""):
    # A PYTHONPATH to the checkout would hide what was, or was not, installed.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment | {"POOLGRAD_BUILDS": builds},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Copy the checkout, because building in it would leave files behind."""
    target = tmp_path_factory.mktemp("sources") / "poolgrad"
    shutil.copytree(ROOT, target, ignore=LEFT_OUT)
    return target


@pytest.fixture(scope="module")
def distributions(sources, tmp_path_factory):
    """Build an sdist from the copy, and a wheel from the sdist."""
    target = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", target, sources, cwd=target)
    (wheel,) = target.glob("*.whl")
    (sdist,) = target.glob("*.tar.gz")
    return {"wheel": [wheel], "sdist": [sdist], "editable": ["--editable", sources]}


@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_it_installs_and_pools(kind, distributions, tmp_path):
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    # The wheel has all builds of the kernels; to compile one is enough for the checkout.
    command = (python, "-m", "pip", "install", "--quiet", *distributions[kind])
    run(*command, cwd=tmp_path, builds="baseline")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    root = distributions["editable"][-1] if kind == "editable" else environment
    assert run(python, "-W", "error", script, root, cwd=tmp_path).split() == ["pooled"]


def test_the_wheel_has_every_build_and_no_source(distributions):
    with zipfile.ZipFile(*distributions["wheel"]) as archive:
        names = archive.namelist()
    builds = dispatch.BUILDS if platform.machine() in ("x86_64", "AMD64") else dispatch.BUILDS[-1:]
    for build in builds:
        for dtype in ("float32", "float64"):
            assert [n for n in names if n.startswith(f"poolgrad/_{dtype}_{build.name}.")], names
    assert [n for n in names if n.startswith("poolgrad_service/_json.") and n.endswith(".so")], (
        names
    )
    assert not [n for n in names if n.endswith((".c", ".cpp", ".html", ".pyx", ".pxi"))]


def test_the_sdist_holds_the_sources(distributions):
    with tarfile.open(*distributions["sdist"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "setup.py", "LICENSE", "pyx/poolgrad/py.typed"} <= names
    kernels = [*ROOT.glob("pyx/poolgrad/*.pxi"), *ROOT.glob("pyx/poolgrad/*.pyx")]
    assert "_kernels.pxi" in {path.name for path in kernels}
    assert {path.relative_to(ROOT).as_posix() for path in kernels} <= names
    assert "service/poolgrad_service/_json.pyx" in names
    assert not [name for name in names if name.endswith((".c", ".cpp", ".so", ".html"))]
