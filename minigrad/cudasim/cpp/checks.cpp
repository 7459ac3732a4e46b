// Check mode.  g++ -fsanitize=thread puts a call before every load and store: __tsan_read4(address) and its kin.  Its
// library is not linked: the functions are here.  They know which thread runs, which arrays there are and who touched
// what, and so find accesses outside of the arrays, values that nobody wrote, and races.  The calls of
// -fsanitize=undefined are in undefined.cpp.
//
// What it cannot see: an index that leads from one argument's array into another's, where that may be read or written
// as well; one that leads from one part of dynamic shared memory into another; whatever g++ has optimised away.
#include "shadow.hpp"
#include <algorithm>
#include <cstring>
#include <string>
#include <unordered_map>
#include <vector>

static std::vector<Piece> global_pieces;  // CsArea::piece is an index
static cs_u64 n_pieces;                   // of this launch
static std::vector<CsArea> shared_areas;  // the static arrays, then dynamic shared memory
static std::vector<std::string> shared_labels;
static std::vector<Piece> shared_pieces;  // one for each of them
static std::vector<CsArea> variable_areas;  // __device__ variables
static std::vector<Piece> variable_pieces;
static const CsArea* last_area;           // the next access is likely to be there too
static cs_u32 launch_phase;               // the first of this launch
static char* launch_frame;                // where on the thread's own stack the launch began
constexpr cs_u64 KEEP_BYTES = 1 << 20;    // of cells, between launches
constexpr size_t MOST_STARTS = 1 << 20;   // of blocks whose beginnings are remembered

struct BlockStart {
    cs_u32 phase;
    cs_u64 number;
};
static std::vector<BlockStart> block_starts;

// ---------------------------------------------------------------- texts

static std::string triple(cs_u64 x, cs_u64 y, cs_u64 z) {
    return "(" + std::to_string(x) + "," + std::to_string(y) + "," + std::to_string(z) + ")";
}

static std::string thread_name(cs_u32 number) {
    const cs_u32* thread = fibers[number].thread;
    return "thread " + triple(thread[0], thread[1], thread[2]);
}

static std::string block_name(cs_u32 phase) {  // the last block that began no later
    auto after = std::upper_bound(block_starts.begin(), block_starts.end(), phase,
                                  [](cs_u32 phase, const BlockStart& start) { return phase < start.phase; });
    if (after == block_starts.begin()) return "an earlier block";  // of very many: forgotten
    const cs_u32* size = run.launch->grid_size;
    cs_u64 number = after[-1].number;
    return "block " + triple(number % size[0], number / size[0] % size[1], number / size[0] / size[1]);
}

static const char* verb(Kind kind) {
    return kind == Kind::read ? "reads" : kind == Kind::write ? "writes" : "updates atomically";
}

// ---------------------------------------------------------------- races

static const void* address_of(cs_u32 pc) { return &__ehdr_start + pc; }

static bool in_this_launch(const Access& access) { return access.phase >= launch_phase; }

// Is the earlier access, or one that it sums up, not ordered before the current thread's access now?
static bool unordered(const Access& earlier, bool global, bool atomic) {
    if (!in_this_launch(earlier)) return false;
    bool other_block = earlier.phase < run.first_phase;
    if (global && (other_block || earlier.many_blocks) && !(atomic && earlier.atomic_all)) return true;
    if (earlier.phase != run.phase || (atomic && earlier.atomic_here)) return false;
    cs_u32 number = run.current->number;
    if (earlier.many_warps || earlier.warp != number / 32) return true;
    cs_u32 others = earlier.lanes & ~(1u << number % 32);
    return others && !clocks[number / 32].ordered(others, earlier.clock, number % 32);
}

// A reader that another one has taken the place of: when that one writes what it has read, the first one is to be named.
struct Reader {
    const Access* of;
    cs_u32 phase, number, pc;
};
static Reader readers[1 << 12];

static Reader& reader(const Access& access) { return readers[(cs_u64)&access / sizeof(Cell) % (1 << 12)]; }

