"""What depends on the compiler, and nothing else; all other metadata is in pyproject.toml.

Three environment switches (see CONTRIBUTING.md), each off unless set to 1: POOLGRAD_DEBUG checks
every index, POOLGRAD_TRACE lets coverage see the kernels, POOLGRAD_ANNOTATE writes annotated HTML.
"""

import os
import sysconfig

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

DEBUG, TRACE, ANNOTATE = (
    os.environ.get(f"POOLGRAD_{name}") == "1" for name in ("DEBUG", "TRACE", "ANNOTATE")
)

# Strict floating point: no contraction and no reassociation, so that every build gives equal bits.
# What is given up (errno, traps) changes no value.
FLAGS = {
    "unix": [
        "-O1" if DEBUG else "-O3",
        "-g" if DEBUG else "-g0",
        "-ffp-contract=off",
        "-fno-math-errno",
        "-fno-trapping-math",
        "-Wno-psabi",  # vectors are passed between inlined functions only
    ],
}

#: Builds of the kernels, those beside the baseline on x86-64 only; see `poolgrad.dispatch`.
ISA_FLAGS = {
    "baseline": [],
    "avx2": ["-mavx2"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"],
}

X86_64 = os.name == "posix" and sysconfig.get_platform().endswith(("x86_64", "amd64"))

#: The dtypes that the kernels are built for.
DTYPES = ("float32", "float64")

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "initializedcheck": DEBUG,
    "nonecheck": DEBUG,
    "wraparound": False,
    # Off in debug too: all divisors are positive, and C's rounding is what the kernels expect.
    "cdivision": True,
    "embedsignature": True,
    "freethreading_compatible": True,
    "linetrace": TRACE,
    "show_performance_hints": not DEBUG,  # checks are slow, and meant to be
}


class BuildExt(build_ext):
    """Adds the flags once the compiler is known, which is only here."""

    def build_extensions(self):
        """Give each extension the flags of the compiler in use."""
        for extension in self.extensions:
            flags = FLAGS.get(self.compiler.compiler_type, [])
            isa = extension.name.rpartition("_")[2]
            extension.extra_compile_args = flags + ISA_FLAGS.get(isa, [])
        self.parallel = os.cpu_count()
        super().build_extensions()


setup(
    ext_modules=cythonize(
        [
            Extension(
                name,
                [f"pyx/{name.replace('.', '/')}.pyx"],
                define_macros=[("CYTHON_TRACE_NOGIL", "1")] if TRACE else [],
            )
            for name in (
                "poolgrad._cpu",
                *(f"poolgrad._{d}_{isa}" for d in DTYPES for isa in (ISA_FLAGS if X86_64 else ["baseline"]))
            )
        ],
        compiler_directives=DIRECTIVES,
        annotate=ANNOTATE,
        # The C file depends on the switches, and cythonize looks at time stamps only.
        force=True,
    ),
    cmdclass={"build_ext": BuildExt},
)
