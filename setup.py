"""What depends on the compiler, and nothing else; all other metadata is in pyproject.toml.

Environment switches (see CONTRIBUTING.md), each off unless set to 1: POOLGRAD_DEBUG checks
every access to memory, POOLGRAD_TRACE lets coverage see the kernels, POOLGRAD_ANNOTATE writes
annotated HTML. POOLGRAD_BUILDS names the builds to make, where not all are wanted.
"""

import os
import sys
import sysconfig

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

DEBUG, TRACE, ANNOTATE = (
    os.environ.get(f"POOLGRAD_{name}") == "1" for name in ("DEBUG", "TRACE", "ANNOTATE")
)

# What loops here are pointers, so it is the compiler that can check them, not Cython.
SANITIZE = [
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=undefined",
]

FLAGS = [
    # Strict floating point: no contraction and no reassociation, so that every build gives equal
    # bits. What is given up (errno, traps) changes no value.
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-Wno-psabi",  # vectors are passed between inlined functions only
    # A loop that is part of a large function, since that alone calls it, has too few registers:
    # gradients that scatter took a fifth longer.
    "-fno-inline-functions-called-once",
    # Python itself is compiled with -fwrapv, under which no overflow is undefined, or found.
    *(
        ["-O1", "-g", "-fno-omit-frame-pointer", "-fno-wrapv", *SANITIZE]
        if DEBUG
        else ["-O3", "-g0"]
    ),
]

#: Builds of the kernels, those beside the baseline on x86-64 only; see `poolgrad.dispatch`.
ISA_FLAGS = {
    "baseline": [],
    "avx2": ["-mavx2"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"],
}
if not sysconfig.get_platform().endswith(("x86_64", "amd64")):
    ISA_FLAGS = {"baseline": []}
elif os.environ.get("POOLGRAD_BUILDS"):
    wanted = {"baseline", *os.environ["POOLGRAD_BUILDS"].split(",")}  # that one runs anywhere
    if not wanted <= set(ISA_FLAGS):
        sys.exit(f"POOLGRAD_BUILDS: it may name {', '.join(ISA_FLAGS)}, with commas between")
    ISA_FLAGS = {isa: flags for isa, flags in ISA_FLAGS.items() if isa in wanted}

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


#: Cython's own code for memoryviews, which would else be compiled into every module.
SHARED = "poolgrad._cyutility"

MODULES = [
    "_cpu",
    "_crew",
    "_memory",
    "_quick",
    *(f"_{dtype}_{isa}" for dtype in DTYPES for isa in ISA_FLAGS),
]


class BuildExt(build_ext):
    """Writes the C files and adds the flags: here, since pip runs this script for less, too."""

    def run(self):
        """Compile Cython to C, and that."""
        made = cythonize(
            self.extensions,
            shared_utility_qualified_name=SHARED,
            compiler_directives=DIRECTIVES,
            annotate=ANNOTATE,
            # The C file depends on the switches, and cythonize looks at time stamps only.
            force=True,
            nthreads=os.cpu_count(),
        )
        sources = {extension.name: extension.sources for extension in made}
        for extension in self.extensions:
            extension.sources = sources[extension.name]
        super().run()

    def build_extensions(self):
        """Give each extension the flags of its build, now that the compiler is known."""
        if self.compiler.compiler_type != "unix":
            sys.exit("poolgrad needs GCC or Clang: its kernels use their vector types")
        for extension in self.extensions:
            isa = extension.name.rpartition("_")[2]
            extension.extra_compile_args = FLAGS + ISA_FLAGS.get(isa, [])
            if extension.name.endswith("._quick"):
                extension.include_dirs.append(np.get_include())
                extension.define_macros.append(("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"))
            if "._numbers_avx" in extension.name:
                # They look at bits one by one. Every CPU with AVX2 has these; `_cpu` sees to it.
                extension.extra_compile_args += ["-mbmi", "-mbmi2", "-mlzcnt"]
            extension.extra_link_args = list(SANITIZE) if DEBUG else []
            if extension.language == "c++":
                extension.extra_compile_args.append("-std=c++17")
                if sys.platform == "linux":  # so that a wheel needs no C++ library
                    extension.extra_link_args += ["-static-libstdc++", "-static-libgcc"]
        self.parallel = os.cpu_count()
        super().build_extensions()


setup(
    ext_modules=[
        Extension(
            f"poolgrad.{name}",
            [f"pyx/poolgrad/{name}.pyx"],
            define_macros=[("CYTHON_TRACE_NOGIL", "1")] if TRACE else [],
        )
        for name in MODULES
    ]
    + [
        # For std::from_chars and std::to_chars.
        Extension(
            f"poolgrad_service.{name}",
            [f"service/poolgrad_service/{name}.pyx"],
            define_macros=[("CYTHON_TRACE_NOGIL", "1")] if TRACE else [],
            language="c++",
        )
        for name in ("_json", *(f"_numbers_{isa}" for isa in ISA_FLAGS))
    ]
    + [Extension(SHARED, [f"pyx/{SHARED.replace('.', '/')}.c"])],
    cmdclass={"build_ext": BuildExt},
)