static void remember(Access& access, Kind kind, const void* pc) {
    bool atomic = kind == Kind::atomic;
    cs_u32 number = run.current->number, bit = 1u << number % 32, warp = number / 32;
    cs_u32 clock = clocks[warp].known[number % 32][number % 32];
    cs_u32 latest = access.warp * 32u + access.lane;
    if (kind == Kind::read && access.phase == run.phase && latest != number)
        reader(access) = {&access, run.phase, latest, access.pc};
    if (!in_this_launch(access)) {
        access = {};
        access.atomic_all = access.atomic_here = 1;
    }
    if (access.phase != run.phase) {
        if (access.phase && access.phase < run.first_phase) access.many_blocks = 1;
        access.phase = run.phase;
        access.many_warps = 0;
        access.atomic_here = 1;
        access.lanes = 0;
        access.warp = warp;
    }
    if (access.warp != warp) {
        access.many_warps = 1;
        access.warp = warp;
        access.lanes = 0;
    }
    cs_u32 others = access.lanes & ~bit;
    if (!others || clocks[warp].ordered(others, access.clock, number % 32)) {
        access.lanes = bit;
        access.clock = clock;
    } else {
        access.lanes |= bit;
        if (clock > access.clock) access.clock = clock;
    }
    access.atomic_here &= atomic;
    access.atomic_all &= atomic;
    access.lane = number % 32;
    access.pc = (cs_u32)((const char*)pc - &__ehdr_start);
}

// ---------------------------------------------------------------- fences and atomics: locks, "the last block adds up"
//
// A thread that has passed a __threadfence, and then changes a counter or a lock atomically, tells whoever changes it
// atomically later of what was written before the fence: by itself, by others of its block before a barrier that came
// before the fence, or by all threads of its block if each has passed a fence and a barrier came after it.

struct Moment {
    cs_u32 phase, clock;  // 0: never
};
static Moment fences[2][CS_MAX_THREADS];  // the last of each thread: for the block, for the whole card

struct Release {
    cs_u32 block, number;  // the block's first phase, the thread
    cs_u32 phase;
    Moment fence, wide_fence;  // the thread's last ones: for the block, for the whole card
    cs_u32 all_fenced;         // all threads of the block have passed a fence in this phase or later
    cs_u64 when;
};
struct Acquisition {
    cs_u64 address, when;
    cs_u32 number, phase;
};
static std::unordered_map<cs_u64, std::unordered_map<cs_u64, Release>> releases;  // by address, then block and thread
static std::vector<Acquisition> acquisitions;                                     // of this block
static cs_u64 when;
static bool fenced;         // a __threadfence in this launch: only then is any of this of use
constexpr size_t MOST_RELEASES = 1 << 12;  // of one address

static void note_atomic(cs_u64 address) {
    cs_u32 number = run.current->number;
    cs_u32 all = ~0u;
    for (cs_u32 i = 0; i < run.n_threads && all; i++) all = std::min(all, fences[1][i].phase);
    auto& by = releases[address];
    if (by.size() >= MOST_RELEASES) by.clear();
    by[(cs_u64)run.first_phase << 10 | number] = {
        run.first_phase, number, run.phase, fences[0][number], fences[1][number], all, ++when};
    for (Acquisition& old : acquisitions)
        if (old.address == address && old.number == number && old.phase == run.phase) {
            old.when = ++when;
            return;
        }
    acquisitions.push_back({address, ++when, number, run.phase});
}

static bool covers(const Release& release, const Access& earlier, bool same_block) {
    const Moment& fence = same_block ? release.fence : release.wide_fence;
    if (earlier.phase < release.phase && (fence.phase > earlier.phase || release.all_fenced >= earlier.phase))
        return true;
    bool own = !earlier.many_warps && earlier.lanes == 1u << release.number % 32 && earlier.warp == release.number / 32;
    return own && (earlier.phase < fence.phase || (earlier.phase == fence.phase && earlier.clock <= fence.clock));
}

