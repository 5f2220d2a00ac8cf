"""The command: ``poolgrad serve`` and ``poolgrad info``."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence

import numpy

import poolgrad
from poolgrad import dispatch, threads
from poolgrad_service.app import create_app
from poolgrad_service.server import run
from poolgrad_service.settings import PREFIX, Settings, SettingsError, load

__all__ = ["main"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("poolgrad", description="Pooling, forward and backward.")
    parser.add_argument("--version", action="version", version=f"poolgrad {poolgrad.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    serve = commands.add_parser(
        "serve",
        help="run the web service",
        description="Run the web service. Each flag can also be given in the environment, as "
        f"{PREFIX}<NAME>; a flag wins.",
        argument_default=argparse.SUPPRESS,
    )
    for name, field in Settings.model_fields.items():
        shown = "" if field.default_factory else f" (default: {field.default!r})"
        words = f"{field.description or name}{shown}".replace("%", "%%")
        flag = "--" + name.replace("_", "-")
        if field.annotation is bool:
            serve.add_argument(flag, action=argparse.BooleanOptionalAction, help=words)
        else:
            # The text goes to pydantic, so flags and variables are judged by the same words.
            serve.add_argument(flag, metavar="VALUE", help=words)
    commands.add_parser("info", help="show versions, the kernels' build and the threads")
    return parser


def _info() -> str:
    """Return what a report of a problem should tell."""
    runnable = ", ".join(build.name for build in dispatch.runnable())
    isa, number = (
        os.environ.get(name, "not set") for name in ("POOLGRAD_ISA", "POOLGRAD_NUM_THREADS")
    )
    return "\n".join(
        [
            f"poolgrad {poolgrad.__version__}, numpy {numpy.__version__}, "
            f"{platform.python_implementation()} {platform.python_version()}, "
            f"{platform.system()} {platform.machine()}",
            f"kernels: {dispatch.active().name} (runnable: {runnable}; POOLGRAD_ISA {isa})",
            f"threads: {poolgrad.get_num_threads()} (usable CPUs: {threads.usable_cpus()}; "
            f"POOLGRAD_NUM_THREADS {number})",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        What follows the command's name; by default the process's own.

    Returns
    -------
    int
        The exit status: 0, or 2 for a bad flag or setting.
    """
    given = vars(_parser().parse_args(arguments))
    if given.pop("command") == "info":
        print(_info())
        return 0
    try:
        settings = load(**given)
    except SettingsError as error:
        print(f"poolgrad serve: {error}", file=sys.stderr)
        return 2
    return run(create_app(settings), settings)
