// Check mode: what one thread does, access by access, for `trace` of Python.
//
// The hooks of checks.cpp come before the access.  A load's value lies in memory then; what a store leaves is read later,
// before anything else can change it: at the next access of any thread, or when the thread begins to wait.
#include "runtime.hpp"
#include <cstring>

static CsTraced* last;     // of the traced thread: noted, and perhaps cut off
static CsTraced* unsettled;  // a store or an atomic whose result is not noted yet

static bool is_traced_thread() {
    const CsLaunch& launch = *run.launch;
    return run.current && run.current->number == launch.trace_thread && run.block_number == launch.trace_block;
}

void trace_settle() {
    if (unsettled) {
        memcpy(unsettled->after, (const void*)unsettled->address, unsettled->bytes);
        unsettled->has_after = 1;
    }
    last = unsettled = nullptr;
}

static CsTraced* note(const void* pc, char operation) {
    CsLaunch& launch = *run.launch;
    cs_u64 number = launch.n_traced++;
    if (number >= launch.max_traced) return nullptr;
    CsTraced& traced = launch.trace[number];
    traced = {};
    traced.pc = (cs_u64)pc;
    traced.operation = (cs_u8)operation;
    return &traced;
}

void trace_value() {
    if (!last) return;
    if (last->operation != 's') {
        memcpy(last->before, (const void*)last->address, last->bytes);
        last->has_before = 1;
    }
    if (last->operation != 'l') unsettled = last;
}

void trace_access(const void* pc, cs_u64 address, cs_u32 bytes, char operation, bool value) {
    trace_settle();
    if (!is_traced_thread()) return;
    last = note(pc, operation);
    if (!last) return;
    last->address = address;
    last->bytes = bytes < sizeof last->before ? bytes : (cs_u32)sizeof last->before;
    if (value) trace_value();
}

void trace_wait(const void* pc, char operation) {
    if (!run.launch->trace) return;
    trace_settle();
    if (is_traced_thread()) note(pc, operation);
}