// Has the current thread, by an atomic, been told of this access?
static bool told(const Access& earlier, cs_u64 address, bool global) {
    if (earlier.atomic_all)  // one variable's atomics have an order
        for (const Acquisition& got : acquisitions)
            if (got.address == address && (got.number == run.current->number || got.phase < run.phase)) return true;
    if (global && earlier.many_blocks) return false;
    cs_u32 block = run.first_phase;
    if (earlier.phase < block) {
        auto after = std::upper_bound(block_starts.begin(), block_starts.end(), earlier.phase,
                                      [](cs_u32 phase, const BlockStart& start) { return phase < start.phase; });
        if (after == block_starts.begin()) return false;
        block = after[-1].phase;
    }
    for (const Acquisition& got : acquisitions) {
        if (got.number != run.current->number && got.phase >= run.phase) continue;
        for (const auto& [key, release] : releases[got.address])
            if (release.block == block && release.when < got.when && covers(release, earlier, block == run.first_phase))
                return true;
    }
    return false;
}

static void report_race(const Access& earlier, const char* did, Kind kind, const CsArea& area, cs_u64 address,
                        bool global, const void* pc) {
    bool other_block = global && (earlier.phase < run.first_phase || earlier.many_blocks);
    cs_u32 number = earlier.warp * 32u + earlier.lane, others = earlier.lanes & ~(1u << earlier.lane);
    bool own = earlier.phase >= run.first_phase && number == run.current->number;
    cs_u32 at = earlier.pc;
    const Reader& before = reader(earlier);
    if (own && before.of == &earlier && before.phase == run.phase && before.number != number)
        number = before.number, at = before.pc, own = false;
    if (own && others) number = earlier.warp * 32u + (cs_u32)__builtin_ctz(others), own = false;
    std::string who = thread_name(number) + " of ";
    if (own)
        who = other_block ? "another block" : "another thread";  // that one's name is lost
    else
        who += earlier.phase < run.first_phase ? block_name(earlier.phase) : "this block";
    report("RACE", pc, address_of(at), "%s byte %llu of %s, which %s %s at {other}; %s", verb(kind),
           address - area.address, area.label, who.c_str(), did,
           other_block ? "blocks run in any order, or at once" : "no barrier lies between");
}

// A store that races with other stores alone does no harm if it stores what they have stored: the manual allows it.
// The value is in memory only after the check, so the report is made, and taken back by the next check of anything.
static struct {
    cs_u64 address;
    cs_u32 bytes;  // 0: there is none
    cs_u64 reports_before, found_before, reports, found;
    char before[16];
} stored;

static void look_at_stored() {
    CsLaunch& launch = *run.launch;
    bool same = !memcmp(stored.before, (const void*)stored.address, stored.bytes);
    if (same && launch.n_reports == stored.reports && launch.n_found == stored.found) {
        launch.n_reports = stored.reports_before;
        launch.n_found = stored.found_before;
    }
    stored.bytes = 0;
}

// The bytes [address, address + bytes) of a piece: looks for races, and remembers the access.
static void check_races(Piece& piece, const CsArea& area, cs_u64 address, cs_u32 bytes, Kind kind, bool global,
                        const void* pc) {
    piece.split_for(address, bytes);
    piece.used = true;
    if (kind != Kind::read) piece.written = true;
    Cell* cell = piece.at(address);
    cs_u64 reports_before = run.launch->n_reports, found_before = run.launch->n_found;
    bool writes_race = false, others_race = false;
    for (cs_u64 at = address; at < address + bytes; at += piece.cell_bytes, cell++) {
        bool atomic = kind == Kind::atomic;
        if (unordered(cell->write, global, atomic)) {
            if (fenced && told(cell->write, at, global)) {
                if (kind != Kind::read) cell->write = {};  // what comes after this one comes after that one, too
            } else {
                (kind == Kind::write && !cell->write.atomic_here ? writes_race : others_race) = true;
                report_race(cell->write, "wrote", kind, area, at, global, pc);
            }
        }
        if (kind != Kind::read && unordered(cell->read, global, false) && !(fenced && told(cell->read, at, global))) {
            others_race = true;
            report_race(cell->read, "read", kind, area, at, global, pc);
        }
        if (fenced && kind == Kind::write) cell->read = {};  // likewise
        remember(kind == Kind::read ? cell->read : cell->write, kind, pc);
    }
    if (writes_race && !others_race && bytes <= sizeof stored.before) {
        stored = {address, bytes, reports_before, found_before, run.launch->n_reports, run.launch->n_found, {}};
        memcpy(stored.before, (const void*)address, bytes);
    }
}

// ---------------------------------------------------------------- shared memory

