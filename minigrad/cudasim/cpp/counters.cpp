// Check mode: what a GPU's memory system would make of the accesses.
//
// The 32 lanes of a warp access memory in one request.  Global memory is moved in sectors of 32 bytes: a request costs
// as many as it touches.  Shared memory has 32 banks, word w in bank w % 32: a request takes as many wavefronts as the
// busiest bank has different words.  Here the lanes run one after another, so their requests are put together again:
// the k-th time that an instruction is executed, in a phase between two barriers, is one request of all lanes that got
// so far. Where lanes skip an instruction that others execute, that is an approximation.
//
// A phase of many requests, or one that never ends, would fill the memory: MOST_REQUESTS are kept, and counters.py says
// how many accesses came after them.
#include "runtime.hpp"
#include <algorithm>
#include <cstring>
#include <unordered_map>
#include <vector>

struct Request {
    cs_u32 lanes;
    cs_u64 address[32];
};

// What one warp did at one instruction in this phase.
struct Trace {
    cs_u32 executed[32];  // times, by lane
    std::vector<Request> requests;
};

// The sums of one instruction; read by counters.py.
struct Counts {
    cs_u64 pc;
    cs_u32 bytes;  // of one lane's access
    cs_u8 kind;    // Kind
    cs_u8 shared;
    cs_u64 accesses, requests;
    cs_u64 units, ideal_units;  // sectors, or wavefronts
};

constexpr cs_u64 MOST_REQUESTS = 1 << 18;   // of all warps together: 66 MiB
constexpr size_t KEEP_REQUESTS = 1 << 10;  // room that an instruction of a warp keeps from phase to phase

static std::unordered_map<const void*, Counts> all_counts;
static cs_u64 kept_requests;  // in this phase
static cs_u64 not_counted;    // accesses
static std::unordered_map<const void*, Trace> traces[CS_MAX_THREADS / 32];

// Where the counts of an instruction are, so that not every access looks them up.
struct Known {
    const void* pc;
    Counts* counts;
    Trace* traces[CS_MAX_THREADS / 32];  // null: not looked up yet
};
static Known known[64];

static void forget_known() { memset(known, 0, sizeof known); }

void count_access(const void* pc, cs_u64 address, cs_u32 bytes, Kind kind, bool shared) {
    Known& its = known[((cs_u64)pc ^ (cs_u64)pc >> 6) % 64];
    if (its.pc != pc) its = {pc, &all_counts[pc], {}};
    Counts& counts = *its.counts;
    counts.pc = (cs_u64)pc;
    counts.bytes = bytes;
    counts.kind = (cs_u8)kind;
    counts.shared = shared;
    cs_u32 lane = run.current->number % 32, warp = run.current->number / 32;
    if (!its.traces[warp]) its.traces[warp] = &traces[warp][pc];
    Trace& trace = *its.traces[warp];
    cs_u32 k = trace.executed[lane]++;
    if (k >= trace.requests.size()) {
        if (kept_requests == MOST_REQUESTS) {
            not_counted++;
            return;
        }
        kept_requests++;
        trace.requests.push_back({});
    }
    trace.requests[k].lanes |= 1u << lane;
    trace.requests[k].address[lane] = address;
}

// The different units of `size` bytes, 4 or more, that lanes [from, to) of a request touch: how many, and which.
static cs_u32 touched(const Request& request, cs_u32 bytes, cs_u32 from, cs_u32 to, cs_u64 size, cs_u64* units) {
    cs_u32 n = 0;
    bool sorted = true;
    for (cs_u32 lane = from; lane < to; lane++) {
        if (!(request.lanes >> lane & 1)) continue;
        cs_u64 last = (request.address[lane] + bytes - 1) / size;
        for (cs_u64 unit = request.address[lane] / size; unit <= last; unit++) {
            if (n && units[n - 1] == unit) continue;
            if (n && units[n - 1] > unit) sorted = false;
            units[n++] = unit;
        }
    }
    if (sorted) return n;
    std::sort(units, units + n);
    return (cs_u32)(std::unique(units, units + n) - units);
}

// How many different bytes all lanes together ask for.
static cs_u64 asked_for(const Request& request, cs_u32 bytes) {
    cs_u64 first[32], sum = 0, end = 0;
    cs_u32 n = 0;
    for (cs_u32 lane = 0; lane < 32; lane++)
        if (request.lanes >> lane & 1) first[n++] = request.address[lane];
    if (!std::is_sorted(first, first + n)) std::sort(first, first + n);
    for (cs_u32 i = 0; i < n; i++) {
        cs_u64 after = first[i] + bytes;
        sum += after - std::max(first[i], end);
        end = after;
    }
    return sum;
}

static void add_global(Counts& counts, const Request& request) {
    cs_u64 sectors[32 * (MOST_BYTES / 32 + 2)];
    counts.units += touched(request, counts.bytes, 0, 32, 32, sectors);
    counts.ideal_units += (asked_for(request, counts.bytes) + 31) / 32;
}

// Accesses of 8 bytes go half a warp at a time, those of 16 bytes a quarter.
static void add_shared(Counts& counts, const Request& request) {
    cs_u32 together = counts.bytes <= 4 ? 32 : counts.bytes <= 8 ? 16 : 8;
    for (cs_u32 from = 0; from < 32; from += together) {
        cs_u64 in_bank[32] = {}, busiest = 0, words[32 * (MOST_BYTES / 4 + 1)];
        cs_u32 n = touched(request, counts.bytes, from, from + together, 4, words);
        for (cs_u32 i = 0; i < n; i++) busiest = std::max(busiest, ++in_bank[words[i] % 32]);
        counts.units += busiest;
        counts.ideal_units += busiest > 0;
    }
}

void counters_begin_launch() {  // the one before may have been ended within a phase
    for (auto& warp : traces) warp.clear();
    forget_known();
    kept_requests = 0;
}

void counters_end_phase() {
    if (!run.launch->count) return;
    kept_requests = 0;
    for (cs_u32 warp = 0; warp < run.n_warps; warp++)
        for (auto& [pc, trace] : traces[warp]) {
            Counts& counts = all_counts[pc];
            for (const Request& request : trace.requests) {
                counts.requests++;
                counts.accesses += (cs_u64)__builtin_popcount(request.lanes);
                (counts.shared ? add_shared : add_global)(counts, request);
            }
            trace.requests.clear();
            if (trace.requests.capacity() > KEEP_REQUESTS) trace.requests.shrink_to_fit();
            memset(trace.executed, 0, sizeof trace.executed);
        }
}

#pragma GCC visibility push(default)
extern "C" {
// Writes at most `room` entries and returns how many there are.
cs_u64 cs_counts(Counts* out, cs_u64 room) {
    cs_u64 n = 0;
    for (auto& [pc, counts] : all_counts)
        if (n++ < room) *out++ = counts;
    return all_counts.size();
}

// Accesses that found no room.
cs_u64 cs_not_counted() { return not_counted; }

void cs_reset_counts() {
    all_counts.clear();
    not_counted = 0;
    for (auto& warp : traces) warp.clear();
    forget_known();
}
}
#pragma GCC visibility pop
