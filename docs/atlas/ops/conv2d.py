"""The page of conv2d: a window of 3 x 3, stride 2 and padding 1 on 4 x 4 pixels, forward and back."""

from __future__ import annotations

import html
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import programs
from ..exercises import Exercise, section
from ..formulas import prose
from ..ladders import ladder, registers
from ..listing import found_lines, function_lines
from ..pictures import grid, pause, rows_of, shown, stepping, strip, svg
from ..shell import Page, figure
from ..words import page_parts
from . import conv2d_play
from .parts import braced, docstring, ideas

NAMES = {"x": "x", "y": "y", "w": "w", "b": "b", "dx": "dx", "dy": "dy", "dw": "dw", "db": "db", "weight": "w",
         "bias": "b", "xp": "x", "seen": "x", "dxp": "dx", "cols": "x"}  # fmt: skip
X = [[2, 0, 1, 3], [1, -1, 0, 2], [0, 3, 1, -2], [1, 2, 0, 1]]
W = [[1, 0, -1], [2, 1, 0], [0, -1, 1]]
B, DY = 1, [[1, -1], [2, 3]]
STRIDE, PADDING = 2, 1

PROGRAM = f"""
x = minigrad.Tensor({[[X]]},
                    dtype="float64", requires_grad=True, device="textbook:0")
w = minigrad.Tensor({[[W]]}, dtype="float64", requires_grad=True, device="textbook:0")
b = minigrad.Tensor([{B}], dtype="float64", requires_grad=True, device="textbook:0")

y = F.conv2d(x, w, b, stride={STRIDE}, padding={PADDING})
y.backward(minigrad.Tensor({[[DY]]}, dtype="float64", device="textbook:0"))

print("y", y.numpy()[0, 0], "dx", x.grad.numpy()[0, 0], sep="\\n")
print("dw", w.grad.numpy()[0, 0], "db", b.grad.numpy(), sep="\\n")
"""

PROOF = """
random = np.random.default_rng(0)
x, w, b = (minigrad.Tensor(random.standard_normal(shape), requires_grad=True, device="textbook:0")
           for shape in [(2, 4, 7, 6), (6, 2, 3, 2), (6,)])
"""

TURNED = """
random = np.random.default_rng(0)
x = minigrad.Tensor(random.standard_normal((1, 2, 5, 5)), requires_grad=True)
w = minigrad.Tensor(random.standard_normal((3, 2, 3, 3)))
dy = minigrad.Tensor(random.standard_normal((1, 3, 5, 5)))
F.conv2d(x, w, padding=1).backward(dy)                      # stride 1: p' = 3 - 1 - 1 = 1

turned = w.numpy()[:, :, ::-1, ::-1].swapaxes(0, 1)         # by 180 degrees; o and c change places
swapped = w.numpy().swapaxes(0, 1)                          # not turned
for kernel in (turned, swapped):
    again = F.conv2d(dy, minigrad.Tensor(kernel.copy()), padding=1).numpy()
    print(np.abs(again - x.grad.numpy()).max())
"""

EDGE = """
x = minigrad.ones((1, 1, 224, 224), requires_grad=True)
w = minigrad.ones((1, 1, 11, 11))
y = F.conv2d(x, w, stride=4)
y.sum().backward()
print(y.shape, "columns of x without a gradient:", int((x.grad.numpy()[0, 0] == 0).all(0).sum()))
print(F.conv2d(x, w, stride=4, padding=((0, 3), (0, 3))).shape)
"""

LONG_SUMS = """
dy = np.full((128, 1, 55, 55), 0.1, "float32")              # conv1 of AlexNet, 128 images: db sums 387,200 numbers
print("one after the other, in float32:", np.cumsum(dy)[-1])
b = minigrad.zeros(1, requires_grad=True, device="textbook:0")
x, w = minigrad.zeros(128, 1, 55, 55, device="textbook:0"), minigrad.zeros(1, 1, 1, 1, device="textbook:0")
F.conv2d(x, w, b).backward(minigrad.Tensor(dy, device="textbook:0"))
print("db of minigrad:", b.grad.numpy()[0], " exactly:", 128 * 55 * 55 * float(np.float32(0.1)))
"""

PAPER = """
x = minigrad.zeros((1, 1, 5, 5), requires_grad=True, device="textbook:0")
w = minigrad.Tensor(np.arange(1.0, 10).reshape(1, 1, 3, 3), dtype="float32", device="textbook:0")
F.conv2d(x, w, stride=2).backward(minigrad.Tensor([[[[1, 10], [100, 1000]]]], dtype="float32", device="textbook:0"))
print(x.grad.numpy()[0, 0].astype(int))
"""