static bool in_module(cs_u64 address) { return address - (cs_u64)&__ehdr_start < (cs_u64)(&_end - &__ehdr_start); }

static bool holds(const CsArea& area, cs_u64 address, cs_u32 bytes) {
    return address >= area.address && bytes <= area.bytes && address - area.address <= area.bytes - bytes;
}

std::string place_of(cs_u64 address) {
    for (const CsArea& area : shared_areas)
        if (holds(area, address, 1)) return "byte " + std::to_string(address - area.address) + " of " + area.label;
    for (cs_u64 i = 0; i < run.launch->n_areas; i++) {
        const CsArea& area = run.launch->areas[i];
        if (holds(area, address, 1)) return "byte " + std::to_string(address - area.address) + " of " + area.label;
    }
    return "no array";
}

bool in_shared_array(cs_u64 address) {
    return std::any_of(shared_areas.begin(), shared_areas.end(),
                       [address](const CsArea& area) { return holds(area, address, 1); });
}

// A report about an access that no array holds, described by the array that lies closest.
[[noreturn]] static void report_outside(const char* report_kind, const CsArea* areas, cs_u64 n, cs_u64 address,
                                        cs_u32 bytes, Kind kind, const void* pc) {
    const CsArea* nearest = nullptr;
    cs_u64 distance = ~0ull;
    for (cs_u64 i = 0; i < n; i++) {
        cs_u64 begin = areas[i].address, end = begin + areas[i].bytes;
        cs_u64 away = address < begin ? begin - address : address > end ? address - end : 0;
        if (away <= distance) distance = away, nearest = &areas[i];
    }
    if (address < 4096) {
        report(report_kind, pc, nullptr, "%s %u bytes at address %llu: a null pointer", verb(kind), bytes, address);
    } else if (nearest) {
        report(report_kind, pc, nullptr, "%s %u bytes at byte %lld of %s, which has %llu", verb(kind), bytes,
               (long long)(address - nearest->address), nearest->label, nearest->bytes);
    } else {
        report(report_kind, pc, nullptr, "%s %u bytes at address 0x%llx: there is no array", verb(kind), bytes,
               address);
    }
    leave();
}

// For each word between the guards: 1 + the number of the thread that copies into it asynchronously, and has not waited.
static std::vector<cs_u16> copied_by;
static bool any_copied;

static cs_u16& copier(cs_u64 address) {
    return copied_by[(address - (cs_u64)(cs_guard_before + CS_SHARED_GUARD)) / 4];
}

// The bytes may be accessed neither by the thread that copies into them nor by another.
static void check_copies(const CsArea& area, cs_u64 address, cs_u32 bytes, Kind kind, const void* pc) {
    for (cs_u64 at = address & ~3ull; at < address + bytes; at += 4) {
        if (!copier(at)) continue;
        cs_u32 number = copier(at) - 1u;
        report("RACE", pc, copy_into(number, at)->pc,
               "%s byte %llu of %s, which %s of this block copies asynchronously at {other}; %s has not waited for it",
               verb(kind), at - area.address, area.label, thread_name(number).c_str(),
               number == run.current->number ? "it" : "that thread");
        return;
    }
}

// ---------------------------------------------------------------- what is left of an earlier round

// An instruction that fills a tile in every round, and this time has left a part of it as it was.  Only of instructions
// whose threads have not read what they write just before: a sum in shared memory goes on with old values on purpose.
struct Filler {
    cs_u32 pc, phase, before;  // the latest phase in which it wrote, and the one before that
    bool updates;
};
static Filler fillers[256];

static Filler& filler(cs_u32 pc) { return fillers[(pc ^ pc >> 8) % 256]; }

static void note_filling(const Cell& cell, const void* pc) {
    cs_u32 offset = (cs_u32)((const char*)pc - &__ehdr_start);
    Filler& mine = filler(offset);
    if (mine.pc != offset || mine.phase < run.first_phase) mine = {offset, run.phase, 0, false};
    if (mine.phase != run.phase) mine.before = mine.phase, mine.phase = run.phase;
    cs_u32 number = run.current->number;
    bool own = cell.read.warp == number / 32 && cell.read.lane == number % 32;
    if (own && cell.read.phase == run.phase) mine.updates = true;
}

