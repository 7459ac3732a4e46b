// The shared memory of a block: its arrays, the poison in them before a block begins, the canaries behind them.
#include "runtime.hpp"
#include <cstring>

constexpr cs_u64 MOST_DYNAMIC = 256 * 1024;
constexpr cs_u64 CANARY_BYTES = 4096;
constexpr unsigned char CANARY = 0xEE;
constexpr unsigned char POISON = 0xFF;  // a NaN in every floating point type, -1 as an integer

alignas(1024) static char dynamic[MOST_DYNAMIC + CANARY_BYTES];
static unsigned char canary[CANARY_BYTES];

char* dynamic_shared() { return dynamic; }

extern "C" void* cs_dynamic_shared() { return dynamic; }

bool belongs_to_kernel(const CsShared& array) { return !*array.kernel || !strcmp(array.kernel, run.kernel->name); }

void shared_memory_begin_launch() {
    memset(canary, CANARY, sizeof canary);
    for (cs_u64 i = 0; i < cs_n_shared_arrays; i++)
        memset(cs_shared_arrays[i].address + cs_shared_arrays[i].bytes, CANARY, CS_REDZONE);
    memset(dynamic + run.launch->shared_bytes, CANARY, CANARY_BYTES);
}

void shared_memory_begin_block() {
    if (!run.launch->poison) return;
    for (cs_u64 i = 0; i < cs_n_shared_arrays; i++)
        if (belongs_to_kernel(cs_shared_arrays[i]))
            memset(cs_shared_arrays[i].address, POISON, cs_shared_arrays[i].bytes);
    memset(dynamic, POISON, run.launch->shared_bytes);
}

static void check_canary(const char* end, cs_u64 bytes, const char* name, cs_u64 size) {
    if (!memcmp(end, canary, bytes)) return;
    cs_u64 at = 0;
    while ((unsigned char)end[at] == CANARY) at++;
    report("SHARED-OVERRUN", nullptr, nullptr,
           "a thread of this block wrote %llu bytes behind the end of shared array '%s' (%llu bytes)", at, name, size);
    leave();
}

void shared_memory_end_block() {
    for (cs_u64 i = 0; i < cs_n_shared_arrays; i++) {
        const CsShared& array = cs_shared_arrays[i];
        if (belongs_to_kernel(array)) check_canary(array.address + array.bytes, CS_REDZONE, array.name, array.bytes);
    }
    check_canary(dynamic + run.launch->shared_bytes, CANARY_BYTES, "dynamic", run.launch->shared_bytes);
}

extern "C" __attribute__((visibility("default"))) const CsShared* cs_shared_array(cs_u64 number) {
    return number < cs_n_shared_arrays ? &cs_shared_arrays[number] : nullptr;
}
