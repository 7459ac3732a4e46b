"""The page of lrn: four channels at four pixels, forward and back, with windows of three channels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .. import programs
from ..exercises import Exercise, section
from ..formulas import prose
from ..ladders import ladder, registers
from ..listing import found_lines, function_lines
from ..pictures import grid, pause, rows_of, shown, stepping, svg
from ..shell import Page, figure
from ..words import page_parts
from . import lrn_play
from .parts import braced, docstring, ideas

NAMES = {"x": "x", "y": "y", "s": "s", "dx": "dx", "dy": "dy", "near": "x", "next_x": "x", "next_dy": "dy"}
X = [[2, 0, 1, 3], [1, -1, 0, 2], [0, 3, 1, -2], [1, 2, 0, 1]]  # a row for each channel, a column for each pixel
DY = [[1, 0, -1, 2], [0, 1, 2, 0], [1, -1, 0, 1], [2, 0, 1, -1]]
N, K, ALPHA, BETA = 3, 2.0, 0.5, 0.75
CHANNELS = [1, 3, 0, 2, -2, 1, 4, 1]  # of one pixel, in the picture

PROGRAM = f"""
x = np.array({X})
x = minigrad.Tensor(x.reshape(1, 4, 1, 4), dtype="float64", requires_grad=True, device="textbook:0")
y = F.lrn(x, n={N}, k={K}, alpha={ALPHA}, beta={BETA})
dy = np.array({DY})
y.backward(minigrad.Tensor(dy.reshape(y.shape), dtype="float64", device="textbook:0"))
print("y", y.numpy()[0, :, 0], "dx", x.grad.numpy()[0, :, 0], sep="\\n")
"""

CONVENTIONS = """
x = minigrad.Tensor(np.full((1, 5, 1, 1), 100.0), device="textbook:0")       # five channels, the middle one is printed
for name, k, alpha in [("the paper, TensorFlow", 2, 1e-4), ("PyTorch, Caffe, ONNX: alpha / n", 2, 1e-4 / 5),
                       ("bvlc_alexnet of Caffe: k = 1", 1, 1e-4 / 5)]:
    print(f"{name:34} y = {F.lrn(x, 5, k, alpha).numpy()[0, 2, 0, 0]:.4f}")
"""

PROOF = """
x = minigrad.Tensor(np.random.default_rng(1).standard_normal((2, 6, 3, 2)), requires_grad=True, device="textbook:0")
"""

WRONG = """
def window_sum(t, reach=2):                                  # of rows of channels
    padded = np.pad(t, ((0, 0), (reach, reach)))
    return sum(padded[:, d : d + t.shape[1]] for d in range(2 * reach + 1))

random = np.random.default_rng(2)
x, dy = random.standard_normal((2, 100, 8))
k, alpha, beta = 2.0, 0.5, 0.75
s = k + alpha * window_sum(x * x)
y = x * s**-beta
tensor = minigrad.Tensor(x[:, :, None, None], requires_grad=True)
F.lrn(tensor, 5, k, alpha, beta).backward(minigrad.Tensor(dy[:, :, None, None]))
for name, sums in [("as derived", window_sum(dy * y / s)), ("its own output alone", dy * y / s),
                   ("s_i for s_j", window_sum(dy * y) / s), ("x_j for y_j", window_sum(dy * x / s))]:
    dx = dy * s**-beta - 2 * alpha * beta * x * sums
    print(f"{name:22} off by {np.abs(dx - tensor.grad.numpy()[:, :, 0, 0]).max():.1e}")
"""

SMALL = """
x = np.random.default_rng(0).standard_normal((1, 96, 8, 8))
for spread in (1, 10, 100):
    y = F.lrn(minigrad.Tensor(spread * x)).numpy()           # the paper's settings
    print(f"responses of about {spread:3}: y / x is between {np.min(y / (spread * x)):.3f} and {2**-0.75:.3f}")