static void look_for_stale(const Cell& cell, const CsArea& area, cs_u64 address, const void* pc) {
    const Filler& its = filler(cell.write.pc);
    if (its.pc != cell.write.pc || its.updates || cell.write.phase < run.first_phase) return;
    cs_u32 latest = its.phase < run.phase ? its.phase : its.before;
    if (cell.write.phase < latest)
        note("STALE-SHARED", pc, address_of(cell.write.pc),
             "reads byte %llu of %s, which {other} has not written in this round, but in an earlier one",
             address - area.address, area.label);
}

static void check_shared(cs_u64 address, cs_u32 bytes, Kind kind, const void* pc) {
    cs_u64 i = 0;
    while (i < shared_areas.size() && !holds(shared_areas[i], address, bytes)) i++;
    if (i == shared_areas.size()) {
        if (!in_shared_memory(address)) {
            for (i = 0; i < variable_areas.size(); i++)
                if (holds(variable_areas[i], address, bytes)) {
                    // Whether the constructor of a shared array, which must be empty, has been called.
                    if (!strncmp(variable_areas[i].label, "_ZGV", 4)) return;
                    return check_races(variable_pieces[i], variable_areas[i], address, bytes, kind, true, pc);
                }
            if (kind == Kind::read) return;  // constant tables lie in the module too
        }
        report_outside("OOB-SHARED", shared_areas.data(), shared_areas.size(), address, bytes, kind, pc);
    }
    const CsArea& area = shared_areas[i];
    Piece& piece = shared_pieces[i];
    check_copies(area, address, bytes, kind, pc);
    if (kind != Kind::write) {
        piece.split_for(address, bytes);
        const Cell* cell = piece.at(address);
        for (cs_u64 at = address; at < address + bytes; at += piece.cell_bytes, cell++)
            if (cell->write.phase != run.phase && cell->write.phase >= run.first_phase) {
                look_for_stale(*cell, area, at, pc);
            } else if (cell->write.phase < run.first_phase) {
                report("UNINIT-SHARED", pc, nullptr, "%s byte %llu of %s, which no thread of this block has written",
                       verb(kind), at - area.address, area.label);
                break;
            }
    } else {
        piece.split_for(address, bytes);
        note_filling(*piece.at(address), pc);
    }
    check_races(piece, area, address, bytes, kind, false, pc);
}

// ---------------------------------------------------------------- global memory

// The argument that the access belongs to; of arguments that overlap, for a write, one that may be written.
static const CsArea* find_area(cs_u64 address, cs_u32 bytes, Kind kind) {
    if (last_area && holds(*last_area, address, bytes) && (kind == Kind::read || last_area->writable)) return last_area;
    const CsArea* found = nullptr;
    for (cs_u64 i = 0; i < run.launch->n_areas; i++) {
        const CsArea& area = run.launch->areas[i];
        if (!holds(area, address, bytes)) continue;
        found = &area;
        if (kind == Kind::read || area.writable) break;
    }
    return last_area = found;
}

static void check_global(cs_u64 address, cs_u32 bytes, Kind kind, const void* pc) {
    const CsArea* area = find_area(address, bytes, kind);
    if (!area) report_outside("OOB-GLOBAL", run.launch->areas, run.launch->n_areas, address, bytes, kind, pc);
    if (kind != Kind::read && !area->writable) {
        report("WRITE-CONST", pc, nullptr, "%s byte %llu of %s, which the kernel takes as a pointer to const",
               verb(kind), address - area->address, area->label);
        leave();
    }
    if (area->written) {
        cs_u8* written = area->written + (address - area->address);
        if (kind != Kind::write)
            for (cs_u32 i = 0; i < bytes; i++)
                if (!written[i]) {
                    report("UNINIT-GLOBAL", pc, nullptr, "%s byte %llu of %s, which has never been written", verb(kind),
                           address - area->address + i, area->label);
                    break;
                }
        if (kind != Kind::read) memset(written, 1, bytes);
    }
    check_races(global_pieces[area->piece], *area, address, bytes, kind, true, pc);
}

// ---------------------------------------------------------------- every access

