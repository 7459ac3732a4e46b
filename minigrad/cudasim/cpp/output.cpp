// What a launch has to say: reports, printf and assert.  It is kept until the launch is over; Python prints it.
#include "runtime.hpp"
#include <cstdarg>
#include <cstdio>
#include <cstring>

extern "C" {
__attribute__((visibility("default"))) CsControl cs_control;
}

// ---------------------------------------------------------------- reports

static CsReport notes[16];
static cs_u64 n_notes;

void forget_notes() { n_notes = 0; }

static CsReport* new_report(CsReport* list, cs_u64& n, cs_u64 most, const char* kind, const void* pc) {
    for (cs_u64 i = 0; i < n; i++)
        if (list[i].pc == (cs_u64)pc && !strcmp(list[i].kind, kind)) return nullptr;
    return n < most ? &list[n++] : nullptr;
}

static void fill(CsReport& r, const char* kind, const void* pc, const void* other_pc, const char* format,
                 va_list arguments) {
    snprintf(r.kind, sizeof r.kind, "%s", kind);
    r.pc = (cs_u64)pc;
    r.other_pc = (cs_u64)other_pc;
    memcpy(r.block, run.place.block, sizeof r.block);
    r.has_thread = run.current != nullptr;
    if (run.current) memcpy(r.thread, run.current->thread, sizeof r.thread);
    vsnprintf(r.text, sizeof r.text, format, arguments);
}

void report(const char* kind, const void* pc, const void* other_pc, const char* format, ...) {
    CsLaunch& launch = *run.launch;
    launch.n_found++;
    CsReport* r = new_report(launch.reports, launch.n_reports, launch.max_reports, kind, pc);
    if (!r) return;
    va_list arguments;
    va_start(arguments, format);
    fill(*r, kind, pc, other_pc, format, arguments);
    va_end(arguments);
}

void note(const char* kind, const void* pc, const void* other_pc, const char* format, ...) {
    CsReport* r = new_report(notes, n_notes, sizeof notes / sizeof *notes, kind, pc);
    if (!r) return;
    va_list arguments;
    va_start(arguments, format);
    fill(*r, kind, pc, other_pc, format, arguments);
    va_end(arguments);
}

void leave() {
    cs_control.busy = 0;
    longjmp(run.way_out, 1);
}

// ---------------------------------------------------------------- printf, assert

constexpr cs_u64 MOST_TEXT = 1 << 20;  // CUDA's own default

static char text[MOST_TEXT];
static cs_u64 length;
static const char FULL[] = "\n[printf: more than 1 MiB in one launch, the rest is lost]\n";

extern "C" __attribute__((format(printf, 1, 2))) int cs_printf(const char* format, ...) {
    Busy busy(__builtin_return_address(0));
    va_list arguments;
    va_start(arguments, format);
    cs_u64 room = MOST_TEXT - length;
    int n = vsnprintf(text + length, room, format, arguments);
    va_end(arguments);
    if (n > 0) length = (cs_u64)n < room ? length + n : MOST_TEXT;
    return n;
}

extern "C" void cs_assert_failed(const char* condition) {
    report("ASSERT", __builtin_return_address(0), nullptr, "assertion failed: %s", condition);
    leave();
}

#pragma GCC visibility push(default)
extern "C" {
const CsReport* cs_note(cs_u64 number) { return number < n_notes ? &notes[number] : nullptr; }

// What was printed since the last call; valid until the next launch.
const char* cs_take_output(cs_u64* bytes) {
    if (length == MOST_TEXT)
        for (cs_u64 i = 0; i < sizeof FULL - 1; i++) text[MOST_TEXT - sizeof FULL + 1 + i] = FULL[i];
    *bytes = length;
    length = 0;
    return text;
}
}
#pragma GCC visibility pop
