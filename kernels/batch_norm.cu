// Batch normalisation.  minigrad/ops/batch_norm.py.
//
//     mean = sum(x) / m,   var = sum((x - mean)^2) / m        over the m numbers of a channel
//     s = 1 / sqrt(var + eps)
//     y = weight * (x - mean) * s + bias
//
//     dbias   = sum(dy)
//     dweight = sum(dy * h)                                                   h = (x - mean) * s
//     dx      = weight * s * (dy - dbias / m - h * dweight / m)               mean and var given: dx = weight * s * dy
//
// x is (images, channels, inner).  The n = images * inner numbers of a channel are cut into pieces.  A block reads its
// piece twice, for its mean and for the squares about it, the second time from the cache; another kernel puts the
// pieces of a channel together, in a fixed order.  Sums of few numbers, about a mean that is near them: no digits are
// lost where the mean is large beside the deviation, as they would be with sum(x^2) - mean^2.

#define TALL 8         // warps of a block
#define PER_THREAD 32  // numbers of a piece for each of its threads

// Who works on a piece?  Neighbouring threads should read neighbours:
//     maps of a warp's size or more      a block has a piece of one channel, its 256 threads side by side
//     smaller maps, rows (inner is 1)    a block has a piece of 32 channels: a lane for each, and 8 warps along it
struct Team {
    bool one;  // channel
    long long channel, piece;
    int first, step;  // of the piece's numbers, those of this thread: first, first + step, ...
    bool writes;      // the thread that writes the channel's sums
    REAL* sums;       // shared memory for a number of each thread

    __device__ Team(long long channels, long long inner, long long pieces, REAL* sums) : one(inner >= WARP), sums(sums) {
        int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
        long long group = blockIdx.x / pieces;
        piece = blockIdx.x - group * pieces;
        channel = one ? group : group * WARP + lane;
        first = one ? (int)threadIdx.x : warp;
        step = one ? TALL * WARP : TALL;
        writes = first == 0 && channel < channels;
    }

    // The sum over the threads of a channel, in all of them.  All threads of the block must call it.
    __device__ REAL sum(REAL value) const {
        if (one) return block_sum(value, sums);
        sums[threadIdx.x] = value;
        __syncthreads();
        value = 0;
        for (int warp = 0; warp < TALL; warp++) value += sums[warp * WARP + threadIdx.x % WARP];
        __syncthreads();
        return value;
    }
};

// use(where a number lies) for this thread's numbers of the piece.  One division finds the first; each step is so many
// images and pixels further, or one image more where it leaves a map.
template <class Use>
__device__ __forceinline__ void along_piece(const Team& team, long long channels, long long inner, long long start,
                                            long long stop, Use use) {
    if (team.channel >= channels) return;
    long long j = start + team.first, image = j / inner, pixel = j - image * inner;
    long long images = team.step / inner, pixels = team.step - images * inner;
    long long at = (image * channels + team.channel) * inner + pixel;
    for (; j < stop; j += team.step) {
        use(at);
        at += images * channels * inner + pixels;
        pixel += pixels;
        if (pixel >= inner) {
            pixel -= inner;
            at += (channels - 1) * inner;
        }
    }
}

// means, squares: [channels][pieces], each piece's mean and sum of (x - its mean)^2.
extern "C" __global__ void batch_norm_pieces(const REAL* __restrict__ x, REAL* __restrict__ means,
                                             REAL* __restrict__ squares, long long channels, long long inner,
                                             long long n, long long piece, long long pieces) {
    __shared__ REAL sums[TALL * WARP];
    const Team team(channels, inner, pieces, sums);
    long long start = team.piece * piece, stop = min(start + piece, n);
    REAL sum = 0;
    along_piece(team, channels, inner, start, stop, [&](long long i) { sum += x[i]; });
    REAL mean = team.sum(sum) / (REAL)(stop - start), square = 0;
    along_piece(team, channels, inner, start, stop, [&](long long i) { square += (x[i] - mean) * (x[i] - mean); });
    square = team.sum(square);
    if (team.writes) {
        means[team.channel * pieces + team.piece] = mean;
        squares[team.channel * pieces + team.piece] = square;
    }
}

