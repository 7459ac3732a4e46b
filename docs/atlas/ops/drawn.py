"""Pictures of the rooms that have a Markdown file alone: drawn from the numbers that the textbook's face computes.

A picture of a page's worked example runs the program that the page shows, and takes its numbers from there.  All are
at most 350 pixels wide, or a strip of such, so that a phone shows them whole.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np

from .. import programs
from ..pictures import frame, grid, shown, strip, svg
from ..shell import figure

HERE = Path(__file__).parent
SIZE = 34


def example(room: str) -> dict[str, Any]:
    """The variables that the first program of a page leaves behind."""
    text = (HERE / f"{room}.md").read_text(encoding="utf-8")
    program = re.search(r"^## A worked example.*?^```run\n(.*?)^```$", text, re.DOTALL | re.M)
    assert program, room
    space: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(programs.HEAD + program[1], space)  # noqa: S102  (the page's own program)
    return space


def say(text: str, x: float, y: float, symbol: str = "", kind: str = "note-text", anchor: str = "") -> str:
    """A line of text.  anchor: "middle" or "end", where x is not its beginning."""
    place = f' text-anchor="{anchor}"' if anchor else ""
    colour = f' style="fill:var(--{symbol})"' if symbol else ""
    return f'<text class="{kind}"{colour} x="{x:g}" y="{y:g}"{place}>{text}</text>'


def line(x0: float, y0: float, x1: float, y1: float, colour: str = "muted", width: float = 1, more: str = "") -> str:
    return (
        f'<path d="M{x0:.5g} {y0:.5g} L{x1:.5g} {y1:.5g}" stroke="var(--{colour})" stroke-width="{width:g}" '
        f'fill="none"{more}/>'
    )


def arrow(x0: float, y0: float, x1: float, y1: float, colour: str, width: float = 2.5) -> str:
    """A line with a head at its end; the head shrinks with a short one."""
    length = float(np.hypot(x1 - x0, y1 - y0))
    if not length:
        return ""
    along, head = ((x1 - x0) / length, (y1 - y0) / length), min(8.0, length)
    bx, by = x1 - head * along[0], y1 - head * along[1]
    side = 0.55 * head
    points = f"{x1:.5g},{y1:.5g} {bx - side * along[1]:.5g},{by + side * along[0]:.5g} "
    points += f"{bx + side * along[1]:.5g},{by - side * along[0]:.5g}"
    shaft = line(x0, y0, bx, by, colour, width) if length > head else ""
    return f'{shaft}<polygon points="{points}" fill="var(--{colour})"/>'


def _decimals(value: float) -> str:
    """With two digits behind the point, and no minus before a 0."""
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


# ---------------------------------------------------------------- cross_entropy


def cross_entropy() -> dict[str, str]:
    found = example("cross_entropy")
    x, p = found["x"].numpy(), found["p"]
    gap = found["x"].grad.numpy() * len(x)  # p - [c = t]: the mean over the rows divides it
    true = [int(t) for t in gap.argmin(1)]  # nothing else in a row is below 0
    cell, bar, step, row, top = 23, 29, 33, 88, 28
    bars, arrows = 4 * cell + 8, 4 * cell + 4 * bar + 12
    parts = [
        say("logits x", 2, 16, "x", "label"), say("p", bars + 4, 16, "s", "label"),
        say("p − [c = t]", arrows + 4, 16, "dx", "label"),
    ]  # fmt: skip
    for i, t in enumerate(true):
        y = top + i * row
        parts.append(grid(x[i : i + 1], "x", (2, y + 18), cell, hit={(0, t)}))
        parts.append(line(bars, y + 60, bars + 4 * bar, y + 60))
        parts.append(line(arrows, y + 30, arrows + 4 * step, y + 30))
        for c in range(4):
            height = 60 * p[i, c]
            middle = bars + (c + 0.5) * bar
            parts.append(
                f'<rect class="bar" x="{middle - 9:g}" y="{y + 60 - height:.5g}" width="18" height="{height:.5g}" '
                f'fill="var(--s)" fill-opacity="{1 if c == t else 0.45}"/>'
            )
            parts.append(say(_decimals(p[i, c]), middle, y + 73, "s", "value small s-s"))
            middle = arrows + (c + 0.5) * step
            parts.append(arrow(middle, y + 30, middle, y + 30 + 30 * gap[i, c], "dx"))
            parts.append(say(_decimals(gap[i, c]), middle, y + 73, "dx", "value small s-dx"))
    told = "; ".join(f"row {i}, true class {t}: p is {', '.join(map(_decimals, p[i]))}" for i, t in enumerate(true))
    picture = svg(
        arrows + 4 * step + 2, top + 4 * row - 12,
        f"For each of four rows the logits, their softmax as bars, and p − 1 or p as arrows: the true class is pushed "
        f"up, every other one down. {told}.",
        *parts,
    )  # fmt: skip
    caption = (
        "A line for each row of the example; the true class is the filled one. An arrow shows where a step "
        "against the gradient moves the logit: the true class goes up by what it lacks, 1 − p, the others go down "
        "by what they have, p. In each row the arrows down are together as long as the one up. The gradient of "
        'the mean, <var class="s-dx">dx</var>, is a quarter of these numbers. The third row is nearly right and '
        "hardly moves; the second, where another class leads, is pushed most."
    )
    return {"picture": figure("bars", picture, caption)}


# ---------------------------------------------------------------- batch_norm

BLOCK = """
x = minigrad.Tensor([[[[1, 3], [2, 0]], [[10, 30], [20, 40]], [[-1, -1], [0, 2]]],
                     [[[5, 4], [1, 0]], [[30, 20], [10, 0]], [[1, 3], [0, 4]]]], dtype="float64", device="textbook:0")