"""

SEAM = """
x = minigrad.Tensor(np.random.default_rng(0).standard_normal((1, 96, 4, 4)) * 50)
one, two = F.lrn(x).numpy(), F.lrn(x, groups=2).numpy()
print("channels that differ:", np.flatnonzero((one != two).any((0, 2, 3))).tolist())
"""

OVERFLOW = """
for dtype in ("float32", "float64"):
    x = minigrad.Tensor(np.full((1, 5, 1, 1), 2e19, dtype), device="textbook:0")
    with np.errstate(over="ignore"):
        print(f"{dtype}: y = {F.lrn(x).numpy()[0, 2, 0, 0]:.3g}")
"""

PAPER = """
x = minigrad.Tensor(np.array([1, 2, -1]).reshape(1, 3, 1, 1), dtype="float64", requires_grad=True, device="textbook:0")
y = F.lrn(x, n=3, k=1, alpha=1, beta=1)
y.backward(minigrad.Tensor(np.array([1, 1, 0]).reshape(y.shape), dtype="float64", device="textbook:0"))
print("s  ", (x.numpy() / y.numpy()).ravel())
print("dx ", x.grad.numpy().ravel())
print("dx times s[0]² s[1]² = 36 · 49 = 1764, a common denominator:", (x.grad.numpy().ravel() * 1764).round(9))
"""

DERIVED = """
x, dy = np.random.default_rng(3).standard_normal((2, 1, 5, 1, 1))
for k in (1e-20, 2.0):
    tensor = minigrad.Tensor(x, requires_grad=True, device="textbook:0")
    F.lrn(tensor, n=9, k=k, alpha=0.3, beta=0.5).backward(minigrad.Tensor(dy, device="textbook:0"))
    print(f"k = {k}: the sum of x · dx is {abs((x * tensor.grad.numpy()).sum()):.4f} in size")
"""
WHY = r"""
With one $\s$ for all channels, $\dx_i = \dy_i \, \s^{-\beta} - 2 \alpha \beta \, \x_i \, \s^{-\beta - 1} \sum_j \dy_j
\, \x_j$. Times $\x_i$ and summed over $i$ this is $\s^{-\beta - 1} (\s - 2 \alpha \beta \sum_i \x_i^2) \sum_j \dy_j
\, \x_j$. With $k = 0$ the sum in the bracket is $\s / \alpha$, and $\s - 2 \beta \, \s$ is 0 for $\beta = 1/2$. It
must be so: $\y$ is then $\x$ divided by its length, times a constant. A step along $\x$ changes the length alone, so
$\y$ stays, and so does any loss. minigrad refuses $k = 0$; a tiny $k$ will do:
"""

REFUSED = {
    "even": "F.lrn(minigrad.zeros(1, 96, 55, 55), n=4)",
    "zero": "F.lrn(minigrad.zeros(1, 96, 55, 55), k=0)",
    "groups": "F.lrn(minigrad.zeros(1, 96, 55, 55), groups=5)",
}

EXERCISES = [
    Exercise(
        "minigrad/ops/lrn.py",
        "        return dy * s**-self.beta - 2 * self.alpha * self.beta * x * self.window_sum(dy * y / s)",
        "        return dy * s**-self.beta - 2 * self.alpha * self.beta * x * dy * y / s",
        "tests/test_lrn.py",
        ("test_gradient_of_every_element", "test_matches_the_naive_loops"),
        "This is the gradient by one's own output alone. Where n is 1 it is right, and such cases stay green.",
        green=("test_defaults_are_the_papers",),
        question="The windows of the others are forgotten",
    ),
    Exercise(
        "minigrad/ops/_lrn_fast.py",
        "    np.divide(dy, dx, out=dx)",
        "    np.multiply(dy, dx, out=dx)",
        "tests/test_lrn.py",
        ("test_gradient_of_every_element", "test_gradient_at_alexnet_shapes"),
        "s^beta for s^-beta, in the fast face alone and in backward alone: no test of forward can see it.",
        green=("test_defaults_are_the_papers", "test_tiny_values"),
        question="A sign in an exponent",
    ),
]


def by_minigrad() -> tuple[np.ndarray, np.ndarray]:
    """y and dx of the example, (channels, pixels), by the textbook's face."""
    space: dict[str, Any] = {}
    exec(programs.HEAD + PROGRAM.split("print")[0], space)  # noqa: S102  (the page's own program)
    return space["y"].numpy()[0, :, 0], space["x"].grad.numpy()[0, :, 0]


