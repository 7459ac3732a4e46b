// The memory behind shadow.hpp.
#include "shadow.hpp"
#include <cstring>
#include <sys/mman.h>

WarpClocks clocks[CS_MAX_THREADS / 32];

void WarpClocks::reset() {
    memset(known, 0, sizeof known);
    for (int lane = 0; lane < 32; lane++) known[lane][lane] = 1;
    used = false;
}

void WarpClocks::synchronize(cs_u32 mask) {
    cs_u32 joined[32] = {};
    for (cs_u32 lane = 0; lane < 32; lane++)
        if (mask >> lane & 1)
            for (int other = 0; other < 32; other++)
                if (known[lane][other] > joined[other]) joined[other] = known[lane][other];
    for (cs_u32 lane = 0; lane < 32; lane++)
        if (mask >> lane & 1) {
            memcpy(known[lane], joined, sizeof joined);
            if (++known[lane][lane] > 0xffff) {
                report("EMULATOR", (const void*)cs_control.pc, nullptr,
                       "more than 65535 __syncwarps of a lane without a barrier");
                leave();
            }
        }
    used = true;
}

// Pages that nobody touches cost nothing: most of a large array's cells are never there.
static Cell* map(cs_u64 bytes) {
    void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        report("EMULATOR", nullptr, nullptr, "no memory for check mode: it needs up to 8 times that of the arrays, 32 times for bytes");
        leave();
    }
    return (Cell*)p;
}

void Piece::cover(cs_u64 from, cs_u64 to) {
    begin = from & ~3ull;
    end = to;
    cell_bytes = 4;
    used = written = false;
    cs_u64 needed = ((to - begin) / 4 + 2) * sizeof(Cell);
    if (needed <= allocated) return;  // what earlier launches left there is told by its phase
    release(0);
    cells = map(needed);
    allocated = needed;
}

void Piece::split() {
    cs_u64 old_count = (end - begin) / 4 + 2, bytes = old_count * 4 * sizeof(Cell);
    Cell* finer = map(bytes);
    for (cs_u64 i = 0; used && i < old_count; i++) {
        if (cells[i].write.phase == 0 && cells[i].read.phase == 0) continue;
        for (int j = 0; j < 4; j++) finer[i * 4 + j] = cells[i];
    }
    release(0);
    cells = finer;
    allocated = bytes;
    cell_bytes = 1;
}

void Piece::release(cs_u64 keep_bytes) {
    if (allocated <= keep_bytes) return;
    munmap(cells, allocated);
    cells = nullptr;
    allocated = 0;
}
