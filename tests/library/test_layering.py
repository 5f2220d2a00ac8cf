"""Imports point one way: the service to the library, the library's Python to its kernels."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import poolgrad

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "pyx" / "poolgrad"

pytestmark = pytest.mark.skipif(not LIBRARY.is_dir(), reason="needs the sources")

PYTHON = sorted(LIBRARY.rglob("*.py")) + sorted(LIBRARY.rglob("*.pyi"))
CYTHON = sorted(path for end in ("*.pyx", "*.pxd", "*.pxi") for path in LIBRARY.rglob(end))
ALLOWED = {"numpy", "poolgrad"} | set(sys.stdlib_module_names)


def imported(path):
    """Top-level names that a Python file imports, wherever in the file it does."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "poolgrad" if node.level else (node.module or "").split(".")[0]


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: path.name)
def test_python_imports_only_numpy_and_itself(path):
    assert set(imported(path)) <= ALLOWED


@pytest.mark.parametrize("path", CYTHON, ids=lambda path: path.name)
def test_kernels_import_nothing_but_c(path):
    pattern = r"^\s*(?:from\s+([\w.]+)\s+c?import|c?import\s+([\w.]+))"
    found = re.findall(pattern, path.read_text(encoding="utf-8"), re.MULTILINE)
    names = {(first or second).split(".")[0] for first, second in found}
    allowed = {"cython", "libc", "libcpp", "cpython", "poolgrad", ""}
    # No kernels: they make the arrays that those write to.
    makes_arrays = path.name in ("_memory.pyx", "_quick.pyx")
    assert names <= (allowed | {"math", "numpy"} if makes_arrays else allowed)


def test_there_are_kernels():
    assert CYTHON
    assert PYTHON


def test_importing_the_library_brings_no_service():
    code = (
        "import sys, poolgrad\n"
        "foreign = {'poolgrad_service', 'fastapi', 'pydantic', 'starlette', 'torch', 'scipy'}\n"
        "print(*sorted(foreign & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == []


def test_everything_public_is_listed_and_documented():
    expected = {
        "DtypeError",
        "ParameterError",
        "Pool2D",
        "PoolgradError",
        "ShapeError",
        "adaptive_avg_pool",
        "adaptive_avg_pool_backward",
        "adaptive_max_pool",
        "adaptive_max_pool_backward",
        "argmax_to_indices",
        "avg_pool",
        "avg_pool_backward",
        "get_num_threads",
        "max_pool",
        "max_pool_backward",
        "plan",
        "set_num_threads",
    }
    assert expected <= set(poolgrad.__all__)
    assert all(getattr(poolgrad, name).__doc__ for name in expected)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("op", poolgrad.OPERATIONS)
def test_each_operation_has_its_two_functions(op, backward):
    # Positional: the arrays and what has no default. Keywords: all else, as the registry has it.
    function = getattr(poolgrad, f"{op}_backward" if backward else op)
    parameters = inspect.signature(function).parameters.values()
    hyperparameters = poolgrad.OPERATIONS[op].parameters
    needed = [name for name, d in hyperparameters.items() if d is inspect.Parameter.empty]
    found = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert found == (["dy", "x"] if backward else ["x"]) + needed
    rest = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    common = {"out": None, "num_threads": None}
    if poolgrad.OPERATIONS[op].has_argmax:
        common |= {"argmax": None} if backward else {"return_argmax": False}
    assert rest == common | {n: d for n, d in hyperparameters.items() if n not in needed}
