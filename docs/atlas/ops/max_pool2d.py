"""The page of max_pool2d: windows of 3 x 3, 2 apart, over 4 x 4 pixels, where the last ones overhang."""

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
from . import max_pool2d_play
from .parts import docstring, ideas

NAMES = {
    "x": "x",
    "y": "y",
    "dx": "dx",
    "dy": "dy",
    "xp": "x",
    "dxp": "dx",
    "windows": "x",
    "seen": "dx",
    "winner": "s",
}
X = [[1, 3, 2, 0], [7, 0, 3, 1], [0, 2, 5, 5], [1, 4, 2, 3]]
DY = [[1, 2], [3, 4]]
KERNEL, STRIDE = 3, 2

PROGRAM = f"""
x = minigrad.Tensor({[[X]]},
                    dtype="float64", requires_grad=True, device="textbook:0")
y = F.max_pool2d(x, kernel_size={KERNEL}, stride={STRIDE}, ceil_mode=True)
y.backward(minigrad.Tensor({[[DY]]}, dtype="float64", device="textbook:0"))
print("y", y.numpy()[0, 0], "dx", x.grad.numpy()[0, 0], sep="\\n")
"""

PROOF = """
numbers = np.random.default_rng(0).permutation(2 * 3 * 7 * 6).reshape(2, 3, 7, 6)      # no two are equal
x = minigrad.Tensor(numbers / 10, requires_grad=True, device="textbook:0")
"""

LOST = """
where, dy = np.array([6, 10, 10, 10]), np.array([1.0, 2.0, 3.0, 4.0])     # four windows, three of them won by pixel 10
dx = np.zeros(16)
dx[where] = dy
print("dx[where] = dy        ", dx[[6, 10]])
dx[:] = 0
dx[where] += dy
print("dx[where] += dy       ", dx[[6, 10]])
dx[:] = 0
np.add.at(dx, where, dy)
print("np.add.at             ", dx[[6, 10]])
"""

TIES = """
x = np.random.default_rng(0).standard_normal((1, 96, 55, 55))
x = F.relu(minigrad.Tensor(x - 1))                           # five of six are 0 now
windows = np.lib.stride_tricks.sliding_window_view(x.numpy(), (3, 3), axis=(2, 3))[:, :, ::2, ::2]
largest = windows.max((-1, -2), keepdims=True)
tied = ((windows == largest).sum((-1, -2)) > 1).mean()
print(f"windows with several largest numbers: {100 * tied:.1f} %")
"""

OVERHANG = """
for size in (55, 27, 13, 14):
    fits, overhangs = (F.max_pool2d(minigrad.zeros(1, 1, size, size), 3, 2, ceil_mode=mode) for mode in (False, True))
    print(size, "->", fits.shape[-1], "or, with ceil_mode,", overhangs.shape[-1])
"""

DEFAULT = """
x = minigrad.zeros(1, 1, 13, 13)
print(F.max_pool2d(x, 3).shape, F.max_pool2d(x, 3, stride=2).shape)
"""

NANS = """
x = minigrad.Tensor([[[[1.0, np.nan], [3.0, np.nan]]]], requires_grad=True)
y = F.max_pool2d(x, 2)
y.sum().backward()
print(y.numpy().ravel(), x.grad.numpy().ravel())
"""

PAPER = """
x = minigrad.Tensor([[[[5, 1, 2, 0, 3], [0, 4, 1, 9, 1], [2, 1, 8, 1, 0], [7, 0, 1, 2, 6], [0, 3, 0, 6, 1]]]],
                    dtype="float64", requires_grad=True, device="textbook:0")
y = F.max_pool2d(x, 3, stride=2)
y.sum().backward()
print("y", y.numpy()[0, 0], "dx", x.grad.numpy()[0, 0], sep="\\n")
"""

