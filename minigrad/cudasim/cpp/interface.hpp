// What the parts of the emulator hand each other.  Launch, Report and Fault are also read and written from Python
// (minigrad/cudasim/native.py declares the same fields in the same order).  No includes: kernels are compiled with it.
#pragma once

typedef unsigned char cs_u8;
typedef unsigned short cs_u16;
typedef unsigned int cs_u32;
typedef unsigned long long cs_u64;

// One entry point of a kernel file.  The builder writes a table of them behind the source.
struct CsKernel {
    const char* name;
    cs_u32 waits;                                                    // 1: it may wait for other threads: needs fibers
    void (*describe)(char* text);                                    // the types of its parameters, '\n' between them
    void (*thread)(void** parameters, const struct CsPlace& place);  // runs one thread
    void (*block)(void** parameters, const struct CsPlace& place);   // runs a whole block; null where it waits
};

// Where a thread is: what threadIdx, blockIdx, blockDim and gridDim say.
struct CsPlace {
    cs_u32 thread[3], block[3], block_size[3], grid_size[3];
};

// A static __shared__ array.  The builder writes a table of them, and CS_REDZONE bytes behind each array.
#define CS_REDZONE 128
#define CS_SHARED_GUARD (1024 * 1024)
#define CS_MOST_DYNAMIC (256 * 1024)
#define CS_CANARY 4096  // bytes behind dynamic shared memory
struct CsShared {
    char* address;
    cs_u64 bytes;
    const char* name;    // "As"
    const char* kernel;  // the entry points it belongs to, "a" or "a,b"; "" where that is not known
};

// Check mode: a static __shared__ array of a function, and the alignment that its declaration asks for.  The builder
// reads these objects in the assembly: nothing else tells how far a GPU's compiler would align the array.
struct CsLaidOut {
    const volatile void* array;
    cs_u64 alignment, number;  // the number: of the declaration
};

// An array argument: the bytes a kernel may touch.
struct CsArea {
    cs_u64 address, bytes;
    cs_u8* written;  // one byte per byte of the array, 1 = has been written; null: all of it has
    cs_u32 writable;
    cs_u32 piece;  // areas that overlap have the same number: they share one record of who touched what
    const char* label;
};

// Something that was found.  `text` may contain "{other}": the line of other_pc goes there.
struct CsReport {
    char kind[24];
    cs_u64 pc, other_pc;  // addresses of the instructions; 0: none
    cs_u32 block[3], thread[3];
    cs_u32 has_thread;
    char text[388];
};

enum CsWarpOp { CS_SYNCWARP, CS_SHUFFLE, CS_BALLOT, CS_MULTIPLY_ADD, CS_ACTIVE_LANES };

// What one lane has of the matrices in d += a b: kernels/instructions.cuh tells which elements.
struct CsFragments {
    float d[4], a[4], b[2];
};

// What the thread that is traced did.  operation: a letter, see CsLaunch::trace.
struct CsTraced {
    cs_u64 pc, address;
    cs_u8 before[16], after[16];  // what lies at the address; of a store only afterwards, of a load only before
    cs_u32 bytes;
    cs_u8 operation;               // 'l'oad, 's'tore, 'a'tomic, 'b'arrier, 'w'arp intrinsic
    cs_u8 has_before, has_after;
};

enum CsOrder { CS_FORWARD, CS_REVERSED, CS_RANDOM };

// One launch: what Python asks for, and where the answer goes.
struct CsLaunch {
    cs_u32 grid_size[3], block_size[3];
    cs_u64 shared_bytes;         // dynamic shared memory
    cs_u64 first_block, blocks;  // which of the blocks run, counted x first
    cs_u64 block_step;
    cs_u64 seed;
    cs_u32 order;  // CsOrder
    cs_u32 poison, one_by_one, count, flush_to_zero;
    cs_u32 kernel;  // its number in the table
    void** parameters;
    const CsArea* areas;
    cs_u64 n_areas;
    CsReport* reports;
    cs_u64 max_reports, n_reports;
    cs_u64 n_found;  // how often something was found: also what made no report of its own
    char* stacks;    // filled in by host.cpp: CS_STACK_BYTES for each of 1024 threads
    CsTraced* trace;  // check mode: where to write what one thread does; null: nowhere
    cs_u64 max_traced, n_traced;
    cs_u64 trace_block;  // counted x first
    cs_u32 trace_thread;
    cs_u32 keep_cells;  // check mode: who touched what is kept until cs_forget_cells
};

// Check mode: what a launch has touched of a piece of memory, for another library to compare.
struct CsCells {
    const void* cells;
    cs_u64 begin, end;
    cs_u32 cell_bytes, launch_phase;
    cs_u32 used, written;
};

#define CS_MAX_THREADS 1024
#define CS_STACK_BYTES (128 * 1024)  // of which the lowest page is a guard

// How a launch ended before its time.
enum CsEnd { CS_FINISHED, CS_SIGNAL, CS_TIME_LIMIT, CS_INTERRUPTED };
#define CS_TRACE 16
struct CsFault {
    cs_u32 end;  // CsEnd
    cs_u32 signal, known_address;
    cs_u32 stack_overflow, behind_stack;  // below the thread's own stack, above it
    cs_u64 address;          // of the memory that the instruction wanted
    cs_u64 trace[CS_TRACE];  // the instruction, and what called it; 0: no more
};

// Shared by the runtime of a module and the signal handlers of host.cpp.
struct CsControl {
    volatile cs_u32 active;  // a launch is at work
    volatile cs_u32 busy;    // the runtime is at work: do not jump out of it, ask it to stop
    volatile cs_u32 stop;
    volatile cs_u64 pc;  // where the kernel called the runtime last
};
