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

void count_access(const void* pc, cs_u64 address, cs_u32 bytes, Kind kind, bool shared) {
    Counts& counts = all_counts[pc];
    counts.pc = (cs_u64)pc;
    counts.bytes = bytes;
    counts.kind = (cs_u8)kind;
    counts.shared = shared;
    cs_u32 lane = run.current->number % 32;
    Trace& trace = traces[run.current->number / 32][pc];
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

// The different units of `size` bytes that lanes [from, to) of a request touch.
static std::vector<cs_u64> touched(const Request& request, cs_u32 bytes, cs_u32 from, cs_u32 to, cs_u64 size) {
    std::vector<cs_u64> units;
    for (cs_u32 lane = from; lane < to; lane++)
        if (request.lanes >> lane & 1)
            for (cs_u64 unit = request.address[lane] / size; unit <= (request.address[lane] + bytes - 1) / size; unit++)
                units.push_back(unit);
    std::sort(units.begin(), units.end());
    units.erase(std::unique(units.begin(), units.end()), units.end());
    return units;
}

static void add_global(Counts& counts, const Request& request) {
    counts.units += touched(request, counts.bytes, 0, 32, 32).size();
    counts.ideal_units += (touched(request, counts.bytes, 0, 32, 1).size() + 31) / 32;
}

// Accesses of 8 bytes go half a warp at a time, those of 16 bytes a quarter.
static void add_shared(Counts& counts, const Request& request) {
    cs_u32 together = counts.bytes <= 4 ? 32 : counts.bytes <= 8 ? 16 : 8;
    for (cs_u32 from = 0; from < 32; from += together) {
        cs_u64 in_bank[32] = {}, busiest = 0;
        for (cs_u64 word : touched(request, counts.bytes, from, from + together, 4))
            busiest = std::max(busiest, ++in_bank[word % 32]);
        counts.units += busiest;
        counts.ideal_units += busiest > 0;
    }
}

void counters_begin_launch() {  // the one before may have been ended within a phase
    for (auto& warp : traces) warp.clear();
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
}
}
#pragma GCC visibility pop
