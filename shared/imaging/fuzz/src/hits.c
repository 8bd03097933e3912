/* Coverage of C code, for compilers that can only call out on every edge (GCC's trace-pc): a counter an edge, which libFuzzer finds by the
 * name of their section. */
#include <stdint.h>

#define COUNTERS (1u << 15)

__attribute__((section("__libfuzzer_extra_counters"), used)) static uint8_t counters[COUNTERS];

__attribute__((no_sanitize_coverage, used)) void __wrap___sanitizer_cov_trace_pc(void)
{
    /* From the program's own code on, as its address is another one in each run. */
    uintptr_t place = (uintptr_t)__builtin_return_address(0) - (uintptr_t)&__wrap___sanitizer_cov_trace_pc;
    uint32_t hash = (uint32_t)place * 2654435761u;
    counters[hash >> 17]++;
}

/* Comparisons of floating point numbers, which libFuzzer does not learn from. */
__attribute__((no_sanitize_coverage, used)) void __sanitizer_cov_trace_cmpf(float a, float b) { (void)a, (void)b; }
__attribute__((no_sanitize_coverage, used)) void __sanitizer_cov_trace_cmpd(double a, double b) { (void)a, (void)b; }
