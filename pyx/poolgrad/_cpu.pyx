"""What the CPU can do, the operating system's support included."""

cdef extern from *:
    """
    #if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
    static int poolgrad_has(int avx512) {
        __builtin_cpu_init();
        if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("bmi")
            || !__builtin_cpu_supports("bmi2") || !__builtin_cpu_supports("lzcnt")) return 0;
        if (!avx512) return 1;
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
            && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    }
    #else
    static int poolgrad_has(int avx512) { (void)avx512; return 0; }
    #endif
    """
    bint poolgrad_has(bint avx512)


def features():
    """Return the names of the instruction sets that builds of the kernels may need."""
    return frozenset(name for name in ("avx2", "avx512") if poolgrad_has(name == "avx512"))