y = F.batch_norm(x, None, None, training=True)
"""


def three_terms() -> dict[str, np.ndarray]:
    """The three terms of dx in the page's worked example, and dx, which is their sum."""
    found = example("batch_norm")
    x, w, dy = found["x"].numpy(), float(found["w"].numpy()[0]), found["dy"]
    s = 1 / np.sqrt(x.var() + 1e-5)
    h = (x - x.mean()) * s
    terms = {
        "itself": w * s * dy,
        "mean": np.full_like(x, -w * s * dy.mean()),
        "variance": -w * s * h * (dy * h).mean(),
        "dx": found["x"].grad.numpy(),
    }
    np.testing.assert_allclose(terms["itself"] + terms["mean"] + terms["variance"], terms["dx"], atol=1e-12)
    return {name: term[0, 0] for name, term in terms.items()}


def batch_norm() -> dict[str, str]:
    space: dict[str, Any] = {}
    exec(programs.HEAD + BLOCK, space)  # noqa: S102  (the program above)
    blocks = []
    for name, symbol, values in (("x", "x", space["x"].numpy()), ("h, after", "y", space["y"].numpy())):
        size, left, step, down = 40, 12, 96, 98
        parts = [say(name, left, 14, symbol, "label")]
        for c in range(3):
            parts.append(say(f"channel {c}", left + c * step + size, 36, "", "note-text", "middle"))
            for n in range(2):
                texts = [[shown(v, 2) for v in row] for row in values[n, c]]
                parts.append(grid(texts, symbol, (left + c * step, 50 + n * down), size))
            parts.append(
                f'<rect class="frame-line" style="stroke:var(--muted)" x="{left + c * step - 6}" y="44" '
                f'width="{2 * size + 12}" height="{down + 2 * size + 12}" rx="3"/>'
            )
            mean, var = values[:, c].mean(), values[:, c].var()
            foot = 50 + down + 2 * size + 24
            parts.append(say(f"mean {shown(round(mean, 4) + 0.0, 3)}", left + c * step + size, foot, "s", "", "middle"))
            parts.append(say(f"var {shown(round(var, 3), 3)}", left + c * step + size, foot + 17, "s", "", "middle"))
        told = ", ".join(f"{shown(round(values[:, c].mean(), 4) + 0.0, 3)}" for c in range(3))
        blocks.append(
            svg(left + 3 * step - 2, 278, "Two images, three channels of 2 by 2 pixels; the 8 numbers of a channel, "
                f"of both images, stand in one frame. {name}: the means of the channels are {told}.",
                f'<g style="font-size:12px">{"".join(parts)}</g>')
        )  # fmt: skip
    caption = (
        "An (N, C, H, W) block of (2, 3, 2, 2): images from top to bottom, channels from left to right. A frame "
        "holds the <var>m</var> = N · H · W = 8 numbers that share one mean and one variance: those of a channel, "
        "in all images and at all pixels. After it, channels of any scale have mean 0 and variance 1 (but for "
        'eps); then each is multiplied by its <var class="s-w">w</var> and shifted by its <var '
        'class="s-b">b</var>, here 1 and 0.'
    )
    return {"picture": figure("block", strip(*blocks), caption), "ways": ways()}