DERIVED = """
random = np.random.default_rng(4)
x = minigrad.Tensor(random.standard_normal((1, 1, 1, 9)), requires_grad=True, device="textbook:0")
w, dy = random.standard_normal(3), random.standard_normal(5)
y = F.conv2d(x, minigrad.Tensor(w.reshape(1, 1, 1, 3), device="textbook:0"), stride=(1, 2), padding=(0, 1))
y.backward(minigrad.Tensor(dy.reshape(y.shape), device="textbook:0"))
dx = [w[1] * dy[h // 2] if h % 2 == 0 else w[0] * dy[(h + 1) // 2] + w[2] * dy[(h - 1) // 2] for h in range(9)]
print("off by", np.abs(dx - x.grad.numpy().ravel()).max())
"""
WHY = r"""
Tap $u$ of output $i$ meets pixel $h = 2 i + u - 1$. For even $h$ only $u = 1$ leaves a whole number, $i = h / 2$:
$\dx_h = \w_1 \, \dy_{h / 2}$. For odd $h$ they are $u = 0$ with $i = (h + 1) / 2$ and $u = 2$ with $i = (h - 1) / 2$:
$\dx_h = \w_0 \, \dy_{(h + 1) / 2} + \w_2 \, \dy_{(h - 1) / 2}$, where a $\dy$ beyond the end is 0. Nine pixels:
"""

REFUSED = {
    "channels": "x, w = minigrad.zeros(1, 224, 224, 3), minigrad.zeros(64, 3, 11, 11)\nF.conv2d(x, w, stride=4)",
    "window": "x, w = minigrad.zeros(1, 8, 6, 6), minigrad.zeros(16, 8, 3, 3)\nF.conv2d(x, w, dilation=4, padding=1)",
    "bytes": 'x = minigrad.Tensor(np.zeros((1, 3, 32, 32), "uint8"))\nF.conv2d(x, minigrad.zeros(8, 3, 5, 5))',
}

EXERCISES = [
    Exercise(
        "minigrad/ops/conv2d.py",
        '            seen += np.einsum("oc,noij->ncij", self.w[o, :, u, v], dy[:, o], optimize=True)',
        '            seen[...] = np.einsum("oc,noij->ncij", self.w[o, :, u, v], dy[:, o], optimize=True)',
        "tests/test_conv2d.py",
        ("test_all_faces_are_the_formula", "test_the_textbook_without_bias_and_of_one_gradient_only"),
        "Where windows overlap, a pixel is read by several taps, and each of them owes it a share of the gradient. "
        "Written over, the last tap alone remains. With stride = kernel nothing overlaps, and the mistake would hide.",
        green=("test_refuses",),
        question="Write in place of adding",
    ),
    Exercise(
        "minigrad/ops/_windows.py",
        "        rows = slice(dilation[0] * u, dilation[0] * u + stride[0] * (outputs[0] - 1) + 1, stride[0])",
        "        rows = slice(stride[0] * u, stride[0] * u + dilation[0] * (outputs[0] - 1) + 1, dilation[0])",
        "tests/test_conv2d.py",
        ("test_all_faces_are_the_formula",),
        "Stride and dilation have changed places: that is the convolution which makes $dw$. With stride = dilation = 1 "
        "the two are the same, which is why a test of that case alone proves little.",
        green=("test_refuses",),
        question="Stride for dilation",
    ),
]


def value(name: str, i: int, j: int, number: float) -> str:
    return f'<span class="s-{name}" title="{name}[{i},{j}]">{shown(number)}</span>'


