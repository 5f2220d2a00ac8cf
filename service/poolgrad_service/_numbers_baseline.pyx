# Numbers in JSON, on any CPU.
include "_tokens.pxi"
include "_numbers.pxi"