def _index(name: str, index: str) -> str:
    return f'{name}<tspan dy="3" font-size="9">{index}</tspan>'


def ways() -> str:
    """How one x reaches all h, and the three terms of dx in the worked example."""
    paths = [
        ("dx", "itself", "M70 98 C120 98 190 30 262 30"),
        ("ink", "through the mean", "M70 98 L262 98"),
        ("s", "through the variance", "M70 98 C120 98 190 166 262 166"),
    ]
    graph = "".join(
        f'<path d="{path}" stroke="var(--{colour})" stroke-width="2.5" fill="none"/>' for colour, _, path in paths
    )
    graph += '<rect class="cell" x="18" y="80" width="52" height="36" rx="4"/>'
    graph += say(_index("x", "i"), 44, 103, "x", "value", "middle")
    for (colour, text, _), y in zip(paths, (30, 98, 166)):
        graph += arrow(262, y, 276, y, colour)
        graph += f'<rect class="cell" x="278" y="{y - 16}" width="60" height="32" rx="4"/>'
        graph += say(_index("h", "i") if y == 30 else _index("all h", "j"), 308, y + 4, "y", "value small", "middle")
        graph += say(text, 270 if y != 98 else 266, y - 12 if y != 166 else 190, colour, "note-text", "end")
    first = svg(
        342, 212,
        "Three lines from x_i: to h_i itself, through the mean to every h_j, through the variance to every h_j.",
        graph,
    )  # fmt: skip
    heads = {
        "itself": ("w s dy", "dx"),
        "mean": ("− w s db/m", "ink"),
        "variance": ("− w s h dw/m", "s"),
        "dx": ("their sum, dx", "dx"),
    }
    grids = []
    for name, term in three_terms().items():
        head, colour = heads[name]
        texts = [[_decimals(value) for value in row] for row in term]
        grids.append(
            svg(4 * 40 + 4, 4 * 34 + 28, f"{head}: {'; '.join(' '.join(row) for row in texts)}.",
                say(head, 2, 14, colour, "label"),
                _wide_grid(texts, "dx", (2, 22), (40, 34), {(0, 0)} if name in ("itself", "dx") else ()))
        )  # fmt: skip
    caption = (
        "Three ways lead from one number to the output, so the gradient is a sum of three terms. Below, those of "
        'the worked example, where only the pixel in the corner has a <var class="s-dy">dy</var>, of 1: the first '
        "term is there alone; the second takes the same from every pixel, so that dx sums to 0; the third takes "
        "in proportion to <var>h</var>, so that dx has no part along <var>h</var>: a stretch of all x changes "
        "nothing either (but for eps)."
    )
    return figure("ways", strip(first) + strip(*grids), caption)


def _wide_grid(
    texts: list[list[str]],
    symbol: str,
    at: tuple[float, float],
    size: tuple[int, int],
    hit: Collection[tuple[int, int]],
) -> str:
    """A grid with cells that are wider than high, for decimals."""
    parts = []
    for (i, j), text in np.ndenumerate(np.array(texts, dtype=object)):
        x, y = at[0] + j * size[0], at[1] + i * size[1]
        kind = " hit" if (i, j) in hit else ""
        parts.append(
            f'<rect class="cell{kind}" x="{x:g}" y="{y:g}" width="{size[0]}" height="{size[1]}"/>'
            f'<text class="value small s-{symbol}" x="{x + size[0] / 2:g}" y="{y + size[1] / 2 + 4:g}">{text}</text>'
        )
    return "".join(parts)