ROW = """
x = minigrad.Tensor([[[[3, 7, 7, 1, 5, 5, 2]]]], dtype="float64", requires_grad=True, device="textbook:0")
y = F.max_pool2d(x, (1, 3), stride=(1, 2))
y.backward(minigrad.Tensor([[[[1, 10, 100]]]], dtype="float64", device="textbook:0"))
print("y ", y.numpy().ravel(), " dx", x.grad.numpy().ravel())
"""
ROW_WHY = (
    "The windows are 3 7 7, 7 1 5 and 5 5 2. The second 7 loses the first window to the other 7 and wins the next one. "
    "The first 5 wins the last window, and had lost the one before to the 7."
)

DERIVED = """
for numbers in ([1, 3, 2], [1, 3, 3]):
    for t in (1, 10, 100):
        x = minigrad.Tensor(numbers, dtype="float64", requires_grad=True)
        y = F.log(F.exp(x * t).sum()) / t
        y.backward()
        print(numbers, f"t {t:3}: y = {y.item():.4f}, dx =", x.grad.numpy())
"""
WHY = r"""
By the chain rule $\partial \y / \partial \x_u = \frac{1}{t} \cdot t \, e^{t \, \x_u} / \sum_v e^{t \, \x_v}$: a
softmax of $t \, \x$. So $\dx_u$ is $\dy$ times a share, and all shares add up to 1. As $t$ grows, the largest number
takes all of it, as in max-pooling. Where two are the largest each keeps one half: another subgradient than the one
that minigrad has chosen, and as good a one.
"""

REFUSED = {
    "window": "F.max_pool2d(minigrad.zeros(1, 256, 2, 2), 3, stride=2)",
    "padding": "F.max_pool2d(minigrad.zeros(1, 1, 4, 4), 2, stride=1, padding=2)",
    "axes": "F.max_pool2d(minigrad.zeros(96, 55, 55), 3, stride=2)",
}

EXERCISES = [
    Exercise(
        "minigrad/ops/max_pool2d.py",
        "            seen += np.where(self.winner == u * self.kernel[1] + v, dy, 0)",
        "            seen[...] = np.where(self.winner == u * self.kernel[1] + v, dy, 0)",
        "tests/test_max_pool2d.py",
        ("test_both_faces_of_the_cpu_match_the_naive_loops",),
        "Windows that overlap write over each other. test_gradients_add_where_windows_overlap stays green: it asks the "
        "device under test, and that is the fast face unless MINIGRAD_TEST_DEVICE=textbook:0 is set.",
        green=("test_gradients_add_where_windows_overlap",),
        question="Write in place of adding",
    ),
    Exercise(
        "minigrad/ops/_max_pool2d_fast.py",
        "            np.greater(x[:, h], so_far[:, i], out=larger[:, i])  # strictly: in a tie the earlier row stays",
        "            np.greater_equal(x[:, h], so_far[:, i], out=larger[:, i])",
        "tests/test_max_pool2d.py",
        ("test_first_maximum_of_the_window_takes_the_gradient", "test_matches_the_naive_loops"),
        "Now the last row wins a tie. y is the same, and so is the gradient wherever all numbers differ: only a test "
        "with ties can see it, and after a ReLU ties are common.",
        green=("test_gradient_of_every_element", "test_gradients_add_where_windows_overlap"),
        question="Larger, or not smaller?",
    ),
]


def windows() -> list[tuple[tuple[int, int], list[tuple[int, int]]]]:
    """Every output with the pixels that it sees, row by row."""
    n = len(X)
    return [
        ((i, j), [(h, l) for h in range(STRIDE * i, min(n, STRIDE * i + KERNEL))
                  for l in range(STRIDE * j, min(n, STRIDE * j + KERNEL))])
        for i, j in np.ndindex(np.shape(DY))
    ]  # fmt: skip


def winners() -> dict[tuple[int, int], tuple[int, int]]:
    """The first largest pixel of every window; y and dx that follow from them are those of the op."""
    found = {output: max(seen, key=lambda at: X[at[0]][at[1]]) for output, seen in windows()}
    space: dict[str, Any] = {}
    exec(programs.HEAD + PROGRAM.split("print")[0], space)  # noqa: S102  (the page's own program)
    dx = np.zeros(np.shape(X))
    for output, at in found.items():
        assert space["y"].numpy()[0, 0][output] == X[at[0]][at[1]]
        dx[at] += DY[output[0]][output[1]]
    np.testing.assert_array_equal(space["x"].grad.numpy()[0, 0], dx)
    return found