def sums() -> tuple[list[list[str]], list[list[str]], list[list[str]], dict[str, np.ndarray]]:
    """Every y, dx and dw as HTML, product by product, and the values that these products sum up to."""
    x, w, dy, kernel = np.array(X), np.array(W), np.array(DY), len(W)
    terms: dict[str, Any] = {"y": {}, "dx": {}, "dw": {}}
    totals = {"y": np.full(dy.shape, float(B)), "dx": np.zeros(x.shape), "dw": np.zeros(w.shape)}
    for i, j, u, v in itertools.product(*map(range, (*dy.shape, kernel, kernel))):
        h, l = STRIDE * i + u - PADDING, STRIDE * j + v - PADDING
        if not (0 <= h < len(x) and 0 <= l < len(x)):
            continue
        x_, w_, dy_ = value("x", h, l, x[h, l]), value("w", u, v, w[u, v]), value("dy", i, j, dy[i, j])
        for name, place, product, number in (
            ("y", (i, j), f"{w_}·{braced(x_)}", w[u, v] * x[h, l]),
            ("dx", (h, l), f"{w_}·{braced(dy_)}", w[u, v] * dy[i, j]),
            ("dw", (u, v), f"{dy_}·{braced(x_)}", dy[i, j] * x[h, l]),
        ):
            terms[name].setdefault(place, []).append(product)
            totals[name][place] += number
    written = [
        [
            [
                f"{' + '.join([*([value('b', 0, 0, B)] if name == 'y' else []), *terms[name].get((i, j), [])])} = "
                f'<strong class="s-{name}">{shown(totals[name][i, j])}</strong>'
                for j in range(totals[name].shape[1])
            ]
            for i in range(totals[name].shape[0])
        ]
        for name in ("y", "dx", "dw")
    ]
    return *written, totals  # type: ignore[return-value]


def by_minigrad() -> dict[str, np.ndarray]:
    """y, dx, dw and db of the example, by the textbook's face."""
    space: dict[str, Any] = {}
    exec(programs.HEAD + PROGRAM.split("print")[0], space)  # noqa: S102  (the page's own program)
    return {"y": space["y"].numpy()[0, 0], "db": space["b"].grad.numpy(),
            **{f"d{name}": space[name].grad.numpy()[0, 0] for name in "xw"}}  # fmt: skip


def padded_x(p: int = PADDING) -> tuple[list[list[str]], set[tuple[int, int]]]:
    """x with its border, as texts, and which cells are border."""
    xp = np.pad(np.array(X), p)
    inside = {(i, j) for i in range(p, p + len(X)) for j in range(p, p + len(X))}
    border = {place for place in np.ndindex(xp.shape) if place not in inside}
    return [[shown(number) for number in row] for row in xp], border


def forward_picture(y: np.ndarray) -> tuple[str, str]:
    """The moving window, and its CSS."""
    size, cells = 34, len(X) + 2 * PADDING
    texts, border = padded_x()
    places = list(np.ndindex(y.shape))
    moves = stepping("conv-window", [(j * STRIDE * size, i * STRIDE * size) for i, j in places], 1.6)
    moves += stepping("conv-output", [(j * size, i * size) for i, j in places], 1.6)
    right = 26 + cells * size
    picture = svg(
        right + 3 * size + 6, 30 + cells * size,
        f"A window of 3 by 3 moves over x, {len(X)} by {len(X)} pixels with a border of zeros, 2 pixels at a time, and "
        f"gives y, {y.shape[0]} by {y.shape[1]}: {y.astype(int).tolist()}.",
        grid(texts, "x", (6, 24), size, dashed=border, label="x, padded"),
        grid(W, "w", (right, 24), size, label="w"),
        grid(y, "y", (right, 158), size, label="y"),
        f'<rect class="frame-line conv-window" style="stroke:var(--w)" x="6" y="24" width="{3 * size}" '
        f'height="{3 * size}" rx="3"/>',
        f'<rect class="frame-line conv-output" style="stroke:var(--w)" x="{right}" y="158" width="{size}" '
        f'height="{size}" rx="3"/>',
    )  # fmt: skip
    return picture, moves


def reach_pictures() -> str:
    """Which outputs see each pixel, and the four kinds of pixels that a stride of 2 makes."""
    n, kernel = len(X), len(W)
    seen: dict[tuple[int, int], list[tuple[int, int, int, int]]] = {place: [] for place in np.ndindex(n, n)}
    for i, j, u, v in itertools.product(*map(range, (*np.shape(DY), kernel, kernel))):
        place = STRIDE * i + u - PADDING, STRIDE * j + v - PADDING
        if place in seen:
            seen[place].append((i, j, u, v))
    counts = [[len(seen[i, j]) for j in range(n)] for i in range(n)]
    shots = [
        svg(176, n * 34 + 32, f"How many outputs see each of the 4 by 4 pixels: {counts}.",
            grid(counts, "dx", (6, 24), label="outputs that see it"))
    ]  # fmt: skip
    for place in ((1, 1), (1, 2), (2, 1), (2, 2)):
        hit = {(u, v) for *_, u, v in seen[place]}
        outputs = ", ".join(f"y[{i},{j}]" for i, j, *_ in seen[place])
        shots.append(
            svg(3 * 34 + 24, 202, f"Pixel {place} is seen by {outputs}, through the taps {sorted(hit)}.",
                grid(W, "w", (6, 24), hit=hit, label=f"x[{place[0]},{place[1]}] takes"),
                *(f'<text class="note-text" x="6" y="{144 + 13 * k}">{html.escape(text)}</text>'
                  for k, text in enumerate(f"w[{u},{v}]·dy[{i},{j}]" for i, j, u, v in seen[place])))
        )  # fmt: skip
    return strip(*shots)


