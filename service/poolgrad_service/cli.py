"""The command: ``poolgrad pool``, ``plan``, ``info`` and ``serve``.

Only ``serve`` needs what the service does; the others are there wherever the library is.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from inspect import Parameter
from typing import Any

import numpy as np

import poolgrad
from poolgrad import dispatch, threads
from poolgrad.errors import PoolgradError
from poolgrad_service.parameters import from_text

__all__ = ["main"]


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("poolgrad", description="Pooling, forward and backward.")
    parser.add_argument("--version", action="version", version=f"poolgrad {poolgrad.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    pool = commands.add_parser(
        "pool",
        help="pool an array in a file",
        description="Pool the array of one npy file into another.",
    )
    pools = pool.add_subparsers(dest="op", required=True, metavar="operation")
    plan = commands.add_parser(
        "plan",
        help="check a pooling and explain it, without data",
        description="Check a pooling and tell its shapes, padding and memory.",
    )
    plans = plan.add_subparsers(dest="op", required=True, metavar="operation")
    for operation in poolgrad.OPERATIONS.values():
        one = pools.add_parser(operation.name, help=operation.summary)
        one.add_argument("input", help="npy file of x")
        one.add_argument("output", help="npy file to write")
        one.add_argument("--url", help="have a service do it, as http://127.0.0.1:8000")
        _add_hyperparameters(one, operation)
        one = plans.add_parser(operation.name, help=operation.summary)
        one.add_argument("shape", help="shape of x, as 1,7,7,1")
        one.add_argument("--dtype", default="float32", help="dtype of x (default: float32)")
        _add_hyperparameters(one, operation)

    commands.add_parser("info", help="show versions, the kernels' build and the threads")
    serve = commands.add_parser(
        "serve", help="run the web service", argument_default=argparse.SUPPRESS
    )
    if "serve" in arguments[:1]:
        _add_settings(serve)
    return parser


def _add_hyperparameters(parser: argparse.ArgumentParser, operation: poolgrad.Operation) -> None:
    """Add a flag for each, and a short one for the first of each letter."""
    letters = {"h"}
    for name, default in operation.parameters.items():
        flags = ["--" + name.replace("_", "-")]
        if default in (True, False) and type(default) is bool:
            parser.add_argument(
                *flags, dest=name, action=argparse.BooleanOptionalAction, default=default
            )
            continue
        if name[0] not in letters:
            letters.add(name[0])
            flags.insert(0, f"-{name[0]}")
        required = default is Parameter.empty
        parser.add_argument(
            *flags,
            dest=name,
            type=_value,
            required=required,
            default=None if required else default,
            metavar="VALUE",
            help="as 3 or 3,2 or 1:0,0:1" if name == "padding" else None,
        )


def _value(text: str) -> Any:
    """Return a hyperparameter, with tuples as the library has them."""
    value = from_text(text)
    if isinstance(value, list):
        return tuple(tuple(item) if isinstance(item, list) else item for item in value)
    return value


def _add_settings(parser: argparse.ArgumentParser) -> None:
    from poolgrad_service.settings import PREFIX, Settings

    parser.description = (
        "Run the web service. Each flag can also be given in the environment, as "
        f"{PREFIX}<NAME>; a flag wins."
    )
    for name, field in Settings.model_fields.items():
        shown = "" if field.default_factory else f" (default: {field.default!r})"
        words = f"{field.description or name}{shown}".replace("%", "%%")
        flag = "--" + name.replace("_", "-")
        if field.annotation is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, help=words)
        else:
            # The text goes to pydantic, so flags and variables are judged by the same words.
            parser.add_argument(flag, metavar="VALUE", help=words)


def _info() -> str:
    """Return what a report of a problem should tell."""
    runnable = ", ".join(build.name for build in dispatch.runnable())
    isa, number = (
        os.environ.get(name, "not set") for name in ("POOLGRAD_ISA", "POOLGRAD_NUM_THREADS")
    )
    return "\n".join(
        [
            f"poolgrad {poolgrad.__version__}, numpy {np.__version__}, "
            f"{platform.python_implementation()} {platform.python_version()}, "
            f"{platform.system()} {platform.machine()}",
            f"kernels: {dispatch.active().name} (runnable: {runnable}; POOLGRAD_ISA {isa})",
            f"threads: {poolgrad.get_num_threads()} (usable CPUs: {threads.usable_cpus()}; "
            f"POOLGRAD_NUM_THREADS {number})",
        ]
    )


def _pool(op: str, source: str, target: str, url: str | None, hyperparameters: Any) -> None:
    try:
        x = np.load(source, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{source}: {error}") from None
    if url is None:
        y = getattr(poolgrad, op)(x, **hyperparameters)
    else:
        from poolgrad_service.client import Client

        with Client(url) as client:
            y = getattr(client, op)(x, **hyperparameters)
    with open(target, "wb") as file:  # by its name, `numpy.save` would add an ending
        np.save(file, y)


def _serve(given: dict[str, Any]) -> int:
    from poolgrad_service.app import create_app
    from poolgrad_service.server import run
    from poolgrad_service.settings import SettingsError, load

    try:
        settings = load(**given)
    except SettingsError as error:
        print(f"poolgrad serve: {error}", file=sys.stderr)
        return 2
    return run(create_app(settings), settings)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        What follows the command's name; by default the process's own.

    Returns
    -------
    int
        The exit status: 0; 1 if the work could not be done; 2 for a bad flag or setting.
    """
    words = sys.argv[1:] if arguments is None else arguments
    command = "poolgrad"
    try:
        given = vars(_parser(words).parse_args(words))
        command = f"poolgrad {given.pop('command')}"
        if command == "poolgrad serve":
            return _serve(given)
        if command == "poolgrad info":
            print(_info())
        elif command == "poolgrad plan":
            op, shape, dtype = given.pop("op"), _value(given.pop("shape")), given.pop("dtype")
            print(poolgrad.plan(op, shape, dtype, **given).explain())
        else:
            op, source, target = given.pop("op"), given.pop("input"), given.pop("output")
            _pool(op, source, target, given.pop("url"), given)
    except ModuleNotFoundError as error:
        extra = "service" if "serve" in words[:1] else "client"
        print(
            f'{command}: {error.name} is missing: pip install "poolgrad[{extra}]"',
            file=sys.stderr,
        )
        return 1
    except (PoolgradError, OSError, ValueError) as error:
        print(f"{command}: {error}", file=sys.stderr)
        return 1
    return 0
