// The shared memory of a block: its arrays, the poison in them before a block begins, the canaries behind them.
//
// A static array lies in the module, close to what the emulator itself works with: guards around all of them end a
// thread that walks far out of one before it gets there.
#include "runtime.hpp"
#include <cstdint>
#include <cstring>
#include <sys/mman.h>
#include <unistd.h>

constexpr unsigned char CANARY = 0xEE;
constexpr unsigned char POISON = 0xFF;  // a NaN in every floating point type, -1 as an integer

static unsigned char canary[CS_CANARY];

static void close_guard(char* begin) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = ((uintptr_t)begin + page - 1) / page * page;
    mprotect((void*)from, ((uintptr_t)begin + CS_SHARED_GUARD) / page * page - from, PROT_NONE);
}

__attribute__((constructor)) static void close_guards() {
    close_guard(cs_guard_before);
    close_guard(cs_guard_behind);
}

char* dynamic_shared() { return cs_dynamic_memory; }

extern "C" __attribute__((visibility("default"))) void* cs_dynamic_shared() { return cs_dynamic_memory; }

bool belongs_to_kernel(const CsShared& array) {
    if (!*array.kernel) return true;
    size_t length = strlen(run.kernel->name);
    for (const char* name = array.kernel; name; name = strchr(name, ',')) {
        name += *name == ',';
        if (!strncmp(name, run.kernel->name, length) && (name[length] == ',' || !name[length])) return true;
    }
    return false;
}

void shared_memory_begin_launch() {
    memset(canary, CANARY, sizeof canary);
    for (cs_u64 i = 0; i < cs_n_shared_arrays; i++)
        memset(cs_shared_arrays[i].address + cs_shared_arrays[i].bytes, CANARY, CS_REDZONE);
    memset(cs_dynamic_memory + run.launch->shared_bytes, CANARY, CS_CANARY);
}

void shared_memory_begin_block() {
    if (!run.launch->poison) return;
    for (cs_u64 i = 0; i < cs_n_shared_arrays; i++)
        if (belongs_to_kernel(cs_shared_arrays[i]))
            memset(cs_shared_arrays[i].address, POISON, cs_shared_arrays[i].bytes);
    memset(cs_dynamic_memory, POISON, run.launch->shared_bytes);
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
    check_canary(cs_dynamic_memory + run.launch->shared_bytes, CS_CANARY, "dynamic", run.launch->shared_bytes);
}

extern "C" __attribute__((visibility("default"))) const CsShared* cs_shared_array(cs_u64 number) {
    return number < cs_n_shared_arrays ? &cs_shared_arrays[number] : nullptr;
}