// A warp for each channel: sum(squares + n (piece's mean - mean)^2) / m is the variance about the common mean.
extern "C" __global__ void batch_norm_statistics(const REAL* __restrict__ means, const REAL* __restrict__ squares,
                                                 REAL* __restrict__ mean, REAL* __restrict__ var,
                                                 REAL* __restrict__ s, long long n, long long piece,
                                                 long long pieces, REAL eps) {
    long long channel = blockIdx.x;
    means += channel * pieces;
    squares += channel * pieces;
    REAL sum = 0, square = 0;
    for (long long p = threadIdx.x; p < pieces; p += WARP) sum += means[p] * (REAL)min(piece, n - p * piece);
    REAL middle = warp_sum(sum) / (REAL)n;
    for (long long p = threadIdx.x; p < pieces; p += WARP) {
        REAL away = means[p] - middle;
        square += squares[p] + away * away * (REAL)min(piece, n - p * piece);
    }
    REAL spread = warp_sum(square) / (REAL)n;
    if (threadIdx.x == 0) {
        mean[channel] = middle;
        var[channel] = spread;
        s[channel] = 1 / sqrt(spread + eps);
    }
}

extern "C" __global__ void batch_norm_inverse(const REAL* __restrict__ var, REAL* __restrict__ s, long long channels,
                                              REAL eps) {
    each(channels, s, [=](REAL var) { return 1 / sqrt(var + eps); }, var);
}

// Arrays like y are array 0 of the layout; a channel's numbers are array 1, and all lie alike.
extern "C" __global__ void batch_norm_forward(REAL* __restrict__ y, const REAL* __restrict__ x,
                                              const REAL* __restrict__ mean, const REAL* __restrict__ s,
                                              const REAL* __restrict__ weight, const REAL* __restrict__ bias,
                                              const __grid_constant__ Layout layout, long long n) {
    walk(layout, n, y, [](REAL x, REAL mean, REAL s, REAL weight, REAL bias) { return (x - mean) * (s * weight) + bias; },
         in<0>(x), in<1>(mean), in<1>(s), in<1>(weight), in<1>(bias));
}

// dweight, dbias: [channels][pieces].
extern "C" __global__ void batch_norm_backward_pieces(const REAL* __restrict__ dy, const REAL* __restrict__ x,
                                                      const REAL* __restrict__ mean, const REAL* __restrict__ s,
                                                      REAL* __restrict__ dweight, REAL* __restrict__ dbias,
                                                      long long channels, long long inner, long long n,
                                                      long long piece, long long pieces) {
    __shared__ REAL sums[TALL * WARP];
    const Team team(channels, inner, pieces, sums);
    long long start = team.piece * piece, stop = min(start + piece, n), c = min(team.channel, channels - 1);
    REAL middle = mean[c], scale = s[c], of_weight = 0, of_bias = 0;
    along_piece(team, channels, inner, start, stop, [&](long long i) {
        of_weight += dy[i] * ((x[i] - middle) * scale);
        of_bias += dy[i];
    });
    of_weight = team.sum(of_weight);
    of_bias = team.sum(of_bias);
    if (team.writes) {
        dweight[c * pieces + team.piece] = of_weight;
        dbias[c * pieces + team.piece] = of_bias;
    }
}

extern "C" __global__ void batch_norm_backward(
    REAL* __restrict__ dx, const REAL* __restrict__ dy, const REAL* __restrict__ x, const REAL* __restrict__ mean,
    const REAL* __restrict__ s, const REAL* __restrict__ weight, const REAL* __restrict__ dweight,
    const REAL* __restrict__ dbias, const __grid_constant__ Layout layout, long long n, REAL m) {
    walk(layout, n, dx,
         [=](REAL dy, REAL x, REAL mean, REAL s, REAL weight, REAL dweight, REAL dbias) {
             return weight * s * (dy - dbias / m - (x - mean) * s * (dweight / m));
         },
         in<0>(dy), in<0>(x), in<1>(mean), in<1>(s), in<1>(weight), in<1>(dweight), in<1>(dbias));
}

extern "C" __global__ void batch_norm_backward_given(REAL* __restrict__ dx, const REAL* __restrict__ dy,
                                                     const REAL* __restrict__ s, const REAL* __restrict__ weight,
                                                     const __grid_constant__ Layout layout, long long n) {
    walk(layout, n, dx, [](REAL dy, REAL s, REAL weight) { return dy * (s * weight); }, in<0>(dy), in<1>(s),
         in<1>(weight));
}
