// AMFAST_CPU_CLONES compiles a function several times, for the vector units that x86-64 machines
// have, and picks one when the library is loaded; so the library itself stays portable.
// AMFAST_NO_CLONES leaves that out, for builds that look for errors.
#pragma once

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(AMFAST_NO_CLONES)
#define AMFAST_CPU_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define AMFAST_CPU_CLONES
#endif
