// What the parts of the runtime share: the launch at work, the thread that runs, reports.
#pragma once
#include <string>
#include "interface.hpp"
#include <csetjmp>

#ifdef CUDASIM_CHECK
constexpr bool CHECKING = true;
#else
constexpr bool CHECKING = false;
#endif

// ---------------------------------------------------------------- tables that the builder puts behind the kernels

extern "C" {
extern const CsKernel cs_kernels[];
extern const cs_u32 cs_n_kernels;
extern const CsShared cs_shared_arrays[];
extern const cs_u64 cs_n_shared_arrays;
extern const CsShared cs_device_variables[];  // __device__ variables
extern const cs_u64 cs_n_device_variables;
// All shared memory lies between two guards, that no access may reach; dynamic shared memory comes last.
extern char cs_guard_before[CS_SHARED_GUARD], cs_dynamic_memory[CS_MOST_DYNAMIC + CS_CANARY], cs_guard_behind[CS_SHARED_GUARD];
// Names that the linker makes: where the module begins and ends in memory, and where cs_here of cuda.hpp lies.
extern char __ehdr_start, _end, __start_cudasim_here, __stop_cudasim_here;
}

// ---------------------------------------------------------------- threads and warps

enum class State : cs_u8 { ready, yielding, at_barrier, at_warp, done };  // yielding: ready, and waits for a lock

struct Fiber {
    void* stack_pointer;  // while it is not running
    cs_u32 thread[3];     // threadIdx
    cs_u32 number;        // in the block: x first
    State state;
    cs_u32 site;     // of the barrier it waits at
    cs_u32 mask;     // of the warp intrinsic it waits in
    int op;          // CsWarpOp
    const void* pc;  // of the call in which it waits
};

struct Warp {
    cs_u32 present;    // the lanes that exist
    cs_u32 waiting;    // the lanes that wait in a warp intrinsic
    cs_u32 asking;     // the lanes that wait in __activemask
    cs_u64 value[32];  // what each lane gives, and gets
    cs_u64 result[32];
    cs_u8 source[32];  // the lane whose value it wants
};

// The launch at work.  One at a time: the modules of two devices are two copies of the library.
struct Run {
    CsLaunch* launch;
    const CsKernel* kernel;
    CsPlace place;        // block, block_size and grid_size of the block at work
    cs_u64 block_number;  // x first
    cs_u32 n_threads, n_warps;
    Fiber* current;      // the thread that runs; null between threads
    bool one_loop;       // a whole block in one call: nobody knows which thread it is at
    cs_u32 phase;        // counts blocks and barriers: changes whenever all threads of a block have met
    cs_u32 first_phase;  // of this block
    jmp_buf way_out;
};

extern Run run;                              // scheduler.cpp
extern cs_u32 thread_order[CS_MAX_THREADS];  // the threads of a block, in the order in which they run
void shuffle_threads();                      // another random order
cs_u32 random_below(cs_u32 limit);

extern Fiber fibers[CS_MAX_THREADS];  // fibers.cpp
void run_fibers();                    // until none is ready
void make_ready(Fiber& fiber);        // puts it into the queue
void switch_to_next(Fiber& self);     // leaves this thread for the next that is ready

extern Warp warps[CS_MAX_THREADS / 32];  // waiting.cpp
void must_be_fiber(const void* pc);  // for what only works in a kernel whose threads wait for each other
void reset_barrier();
void answer_active_lanes(cs_u32 warp);  // where no lane of it can come any more
void report_deadlock();  // about threads that wait for ever

// d += a b of a warp whose lanes all wait for it; `lanes` are its threads.  matrix_units.cpp
void multiply_add(Warp& warp, Fiber* lanes);

// ---------------------------------------------------------------- reports: output.cpp

extern "C" CsControl cs_control;

// Adds a report about the current thread; the rest is as for printf.  Of the same kind and line only the first counts.
void report(const char* kind, const void* pc, const void* other_pc, const char* format, ...)
    __attribute__((format(printf, 4, 5)));

// The same of what is suspicious, but may be right: no fault.
void note(const char* kind, const void* pc, const void* other_pc, const char* format, ...)
    __attribute__((format(printf, 4, 5)));
void forget_notes();

// Ends the launch: nothing sensible can follow.
[[noreturn]] void leave();

// While one exists, the time limit and Ctrl-C wait.  pc: of the kernel's call, where the runtime is at work for a thread.
struct Busy {
    Busy() { cs_control.busy = 1; }
    explicit Busy(const void* pc) {
        cs_control.pc = (cs_u64)pc;
        cs_control.busy = 1;
    }
    ~Busy() {
        cs_control.busy = 0;
        if (__builtin_expect(cs_control.stop, 0)) leave();
    }
};

// ---------------------------------------------------------------- shared memory: shared_memory.cpp

char* dynamic_shared();
inline bool in_shared_memory(cs_u64 address) {  // or in the guards around it
    return address - (cs_u64)cs_guard_before < (cs_u64)(cs_guard_behind + CS_SHARED_GUARD - cs_guard_before);
}
bool in_shared_array(cs_u64 address);           // of the kernel at work: checks.cpp
std::string place_of(cs_u64 address);           // "byte 4 of x (argument 0)": checks.cpp
bool on_own_stack(cs_u64 address);              // of the thread at work: checks.cpp
bool belongs_to_kernel(const CsShared& array);  // to the one at work
void shared_memory_begin_launch();
void shared_memory_begin_block();
void shared_memory_end_block();  // reports what was written behind an array

// ---------------------------------------------------------------- asynchronous copies: copies.cpp

struct Copy {
    char* to;          // in shared memory
    const char* from;  // in global memory
    cs_u32 bytes;
    bool inside;     // or else zeros are written, and nothing is read
    cs_u32 group;    // its number among those of the thread
    cs_u32 phase;    // in which it began
    const void* pc;  // of its call
    char seen[16];   // what `from` held then; check mode
};
void copies_begin_block();
void copies_end_block();                                  // reports those that nobody has waited for
const Copy* copy_into(cs_u32 thread, cs_u64 address);  // one of the thread's that has not arrived

// ---------------------------------------------------------------- check mode; no_checks.cpp in fast mode

void checks_begin_launch();  // checks.cpp
void checks_begin_block();
void checks_end_phase();  // all threads of the block have met
void checks_end_launch();
void checks_syncwarp(cs_u32 warp, cs_u32 mask);
void checks_copy_begins(Copy& copy);
void checks_copy_ends(const Copy& copy);

enum class Kind : cs_u8 { read, write, atomic };
constexpr cs_u32 MOST_BYTES = 16;  // that one access of a lane moves
void count_access(const void* pc, cs_u64 address, cs_u32 bytes, Kind kind, bool shared);  // counters.cpp
void counters_begin_launch();
void counters_end_phase();

// ---------------------------------------------------------------- what one thread does: trace.cpp

// Notes an access of the running thread, if it is the one that is traced; its value too if `value`, for which the
// address must be known to lie in memory.
void trace_access(const void* pc, cs_u64 address, cs_u32 bytes, char operation, bool value);
void trace_value();  // of the access noted last, which has turned out to lie in memory
void trace_wait(const void* pc, char operation);
void trace_settle();  // before anything else changes memory: notes what the last store has left
