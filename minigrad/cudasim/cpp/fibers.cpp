// Fibers: one per thread of a block, where threads wait for each other.
//
// A fiber is a call with a stack of its own that can be left in the middle and taken up again.  A thread that waits, at
// a barrier or in a warp intrinsic, switches to the next thread that is ready; when all have arrived, all are ready
// again. No operating system threads: a launch is the same every time, and a switch costs nanoseconds.
#include "runtime.hpp"
#include <cstdint>
#include <cstring>

Fiber fibers[CS_MAX_THREADS];

// ---------------------------------------------------------------- switching between fibers

// cs_switch saves the registers that a called function must keep, on the stack it leaves; then it takes the other stack
// and restores those found there.  cs_start is where a new fiber begins.
extern "C" void cs_switch(void** save_here, void* stack_pointer);
extern "C" void cs_start();
extern "C" __attribute__((used, visibility("hidden"))) void cs_fiber_main();

#if defined(__x86_64__) && !defined(CUDASIM_UCONTEXT)
constexpr int SAVED_WORDS = 6;  // and the return address above them
asm(R"(
    .text
    .globl cs_switch
    .hidden cs_switch
cs_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .globl cs_start
    .hidden cs_start
cs_start:
    call cs_fiber_main
)");
static void* new_stack(char* top) {
    void** words = (void**)((uintptr_t)top & ~(uintptr_t)15);
    *--words = nullptr;
    *--words = nullptr;
    *--words = (void*)cs_start;
    return words - SAVED_WORDS;
}
#elif defined(__aarch64__) && !defined(CUDASIM_UCONTEXT)
constexpr int SAVED_WORDS = 20;  // x19-x30, d8-d15
asm(R"(
    .text
    .globl cs_switch
    .hidden cs_switch
cs_switch:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
    .globl cs_start
    .hidden cs_start
cs_start:
    bl cs_fiber_main
)");
static void* new_stack(char* top) {
    void** words = (void**)((uintptr_t)top & ~(uintptr_t)15) - SAVED_WORDS;
    memset(words, 0, SAVED_WORDS * sizeof(void*));
    words[11] = (void*)cs_start;  // x30: where the first switch to it "returns"
    return words;
}
#else  // another CPU: the C library's own fibers, slower, as each switch is a system call too
#include <ucontext.h>
extern "C" void cs_switch(void** save_here, void* context) {
    ucontext_t here;
    *save_here = &here;
    swapcontext(&here, (ucontext_t*)context);
}
static void* new_stack(char* top) {
    ucontext_t* context = (ucontext_t*)((uintptr_t)top & ~(uintptr_t)63) - 1;
    char* bottom = (char*)((uintptr_t)(top - 1) / CS_STACK_BYTES * CS_STACK_BYTES);
    getcontext(context);
    context->uc_stack.ss_sp = bottom;
    context->uc_stack.ss_size = (size_t)((char*)context - bottom);
    context->uc_link = nullptr;
    makecontext(context, cs_fiber_main, 0);
    return context;
}
#endif

static void* scheduler_stack;  // where run_block waits for its threads

// ---------------------------------------------------------------- who runs next

static Fiber* queue[CS_MAX_THREADS];  // the threads that are ready, a ring
static cs_u32 queue_head, queue_length;

void make_ready(Fiber& fiber) {
    fiber.state = State::ready;
    queue[(queue_head + queue_length++) % CS_MAX_THREADS] = &fiber;
}

// Leaves the thread that waits or has ended, for the next one; for the scheduler where none is ready.
void switch_to_next(Fiber& self) {
    if (warps[self.number / 32].asking) answer_active_lanes(self.number / 32);
    if (!queue_length) {
        run.current = nullptr;
        cs_switch(&self.stack_pointer, scheduler_stack);
        return;
    }
    if (run.launch->order == CS_RANDOM) {
        Fiber*& any = queue[(queue_head + random_below(queue_length)) % CS_MAX_THREADS];
        Fiber* head = queue[queue_head];
        queue[queue_head] = any;
        any = head;
    }
    Fiber* next = queue[queue_head];
    queue_head = (queue_head + 1) % CS_MAX_THREADS;
    queue_length--;
    run.current = next;
    if (next != &self) cs_switch(&self.stack_pointer, next->stack_pointer);
}

void cs_fiber_main() {
    Fiber& self = *run.current;
    CsPlace place = run.place;
    memcpy(place.thread, self.thread, sizeof place.thread);
    run.kernel->thread(run.launch->parameters, place);
    self.state = State::done;
    switch_to_next(self);
    __builtin_trap();  // nobody switches back to a thread that has ended
}

void run_fibers() {
    queue_head = queue_length = 0;
    for (cs_u32 i = 0; i < run.n_threads; i++) {
        // Each stack begins a little further down than the one before, or all would fall into the same cache sets.
        char* top = run.launch->stacks + (cs_u64)(i + 1) * CS_STACK_BYTES - i % 16 * 320;
        fibers[i].stack_pointer = new_stack(top);
    }
    for (cs_u32 i = 0; i < run.n_threads; i++) make_ready(fibers[thread_order[i]]);
    run.current = queue[queue_head++];
    queue_length--;
    cs_switch(&scheduler_stack, run.current->stack_pointer);  // comes back when no thread is ready
}
