// malloc and new in a kernel: memory out of a heap of 8 MiB, the size that CUDA begins with.  Pieces are powers of two.
#pragma once

#define CS_HEAP (8u << 20)
CS_VARIABLE static char cs_heap[CS_HEAP] __align__(16);
static cs_u8 cs_heap_sizes[CS_HEAP / 16];  // of the piece that begins here: the logarithm of its bytes
static char* cs_heap_free[32];             // of every size the first piece that was given back; its first word, the next
static unsigned cs_heap_used;

static CS_UNCHECKED void* malloc(size_t bytes) {
    unsigned size = 4;
    while (size < 31 && (1ull << size) < bytes) size++;
    char* piece = cs_heap_free[size];
    bool fresh = bytes <= CS_HEAP && (1u << size) <= CS_HEAP - cs_heap_used;
    // A piece in other hands looks like a race to check mode: those that nobody had come first there.
#ifdef CUDASIM_CHECK
    if (piece && !fresh)
#else
    if (piece)
#endif
    {
        __builtin_memcpy(&cs_heap_free[size], piece, sizeof piece);
        return piece;
    }
    if (!fresh) return nullptr;
    piece = cs_heap + cs_heap_used;
    cs_heap_used += 1u << size;
    cs_heap_sizes[(piece - cs_heap) / 16] = (cs_u8)size;
    return piece;
}
static CS_UNCHECKED void free(void* memory) {
    if (!memory) return;
    unsigned long at = (unsigned long)((char*)memory - cs_heap);
    if (at >= CS_HEAP || at % 16 || !cs_heap_sizes[at / 16])
        cs_assert_failed("free(pointer): a pointer that malloc has given, or new");
    unsigned size = cs_heap_sizes[at / 16];
    __builtin_memcpy(memory, &cs_heap_free[size], sizeof(char*));
    cs_heap_free[size] = (char*)memory;
}
// What `new` and `delete` become: emission.py.  The operators themselves are those of the emulator's own code.
struct CsOnDevice {};
inline void* operator new(size_t bytes, CsOnDevice) noexcept { return malloc(bytes); }
inline void* operator new[](size_t bytes, CsOnDevice) noexcept { return malloc(bytes); }
struct CsDelete {};
template <class T>
static inline void operator%(CsDelete, T* memory) {
    if constexpr (__is_class(T))
        if (memory) memory->~T();
    free((void*)memory);
}
struct CsDeleteArray {};
template <class T>
static inline void operator%(CsDeleteArray, T* memory) {
    free((void*)memory);
}
