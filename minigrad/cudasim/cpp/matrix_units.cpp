// The product that a warp's matrix unit makes: multiply_add_tf32 of kernels/instructions.cuh.
#include "runtime.hpp"
#include <cstring>

// A factor as a card's matrix unit sees it: the last 13 bits of the mantissa do not count.  Where there are any, the
// kernel has forgotten tf32(), and the card would have rounded towards zero.
static float factor(float x, const char* name, int i, Fiber& lane) {
    cs_u32 bits;
    memcpy(&bits, &x, sizeof bits);
    if (CHECKING && bits & 0x1fff && x == x) {
        Fiber* current = run.current;
        run.current = &lane;
        report("UNROUNDED", lane.pc, nullptr,
               "%s[%d] = %.9g has more than the 10 bits of mantissa of a TF32 number: round it by tf32()", name, i,
               (double)x);
        run.current = current;
    }
    bits &= 0xffffe000;
    memcpy(&x, &bits, sizeof bits);
    return x;
}

// The products are exact in a float; they are added to d in the order of k, each time rounding to the nearest float.
void multiply_add(Warp& warp, Fiber* lanes) {
    float a[16][8], b[8][8], d[16][8];
    for (int lane = 0; lane < 32; lane++) {
        const CsFragments& of = *(const CsFragments*)warp.value[lane];
        for (int i = 0; i < 4; i++) {
            a[lane / 4 + i % 2 * 8][lane % 4 + i / 2 * 4] = factor(of.a[i], "a", i, lanes[lane]);
            d[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2] = of.d[i];
        }
        for (int i = 0; i < 2; i++) b[lane % 4 + i * 4][lane / 4] = factor(of.b[i], "b", i, lanes[lane]);
    }
    for (int m = 0; m < 16; m++)
        for (int k = 0; k < 8; k++)
            for (int n = 0; n < 8; n++) d[m][n] += a[m][k] * b[k][n];
    for (int lane = 0; lane < 32; lane++)
        for (int i = 0; i < 4; i++)
            ((CsFragments*)warp.value[lane])->d[i] = d[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
}
