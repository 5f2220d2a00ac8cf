"""The same as `_kernels`, compiled for CPUs with AVX2."""

from poolgrad._kernels import Mode as Mode
from poolgrad._kernels import first_bad as first_bad
from poolgrad._kernels import let_zeros_take_part as let_zeros_take_part
from poolgrad._kernels import max_backward as max_backward
from poolgrad._kernels import reduce as reduce
