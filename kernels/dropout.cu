// Dropout: y = x * mask * scale, mask 0 with probability p, else 1.  minigrad/ops/dropout.py.
// Backward is the same: dx = dy * mask * scale.  The mask is not kept, it is made again.
//
// The random numbers come from Philox4x64-10, a counter-based generator: a function that turns (key, counter) into 256
// bits.  Counter, counter + 1, ... give a stream of bits, of which each element takes the next BITS (1, 8, 16 or 32).
// So an element's bits depend on its place in the stream alone, not on which thread makes them, and are the CPU's.
//
// One block of threads does a tile of TILE elements: BLOCKS of its threads make all the bits of the tile, one Philox
// block of 256 bits each, and leave them in shared memory; then each thread takes the bits of its 16 bytes of x.
//
// Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
#ifndef BITS
#define BITS 32
#endif
#ifndef TILE
#define TILE 1024
#endif

#define PER_WORD (64 / BITS)       // elements that share a word of 64 bits
#define PER_BLOCK (4 * PER_WORD)   // elements that share a Philox block
#define BLOCKS (TILE / PER_BLOCK)  // Philox blocks of a tile
#define ROW (BLOCKS + 4)           // 4 more, so that what a warp reads at once lies in different banks

typedef unsigned long long Word;

// The 256 bits of one value of the counter, as words w[0], w[ROW], w[2 * ROW], w[3 * ROW].  The upper 192 bits of the
// 256-bit counter and the upper half of the 128-bit key are 0.
__device__ __forceinline__ void philox(Word key, Word counter, Word* w) {
    Word w0 = counter, w1 = 0, w2 = 0, w3 = 0, key0 = key, key1 = 0;
#pragma unroll
    for (int round = 0; round < 10; round++) {
        Word low0 = 0xD2E7470EE14C6C93ull * w0, high0 = __umul64hi(0xD2E7470EE14C6C93ull, w0);
        Word low2 = 0xCA5A826395121157ull * w2, high2 = __umul64hi(0xCA5A826395121157ull, w2);
        w0 = high2 ^ w1 ^ key0;
        w1 = low2;
        w2 = high0 ^ w3 ^ key1;
        w3 = low0;
        key0 += 0x9E3779B97F4A7C15ull;  // the golden ratio and sqrt(3) - 1, in 64 bits after the point
        key1 += 0xBB67AE8584CAA73Bull;
    }
    w[0] = w0;
    w[ROW] = w1;
    w[2 * ROW] = w2;
    w[3 * ROW] = w3;
}

// The BITS bits of element e of a tile.  Element after element takes them from the low end of the words, but single
// bits are taken byte by byte from the high end: NumPy's unpackbits.
__device__ __forceinline__ Word bits_of(const Word* words, unsigned e) {
    unsigned block = e / PER_BLOCK, word = e % PER_BLOCK / PER_WORD, place = e % PER_WORD;
    unsigned shift = BITS == 1 ? place ^ 7 : place * BITS;
    return words[word * ROW + block] >> shift & ((1ull << BITS) - 1);
}

// An element is dropped where its bits, as a number, are below `dropped` (2^BITS drops every element).  Element i has
// place skip + i in the stream of bits that begins at `counter`; 0 <= skip < PER_BLOCK.  Tiles are cut at multiples of
// TILE of that stream, so that no Philox block belongs to two.
extern "C" __global__ void dropout(const REAL* __restrict__ x, REAL* __restrict__ y, long long n,
                                   unsigned long long key, unsigned long long counter, int skip,
                                   unsigned long long dropped, REAL scale) {
    __shared__ Word words[4 * ROW];
    constexpr int LANES = lanes_of<REAL>();
    if (threadIdx.x < BLOCKS)  // NumPy counts before it draws
        philox(key, counter + (Word)blockIdx.x * BLOCKS + threadIdx.x + 1, words + threadIdx.x);
    __syncthreads();
    // Only a chunk of a batch has a skip: packs of x then lie across those of two threads.
    bool packed = skip == 0 && ((unsigned long long)x | (unsigned long long)y) % sizeof(Reals) == 0;
    // A product: where x is NaN or infinite, 0 times it is NaN, as on the CPU.
    auto masked = [=](REAL x, Word bits) { return x * (bits >= dropped ? scale : REAL(0)); };
    for (unsigned e = threadIdx.x * LANES; e < TILE; e += blockDim.x * LANES) {
        long long place = (long long)blockIdx.x * TILE + e;
        if (packed && place + LANES <= n) {
            Pack<Word, LANES> bits;
#pragma unroll
            for (int lane = 0; lane < LANES; lane++) bits.lane[lane] = bits_of(words, e + lane);
            *(Reals*)(y + place) = by_lane<REAL, LANES>(masked, *(const Reals*)(x + place), bits);
        } else {
#pragma unroll 1
            for (int lane = 0; lane < LANES; lane++) {
                long long i = place + lane - skip;
                if (0 <= i && i < n) y[i] = masked(x[i], bits_of(words, e + lane));
            }
        }
    }
}
