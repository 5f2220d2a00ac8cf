"""What the CPU can do, the operating system's support included."""

cdef extern from *:
    """
    #if (defined(__x86_64__) || defined(__i386__)) && (defined(__GNUC__) || defined(__clang__))
    static int poolgrad_has_avx2(void) {
        __builtin_cpu_init();
        return __builtin_cpu_supports("avx2") != 0;
    }
    #else
    static int poolgrad_has_avx2(void) { return 0; }
    #endif
    """
    bint poolgrad_has_avx2()


def features():
    """Return the names of the instruction sets that builds of the kernels may need."""
    return frozenset({"avx2"}) if poolgrad_has_avx2() else frozenset()