# ---------------------------------------------------------------- linear


def product(
    left: np.ndarray, top: np.ndarray, result: np.ndarray, names: tuple[str, str, str], symbols: tuple[str, str, str],
    at: tuple[int, int], told: str, bias: np.ndarray | None = None,
) -> str:  # fmt: skip
    """The op's result = left @ top + bias: a row of the left one and a column of the upper one meet in `at`."""
    np.testing.assert_allclose(left @ top + (0 if bias is None else bias), result)
    size, gap, (i, j), inner = 29, 12, at, left.shape[1]
    x, y = 4 + inner * size + gap, 22 + len(top) * size + gap + 12
    terms = [f"{_braced(left[i, k])}·{_braced(top[k, j])}" for k in range(inner)]
    start = [] if bias is None else [shown(bias[j])]
    said = f"{told} = {' + '.join([*start, *terms])} = {shown(result[at])}".replace("+ −", "− ")
    height = y + len(left) * size + 26
    width = max(x + top.shape[1] * size + 6, 8 + 6.4 * len(said))
    return svg(
        width, height, f"{names[2]} from {names[0]} and {names[1]}: {said}",
        grid(left, symbols[0], (4, y), size, hit={(i, k) for k in range(inner)}, label=names[0]),
        grid(top, symbols[1], (x, 22), size, hit={(k, j) for k in range(inner)}, label=names[1]),
        grid(result, symbols[2], (x, y), size, hit={at}), say(names[2], x + top.shape[1] * size + 4, y - 7, symbols[2],
                                                              "label", "end"),
        frame((x, y), at, (1, 1), size, symbols[2]),
        f'<g style="font-size:10.5px">{say(said, 4, height - 6, "ink", "")}</g>',
    )  # fmt: skip


def _braced(value: float) -> str:
    return f"({shown(value)})" if value < 0 else shown(value)


def linear() -> dict[str, str]:
    found = example("linear")
    x, w, b, y = (found[name].numpy() for name in "xwby")
    dx, dw, dy = found["x"].grad.numpy(), found["w"].grad.numpy(), found["dy"]
    pictures = [
        product(x, w.T, y, ("x", "wᵀ", "y"), ("x", "w", "y"), (2, 1), "y[2,1]", b),
        product(dy, w, dx, ("dy", "w", "dx"), ("dy", "w", "dx"), (2, 1), "dx[2,1]"),
        product(dy.T, x, dw, ("dyᵀ", "x", "dw"), ("dy", "x", "dw"), (1, 0), "dw[1,0]"),
    ]
    caption = (
        'The numbers of the example below. A <var class="s-y">y</var> collects along a row of <var '
        'class="s-x">x</var> and a row of <var class="s-w">w</var> (a column of wᵀ), beginning with its <var '
        'class="s-b">b</var>: the sum over <var>k</var>. A <var class="s-dx">dx</var> collects along a row of '
        '<var class="s-dy">dy</var> and a column of w: the sum over the outputs that x went into. A <var '
        'class="s-dw">dw</var> collects along a column of dy and a column of x: the sum over all rows of the '
        "batch."
    )
    return {"picture": figure("products", strip(*pictures), caption)}


# ---------------------------------------------------------------- SGD

CURVES = np.array([1.0, 25.0])  # the loss is half of w0² + 25 w1²: a valley along w0
START, RATE, MOMENTUM, STEPS = (-8.0, 2.0), 0.03, 0.8, 40
KINDS = {
    "plain": {},
    "momentum": {"momentum": MOMENTUM},
    "Nesterov": {"momentum": MOMENTUM, "nesterov": True},
}