__attribute__((always_inline)) static inline bool is_own(cs_u64 address) {
    if (!run.kernel->waits) {
        cs_u64 low = (cs_u64)__builtin_frame_address(0);
        return address - low < (cs_u64)launch_frame - low;
    }
    return address - ((cs_u64)run.launch->stacks + (cs_u64)run.current->number * CS_STACK_BYTES) < CS_STACK_BYTES;
}

bool on_own_stack(cs_u64 address) { return is_own(address); }

static bool is_coordinates(cs_u64 address) {
    return address - (cs_u64)&__start_cudasim_here < (cs_u64)(&__stop_cudasim_here - &__start_cudasim_here);
}

constexpr char TRACED[] = {'l', 's', 'a'};  // by Kind

__attribute__((noinline)) static void check_memory(cs_u64 address, cs_u32 bytes, Kind kind, const void* pc) {
    if (is_coordinates(address)) return;
    bool traced = __builtin_expect(run.launch->trace != nullptr, 0);
    Busy busy(pc);
    if (stored.bytes) look_at_stored();
    if (kind == Kind::atomic && fenced) note_atomic(address);
    if (traced) trace_access(pc, address, bytes, TRACED[(int)kind], false);
    bool shared = in_module(address);
    // __constant__ and __device__ variables lie in the module, and are arrays like the arguments.
    if (shared && !in_shared_memory(address) && find_area(address, bytes, kind)) shared = false;
    (shared ? check_shared : check_global)(address, bytes, kind, pc);
    if (traced) trace_value();
    if (!run.launch->count) return;
    // A struct is copied by several accesses of the widest sort that fits.
    cs_u32 part = bytes <= MOST_BYTES ? bytes : bytes % 16 == 0 ? 16 : bytes % 8 == 0 ? 8 : bytes % 4 == 0 ? 4 : 1;
    for (cs_u32 i = 0; i < bytes; i += part) count_access(pc, address + i, part, kind, shared && in_shared_memory(address));
}

// Most accesses are to the thread's own variables.  These get by without a call.
__attribute__((always_inline)) static inline void check(cs_u64 address, cs_u32 bytes, Kind kind, const void* pc) {
    if (!cs_control.active || !run.current) return;
    if (!is_own(address)) return check_memory(address, bytes, kind, pc);
    if (__builtin_expect(run.launch->trace != nullptr, 0)) trace_access(pc, address, bytes, TRACED[(int)kind], true);
}

// ---------------------------------------------------------------- called by scheduler.cpp

static void add_shared_area(cs_u64 address, cs_u64 bytes, const char* name) {
    shared_areas.push_back({address, bytes, nullptr, 1, 0, ""});
    shared_labels.push_back(std::string("shared array '") + name + "'");
}

void checks_begin_launch() {
    Busy busy;
    const CsLaunch& launch = *run.launch;
    launch_frame = (char*)__builtin_frame_address(0);
    if (run.phase >= 1u << 31) {  // begin again, with nothing remembered
        for (Piece& piece : global_pieces) piece.release(0);
        for (Piece& piece : shared_pieces) piece.release(0);
        for (Piece& piece : variable_pieces) piece.release(0);
        run.phase = 0;
    }
    launch_phase = run.phase + 1;
    last_area = nullptr;
    block_starts.clear();
    for (WarpClocks& warp : clocks) warp.reset();
    counters_begin_launch();
    stored.bytes = 0;
    releases.clear();
    fenced = false;
    memset(fences, 0, sizeof fences);

    shared_areas.clear();
    shared_labels.clear();
    for (cs_u64 i = 0; i < cs_n_shared_arrays; i++) {
        const CsShared& array = cs_shared_arrays[i];
        if (belongs_to_kernel(array)) add_shared_area((cs_u64)array.address, array.bytes, array.name);
    }
    if (launch.shared_bytes) add_shared_area((cs_u64)dynamic_shared(), launch.shared_bytes, "dynamic");
    cs_u64 words = (cs_u64)(cs_guard_behind - cs_guard_before - CS_SHARED_GUARD) / 4;
    if (any_copied || copied_by.size() != words) copied_by.assign(words, 0);
    any_copied = false;
    shared_pieces.resize(shared_areas.size());
    for (cs_u64 i = 0; i < shared_areas.size(); i++) {
        shared_areas[i].label = shared_labels[i].c_str();
        shared_pieces[i].cover(shared_areas[i].address, shared_areas[i].address + shared_areas[i].bytes);
    }

    if (variable_areas.empty()) {
        for (cs_u64 i = 0; i < cs_n_device_variables; i++) {
            const CsShared& variable = cs_device_variables[i];
            variable_areas.push_back({(cs_u64)variable.address, variable.bytes, nullptr, 1, 0, variable.name});
        }
        variable_pieces.resize(variable_areas.size());
    }
    for (cs_u64 i = 0; i < variable_areas.size(); i++)
        variable_pieces[i].cover(variable_areas[i].address, variable_areas[i].address + variable_areas[i].bytes);

    for (cs_u64 i = 0; i < launch.n_areas;) {  // sorted by address
        cs_u64 begin = launch.areas[i].address, end = begin;
        cs_u32 piece = launch.areas[i].piece;
        for (; i < launch.n_areas && launch.areas[i].piece == piece; i++)
            if (launch.areas[i].address + launch.areas[i].bytes > end)
                end = launch.areas[i].address + launch.areas[i].bytes;
        if (global_pieces.size() <= piece) global_pieces.resize(piece + 1);
        global_pieces[piece].cover(begin, end);
    }
    n_pieces = launch.n_areas ? launch.areas[launch.n_areas - 1].piece + 1 : 0;
}

