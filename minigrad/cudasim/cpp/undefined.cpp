// Check mode: what g++ -fsanitize=undefined calls where C++ says that anything may happen.  Its library is not linked:
// the reports name the CUDA thread.
#include "runtime.hpp"
#include <cstring>

struct SourcePlace {
    const char* file;
    cs_u32 line, column;
};

// "'float [64]'"; kind 0 is an integer, and info says how many bits (as a logarithm) and whether it has a sign.
struct Type {
    cs_u16 kind, info;
    char name[1];
};

static long long number(const Type& type, cs_u64 value) {
    int bits = type.kind == 0 ? 1 << (type.info >> 1) : 64;
    if (bits >= 64 || bits < 8) return (long long)value;
    cs_u64 mask = (1ull << bits) - 1;
    bool negative = type.info & 1 && value >> (bits - 1) & 1;
    return (long long)(negative ? value | ~mask : value & mask);
}

struct Index {
    SourcePlace place;
    const Type *array, *index;
};
struct Shift {
    SourcePlace place;
    const Type *left, *right;
};
struct Arithmetic {
    SourcePlace place;
    const Type* type;
};
struct Address {
    SourcePlace place;
    const Type* type;
    unsigned char log_alignment, what;
};

#define PC __builtin_return_address(0)

extern "C" __attribute__((visibility("default"))) unsigned cs_product(unsigned a, unsigned b) {
    cs_u64 product = (cs_u64)a * b;
    if (product >> 32)
        report("OVERFLOW", PC, nullptr, "%u * %u wraps around at 2^32: write (size_t)blockIdx.x * blockDim.x", a, b);
    return (unsigned)product;
}

static void overflow(const Arithmetic& where, cs_u64 a, const char* sign, cs_u64 b, const void* pc) {
    report("OVERFLOW", pc, nullptr, "%lld %s %lld does not fit %s: compute in long long", number(*where.type, a), sign,
           number(*where.type, b), where.type->name);
}

#pragma GCC visibility push(default)
extern "C" {
void __ubsan_handle_out_of_bounds(Index* where, cs_u64 index) {
    long long as_it_is = number(*where->index, index);
    bool below = as_it_is >= 1ll << 31 && as_it_is < 1ll << 32;  // of an unsigned number that went below 0
    report("OOB-INDEX", PC, nullptr, "index %lld%s is outside of %s", as_it_is,
           below ? (" (" + std::to_string(as_it_is - (1ll << 32)) + ", without a sign)").c_str() : "",
           where->array->name);
    leave();
}

void __ubsan_handle_type_mismatch_v1(Address* where, cs_u64 address) {
    if (address % (1ull << where->log_alignment) == 0) {  // -fsanitize=object-size
        bool shared = in_shared_memory(address);
        if (shared && !in_shared_array(address)) return;  // the check of the access follows, and knows the array
        bool local = !shared && on_own_stack(address);
        report(shared ? "OOB-SHARED" : local ? "OOB-LOCAL" : "OOB-GLOBAL", PC, nullptr,
               "a pointer leads out of %s, by %s", shared  ? "a shared array"
                                                   : local ? "a local array"
                                                           : "an array of the file", where->type->name);
        leave();
    }
    report("MISALIGNED", PC, nullptr, "%s, at address 0x%llx, is used as %s, which needs a multiple of %d",
           place_of(address).c_str(), address, where->type->name, 1 << where->log_alignment);
    leave();
}

void __ubsan_handle_shift_out_of_bounds(Shift* where, cs_u64 left, cs_u64 right) {
    report("SHIFT", PC, nullptr, "%lld, a %s, shifted by %lld", number(*where->left, left), where->left->name,
           number(*where->right, right));
}

// -fstack-protector: the value behind the local arrays of a function is another one now.
[[noreturn]] void __stack_chk_fail() {
    report("OOB-LOCAL", PC, nullptr, "the bytes behind the local arrays have been written, by a pointer or an index, in "
                                     "the function that ends here");
    leave();
}

void __ubsan_handle_add_overflow(Arithmetic* where, cs_u64 a, cs_u64 b) { overflow(*where, a, "+", b, PC); }
void __ubsan_handle_sub_overflow(Arithmetic* where, cs_u64 a, cs_u64 b) { overflow(*where, a, "-", b, PC); }
void __ubsan_handle_mul_overflow(Arithmetic* where, cs_u64 a, cs_u64 b) { overflow(*where, a, "*", b, PC); }
void __ubsan_handle_negate_overflow(Arithmetic* where, cs_u64 a) { overflow(*where, 0, "-", a, PC); }

void __ubsan_handle_divrem_overflow(Arithmetic* where, cs_u64 a, cs_u64 b) {
    report("DIVISION", PC, nullptr, "%lld divided by %lld", number(*where->type, a), number(*where->type, b));
    leave();
}
}
#pragma GCC visibility pop