def example() -> dict[str, str]:
    won = winners()
    forward = [
        [
            f"y[{i},{j}]",
            ", ".join(
                f'<span class="s-x" title="x[{h},{l}]">'
                + (f"<strong>{X[h][l]}</strong>" if (h, l) == won[i, j] else str(X[h][l]))
                + "</span>"
                for h, l in seen
            ),
            f'<strong class="s-y">{X[won[i, j][0]][won[i, j][1]]}</strong>',
            f"x[{won[i, j][0]},{won[i, j][1]}]",
            f"{KERNEL}·{won[i, j][0] - STRIDE * i} + {won[i, j][1] - STRIDE * j} = "
            f"{KERNEL * (won[i, j][0] - STRIDE * i) + won[i, j][1] - STRIDE * j}",
        ]
        for (i, j), seen in windows()
    ]
    backward = []
    for at in sorted(set(won.values())):
        outputs = [output for output, pixel in won.items() if pixel == at]
        sent = " + ".join(f'<span class="s-dy" title="dy[{i},{j}]">{DY[i][j]}</span>' for i, j in outputs)
        total = sum(DY[i][j] for i, j in outputs)
        names = ", ".join(f"y[{i},{j}]" for i, j in outputs)
        backward.append([f"dx[{at[0]},{at[1]}]", names, f'{sent} = <strong class="s-dx">{total}</strong>'])
    return {
        "terms-y": rows_of(forward, ["", "the window sees", "largest", "the winner", "its tap, kw·u + v"], terms=True),
        "terms-dx": rows_of(backward, ["", "has won", "the sum of their dy"], terms=True),
        "others": str(np.size(X) - len(backward)),
    }


def window_picture() -> tuple[str, str]:
    """The window that overhangs, moving; and its CSS."""
    size, n = 34, len(X)
    reach = STRIDE * (len(DY) - 1) + KERNEL
    won = winners()
    places = list(np.ndindex(np.shape(DY)))
    texts = [[shown(X[i][j]) if i < n and j < n else "" for j in range(reach)] for i in range(reach)]
    dashed = {place for place in np.ndindex(reach, reach) if max(place) >= n}
    css = stepping("pool-window", [(j * STRIDE * size, i * STRIDE * size) for i, j in places], 1.6)
    css += stepping("pool-output", [(j * size, i * size) for i, j in places], 1.6)
    css += stepping("pool-winner", [(won[place][1] * size, won[place][0] * size) for place in places], 1.6)
    right = 40 + reach * size
    y = [[X[won[i, j][0]][won[i, j][1]] for j in range(len(DY))] for i in range(len(DY))]
    return svg(
        right + 2 * size + 12, 30 + reach * size,
        f"A window of 3 by 3 moves over 4 by 4 pixels, 2 at a time, and over their edge; its largest pixel is y: {y}.",
        f'<rect class="pool-winner" x="6" y="24" width="{size}" height="{size}" fill="var(--hit)"/>',
        grid(texts, "x", (6, 24), size, dashed=dashed, faint=set(np.ndindex(n, n)), label="x"),
        grid(y, "y", (right, 24), size, label="y"),
        f'<rect class="frame-line pool-window" style="stroke:var(--w)" x="6" y="24" width="{KERNEL * size}" '
        f'height="{KERNEL * size}" rx="3"/><rect class="frame-line pool-output" style="stroke:var(--w)" x="{right}" '
        f'y="24" width="{size}" height="{size}" rx="3"/>',
    ), css  # fmt: skip