def path(settings: dict[str, Any]) -> np.ndarray:
    """(STEPS + 1, 2): where minigrad's SGD goes in the valley."""
    import minigrad

    w = minigrad.Tensor(START, dtype="float64", requires_grad=True, device="textbook:0")
    optimizer = minigrad.optim.SGD([w], lr=RATE, **settings)
    seen = [w.numpy().copy()]
    for _ in range(STEPS):
        optimizer.zero_grad()
        (w * w * minigrad.Tensor(CURVES / 2, device="textbook:0")).sum().backward()
        optimizer.step()
        seen.append(w.numpy().copy())
    return np.array(seen)


def loss(w: np.ndarray) -> np.ndarray:
    return (CURVES / 2 * w**2).sum(-1)


def sgd() -> dict[str, str]:
    scale, x0, y0, width, height = 27.0, 226.0, 84.0, 344, 152
    blocks = []
    for name, settings in KINDS.items():
        walked = path(settings)
        rings = "".join(
            f'<ellipse cx="{x0:g}" cy="{y0:g}" rx="{scale * r:.5g}" ry="{scale * r / 5:.5g}" fill="none" '
            f'stroke="var(--muted)" stroke-opacity=".45"/>'
            for r in (1, 2, 4, 6, 8, 10, 12)
        )
        at = np.array([x0, y0]) + walked * (scale, -scale)
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
        dots = "".join(f'<circle class="step" cx="{x:.2f}" cy="{y:.2f}" r="2.4" fill="var(--w)"/>' for x, y in at)
        fell = [shown(float(loss(walked[k])), 2) for k in (0, 10, 20, STEPS)]
        said = f"loss {fell[0]}, after 10 steps {fell[1]}, 20: {fell[2]}, {STEPS}: {fell[3]}"
        blocks.append(
            svg(width, height + 22, f"The path of {name} steps in a long valley. {said}.",
                say(name, 2, 14, "w", "label"),
                f"{rings}{line(x0 - 5, y0, x0 + 5, y0, 'y', 2)}{line(x0, y0 - 5, x0, y0 + 5, 'y', 2)}"
                f'<polyline points="{points}" fill="none" stroke="var(--w)" stroke-width="1.3"/>{dots}',
                f'<g style="font-size:11px">{say(said, 2, height + 14, "ink", "")}</g>')
        )  # fmt: skip
    caption = (
        f"{STEPS} steps each of <code>minigrad.optim.SGD</code> from the same place, (−8, 2), with lr = {RATE}, on "
        "half of w0² + 25 w1²; each ring is a height, the cross is the minimum. Plain steps are done with the "
        "steep direction soon, and creep along the valley: what the walls allow, a rate below 2/25 = 0.08, is "
        f"little for its floor. Momentum {MOMENTUM} adds steps that agree, and runs along the floor; it also "
        "swings across it and beyond the end. Nesterov’s looks at where the velocity leads, and swings less."
    )
    return {"picture": figure("valley", strip(*blocks), caption)}


# ---------------------------------------------------------------- dropout


def dropout() -> dict[str, str]:
    import minigrad
    import minigrad.functional as F

    x = example("dropout")["x"].numpy()
    blocks = []
    for form, training in (("inverted", True), ("inverted", False), ("paper", True), ("paper", False)):
        minigrad.manual_seed(0)  # as in the example: the same mask in both forms
        t = minigrad.Tensor(x, requires_grad=True, device="textbook:0")
        y = F.dropout(t, 0.5, training, form)
        y.sum().backward()
        assert t.grad is not None
        factor = t.grad.numpy()  # of y by x, element by element
        lost = {place for place in np.ndindex(x.shape) if factor[place] == 0}
        told = f"x · {shown(factor.max())}" + (", or 0" if lost else "")
        when = "training" if training else "testing"
        blocks.append(
            svg(4 * SIZE + 14, 4 * SIZE + 62, f"{form}, {when}: {told}; "
                f"{'; '.join(' '.join(shown(v) for v in row) for row in y.numpy())}.",
                say(form, 2, 14, "ink", "label"), say(when, 2, 31, "", "note-text"),
                grid(y.numpy(), "y", (2, 38), SIZE, dashed=lost,
                     hit={place for place in np.ndindex(x.shape) if training and place not in lost}),
                f'<g style="font-size:12px">{say(told, 2, 4 * SIZE + 55, "ink", "")}</g>')
        )  # fmt: skip
    caption = (
        'The numbers 1 to 16 of the example as <var class="s-y">y</var>, p = 0.5, with one mask for both forms: '
        "grey cells are dropped. In the inverted form those that are kept are doubled in training, and nothing "
        "happens in testing; in the paper’s form they pass as they are in training, and all are halved in "
        'testing. What is below a map is also what its <var class="s-dy">dy</var> is multiplied by on the way '
        "back."
    )
    return {"picture": figure("mask", strip(*blocks), caption)}


