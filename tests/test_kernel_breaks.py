"""Breaks of our own kernels, of the kinds that a change of one character is not: the cases (minigrad/gpu/cases) see
them, but for those that change nothing.

What one character does is counted by mutate_kernels.py.
"""

import pytest
from mutate_kernels import HEADERS, judged, text_of

from minigrad.cudasim import compiler
from minigrad.gpu.sources import kernel_names

pytestmark = [
    pytest.mark.skipif(compiler.available() is not None, reason=str(compiler.available())),
    pytest.mark.cpu_only("brings its device along"),
]

# A file of kernels/, what is wrong, the text, what it becomes.
# fmt: off
BREAKS = [
    ("conv2d", "bias in every part", "if (p.bias && part == 0) sum", "if (p.bias) sum"),
    ("conv2d", "parts added with the wrong step", "parts[part * n + i]", "parts[part * count + i]"),
    ("conv2d", "a group's bias", "b == nullptr ? b : b + group * c.og", "b"),
    ("conv2d", "no barrier behind the shared Pixels",
     "    __syncthreads();\n    multiply_tile<false>(p, blockIdx.x / phases",
     "    multiply_tile<false>(p, blockIdx.x / phases"),
    ("conv2d", "the last part runs over the depth",
     "end = min(begin + part_depth, p.depth);",
     "end = begin + part_depth;"),
    ("conv2d", "parts of one depth all the same",
     "begin = part * part_depth, end = min(begin + part_depth, p.depth)",
     "begin = 0, end = min(begin + part_depth, p.depth)"),
    ("conv2d", "padding left taken for top", "c.sh * (pixel / c.ow) - c.top", "c.sh * (pixel / c.ow) - c.left"),
    ("conv2d", "no barrier after the table of steps",
     "            __syncthreads();\n            done = 0;",
     "            done = 0;"),
    ("conv2d", "phases share their first tap",
     "(phase + padding - dilation * first) % stride != 0) first++;",
     "(padding - dilation * first) % stride != 0) first++;"),
    ("softmax", "idle threads of short lines leave",
     "    if (inner == 1)\n        for",
     "    if (inner == 1 && threadIdx.x >= length) return;\n    if (inner == 1)\n        for"),
    ("softmax", "maximum begins with the thread's first", "REAL most = -INFINITY;", "REAL most = x[line.first];"),
    ("softmax", "maximum begins with x[0]", "REAL most = -INFINITY;", "REAL most = x[0];"),
    ("softmax", "maximum begins with 0", "REAL most = -INFINITY;", "REAL most = 0;"),
    ("softmax", "every other line of a large grid",
     "line < lines; line += gridDim.x)",
     "line < lines; line += 2 * gridDim.x)"),
    ("softmax", "the last piece alone", "total += piece;", "total = piece;"),
    ("softmax", "a column is its own first element",
     "line / inner * length * inner + line % inner",
     "line / inner * length * inner"),
    ("reduce", "idle lanes leave before the sum",
     "    sum = warp_sum(sum);",
     "    if (start + threadIdx.x >= stop) return;\n    sum = warp_sum(sum);"),
    ("reduce", "idle lanes leave before the maximum",
     "    for (int distance = WARP / 2; distance > 0",
     "    if (start + threadIdx.x >= stop) return;\n    for (int distance = WARP / 2; distance > 0"),
    ("reduce", "idle columns leave before the barrier",
     "    Number sum = 0;\n    if (o < outputs)\n",
     "    Number sum = 0;\n    if (o >= outputs) return;\n"),
    ("reduce", "of equal ones the later",
     "return b_is_larger || (equal && b.number < a.number) ? b : a;",
     "return b_is_larger ? b : a;"),
    ("reduce", "one run at most in a step",
     "for (left -= step; left <= 0; left += length) at += jump;",
     "if ((left -= step) <= 0) left += length, at += jump;"),
    ("reduce", "maximum begins with 0",
     "Candidate best = {(FROM)0, -1};\n    along_row",
     "Candidate best = {(FROM)0, start};\n    along_row"),
    ("reduce", "the last piece as long as the others",
     "stop = min((p + 1) * piece, n);\n    Number",
     "stop = (p + 1) * piece;\n    Number"),
    ("reduce", "the divisor of the last piece",
     "y[p * outputs + o] = (TO)sum / divisor;",
     "y[p * outputs + o] = (TO)sum / (p ? TO(1) : divisor);"),
    ("max_pool2d", "pixels that no window covers",
     "        dx[pixel] = sum;",
     "        if (first_window(rows, row) <= last_row && first_window(cols, col) <= last_col) dx[pixel] = sum;"),
    ("max_pool2d", "the right edge of 2 x 2 pixels", " && (unsigned)(left + b) < (unsigned)cols.size)", ")"),
    ("max_pool2d", "padding is 0 where written out", "? row[v] : -INFINITY;", "? row[v] : REAL(0);"),
    ("max_pool2d", "maximum begins with 0", "REAL best = -INFINITY;", "REAL best = 0;"),
    ("max_pool2d", "the last window of all",
     "return min((pixel + axis.padding) / axis.stride, axis.windows - 1);",
     "return (pixel + axis.padding) / axis.stride;"),
    ("lrn", "threads beyond the pixels go on",
     "    if (!spot.inside) return;\n    x += spot.offset;\n    y +=",
     "    x += spot.offset;\n    y +="),
    ("lrn", "channels before the first",
     "(unsigned)(first + d) < (unsigned)maps.channels ? *x",
     "first + d < maps.channels ? *x"),
    ("lrn", "wide windows begin before the group",
     "for (int j = max(i - reach, 0); j <= last; j++) {\n            long long at",
     "for (int j = i - reach; j <= last; j++) {\n            long long at"),
    ("lrn_within_map", "what is beyond the map is left as it is",
     "shared.terms[y + r * ROWS][x] = inside ? term(row * maps.width + col) : REAL(0);",
     "if (inside) shared.terms[y + r * ROWS][x] = term(row * maps.width + col);"),
    ("lrn_within_map", "columns beyond the inner ones leave",
     "    __syncthreads();\n#pragma unroll\n    for (int r = 0; r < OWN && x < INNER; r++) {",
     "    __syncthreads();\n    if (x >= INNER) return Totals{};\n#pragma unroll\n"
     "    for (int r = 0; r < OWN && x < INNER; r++) {"),
    ("cross_entropy", "maximum begins with the row's first", "REAL most = -INFINITY;", "REAL most = x_row[0];"),
    ("cross_entropy", "one dy for all is taken row by row", "dy[row * dy_step]", "dy[row]"),
    ("cross_entropy", "rows of a second turn",
     "for (long long row = blockIdx.x; row < rows; row += gridDim.x) {\n        REAL dloss",
     "for (long long row = blockIdx.x; row < gridDim.x; row += gridDim.x) {\n        REAL dloss"),
    ("dropout", "one Philox block too few", "if (threadIdx.x < BLOCKS)", "if (threadIdx.x < BLOCKS - 1)"),
    ("gemm", "warps without a column leave",
     "        // every lane one k in 32\n        if (n < p.N)",
     "        if (n >= p.N) return;\n        if (n < p.N)"),
    ("gemm", "bias in every part",
     "if (bias_along == NO_BIAS || blockIdx.y > 0) return",
     "if (bias_along == NO_BIAS) return"),
    ("gemm", "a row's bias for a column", "bias[bias_along == BIAS_ALONG_N ? n : m]", "bias[n]"),
    ("avg_pool2d", "the divisor of clipped windows", "if (!count_include_pad) return", "if (count_include_pad) return"),
    ("avg_pool2d", "pixels that no window covers",
     "        dx[pixel] = sum;",
     "        if (first_row <= last_row && first_col <= last_col) dx[pixel] = sum;"),
    ("copy", "a turned tile's tail is not guarded", "if (row < tall && column < wide) y[", "if (row < tall) y["),
    ("sgd", "the velocity after the weight",
     "        v = fma(mu, v, g);\n        if (wd != 0) v = fma(wd, w, v);\n        w = fma(-lr, v, w);",
     "        w = fma(-lr, v, w);\n        v = fma(mu, v, g);\n        if (wd != 0) v = fma(wd, w, v);"),
    ("update.cuh", "threads of one block only",
     "(long long)(lengths.end[which] - first) * blockDim.x}",
     "(long long)blockDim.x}"),
    ("prepare", "mirrored by one too far", "size - 1 - j : j", "size - j : j"),
    ("shape", "a row taken twice", "pick < first[k + 1]; pick++", "pick < first[k] + 1; pick++"),
]
# fmt: on

# What changes nothing, or nothing that a case could have: of more than 2^31 lines.
UNSEEN = {
    "every other line of a large grid": "more than 2^31 lines",
    "rows of a second turn": "more than 2^31 rows",
    "the divisor of the last piece": "a divisor is given only where there is one piece",
    "maximum begins with the row's first": "it is one of them",
}


def test_there_are_enough():
    assert len(BREAKS) >= 32 and len({what for _, what, _, _ in BREAKS}) >= 32
    for file, what, old, new in BREAKS:
        assert file in (*kernel_names(), *HEADERS) and text_of(file).count(old) == 1 and old != new, what
    assert len(UNSEEN) <= 4 and set(UNSEEN) <= {what for _, what, _, _ in BREAKS}


@pytest.mark.slow
@pytest.mark.parametrize("file, what, old, new", BREAKS, ids=[f"{file}, {what}" for file, what, _, _ in BREAKS])
def test_the_cases_see_it(file, what, old, new):
    answer = judged((file, "broken", 0, what, text_of(file).replace(old, new)))
    assert answer != "does not compile"
    assert (answer == "survives") == (what in UNSEEN), answer
