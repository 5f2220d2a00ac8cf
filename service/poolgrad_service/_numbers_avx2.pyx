# Numbers in JSON, with AVX2.
include "_tokens.pxi"
include "_numbers.pxi"
