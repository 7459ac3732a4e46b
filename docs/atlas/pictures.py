"""Grids of numbers as SVG: images, windows and taps, in the colours of their symbols."""

from __future__ import annotations

import html
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

Place = tuple[int, int]


def shown(value: float, digits: int = 3) -> str:
    """A number as a page shows it: whole numbers whole, others to so many digits, with a true minus."""
    value = float(value)
    text = str(int(value)) if value == int(value) and abs(value) < 1e6 else f"{value:.{digits}g}"
    return text.replace("-", "−")


def svg(width: float, height: float, title: str, *parts: str) -> str:
    """title: what the picture shows, for those who do not see it."""
    return (
        f'<svg role="img" aria-label="{html.escape(title)}" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}">{"".join(parts)}</svg>'
    )


def grid(
    values: Any,
    symbol: str,
    at: tuple[float, float] = (0, 0),
    size: int = 34,
    dashed: Collection[Place] = (),
    hit: Collection[Place] = (),
    faint: Collection[Place] = (),
    marks: Mapping[Place, str] | None = None,
    label: str = "",
) -> str:
    """A matrix of numbers (or texts) as cells of `size` pixels.

    dashed: cells that are not there, such as padding.  hit: filled cells.  faint: cells in the background.
    marks: a small text in a cell's corner.  label: above the grid.
    """
    rows = np.asarray(values, dtype=object)
    x0, y0 = at
    parts = [f'<text class="label s-{symbol}" x="{x0:g}" y="{y0 - 7:g}">{html.escape(label)}</text>'] if label else []
    for (i, j), value in np.ndenumerate(rows):
        x, y = x0 + j * size, y0 + i * size
        kind = " ".join(
            name for name, places in (("dashed", dashed), ("hit", hit), ("faint", faint)) if (i, j) in places
        )
        parts.append(f'<rect class="cell {kind}" x="{x:g}" y="{y:g}" width="{size}" height="{size}"/>')
        text = value if isinstance(value, str) else shown(value)
        scale = " small" if len(text) > 4 else ""
        if text:
            parts.append(
                f'<text class="value{scale} s-{symbol} {kind}" x="{x + size / 2:g}" y="{y + size / 2 + 4:g}">'
                f"{html.escape(text)}</text>"
            )
        if marks and (i, j) in marks:
            parts.append(f'<text class="mark" x="{x + size - 3:g}" y="{y + 10:g}">{html.escape(marks[i, j])}</text>')
    return f"<g>{''.join(parts)}</g>"


def frame(
    at: tuple[float, float], place: Place, shape: Place, size: int = 34, symbol: str = "w", more: str = ""
) -> str:
    """A frame around shape = (rows, columns) cells of a grid, the first of them at `place`."""
    x, y = at[0] + place[1] * size, at[1] + place[0] * size
    return (
        f'<rect class="frame-line" {more} style="stroke:var(--{symbol})" x="{x:g}" y="{y:g}" '
        f'width="{shape[1] * size}" height="{shape[0] * size}" rx="3"/>'
    )


def strip(*pictures: str) -> str:
    """Pictures side by side, below each other where the screen is narrow."""
    return f'<div class="strip">{"".join(pictures)}</div>'


def stepping(name: str, places: Sequence[tuple[float, float]], seconds: float = 1.2) -> str:
    """CSS of an animation `name` that goes from place to place (pixels) and rests at each."""
    share = 100 / len(places)
    keys = "".join(
        f"{k * share:.4g}%,{(k + 1) * share - 0.01:.6g}%{{transform:translate({x:g}px,{y:g}px)}}"
        for k, (x, y) in enumerate(places)
    )
    return (
        f"@keyframes {name}{{{keys}}}\n"
        f".{name}{{animation:{name} {seconds * len(places):g}s step-end infinite}}\n"
        f".paused:checked ~ * .{name}{{animation-play-state:paused}}\n"
    )


def pause(name: str) -> str:
    """A box that stops the animations of the figure it stands in; it needs no script."""
    return f'<input type="checkbox" class="paused" id="pause-{name}"><label for="pause-{name}">hold still</label>'


def rows_of(
    cells: Sequence[Sequence[str]],
    head: Sequence[str] = (),
    numbers: bool = True,
    caption: str = "",
    terms: bool = False,
) -> str:
    """A table of HTML cells.  numbers: to the right, but for the first column; terms: sums, on lines of their own."""
    kind = ' class="t"' if terms else ' class="n"' if numbers else ""

    def heading(text: str) -> str:
        return f'<th scope="col"{kind}>{text}</th>' if text else "<td></td>"  # an empty heading helps nobody

    top = f"<thead><tr>{''.join(map(heading, head))}</tr></thead>" if head else ""
    body = "".join(f"<tr>{''.join(f'<td{kind}>{cell}</td>' for cell in row)}</tr>" for row in cells)
    told = f"<caption>{caption}</caption>" if caption else ""
    return (
        f'<div class="scroll-x" tabindex="0" role="group" aria-label="table"><table>{told}{top}<tbody>{body}</tbody>'
        "</table></div>"
    )
