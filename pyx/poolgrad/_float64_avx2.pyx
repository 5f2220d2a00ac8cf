# The kernels once more: setup.py compiles this file for CPUs with AVX2.
include "_float64_baseline.pyx"
