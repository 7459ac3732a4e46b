// Runs a launch: its blocks one after another, and in each block its threads, in the order that was asked for.
#include "runtime.hpp"
#include <cstring>

Run run;
cs_u32 thread_order[CS_MAX_THREADS];

// ---------------------------------------------------------------- random numbers

static cs_u64 random_state;

cs_u32 random_below(cs_u32 limit) {  // xorshift64
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (cs_u32)((random_state >> 32) * limit >> 32);
}

void shuffle_threads() {
    for (cs_u32 i = run.n_threads; i > 1; i--) {
        cs_u32 j = random_below(i), number = thread_order[i - 1];
        thread_order[i - 1] = thread_order[j];
        thread_order[j] = number;
    }
}

// ---------------------------------------------------------------- a block, a launch

static void run_one_by_one() {
    CsPlace place = run.place;
    for (cs_u32 i = 0; i < run.n_threads; i++) {
        run.current = &fibers[thread_order[i]];
        memcpy(place.thread, run.current->thread, sizeof place.thread);
        run.kernel->thread(run.launch->parameters, place);
    }
    run.current = nullptr;
}

static void run_block(cs_u64 number) {
    const CsLaunch& launch = *run.launch;
    run.block_number = number;
    run.place.block[0] = (cs_u32)(number % launch.grid_size[0]);
    run.place.block[1] = (cs_u32)(number / launch.grid_size[0] % launch.grid_size[1]);
    run.place.block[2] = (cs_u32)(number / launch.grid_size[0] / launch.grid_size[1]);
    run.first_phase = ++run.phase;
    cs_control.pc = 0;
    shared_memory_begin_block();
    checks_begin_block();
    for (cs_u32 i = 0; i < run.n_warps; i++) warps[i].waiting = warps[i].asking = 0;
    if (launch.order == CS_RANDOM) shuffle_threads();
    if (run.kernel->waits) {
        reset_barrier();
        copies_begin_block();
        run_fibers();
        for (cs_u32 i = 0; i < run.n_threads; i++)
            if (fibers[i].state != State::done) {
                report_deadlock();
                leave();
            }
        copies_end_block();
    } else if (run.one_loop) {
        run.kernel->block(launch.parameters, run.place);
    } else {
        run_one_by_one();
    }
    checks_end_phase();
    shared_memory_end_block();
}

// A random order of the blocks without a table of them: a full walk through the next power of two, in which those that
// are too large are left out.
static void run_blocks_randomly() {
    const CsLaunch& launch = *run.launch;
    cs_u64 size = 1;
    while (size < launch.blocks) size *= 2;
    cs_u64 start = random_below(1u << 31), step = 4 * (cs_u64)random_below(1u << 28) + 5, at = start % size;
    for (cs_u64 i = 0; i < size; i++) {
        if (at < launch.blocks) run_block(launch.first_block + at * launch.block_step);
        at = (at * step + 12345) % size;  // a step of 1 modulo 4 and an odd addend: comes round after `size` steps
    }
}

static void run_launch() {
    const CsLaunch& launch = *run.launch;
    if (launch.order == CS_RANDOM) return run_blocks_randomly();
    for (cs_u64 i = 0; i < launch.blocks; i++) {
        cs_u64 at = launch.order == CS_REVERSED ? launch.blocks - 1 - i : i;
        run_block(launch.first_block + at * launch.block_step);
    }
}

static void prepare(CsLaunch* launch) {
    run.launch = launch;
    run.kernel = &cs_kernels[launch->kernel];
    run.current = nullptr;
    run.one_loop = run.kernel->block && launch->order == CS_FORWARD && !launch->one_by_one && !CHECKING;
    memcpy(run.place.block_size, launch->block_size, sizeof run.place.block_size);
    memcpy(run.place.grid_size, launch->grid_size, sizeof run.place.grid_size);
    memset(run.place.thread, 0, sizeof run.place.thread);
    const cs_u32* size = launch->block_size;
    run.n_threads = size[0] * size[1] * size[2];
    run.n_warps = (run.n_threads + 31) / 32;
    random_state = 88172645463325252ull ^ launch->seed * 0x9E3779B97F4A7C15ull;
    if (!random_state) random_state = 1;
    for (cs_u32 i = 0; i < run.n_threads; i++) {
        fibers[i] = {};
        fibers[i].number = i;
        fibers[i].thread[0] = i % size[0];
        fibers[i].thread[1] = i / size[0] % size[1];
        fibers[i].thread[2] = i / size[0] / size[1];
        thread_order[i] = launch->order == CS_REVERSED ? run.n_threads - 1 - i : i;
    }
    for (cs_u32 i = 0; i < run.n_warps; i++) {
        cs_u32 lanes = run.n_threads - i * 32;
        warps[i].present = lanes >= 32 ? 0xffffffffu : (1u << lanes) - 1;
    }
}

// ---------------------------------------------------------------- called from Python, through host.cpp

#pragma GCC visibility push(default)
extern "C" {
void cs_launch(CsLaunch* launch) {
    if (setjmp(run.way_out) == 0) {
        prepare(launch);
        forget_notes();
        shared_memory_begin_launch();
        checks_begin_launch();
        run_launch();
    }
    checks_end_launch();
}

// Gives back what a launch that was ended from outside has left.
void cs_clean_up() { checks_end_launch(); }

// Where the launch was when it was stopped from outside: 1 if the thread is known.
int cs_where(cs_u32* block, cs_u32* thread) {
    memcpy(block, run.place.block, sizeof run.place.block);
    if (!run.current) return 0;
    memcpy(thread, run.current->thread, sizeof run.current->thread);
    return 1;
}

cs_u64 cs_block_number() { return run.block_number; }

// Where the module lies in memory.
void cs_image(cs_u64* begin, cs_u64* end) {
    *begin = (cs_u64)&__ehdr_start;
    *end = (cs_u64)&_end;
}

const CsKernel* cs_kernel(cs_u32 number) { return number < cs_n_kernels ? &cs_kernels[number] : nullptr; }
}
#pragma GCC visibility pop