def with_gaps(dy: Sequence[Sequence[float]], n: int, kernel: int, stride: int, padding: int) -> np.ndarray:
    """dy with s - 1 zeros between its numbers, and its border: the turned kernel makes dx of it."""
    rows = stride * (len(dy) - 1) + 1
    p, left_over = kernel - 1 - padding, (n + 2 * padding - kernel) % stride
    spread = np.zeros((p + rows + p + left_over,) * 2)
    spread[p : p + rows : stride, p : p + rows : stride] = dy
    return spread


def gaps_picture(dx: np.ndarray) -> str:
    """dx as a convolution of dy with gaps, and with the kernel turned; made by minigrad, and compared."""
    import minigrad
    import minigrad.functional as F  # noqa: N812

    kernel, n = len(W), len(X)
    turned, p = np.array(W)[::-1, ::-1], kernel - 1 - PADDING
    bordered = with_gaps(DY, n, kernel, STRIDE, PADDING)
    again = F.conv2d(*(minigrad.Tensor(a[None, None].astype("f8")) for a in (bordered, turned))).numpy()[0, 0]
    np.testing.assert_array_equal(again, dx)
    there = {(STRIDE * i + p, STRIDE * j + p) for i, j in np.ndindex(np.shape(DY))}
    size = 30
    return strip(
        svg(200, len(bordered) * size + 32,
            f"dy with a zero between its numbers and a border of {p}: {bordered.astype(int).tolist()}.",
            grid(bordered, "dy", (6, 24), size, dashed={q for q in np.ndindex(bordered.shape) if q not in there},
                 label="dy, with gaps and border")),
        svg(kernel * size + 30, kernel * size + 32, f"w turned by 180 degrees: {turned.tolist()}.",
            grid(turned, "w", (6, 24), size, label="w, turned")),
        svg(n * size + 12, n * size + 32, f"dx: {dx.astype(int).tolist()}.", grid(dx, "dx", (6, 24), size, label="dx")),
    )  # fmt: skip


def kinds_of_sums() -> str:
    """How many products each number of the exercise's dx has: by ones in place of the kernel and of dy."""
    import minigrad
    import minigrad.functional as F  # noqa: N812

    x = minigrad.zeros((1, 1, 5, 5), requires_grad=True, device="textbook:0")
    F.conv2d(x, minigrad.ones((1, 1, 3, 3), device="textbook:0"), stride=2).sum().backward()
    count = x.grad.numpy()[0, 0]  # type: ignore[union-attr]
    cross = [place for place in np.ndindex(5, 5) if 2 in place and place != (2, 2)]
    assert count[2, 2] == 4 and all(count[place] == 2 for place in cross) and (count == 1).sum() == 16
    space: dict[str, Any] = {}
    exec(programs.HEAD + PAPER.split("print")[0], space)  # noqa: S102  (the page's own program)
    middle = int(space["x"].grad.numpy()[0, 0, 2, 2])
    assert middle == 9 * 1 + 7 * 10 + 3 * 100 + 1 * 1000
    return (
        f"Four: [2,2] alone, and its digits show them: {middle} = 9·1 + 7·10 + 3·100 + 1·1000. Two: the other "
        f"{len(cross)} of row 2 and column 2. One: the other {(count == 1).sum()}."
    )


def example() -> dict[str, str]:
    y, dx, dw, totals = sums()
    found = by_minigrad()
    for name in ("y", "dx", "dw"):
        np.testing.assert_array_equal(found[name], totals[name])  # the terms shown are those that the op sums
    return {
        "terms-y": rows_of(y, caption="y, row by row", terms=True),
        "terms-dx": rows_of(dx, caption="dx, row by row: taps of the kernel times the dy they lead to", terms=True),
        "terms-dw": rows_of(dw, caption="dw, row by row", terms=True),
        "db": shown(found["db"][0]),
    }


