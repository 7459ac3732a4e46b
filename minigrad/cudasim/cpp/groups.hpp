// cooperative_groups.h: a block, tiles of it, and the lanes that run together.  Groups of several blocks would need all
// blocks at once, and here one runs after another.
#pragma once

namespace cooperative_groups {

static inline unsigned cs_rank() { return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z); }
static inline unsigned cs_threads() { return blockDim.x * blockDim.y * blockDim.z; }

struct thread_block {
    static void sync() { __syncthreads(); }
    static unsigned thread_rank() { return cs_rank(); }
    static unsigned size() { return cs_threads(); }
    static unsigned num_threads() { return cs_threads(); }
    static dim3 group_index() { return dim3(blockIdx); }
    static dim3 thread_index() { return dim3(threadIdx); }
    static dim3 group_dim() { return blockDim; }
    static dim3 dim_threads() { return blockDim; }
    static bool is_valid() { return true; }
    struct arrival_token {};
    arrival_token barrier_arrive() const { return {}; }
    void barrier_wait(arrival_token) const { sync(); }
};
static inline thread_block this_thread_block() { return {}; }

struct grid_group {
    static dim3 group_dim() { return gridDim; }
    static dim3 dim_blocks() { return gridDim; }
    static dim3 block_index() { return dim3(blockIdx); }
    static unsigned long long block_rank() {
        return blockIdx.x + (unsigned long long)gridDim.x * (blockIdx.y + (unsigned long long)gridDim.y * blockIdx.z);
    }
    static unsigned long long num_blocks() { return (unsigned long long)gridDim.x * gridDim.y * gridDim.z; }
    static unsigned long long thread_rank() { return block_rank() * cs_threads() + cs_rank(); }
    static unsigned long long size() { return num_blocks() * cs_threads(); }
    static unsigned long long num_threads() { return size(); }
    static bool is_valid() { return true; }
    static void sync() {
        if (num_blocks() > 1)
            cs_assert_failed("sync() of a grid: blocks run one after another here; launch one kernel after another instead");
        __syncthreads();
    }
};
static inline grid_group this_grid() { return {}; }

// Lanes of one warp, named by a mask.  The lanes of a mask are numbered from its lowest bit.
struct cs_lanes {
    unsigned mask;
    unsigned lane_at(unsigned rank) const { return __fns(mask, 0, (int)rank + 1); }
    unsigned packed(unsigned lanes) const {  // bits of lanes as bits of ranks
        unsigned result = 0, rank = 0;
        for (unsigned left = mask; left; left &= left - 1, rank++) result |= (lanes >> __builtin_ctz(left) & 1) << rank;
        return result;
    }
    void sync() const { __syncwarp(mask); }
    unsigned thread_rank() const { return (unsigned)__popc(mask & ((1u << cs_lane()) - 1)); }
    unsigned size() const { return (unsigned)__popc(mask); }
    unsigned num_threads() const { return size(); }
    template <class T>
    T shfl(T value, unsigned rank) const { return cs_shuffle_any(value, lane_at(rank % size())); }
    template <class T>
    T shfl_up(T value, unsigned distance) const {
        unsigned rank = thread_rank();
        return cs_shuffle_any(value, rank >= distance ? lane_at(rank - distance) : cs_lane());
    }
    template <class T>
    T shfl_down(T value, unsigned distance) const {
        unsigned rank = thread_rank();
        return cs_shuffle_any(value, rank + distance < size() ? lane_at(rank + distance) : cs_lane());
    }
    template <class T>
    T shfl_xor(T value, unsigned flip) const {
        unsigned rank = thread_rank() ^ flip;
        return cs_shuffle_any(value, rank < size() ? lane_at(rank) : cs_lane());
    }
    int any(int predicate) const { return __any_sync(mask, predicate); }
    int all(int predicate) const { return __all_sync(mask, predicate); }
    unsigned ballot(int predicate) const { return packed(__ballot_sync(mask, predicate)); }
    template <class T>
    unsigned match_any(T value) const { return packed(__match_any_sync(mask, value)); }
    template <class T>
    unsigned match_all(T value, int& all) const { return packed(__match_all_sync(mask, value, &all)); }

    // Values of any size, 8 bytes at a time.
    template <class T>
    T cs_shuffle_any(T value, unsigned lane) const {
        if constexpr (sizeof(T) <= 8) {
            return cs_shuffle(mask, value, lane);
        } else {
            T result;
            for (size_t at = 0; at < sizeof(T); at += 8) {
                unsigned long long piece = 0;
                size_t bytes = sizeof(T) - at < 8 ? sizeof(T) - at : 8;
                __builtin_memcpy(&piece, (char*)&value + at, bytes);
                piece = cs_shuffle(mask, piece, lane);
                __builtin_memcpy((char*)&result + at, &piece, bytes);
            }
            return result;
        }
    }
};

