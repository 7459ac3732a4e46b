// Runs a launch so that nothing in it can end the process: a library of its own, loaded once.
//
// While a launch is at work in a thread, faults of that thread (a wild address, a division by zero, abort) lead back to
// guarded() with a note of what happened, instead of to the process's own handlers; so do the time limit and Ctrl-C.
// Where no launch is at work in the thread that a signal hits, the handlers of before get it.  It also owns the stacks
// that kernels run on, so that all modules share them.  No kernel runs on the stack of the Python thread that launches
// it: one that writes beyond its local variables would hit what the process needs to go on.
#include "interface.hpp"
#include <atomic>
#include <cerrno>
#include <csetjmp>
#include <csignal>
#include <cstring>
#include <ctime>
#include <mutex>
#include <vector>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace {

const int TICK = SIGRTMAX - 2;  // the signal with which a thread looks at the clock

// ---------------------------------------------------------------- the launch of this thread

struct Guard {
    CsControl* control;
    CsFault* fault;
    cs_u64 image_begin, image_end;
    double deadline;
    char* stacks;
    void (*launch)(CsLaunch*);
    CsLaunch* work;
    cs_u64 float_mode;
    ucontext_t here, there;  // the Python thread's stack, and the launch's
    sigjmp_buf way_out;
};

thread_local Guard* guard;         // null: no launch is at work in this thread
std::atomic<unsigned> interrupts;  // how often Ctrl-C was pressed
thread_local unsigned interrupts_before;

