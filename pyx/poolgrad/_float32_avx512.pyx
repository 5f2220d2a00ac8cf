# The kernels once more: setup.py compiles this file for CPUs with AVX512.
include "_float32_baseline.pyx"
