# The kernels once more: setup.py compiles this file for CPUs with AVX2.
include "_float32_baseline.pyx"
