// What check mode remembers about memory: who touched it last, cell by cell.
//
// Two accesses to the same bytes, at least one of them a write, are a race unless one is known to happen before the
// other.  Known to be ordered are: accesses of one thread; accesses of one block with a __syncthreads in between;
// accesses of one warp with a __syncwarp of both lanes in between.  Blocks are never ordered.  Atomics do not race with
// atomics.
#pragma once
#include "runtime.hpp"

// All accesses of one sort (reads or writes) to a cell, summed up: the latest ones, and what is left of those before.
struct Access {
    cs_u32 phase;       // run.phase of the latest; 0: none yet.  A phase belongs to one block of one launch
    cs_u32 pc;          // of the latest, from the beginning of the module
    cs_u32 lanes;       // of its warp: those that accessed in this phase and are not ordered before the latest
    cs_u32 clock : 16;  // the latest clock of these lanes: WarpClocks
    cs_u32 warp : 5;
    cs_u32 lane : 5;         // of the latest
    cs_u32 many_warps : 1;   // another warp accessed in this phase too
    cs_u32 many_blocks : 1;  // another block accessed in this launch too
    cs_u32 atomic_here : 1;  // all of this phase were atomic
    cs_u32 atomic_all : 1;   // all of this launch were atomic
};

struct Cell {
    Access write, read;
};

// A piece of memory, and its cells: one for every 4 bytes.  When a smaller access comes, each becomes four cells.
struct Piece {
    cs_u64 begin = 0, end = 0;
    Cell* cells = nullptr;
    cs_u64 allocated = 0;  // bytes at `cells`
    cs_u32 cell_bytes = 4;
    bool used = false;  // in this launch
    bool written = false;

    void split_for(cs_u64 address, cs_u32 bytes) {
        if (cell_bytes == 4 && (address | bytes) & 3) split();
    }
    void cover(cs_u64 from, cs_u64 to);  // makes room for cells of a new launch
    void split();
    void release(cs_u64 keep_bytes);  // gives the memory back if it is more than that

    Cell* at(cs_u64 address) { return cells + (address - begin) / cell_bytes; }
};

// ---------------------------------------------------------------- order within a warp: vector clocks

// Every lane counts its __syncwarps, and knows the counts of the others as of the last one that it had with them.
struct WarpClocks {
    cs_u32 known[32][32];
    bool used;  // since the last barrier

    void reset();
    void synchronize(cs_u32 mask);
    // Does what these lanes did up to `clock` happen before what `lane` does now?
    bool ordered(cs_u32 lanes, cs_u32 clock, cs_u32 lane) const {
        if (!used) return false;
        for (; lanes; lanes &= lanes - 1)
            if (known[lane][__builtin_ctz(lanes)] < clock) return false;
        return true;
    }
};
extern WarpClocks clocks[CS_MAX_THREADS / 32];