def faces() -> str:
    from minigrad.ops import _conv2d_rows as fast
    from minigrad.ops.conv2d import Conv2d

    quick, card = "minigrad/ops/_conv2d_rows.py", "kernels/conv2d.cu"
    rows = [
        (
            "What a tap sees",
            "The textbook takes one tap for all outputs, as a strided view. The fast face copies every row of "
            "a window, or a few, into a row of a matrix. The card stores no such matrix: where an element lies is the "
            "sum of two look-ups, of its column (an output pixel) and of its depth (a channel and a tap). (Where there "
            "are many channels and no stride, the fast face has yet another way, with fewer multiplications than the "
            "formula has: minigrad/ops/_conv2d_winograd.py.)",
            found_lines("minigrad/ops/_windows.py", "    for u, v in product(", "yield u, v"),
            found_lines(quick, "    count, run = (1, kw * c)", "runs(wide.reshape(windows.shape))"),
            found_lines(card, "Steps steps(long long k) const {", "u * kernel_width + v};"),
        ),
        (
            "y: the sum",
            "A product of matrices in all three: the kernels, and what the taps see.",
            function_lines(Conv2d.forward),
            function_lines(fast.forward),
            found_lines(card, "    p.rows = c.og;", "multiply_tile<false>"),
        ),
        (
            "dx: back to the pixels",
            "The faces of the CPU scatter: they add to the view that the tap had read. The card gathers: pixels that "
            "leave the same remainder by the stride take the same taps, and are a product of their own; so nothing is "
            "added atomically, and the bits are the same every time.",
            function_lines(Conv2d.gradient_of_x),
            function_lines(fast.gradient_of_x),
            found_lines(card, "// dx[h] takes dy[i] * w[u]", "return {pixels, phase"),
        ),
        (
            "dw: back to the taps",
            "The same views as forward, now summed over outputs and images.",
            function_lines(Conv2d.gradient_of_w),
            function_lines(fast.gradient_of_w),
            found_lines(card, "    p.rows = c.og;\n    p.columns = (long long)c.cg", "multiply_tile<true>"),
        ),
    ]
    without_dw = {name: symbol for name, symbol in NAMES.items() if name != "dw"}  # a dilation, in the first
    return ideas(rows[:1], without_dw) + ideas(rows[1:], NAMES)


def page() -> Page:
    found = by_minigrad()
    picture, moving = forward_picture(found["y"])
    settings = "stride=2, padding=((1, 0), (0, 2)), dilation=(2, 1), groups=2"
    proof, worst = programs.proof(f"lambda *t: F.conv2d(*t, {settings})", "x, w, b", PROOF)
    play, script = conv2d_play.parts()
    left_over = (len(X) + 2 * PADDING - len(W)) % STRIDE
    kernels = "conv2d_forward", "conv2d_backward_x", "conv2d_backward_w"
    blocks = {
        "docstring": docstring("conv2d"),
        "window": figure(
            "window",
            picture,
            "The window stops at every second pixel; where it reaches over the image it sees zeros.",
            pause("conv"),
        ),
        "reach": figure(
            "reach", reach_pictures(), "How many outputs see each pixel; the taps of a pixel of each kind."
        ),
        "gaps": figure("gaps", gaps_picture(found["dx"]), "conv2d of the first with the second is the third."),
        "dy": str(DY),
        **example(),
        "program": programs.printed(PROGRAM, names=NAMES),
        "play": play,
        "turned": programs.printed(TURNED, names=NAMES),
        "worst": f"{worst:.1e}",
        "proof": proof,
        "faces": faces(),
        "ladders": "".join(map(ladder, ("conv2d", "conv2d_backward_x", "conv2d_backward_w"))),
        "registers": registers("conv2d", kernels),
        **{f"refused-{name}": programs.refused(program) for name, program in REFUSED.items()},
        "overhang": programs.printed(EDGE),
        "long-sums": programs.printed(LONG_SUMS),
        "border": str(len(W) - 1 - PADDING),
        "left-over": f"({len(X)} + {2 * PADDING} − {len(W)}) mod {STRIDE} = {left_over}",
        "paper": programs.printed(PAPER),
        "paper-kinds": kinds_of_sums(),
        "derived": prose(WHY),
        "derived-program": programs.printed(DERIVED, names=NAMES),
        "exercises": section(EXERCISES),
    }
    title, lead, sections = page_parts(Path(__file__).with_suffix(".md"), blocks)
    return Page("conv2d", title, lead, sections, script=script, css=moving)
