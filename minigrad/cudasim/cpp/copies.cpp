// Asynchronous copies from global to shared memory: copy_async of kernels/instructions.cuh.
//
// A card does such a copy at any time between its call and the wait for it.  Here it is done as late as that: in the
// wait.  So what is read too early is still the old value, and what is written too early is overwritten: a wait that is
// missing, or that waits for too few groups, makes a wrong result in fast mode too.  In check mode the copy counts as
// a write at its call and again in the wait, and until then its bytes are nobody's: checks.cpp.
#include "runtime.hpp"
#include <cstring>
#include <vector>

// Of one thread.
struct Copies {
    std::vector<Copy> begun;  // and not waited for, oldest first
    cs_u32 groups;            // that have been closed
};
static Copies copies[CS_MAX_THREADS];

void copies_begin_block() {
    for (cs_u32 i = 0; i < run.n_threads; i++) {
        copies[i].begun.clear();
        copies[i].groups = 0;
    }
}

const Copy* copy_into(cs_u32 thread, cs_u64 address) {
    for (const Copy& copy : copies[thread].begun)
        if (address - (cs_u64)copy.to < copy.bytes) return &copy;
    return nullptr;
}

static void check_alignment(const void* address, cs_u32 bytes, const char* side, const void* pc) {
    if ((cs_u64)address % bytes == 0) return;
    report("MISALIGNED", pc, nullptr, "an asynchronous copy of %u bytes %s address 0x%llx, which must be a multiple of %u",
           bytes, side, (cs_u64)address, bytes);
    leave();
}

extern "C" void cs_copy_async(void* shared, const void* global, int bytes, bool inside) {
    const void* pc = __builtin_return_address(0);
    must_be_fiber(pc);
    Busy busy(pc);
    Copies& mine = copies[run.current->number];
    Copy copy = {(char*)shared, (const char*)global, (cs_u32)bytes, inside, mine.groups, run.phase, pc, {}};
    check_alignment(shared, copy.bytes, "to", pc);
    if (inside) check_alignment(global, copy.bytes, "from", pc);
    checks_copy_begins(copy);
    mine.begun.push_back(copy);
}

extern "C" void cs_copy_async_commit() {
    must_be_fiber(__builtin_return_address(0));
    copies[run.current->number].groups++;
}

extern "C" void cs_copy_async_wait(unsigned newest) {
    must_be_fiber(__builtin_return_address(0));
    Busy busy(__builtin_return_address(0));
    Copies& mine = copies[run.current->number];
    size_t n = 0;
    for (; n < mine.begun.size() && mine.begun[n].group + newest < mine.groups; n++) {
        const Copy& copy = mine.begun[n];
        cs_control.pc = (cs_u64)copy.pc;  // a fault is that line's
        checks_copy_ends(copy);
        if (copy.inside)
            memcpy(copy.to, copy.from, copy.bytes);
        else
            memset(copy.to, 0, copy.bytes);
    }
    mine.begun.erase(mine.begun.begin(), mine.begun.begin() + (long)n);
}

void copies_end_block() {
    for (cs_u32 i = 0; i < run.n_threads; i++) {
        if (copies[i].begun.empty()) continue;
        const Copy& copy = copies[i].begun[0];
        run.current = &fibers[i];
        report("COPY-PENDING", copy.pc, nullptr, "the thread ends, and has not waited for its copy of %u bytes%s",
               copy.bytes, copy.group == copies[i].groups ? ", which is in no group: copy_async_commit()" : "");
        for (const Copy& each : copies[i].begun) checks_copy_ends(each);
        run.current = nullptr;
    }
}