struct coalesced_group : cs_lanes {
    unsigned meta_group_rank() const { return 0; }
    unsigned meta_group_size() const { return 1; }
};
static inline coalesced_group coalesced_threads() { return {{__activemask()}}; }

static inline unsigned cs_tile_mask(unsigned size) {
    unsigned first = cs_rank() % 32 / size * size, rest = cs_threads() - cs_rank() / 32 * 32;  // a last warp may be short
    unsigned lanes = size >= 32 ? 0xffffffffu : ((1u << size) - 1) << first;
    return rest >= 32 ? lanes : lanes & ((1u << rest) - 1);
}

template <unsigned Size, class Parent = void>
struct thread_block_tile : cs_lanes {
    static_assert(Size <= 32 && (Size & (Size - 1)) == 0, "tiles of more than 32 threads are not supported here");
    static constexpr unsigned cs_size = Size;
    static unsigned thread_rank() { return cs_rank() % Size; }
    static constexpr unsigned size() { return Size; }
    static constexpr unsigned num_threads() { return Size; }
    static unsigned meta_group_rank() { return cs_rank() / Size; }
    static unsigned meta_group_size() { return (cs_threads() + Size - 1) / Size; }
    template <class Other>
    operator thread_block_tile<Size, Other>() const {
        return {{this->mask}};
    }
};

// A group of which only the program knows what it is: a block, or a tile of it.
struct thread_group {
    unsigned mask, count;  // mask 0: the block
    thread_group(const thread_block&) : mask(0), count(cs_threads()) {}
    thread_group(const cs_lanes& lanes) : mask(lanes.mask), count(lanes.size()) {}
    void sync() const {
        if (mask)
            __syncwarp(mask);
        else
            __syncthreads();
    }
    unsigned size() const { return count; }
    unsigned num_threads() const { return count; }
    unsigned thread_rank() const { return mask ? cs_lanes{mask}.thread_rank() : cs_rank(); }
};

template <unsigned Size, class Parent>
static inline thread_block_tile<Size, Parent> tiled_partition(const Parent&) {
    return {{cs_tile_mask(Size)}};
}
static inline thread_group tiled_partition(const thread_group&, unsigned size) {
    return cs_lanes{cs_tile_mask(size)};
}
template <class Group>
static inline coalesced_group binary_partition(const Group& group, bool predicate) {
    unsigned yes = __ballot_sync(group.mask, predicate);
    return {{predicate ? yes : group.mask & ~yes}};
}
template <class Group, class T>
static inline coalesced_group labeled_partition(const Group& group, T label) {
    return {{__match_any_sync(group.mask, label)}};
}

template <class Group>
static inline void sync(const Group& group) { group.sync(); }
template <class Group>
static inline unsigned thread_rank(const Group& group) { return group.thread_rank(); }
template <class Group>
static inline unsigned group_size(const Group& group) { return group.size(); }

#define CS_JOIN(name, result)                                                   \
    template <class T>                                                          \
    struct name {                                                               \
        T operator()(const T& a, const T& b) const { return result; }           \
    };
CS_JOIN(plus, a + b)
CS_JOIN(less, b < a ? b : a)
CS_JOIN(greater, a < b ? b : a)
CS_JOIN(bit_and, a & b)
CS_JOIN(bit_or, a | b)
CS_JOIN(bit_xor, a ^ b)

template <class Group, class T, class F>
static inline T reduce(const Group& group, T value, F&& join) {
    T result = group.shfl(value, 0);
    for (unsigned rank = 1; rank < group.size(); rank++) result = join(result, group.shfl(value, rank));
    return result;
}
template <class Group, class T, class F = plus<T>>
static inline T inclusive_scan(const Group& group, T value, F&& join = F()) {
    T result = value;
    bool first = true;
    for (unsigned rank = 0; rank < group.size(); rank++) {
        T other = group.shfl(value, rank);
        if (rank <= group.thread_rank()) result = first ? other : join(result, other);
        first = false;
    }
    return result;
}
template <class Group, class T, class F = plus<T>>
static inline T exclusive_scan(const Group& group, T value, F&& join = F()) {
    T before = group.shfl_up(inclusive_scan(group, value, join), 1);
    return group.thread_rank() ? before : T();
}
template <class Group, class F>
static inline void invoke_one(const Group& group, F&& f) {
    if (group.thread_rank() == 0) f();
}

// The threads of the group copy; who waits for the group has all of it.
template <class Group, class T>
static inline void memcpy_async(const Group& group, T* to, const T* from, size_t bytes) {
    for (size_t i = group.thread_rank(); i < bytes / sizeof(T); i += group.size()) to[i] = from[i];
}
template <class Group>
static inline void wait(const Group& group) { group.sync(); }
template <unsigned, class Group>
static inline void wait_prior(const Group& group) { group.sync(); }

}  // namespace cooperative_groups
