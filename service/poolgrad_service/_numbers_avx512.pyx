# Numbers in JSON, with AVX-512.
include "_tokens.pxi"
include "_numbers.pxi"