void checks_begin_block() {
    Busy busy;
    acquisitions.clear();
    if (fenced) memset(fences, 0, sizeof fences);
    if (block_starts.size() == MOST_STARTS) block_starts.erase(block_starts.begin(), block_starts.begin() + MOST_STARTS / 2);
    block_starts.push_back({run.phase, run.block_number});
}

void checks_end_phase() {
    Busy busy;
    if (stored.bytes) look_at_stored();
    for (cs_u32 i = 0; i < run.n_warps; i++)
        if (clocks[i].used) clocks[i].reset();
    counters_end_phase();
    if (run.phase == ~0u) {
        report("EMULATOR", nullptr, nullptr, "more than 2^31 blocks and barriers in one launch: run it in fast mode");
        leave();
    }
}

// A copy reads, and it writes, at any time from its call to the wait for it.  So it counts as doing both at the call and
// again in the wait; what others do in between is found by check_copies and here.
static void check_copy(const Copy& copy) {
    if (copy.inside) check_global((cs_u64)copy.from, copy.bytes, Kind::read, copy.pc);
    check_shared((cs_u64)copy.to, copy.bytes, Kind::write, copy.pc);
}

static void set_copier(const Copy& copy, cs_u32 number) {
    any_copied = true;
    for (cs_u32 i = 0; i < copy.bytes; i += 4) copier((cs_u64)copy.to + i) = (cs_u16)number;
}

void checks_copy_begins(Copy& copy) {
    check_copy(copy);
    if (copy.inside) memcpy(copy.seen, copy.from, copy.bytes);
    set_copier(copy, run.current->number + 1);
    if (!run.launch->count) return;
    if (copy.inside) count_access(copy.pc, (cs_u64)copy.from, copy.bytes, Kind::read, false);
    // Counts are by address of the instruction: this is another one, of the same line.
    count_access((const char*)copy.pc - 1, (cs_u64)copy.to, copy.bytes, Kind::write, true);
}

void checks_copy_ends(const Copy& copy) {
    set_copier(copy, 0);
    if (copy.inside && find_area((cs_u64)copy.from, copy.bytes, Kind::read)) {
        const CsArea& area = *last_area;
        Piece& piece = global_pieces[area.piece];
        piece.split_for((cs_u64)copy.from, copy.bytes);
        for (cs_u64 at = (cs_u64)copy.from; at < (cs_u64)copy.from + copy.bytes; at += piece.cell_bytes) {
            const Access& write = piece.at(at)->write;
            if (in_this_launch(write) && write.phase > copy.phase)
                report_race(write, "wrote", Kind::read, area, at, true, copy.pc);
            else if (memcmp(copy.seen + (at - (cs_u64)copy.from), (const void*)at, piece.cell_bytes))
                report("RACE", copy.pc, address_of(write.pc),
                       "reads byte %llu of %s, which is changed at {other} before the wait for this copy",
                       at - area.address, area.label);
        }
    }
    check_copy(copy);
}

