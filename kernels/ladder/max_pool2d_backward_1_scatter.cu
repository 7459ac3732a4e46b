// The ladder of max-pooling's gradient, step 1: each window sends its gradient to the pixel that it took.
//
//     y[n,c,i,j] = max over taps (u,v) of x[n,c, stride*i + u - padding, stride*j + v - padding]
//     dx[pixel that was the maximum of window i,j] += dy[n,c,i,j]
//
// Forward has noted which tap won, as winner = u * kw + v.  One thread has one window.  dx is zero before: most pixels
// win nowhere.
//
// Windows overlap (AlexNet's are 3 wide, 2 apart), so one pixel may win in several, whose threads add to it at the same
// time.  A plain += would lose what another thread has written between its read and its write; atomicAdd does not.
//
// What it costs: dx is filled with zeros first, then read and written once more.  And the order of the sums is chance:
// with three windows and more at one pixel, the last bits of dx change from run to run.  Step 2 asks the pixels.

extern "C" __global__ void max_pool2d_backward_scatter(const REAL* __restrict__ dy, const TAP* __restrict__ winner,
                                                       REAL* __restrict__ dx, long long maps, int height, int width,
                                                       int oh, int ow, int kh, int kw, int stride, int padding) {
    long long number = global_thread();
    if (number >= maps * oh * ow) return;
    Place at = place_of(number, oh, ow);  // the number of its map (n,c), i and j

    int tap = winner[number], u = tap / kw, v = tap % kw;
    int h = stride * at.row + u - padding, l = stride * at.col + v - padding;
    atomicAdd(&dx[(at.map * height + h) * width + l], dy[number]);
}