def back_picture() -> str:
    """Every dy on its way to the pixel that has won its window."""
    size, n = 34, len(X)
    won = winners()
    dx = np.zeros((n, n))
    for (i, j), at in won.items():
        dx[at] += DY[i][j]
    right = 70 + n * size
    lines = "".join(
        f'<path d="M{right + (j + 0.5) * size:g} {24 + (i + 0.5) * size:g} L{6 + (l + 0.78) * size:g} '
        f'{24 + (h + 0.5) * size:g}" stroke="var(--dy)" stroke-width="1.5" stroke-opacity=".55" fill="none"/>'
        for (i, j), (h, l) in won.items()
    )
    told = ", ".join(f"dy[{i},{j}] to x[{h},{l}]" for (i, j), (h, l) in won.items())
    return svg(
        right + 2 * size + 12, 30 + n * size, f"Each dy goes to one pixel: {told}.",
        grid(dx, "dx", (6, 24), size, hit=set(won.values()), label="dx"),
        grid(DY, "dy", (right, 24), size, label="dy"), lines,
        f'<g class="halo">{grid(DY, "dy", (right, 24), size, faint=set(won))}</g>',
    )  # fmt: skip


def faces() -> str:
    from minigrad.ops import _max_pool2d_fast as fast
    from minigrad.ops.max_pool2d import MaxPool2d

    room, quick, card = "minigrad/ops/max_pool2d.py", "minigrad/ops/_max_pool2d_fast.py", "kernels/max_pool2d.cu"
    rows = [
        (
            "y: the largest under a window",
            "The textbook stacks what each tap sees, and takes the maximum. The fast face goes down the rows first and "
            "then across the columns: kh + kw passes in place of kh · kw. On a card one thread has one output.",
            found_lines(room, "        windows = self.windows(x, -np.inf)", "winner = windows.argmax"),
            found_lines(quick, "    for u, i, h in down[1:]:", "np.maximum(so_far[:, i], x[:, h]"),
            found_lines(card, "        for (int u = 0; u < rows.taps; u++) {", "best, winner);"),
        ),
        (
            "The winner, at ties and NaN",
            "Kept is the number of the first tap that has the maximum, one small integer for each output.",
            found_lines(room, "        # Where all pixels of a window are -inf", "self.winner = np.where"),
            found_lines(quick, "    for v, j, w in across:\n        np.subtract", "np.maximum(winner"),
            found_lines(card, "// Looks at a pixel of the window", "best = value, winner = tap;"),
        ),
        (
            "dx: to the winners",
            "The faces of the CPU go through the windows and add. On a card each pixel asks the windows that see it "
            "whether it has won, so that no two threads write the same number.",
            function_lines(MaxPool2d.backward),
            found_lines(quick, "        where = empty(dy[some].shape", "np.add.at"),
            found_lines(card, "        for (int i = first_window(", "dx[pixel] = sum;"),
        ),
    ]
    assert fast.gradient  # the module that `quick` names
    return ideas(rows, NAMES)


def page() -> Page:
    picture, moving = window_picture()
    proof, worst = programs.proof("lambda x: F.max_pool2d(x, 3, 2, padding=1)", "x", PROOF)
    play, script = max_pool2d_play.parts()
    blocks = {
        "docstring": docstring("max_pool2d"),
        "window": figure(
            "window", picture, "The window, and the pixel that wins it. Beyond the edge is nothing.", pause("pool")
        ),
        "back": figure("back", back_picture(), "Where each dy goes."),
        "dy": str(DY),
        **example(),
        "program": programs.printed(PROGRAM, names=NAMES),
        "play": play,
        "lost": programs.printed(LOST, names=NAMES),
        "worst": f"{worst:.1e}",
        "proof": proof,
        "faces": faces(),
        "ladder": ladder("max_pool2d_backward"),
        "registers": registers("max_pool2d"),
        **{f"refused-{name}": programs.refused(program) for name, program in REFUSED.items()},
        "ties": programs.printed(TIES),
        "overhang": programs.printed(OVERHANG),
        "default": programs.printed(DEFAULT),
        "nans": programs.printed(NANS),
        "row": programs.printed(ROW, names=NAMES),
        "row-why": ROW_WHY,
        "paper": programs.printed(PAPER),
        "derived": prose(WHY),
        "derived-program": programs.printed(DERIVED, names=NAMES),
        "exercises": section(EXERCISES),
    }
    title, lead, sections = page_parts(Path(__file__).with_suffix(".md"), blocks)
    return Page("max_pool2d", title, lead, sections, script=script, css=moving)
