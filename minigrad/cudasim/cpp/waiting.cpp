// Where threads wait for each other: __syncthreads, and the intrinsics of a warp.
#include "runtime.hpp"

Warp warps[CS_MAX_THREADS / 32];

void must_be_fiber(const void* pc) {
    if (run.kernel->waits) return;
    report("EMULATOR", pc, nullptr,
           "the kernel waits for other threads, but the emulator did not see that in its source");
    leave();
}

// ---------------------------------------------------------------- __syncthreads

static struct {
    cs_u32 arrived, site, true_predicates, result;
    Fiber* first;
} barrier;

void reset_barrier() { barrier = {}; }

extern "C" unsigned cs_barrier(unsigned site, int predicate) {
    const void* pc = __builtin_return_address(0);
    must_be_fiber(pc);
    cs_control.pc = (cs_u64)pc;
    trace_wait(pc, 'b');
    Fiber& self = *run.current;
    if (barrier.arrived == 0) {
        barrier.site = site;
        barrier.first = &self;
    } else if (site != barrier.site) {
        const cs_u32* other = barrier.first->thread;
        report(
            "DIVERGENT-BARRIER", pc, barrier.first->pc,
            "waits at this __syncthreads, while thread (%u,%u,%u) waits at another, at {other}; all threads of a block "
            "must reach the same one",
            other[0], other[1], other[2]);
        leave();
    }
    barrier.true_predicates += predicate;
    self.pc = pc;
    self.state = State::at_barrier;
    if (++barrier.arrived == run.n_threads) {
        barrier.result = barrier.true_predicates;
        barrier.arrived = barrier.true_predicates = 0;
        checks_end_phase();
        run.phase++;
        if (run.launch->order == CS_RANDOM) shuffle_threads();
        for (cs_u32 i = 0; i < run.n_threads; i++) make_ready(fibers[thread_order[i]]);
    }
    switch_to_next(self);
    return barrier.result;
}

// ---------------------------------------------------------------- warp intrinsics

static const char* const OP_NAMES[] = {"__syncwarp", "a shuffle", "a vote", "multiply_add_tf32", "__activemask"};

// The last of the lanes in the mask to arrive works out what each of them gets, and wakes them.
static bool complete(cs_u32 number, int op, cs_u32 mask) {
    Warp& warp = warps[number];
    if ((warp.waiting & mask) != mask) return false;
    for (cs_u32 lane = 0; lane < 32; lane++) {
        const Fiber& fiber = fibers[number * 32 + lane];
        if (mask >> lane & 1 && (fiber.mask != mask || fiber.op != op)) return false;
    }
    cs_u64 votes = 0;
    for (cs_u32 lane = 0; lane < 32; lane++)
        if (mask >> lane & 1 && warp.value[lane]) votes |= 1ull << lane;
    for (cs_u32 lane = 0; lane < 32; lane++)
        if (mask >> lane & 1) warp.result[lane] = op == CS_SHUFFLE ? warp.value[warp.source[lane]] : votes;
    if (op == CS_SYNCWARP) checks_syncwarp(number, mask);  // shuffles and votes do not order memory
    if (op == CS_MULTIPLY_ADD) multiply_add(warp, &fibers[number * 32]);
    warp.waiting &= ~mask;
    for (cs_u32 i = 0; i < 32; i++) {
        cs_u32 lane = run.launch->order == CS_REVERSED ? 31 - i : i;
        if (mask >> lane & 1) make_ready(fibers[number * 32 + lane]);
    }
    return true;
}

extern "C" unsigned long long cs_warp(int op, unsigned mask, unsigned long long value, unsigned source) {
    const void* pc = __builtin_return_address(0);
    must_be_fiber(pc);
    cs_control.pc = (cs_u64)pc;
    trace_wait(pc, 'w');
    Fiber& self = *run.current;
    cs_u32 number = self.number / 32, lane = self.number % 32;
    Warp& warp = warps[number];
    if (!(mask >> lane & 1)) {
        report("WARP-MASK", pc, nullptr, "lane %u calls %s with mask 0x%08x, which does not name it", lane,
               OP_NAMES[op], mask);
        leave();
    }
    if (mask & ~warp.present) {
        report("WARP-MASK", pc, nullptr, "%s with mask 0x%08x names lanes that do not exist: this warp has 0x%08x",
               OP_NAMES[op], mask, warp.present);
        leave();
    }
    if (op == CS_SHUFFLE && !(mask >> source & 1)) {
        report("WARP-SOURCE", pc, nullptr, "the shuffle reads lane %u, which mask 0x%08x does not name", source, mask);
        leave();
    }
    warp.value[lane] = value;
    warp.source[lane] = (cs_u8)source;
    warp.waiting |= 1u << lane;
    self.mask = mask;
    self.op = op;
    self.pc = pc;
    self.state = State::at_warp;
    complete(number, op, mask);
    switch_to_next(self);
    return warp.result[lane];
}