# ---------------------------------------------------------------- relu


def relu() -> dict[str, str]:
    found = example("relu")
    x, y, dx = found["x"].numpy(), found["y"].numpy(), found["x"].grad.numpy()
    dy = np.arange(1.0, 17).reshape(4, 4)
    scale, x0, y0 = 40, 122, 172
    numbers, counts = np.unique(x, return_counts=True)
    outputs = {value: float(y[x == value][0]) for value in numbers}
    parts = [
        line(2, y0, 284, y0), line(x0, 24, x0, y0 + 22),
        say("x", 286, y0 + 4, "x", "label"), say("y", x0 - 4, 16, "y", "label"),
        line(x0 - 2.8 * scale, y0, x0, y0, "y", 3), line(x0, y0, x0 + 3.6 * scale, y0 - 3.6 * scale, "y", 3),
        say("slope 0", 14, y0 - 34, "dx"), say("nothing passes", 14, y0 - 18, "dx"),
        say("slope 1", x0 + 98, y0 - 46, "dx"), say("dy passes", x0 + 98, y0 - 30, "dx"),
    ]  # fmt: skip
    for value, count in zip(numbers, counts):
        px, py = x0 + scale * value, y0 - scale * outputs[value]
        fill = "var(--y)" if value > 0 else "var(--paper)"
        parts.append(f'<circle cx="{px:g}" cy="{py:g}" r="5.5" fill="{fill}" stroke="var(--y)" stroke-width="2.5"/>')
        parts.append(say(shown(value), px + (0 if value else 9), y0 + 20, "x", "value", "middle"))
        if value > 0:
            parts.append(say(f"{count} ×", px - 10, py - 6, "", "note-text", "end"))
        else:
            parts.append(say(f"{count} ×", px + (9 if value == 0 else 0), y0 + 36, "", "note-text", "middle"))
    curve = svg(
        306, y0 + 54,
        "y against x: 0 up to x = 0, then rising with slope 1; on it the numbers of the example: "
        + ", ".join(f"{count} times {shown(v)} becomes {shown(outputs[v])}" for v, count in zip(numbers, counts)),
        *parts,
    )  # fmt: skip
    passes = {place for place in np.ndindex(x.shape) if dx[place] != 0}
    grids = [
        svg(4 * SIZE + 6, 4 * SIZE + 26,
            f"{name}: {'; '.join(' '.join(shown(v) for v in row) for row in values)}.",
            grid(values, name, (2, 22), SIZE, dashed=set(np.ndindex(x.shape)) - passes, hit=passes, label=name))
        for name, values in (("x", x), ("y", y), ("dy", dy), ("dx", dx))
    ]  # fmt: skip
    caption = (
        "The sixteen numbers of the example below on the curve, with how many there are of each, and as maps: a "
        'filled cell is where x is above 0, and where its <var class="s-dy">dy</var> passes unchanged; in a grey '
        'one <var class="s-dx">dx</var> is 0, also where x is exactly 0 (the open circle in the corner).'
    )
    return {"picture": figure("curve", strip(curve) + strip(*grids), caption)}


PICTURES: dict[str, Callable[[], dict[str, str]]] = {
    "cross_entropy": cross_entropy,
    "batch_norm": batch_norm,
    "linear": linear,
    "sgd": sgd,
    "dropout": dropout,
    "relu": relu,
}