double now() {
    timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// ---------------------------------------------------------------- memory: stacks of fibers, and one of the launch

std::mutex mutex;
std::vector<char*> free_stacks;  // sets of stacks that no launch uses now
constexpr size_t FIBER_STACKS = (size_t)CS_MAX_THREADS * CS_STACK_BYTES;
constexpr size_t LAUNCH_STACK = 1 << 20;  // behind those of the fibers; threads that never wait run on it too
constexpr size_t LAST_GUARD = 1 << 16;    // behind all of them
constexpr size_t ALL_STACKS = FIBER_STACKS + LAUNCH_STACK + LAST_GUARD;

// Which of the stacks an address lies in; each begins with its guard page.
cs_u64 stack_number(cs_u64 offset) {
    if (offset < FIBER_STACKS) return offset / CS_STACK_BYTES;
    return CS_MAX_THREADS + (offset >= FIBER_STACKS + LAUNCH_STACK);
}

char* map(size_t bytes) {
    void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? nullptr : (char*)p;
}

__attribute__((noinline)) char* take_stacks() {
    {
        std::lock_guard<std::mutex> lock(mutex);
        if (!free_stacks.empty()) {
            char* stacks = free_stacks.back();
            free_stacks.pop_back();
            return stacks;
        }
    }
    char* stacks = map(ALL_STACKS);  // pages that no fiber has touched cost nothing
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (int i = 0; stacks && i <= CS_MAX_THREADS; i++)
        mprotect(stacks + (size_t)i * CS_STACK_BYTES, page, PROT_NONE);  // the guard page
    if (stacks) mprotect(stacks + FIBER_STACKS + LAUNCH_STACK, LAST_GUARD, PROT_NONE);
    return stacks;
}

void give_back_stacks(char* stacks) {
    std::lock_guard<std::mutex> lock(mutex);
    free_stacks.push_back(stacks);
}

// ---------------------------------------------------------------- what a thread needs: a timer, a stack for handlers

struct Thread {
    char* signal_stack = nullptr;
    timer_t timer;
    pid_t process = 0;  // that made the timer: a forked child has none
    static constexpr size_t SIGNAL_STACK = 64 * 1024;

    bool prepare() {
        if (!signal_stack) signal_stack = map(SIGNAL_STACK);
        if (process != getpid()) {
            sigevent event = {};
            event.sigev_notify = SIGEV_THREAD_ID;
            event.sigev_signo = TICK;
            event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
            if (timer_create(CLOCK_MONOTONIC, &event, &timer) == 0) process = getpid();
        }
        return signal_stack && process == getpid();
    }

    ~Thread() {
        if (process == getpid()) timer_delete(timer);
        if (signal_stack) munmap(signal_stack, SIGNAL_STACK);
    }
};
thread_local Thread thread;

// Every 50 ms the thread gets a signal, and looks at the clock and at whether Ctrl-C was pressed.
void tick(bool on) {
    itimerspec interval = {};
    if (on) interval.it_interval.tv_nsec = interval.it_value.tv_nsec = 50 * 1000 * 1000;
    timer_settime(thread.timer, 0, &interval, nullptr);
}

// ---------------------------------------------------------------- signal handlers

const int FAULTS[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP};
struct sigaction before[65];  // what the process had for each signal

void pass_on(int signal, siginfo_t* info, void* context) {
    const struct sigaction& old = before[signal];
    if (old.sa_flags & SA_SIGINFO) {
        old.sa_sigaction(signal, info, context);
    } else if (old.sa_handler == SIG_DFL) {
        sigaction(signal, &old, nullptr);  // the instruction runs again, and faults again as if we had never been here
    } else if (old.sa_handler != SIG_IGN) {
        old.sa_handler(signal);
    }
}

// On a CPU that is not listed here, faults are caught too, but nobody knows in which line.
cs_u64 program_counter(const ucontext_t& context) {
#if defined(__x86_64__)
    return (cs_u64)context.uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
    return context.uc_mcontext.pc;
#else
    return 0;
#endif
}

cs_u64 stack_pointer(const ucontext_t& context) {
#if defined(__x86_64__)
    return (cs_u64)context.uc_mcontext.gregs[REG_RSP];
#elif defined(__aarch64__)
    return context.uc_mcontext.sp;
#else
    return 0;
#endif
}

// The instruction that was interrupted, and words of the stack that look like return addresses: where the runtime or
// the C library was at work for the kernel (memcpy), one of them leads to the kernel's own line.
void trace(CsFault& fault, const ucontext_t& context) {
    auto in_module = [](cs_u64 address) { return address > guard->image_begin && address < guard->image_end; };
    int n = 0;
    cs_u64 pc = program_counter(context), stack = stack_pointer(context), last_call = guard->control->pc;
    if (in_module(pc)) fault.trace[n++] = pc + 1;  // like a return address: behind the instruction
    // Where the instruction is the runtime's, the kernel's last call of it is the one that it is at work for.
    if (in_module(pc) || guard->control->busy) fault.trace[n++] = last_call;
    cs_u64 in_stacks = stack - (cs_u64)guard->stacks, end = stack + 4096;
    if (in_stacks < ALL_STACKS && !fault.stack_overflow) {
        cs_u64 top = (cs_u64)guard->stacks + FIBER_STACKS + LAUNCH_STACK;
        if (in_stacks < FIBER_STACKS) top = (cs_u64)guard->stacks + (in_stacks / CS_STACK_BYTES + 1) * CS_STACK_BYTES;
        if (top < end) end = top;  // above it is the guard page of the next
        for (const cs_u64* word = (const cs_u64*)stack; (cs_u64)word < end && n < CS_TRACE - 1; word++)
            if (in_module(*word)) fault.trace[n++] = *word;
    }
    fault.trace[n] = last_call;
}

[[noreturn]] void end_launch(cs_u32 end, int signal) {
    guard->fault->end = end;
    guard->fault->signal = (cs_u32)signal;
    siglongjmp(guard->way_out, 1);
}

void on_fault(int signal, siginfo_t* info, void* context_pointer) {
    if (!guard) return pass_on(signal, info, context_pointer);
    const ucontext_t& context = *(const ucontext_t*)context_pointer;
    CsFault& fault = *guard->fault;
    fault.known_address = (signal == SIGSEGV || signal == SIGBUS) && info->si_code > 0 && info->si_code != SI_KERNEL;
    fault.address = fault.known_address ? (cs_u64)info->si_addr : 0;
    // Of the stacks only the guard pages fault: the one below the own stack by an overflow, the one above it by an index.
    cs_u64 at = fault.address - (cs_u64)guard->stacks, stack = stack_pointer(context) - (cs_u64)guard->stacks;
    fault.stack_overflow = fault.known_address && at < ALL_STACKS && stack_number(at) <= stack_number(stack);
    fault.behind_stack = fault.known_address && at < ALL_STACKS && !fault.stack_overflow;
    trace(fault, context);
    end_launch(CS_SIGNAL, signal);
}

void on_tick(int signal, siginfo_t*, void* context_pointer) {
    if (!guard) return;  // the launch ended before the signal came
    bool interrupted = interrupts != interrupts_before;
    if (!interrupted && now() < guard->deadline) return;
    guard->fault->end = interrupted ? CS_INTERRUPTED : CS_TIME_LIMIT;
    trace(*guard->fault, *(const ucontext_t*)context_pointer);
    if (guard->control->busy) {  // it leaves by itself as soon as it may
        guard->control->stop = 1;
        return;
    }
    end_launch(guard->fault->end, signal);
}

void on_interrupt(int signal, siginfo_t* info, void* context) {
    interrupts++;  // every launch sees it at its next tick
    pass_on(signal, info, context);
}

// The handlers are there as long as any thread has a launch at work.
int launches;
bool handles_interrupt;

void install(int signal, void (*handler)(int, siginfo_t*, void*)) {
    struct sigaction action = {};
    action.sa_sigaction = handler;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
    sigaction(signal, &action, &before[signal]);
}

void enter() {
    std::lock_guard<std::mutex> lock(mutex);
    if (launches++) return;
    for (int signal : FAULTS) install(signal, on_fault);
    install(TICK, on_tick);
    struct sigaction current;
    sigaction(SIGINT, nullptr, &current);
    handles_interrupt =
        (current.sa_flags & SA_SIGINFO) || (current.sa_handler != SIG_DFL && current.sa_handler != SIG_IGN);
    if (handles_interrupt) install(SIGINT, on_interrupt);
}

void exit() {
    std::lock_guard<std::mutex> lock(mutex);
    if (--launches) return;
    for (int signal : FAULTS) sigaction(signal, &before[signal], nullptr);
    struct sigaction current;  // the program may have set another one during the launch: it stays
    sigaction(SIGINT, nullptr, &current);
    if (handles_interrupt && current.sa_sigaction == on_interrupt) sigaction(SIGINT, &before[SIGINT], nullptr);
    // A tick may still be on its way: it finds a handler that ignores it.
}

// ---------------------------------------------------------------- flush to zero

// CuPy compiles every kernel with -ftz=true: float numbers too small for a full mantissa become zero.  A CPU flushes
// doubles by the same switch, so it is set only for launches of kernels in float.
#if defined(__x86_64__)
constexpr cs_u64 FLUSH = 0x8040;  // FTZ for results, DAZ for operands
cs_u64 float_mode() { return _mm_getcsr(); }
void set_float_mode(cs_u64 mode) { _mm_setcsr((unsigned)mode); }
#elif defined(__aarch64__)
constexpr cs_u64 FLUSH = 1 << 24;
cs_u64 float_mode() {
    cs_u64 mode;
    asm volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
}
void set_float_mode(cs_u64 mode) { asm volatile("msr fpcr, %0" ::"r"(mode)); }
#else
constexpr cs_u64 FLUSH = 0;
cs_u64 float_mode() { return 0; }
void set_float_mode(cs_u64) {}
#endif

void on_stack_of_launch() {
    if (guard->work->flush_to_zero) set_float_mode(guard->float_mode | FLUSH);
    guard->launch(guard->work);
}

}  // namespace