void checks_syncwarp(cs_u32 warp, cs_u32 mask) { clocks[warp].synchronize(mask); }

static void forget_cells() {
    for (Piece& piece : global_pieces) piece.release(KEEP_BYTES);
}

void checks_end_launch() {
    if (stored.bytes) look_at_stored();
    trace_settle();
    if (!run.launch->keep_cells) forget_cells();
}

// ---------------------------------------------------------------- parts of a launch, each in a library of its own

static bool met(const Piece& ours, const CsCells& theirs) {
    const Cell* their_cells = (const Cell*)theirs.cells;
    cs_u32 step = std::min(ours.cell_bytes, theirs.cell_bytes);
    for (cs_u64 at = 0; at < ours.end - ours.begin; at += step) {
        const Cell &a = ours.cells[at / ours.cell_bytes], &b = their_cells[at / theirs.cell_bytes];
        bool a_writes = a.write.phase >= launch_phase, b_writes = b.write.phase >= theirs.launch_phase;
        if (a_writes && (b_writes || b.read.phase >= theirs.launch_phase)) return true;
        if (b_writes && a.read.phase >= launch_phase) return true;
    }
    return false;
}

// ---------------------------------------------------------------- called by the kernels

#define PC __builtin_return_address(0)
#pragma GCC visibility push(default)
extern "C" {
#define CS_HOOKS(bytes)                                                                       \
    void __tsan_read##bytes(void* p) { check((cs_u64)p, bytes, Kind::read, PC); }             \
    void __tsan_write##bytes(void* p) { check((cs_u64)p, bytes, Kind::write, PC); }           \
    void __tsan_unaligned_read##bytes(void* p) { check((cs_u64)p, bytes, Kind::read, PC); }   \
    void __tsan_unaligned_write##bytes(void* p) { check((cs_u64)p, bytes, Kind::write, PC); }
CS_HOOKS(1)
CS_HOOKS(2)
CS_HOOKS(4)
CS_HOOKS(8)
CS_HOOKS(16)
void __tsan_read_range(void* p, unsigned long bytes) { check((cs_u64)p, (cs_u32)bytes, Kind::read, PC); }
void __tsan_write_range(void* p, unsigned long bytes) { check((cs_u64)p, (cs_u32)bytes, Kind::write, PC); }
void __tsan_vptr_update(void*, void*) {}  // a class with virtual functions is made, and used
void __tsan_vptr_read(void*) {}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void cs_fence(int whole_card) {
    Busy busy(PC);
    if (!run.current) return;
    fenced = true;
    cs_u32 number = run.current->number;
    WarpClocks& warp = clocks[number / 32];
    cs_u32& clock = warp.known[number % 32][number % 32];
    for (int wide = 0; wide <= whole_card; wide++) fences[wide][number] = {run.phase, clock};
    if (clock < 0xffff) clock++, warp.used = true;  // what the thread does from now on is not before the fence
}
// What the launch has touched of its arrays: how many pieces; writes at most `room`.
cs_u64 cs_cells(CsCells* out, cs_u64 room) {
    for (cs_u64 i = 0; i < n_pieces && i < room; i++) {
        const Piece& piece = global_pieces[i];
        out[i] = {piece.cells, piece.begin, piece.end, piece.cell_bytes, launch_phase, piece.used, piece.written};
    }
    return n_pieces;
}
// Has the launch touched bytes that another has touched too, and one of them has written?
int cs_met(const CsCells* theirs, cs_u64 n) {
    for (cs_u64 i = 0; i < n_pieces; i++)
        for (cs_u64 j = 0; j < n; j++) {
            const Piece& ours = global_pieces[i];
            if (ours.begin != theirs[j].begin || !ours.used || !theirs[j].used) continue;
            if ((ours.written || theirs[j].written) && met(ours, theirs[j])) return 1;
        }
    return 0;
}
void cs_forget_cells() { forget_cells(); }
void cs_note_atomic(const void* p, int bytes, const void* pc) { check((cs_u64)p, (cs_u32)bytes, Kind::atomic, pc); }
}
#pragma GCC visibility pop