// The lanes that are at this place: each waits until no other lane of its warp can come any more.  A card may find fewer
// together, but never more.
extern "C" unsigned cs_active_lanes() {
    const void* pc = __builtin_return_address(0);
    must_be_fiber(pc);
    cs_control.pc = (cs_u64)pc;
    Fiber& self = *run.current;
    cs_u32 number = self.number / 32, lane = self.number % 32;
    warps[number].asking |= 1u << lane;
    self.op = CS_ACTIVE_LANES;
    self.mask = 1u << lane;
    self.pc = pc;
    self.state = State::at_warp;
    switch_to_next(self);
    return (unsigned)warps[number].result[lane];
}

void answer_active_lanes(cs_u32 number) {
    Warp& warp = warps[number];
    Fiber* lanes = &fibers[number * 32];
    for (cs_u32 lane = 0; lane < 32; lane++)
        if (warp.present >> lane & 1 && lanes[lane].state == State::ready) return;
    cs_u32 asking = warp.asking;
    warp.asking = 0;
    for (cs_u32 i = 0; i < 32; i++) {
        cs_u32 lane = run.launch->order == CS_REVERSED ? 31 - i : i;
        if (!(asking >> lane & 1)) continue;
        warp.result[lane] = 0;
        for (cs_u32 other = 0; other < 32; other++)
            if (asking >> other & 1 && lanes[other].pc == lanes[lane].pc) warp.result[lane] |= 1u << other;
        make_ready(lanes[lane]);
    }
}

extern "C" void cs_bad_width(int width) {
    report("WARP-WIDTH", __builtin_return_address(0), nullptr, "a shuffle in segments of %d lanes: 1, 2, 4, 8, 16 or 32 are possible",
           width);
    leave();
}

// ---------------------------------------------------------------- waiting without a barrier: locks

extern "C" void cs_yield() {
    if (!run.kernel->waits) return;
    Fiber& self = *run.current;
    make_ready(self);
    self.state = State::yielding;
    switch_to_next(self);
    self.state = State::ready;
}

// ---------------------------------------------------------------- threads that wait for ever

void report_deadlock() {
    cs_u32 at_barrier = 0, at_warp = 0, done = 0;
    Fiber *stuck = nullptr, *in_warp = nullptr;
    for (cs_u32 i = 0; i < run.n_threads; i++) {
        Fiber& fiber = fibers[i];
        at_barrier += fiber.state == State::at_barrier;
        done += fiber.state == State::done;
        if (fiber.state == State::at_warp && !at_warp++) in_warp = &fiber;
        if (fiber.state == State::at_barrier && !stuck) stuck = &fiber;
    }
    if (!in_warp) {
        run.current = stuck;
        report("DIVERGENT-BARRIER", stuck->pc, nullptr,
               "waits at __syncthreads with %u of the block's %u threads; the other %u have returned and never come",
               at_barrier, run.n_threads, done);
        return;
    }
    run.current = in_warp;
    cs_u32 number = in_warp->number / 32, missing = in_warp->mask & ~warps[number].waiting;
    for (cs_u32 lane = 0; lane < 32; lane++) {
        const Fiber& other = fibers[number * 32 + lane];
        if (!(in_warp->mask & warps[number].waiting & 1u << lane) ||
            (other.mask == in_warp->mask && other.op == in_warp->op))
            continue;
        report("WARP-DIVERGENT", in_warp->pc, other.pc,
               "waits in %s with mask 0x%08x, while lane %u waits in %s with mask 0x%08x, at {other}",
               OP_NAMES[in_warp->op], in_warp->mask, lane, OP_NAMES[other.op], other.mask);
        return;
    }
    report(
        "WARP-DEADLOCK", in_warp->pc, nullptr,
        "waits in %s for lanes 0x%08x of its mask 0x%08x, which never come (of the block's threads %u have returned, "
        "%u wait at __syncthreads)",
        OP_NAMES[in_warp->op], missing, in_warp->mask, done, at_barrier);
}