extern "C" {

// Calls launch(work) in this thread.  Returns 0 where it came back by itself, fault->end where it was ended; -1 where
// there was no memory for stacks.
__attribute__((visibility("default"))) int cs_guarded(void (*launch)(CsLaunch*), CsLaunch* work, CsControl* control,
                                                      cs_u64 image_begin, cs_u64 image_end, double time_limit,
                                                      CsFault* fault) {
    enter();  // first of all: it takes some time to make the stacks, in which Ctrl-C may be pressed
    interrupts_before = interrupts;
    char* stacks = thread.prepare() ? take_stacks() : nullptr;
    if (!stacks) {
        exit();
        return -1;
    }
    memset(fault, 0, sizeof *fault);
    control->active = 1;
    control->busy = control->stop = 0;
    control->pc = 0;
    work->stacks = stacks;

    stack_t signal_stack = {}, signal_stack_before;
    signal_stack.ss_sp = thread.signal_stack;
    signal_stack.ss_size = Thread::SIGNAL_STACK;
    sigaltstack(&signal_stack, &signal_stack_before);
    cs_u64 mode = float_mode();
    Guard here = {control, fault, image_begin, image_end, now() + time_limit, stacks, launch, work, mode, {}, {}, {}};
    getcontext(&here.there);
    here.there.uc_stack.ss_sp = stacks + FIBER_STACKS;
    here.there.uc_stack.ss_size = LAUNCH_STACK;
    here.there.uc_link = &here.here;
    makecontext(&here.there, on_stack_of_launch, 0);
    if (sigsetjmp(here.way_out, 1) == 0) {
        guard = &here;
        tick(true);
        swapcontext(&here.here, &here.there);
    }
    guard = nullptr;
    control->active = 0;
    tick(false);
    set_float_mode(mode);
    exit();
    sigaltstack(&signal_stack_before, nullptr);
    give_back_stacks(work->stacks);
    return (int)fault->end;
}
}