def own_slope() -> str:
    """What the player's most extreme setting says of two numbers: their own slopes, below 0."""
    found = lrn_play.results()["3,2,1,0.75"]
    slopes = np.reshape(found["slopes"], (len(lrn_play.X),) * 2).diagonal()
    told = [f"{shown(slopes[i], 2)} for $\\x_{i} = {lrn_play.X[i]:g}$" for i in range(len(slopes)) if slopes[i] < 0]
    assert told
    return prose(f"with n 3, k 2, alpha 1 and beta 0.75, it is {' and '.join(told)}")


def coloured(name: str, number: float, of: str = "") -> str:
    return f'<span class="s-{name}" title="{name}{of}">{shown(number)}</span>'


def example() -> dict[str, str]:
    """Every s, y and dx of the example as HTML, term by term; what they sum up to is compared with the op."""
    x, dy = np.array(X, float), np.array(DY, float)
    channels, pixels = x.shape
    windows = [range(max(0, i - N // 2), min(channels, i + N // 2 + 1)) for i in range(channels)]
    s = np.array([[K + ALPHA * sum(x[j, p] ** 2 for j in windows[i]) for p in range(pixels)] for i in range(channels)])
    y = x * s**-BETA
    dx, expanded = np.zeros_like(x), ""
    table_s, table_y, table_dx = ([["" for _ in range(pixels)] for _ in range(channels)] for _ in range(3))
    for i, p in np.ndindex(x.shape):
        squares = " + ".join(f"{braced(coloured('x', x[j, p], f'[{j},{p}]'))}²" for j in windows[i])
        total = f"<span class='total'>= <strong>{coloured('s', s[i, p])}</strong></span>"
        table_s[i][p] = f"{shown(K)} + {shown(ALPHA)}·({squares}) {total}"
        table_y[i][p] = f"{coloured('x', x[i, p])} · {coloured('s', s[i, p])}<sup>−β</sup> = <strong>{coloured('y', y[i, p])}</strong>"  # fmt: skip # noqa: E501
        own = dy[i, p] * s[i, p] ** -BETA
        dx[i, p] = own
        lines = [f"{coloured('dy', dy[i, p])} · {coloured('s', s[i, p])}<sup>−β</sup> = {shown(own)}"]
        for j in windows[i]:
            term = -2 * ALPHA * BETA * x[i, p] * dy[j, p] * y[j, p] / s[j, p]
            dx[i, p] += term
            if (i, p, j) == (0, 0, 0):
                factors = coloured("dy", dy[j, p]), coloured("y", y[j, p]), coloured("s", s[j, p])
                expanded = (
                    f"−2 · {shown(ALPHA)} · {shown(BETA)} · {coloured('x', x[i, p])} · {factors[0]} · {factors[1]} / "
                    f"{factors[2]} = {shown(term)}"
                )
            lines.append(f"by <span class='s-y'>y</span><sub>{j}</sub>: {shown(term)}")
        lines.append(f"<strong>{coloured('dx', dx[i, p])}</strong>")
        table_dx[i][p] = f'<ul class="terms">{"".join(f"<li>{line}</li>" for line in lines)}</ul>'
    for found, shown_here in zip(by_minigrad(), (y, dx)):
        np.testing.assert_allclose(found, shown_here, rtol=1e-12)
    head = ["", *(f"pixel {p}" for p in range(pixels))]
    given = [
        [f"channel {i}", *(coloured("dy", value, f"[{i},{p}]") for p, value in enumerate(row))]
        for i, row in enumerate(dy)
    ]
    return {"given-dy": rows_of(given, head), "expanded": f"<p>{expanded}</p>"} | {
        f"terms-{name}": rows_of([[f"channel {i}", *row] for i, row in enumerate(table)], head, terms=True)
        for name, table in (("s", table_s), ("y", table_y), ("dx", table_dx))
    }


def window_picture() -> tuple[str, str]:
    """The window over the channels of one pixel, and its CSS."""
    import minigrad
    import minigrad.functional as F  # noqa: N812

    size, reach, count = 40, 2, len(CHANNELS)
    tensor = minigrad.Tensor(np.array(CHANNELS, float).reshape(1, -1, 1, 1), device="textbook:0")
    y = F.lrn(tensor, 2 * reach + 1, 2.0, 0.1, 0.75).numpy().ravel()
    texts = [*[""] * reach, *map(shown, CHANNELS), *[""] * reach]
    outside = {(0, j) for j in range(len(texts)) if not reach <= j < reach + count}
    css = stepping("lrn-window", [(i * size, 0) for i in range(count)])
    left = 8 + reach * size
    picture = svg(
        16 + len(texts) * size, 176,
        f"A window of {2 * reach + 1} channels moves over {count} channels of one pixel; at both ends a part of it is "
        f"empty. x {CHANNELS}, y {[round(float(v), 2) for v in y]}.",
        grid([texts], "x", (8, 26), size, dashed=outside, label="x: the channels of one pixel"),
        grid([[shown(v, 2) for v in y]], "y", (left, 130), size, label="y: channel i of the middle of the window"),
        f'<rect class="frame-line lrn-window" style="stroke:var(--s)" x="8" y="26" width="{5 * size}" height="{size}" '
        f'rx="3"/><g class="lrn-window"><path d="M{left + size / 2} 67 V 90" stroke="var(--s)" stroke-width="2"/>'
        f'<text class="note-text" x="{left + size / 2 + 8}" y="83">s</text>'
        f'<rect class="frame-line" style="stroke:var(--s)" x="{left}" y="130" width="{size}" height="{size}" rx="3"/>'
        "</g>",
    )  # fmt: skip
    return picture, css


def influence_picture() -> str:
    """dy_j / dx_i for the channels of the picture, made by backward, one unit vector after the other."""
    import minigrad
    import minigrad.functional as F  # noqa: N812

    count = len(CHANNELS)
    slopes = np.zeros((count, count))
    for j in range(count):
        x = minigrad.Tensor(np.array(CHANNELS, float).reshape(1, -1, 1, 1), requires_grad=True, device="textbook:0")
        unit = np.eye(count)[j].reshape(x.shape)
        F.lrn(x, 5, 2.0, 0.1, 0.75).backward(minigrad.Tensor(unit, device="textbook:0"))
        slopes[:, j] = x.grad.numpy().ravel()  # type: ignore[union-attr]
    # What the page says of them: the formula of the diagonal, and the signs beside it.
    x_, s = np.array(CHANNELS, float), 2.0 + 0.1 * np.convolve(np.square(CHANNELS), np.ones(5), "same")
    y = x_ * s**-0.75
    np.testing.assert_allclose(slopes.diagonal(), s**-1.75 * (s - 0.15 * x_**2), rtol=1e-12)
    beside = [(i, j) for i, j in np.ndindex(slopes.shape) if 0 < abs(i - j) <= 2]
    assert all(np.sign(slopes[i, j]) == -np.sign(x_[i] * y[j]) for i, j in beside)
    below, above = (sum(bool(sign * slopes[place] > 0) for place in beside) for sign in (-1, 1))
    assert (slopes.diagonal() > 0).all()
    band = {(i, j) for i, j in np.ndindex(slopes.shape) if abs(i - j) <= 2}
    assert not any(slopes[place] for place in np.ndindex(slopes.shape) if place not in band)
    texts = [[shown(slopes[i, j], 2) if (i, j) in band else "" for j in range(count)] for i in range(count)]
    size = 44
    heads = [f'<text class="note-text" x="{62 + j * size}" y="16">y{j}</text>' for j in range(count)]
    sides = [f'<text class="note-text" x="10" y="{50 + i * size}">x{i}</text>' for i in range(count)]
    return svg(
        44 + count * size, 32 + count * size,
        "How much each y changes with each x: a band of five. On the diagonal all are above 0; beside it "
        f"{below} are below 0, {above} above, where two numbers differ in sign, and the others 0.",
        *heads, *sides,
        grid(texts, "dx", (36, 24), size, hit={(i, i) for i in range(count)},
             dashed=set(np.ndindex(slopes.shape)) - band),
    )  # fmt: skip


def faces() -> str:
    from minigrad.ops import _lrn_fast as fast
    from minigrad.ops.lrn import ResponseNorm

    quick, card = "minigrad/ops/_lrn_fast.py", "kernels/lrn.cu"
    rows = [
        (
            "The sum over a window",
            "Shifted copies of the channels, added up. The fast face multiplies with a band of ones, in blocks of 16 "
            "channels. A thread of the card has the window of its pixel in registers: with each step a number comes "
            "and the oldest goes, and the sum is made afresh.",
            found_lines("minigrad/ops/lrn.py", "        total = t.copy()", "return np.moveaxis(total"),
            found_lines(quick, "        np.multiply(a, b, out=self.products[:pixels])\n        sums", "self.careful(a"),
            found_lines(card, "template <int COUNT>\nstruct Window", "return total;"),
        ),
        (
            "y",
            "The formula, line by line; tile by tile in place; channel by channel.",
            function_lines(ResponseNorm.forward),
            function_lines(fast.normalize),
            found_lines(card, "        for (int i = spot.first", "*y = near"),
        ),
        (
            "dx",
            "Only the textbook keeps s. The others compute it again from x, which they need anyway: an array less to "
            "write and to read back.",
            function_lines(ResponseNorm.backward),
            function_lines(fast.differentiate),
            found_lines(card, "                near.push(next_x", "*dx = shares"),
        ),
        (
            "The power",
            "For the paper’s β = 3/4 two roots do it; a power takes twice as long on a CPU, and a hundred instructions "
            "on a card.",
            found_lines("minigrad/ops/lrn.py", "        self.s = self.k", "return x * self.s**"),
            found_lines(quick, "    if beta != 0.75:", "return out"),
            found_lines("kernels/lrn.cuh", "    if (beta == REAL(0.75))", "pow(s, -beta)"),
        ),
    ]  # fmt: skip
    return ideas(rows, NAMES)


def page() -> Page:
    picture, moving = window_picture()
    proof, worst = programs.proof("lambda x: F.lrn(x, 3, 2.0, 0.5, 0.6, groups=2)", "x", PROOF)
    play, script = lrn_play.parts()
    blocks = {
        "docstring": docstring("lrn"),
        "window": figure("window", picture, "Windows of n = 5 channels at one pixel.", pause("lrn")),
        "influence": figure(
            "influence",
            influence_picture(),
            "The slope of y by x, each column by one backward of the textbook’s face (n 5, k 2, alpha 0.1, beta 0.75).",
        ),
        **example(),
        "program": programs.printed(PROGRAM, names=NAMES),
        "play": play,
        "worst": f"{worst:.1e}",
        "proof": proof,
        "faces": faces(),
        "ladders": ladder("lrn") + ladder("lrn_backward"),
        "registers": registers("lrn"),
        **{f"refused-{name}": programs.refused(program) for name, program in REFUSED.items()},
        "conventions": programs.printed(CONVENTIONS),
        "wrong": programs.printed(WRONG, names=NAMES),
        "small": programs.printed(SMALL),
        "seam": programs.printed(SEAM),
        "overflow": programs.printed(OVERFLOW),
        "own-slope": own_slope(),
        "paper": programs.printed(PAPER),
        "derived": prose(WHY),
        "derived-program": programs.printed(DERIVED, names=NAMES),
        "exercises": section(EXERCISES),
    }
    title, lead, sections = page_parts(Path(__file__).with_suffix(".md"), blocks)
    return Page("lrn", title, lead, sections, script=script, css=moving)
