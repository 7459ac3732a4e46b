"""Draws docs/images/fragments.svg: which lane of a warp has which element of what a matrix unit multiplies.

    python docs/images/fragments.py

The layout is that of multiply_add_tf32, in the words of kernels/instructions.cuh: d += a b, with a of 16 x 8 elements,
b of 8 x 8 and d of 16 x 8.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

PICTURE = Path(__file__).with_name("fragments.svg")

Place = Callable[[int, int], tuple[int, int]]  # (lane, number of the element in the fragment) -> row and column

LAYOUT: dict[str, tuple[int, Place]] = {  # of each matrix: the elements of a fragment, and where they are
    "a": (4, lambda lane, i: (lane // 4 + i % 2 * 8, lane % 4 + i // 2 * 4)),
    "b": (2, lambda lane, i: (lane % 4 + i * 4, lane // 4)),
    "d": (4, lambda lane, i: (lane // 4 + i // 2 * 8, lane % 4 * 2 + i % 2)),
}
COLOURS = ("#cfe3f7", "#fbe3b8", "#d3ecd0", "#f4cfd6")  # of element 0, 1, 2, 3
CHOSEN = 6  # the lane whose fragments are framed
WIDTH, HEIGHT = 34, 24  # of an element
LEFT, TOP = 56, 62  # of the corner between a and b, without a's columns and b's rows
GAP = 64


def picture() -> str:
    """The text of the SVG."""
    across, down = LEFT + 8 * WIDTH + GAP, TOP + 8 * HEIGHT + GAP  # where d begins
    parts = [
        *matrix("a", LEFT, down, "m", "k"),
        *matrix("b", across, TOP, "k", "n"),
        *matrix("d", across, down, "m", "n"),
        *legend(LEFT - 34, TOP - 34),
    ]
    width, height = across + 8 * WIDTH + 20, down + 16 * HEIGHT + 20
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    style = 'font-family="sans-serif" font-size="13" fill="#222"'
    return "\n".join([f"{head} {style}>", '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>", ""])


def matrix(name: str, left: int, top: int, down: str, across: str) -> list[str]:
    """A grid of elements, each with the number of its lane; rows are counted by `down`, columns by `across`."""
    elements, place = LAYOUT[name]
    found = {place(lane, i): (lane, i) for lane in range(32) for i in range(elements)}
    rows, columns = (1 + max(index) for index in zip(*found))
    cells, frames = [], []
    for (row, column), (lane, i) in sorted(found.items()):
        box = f'x="{left + column * WIDTH}" y="{top + row * HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
        cells.append(f'<rect {box} fill="{COLOURS[i]}" stroke="#999"/>')
        cells.append(text(left + (column + 0.5) * WIDTH, top + (row + 0.5) * HEIGHT, str(lane)))
        if lane == CHOSEN:
            frames.append(f'<rect {box} fill="none" stroke="#b00020" stroke-width="3"/>')
    marks = [text(left - 14, top + (row + 0.5) * HEIGHT, str(row), "#777") for row in range(rows)]
    marks += [text(left + (column + 0.5) * WIDTH, top - 12, str(column), "#777") for column in range(columns)]
    marks += [text(left - 36, top + rows * HEIGHT / 2, down, "#777", 'font-style="italic"')]
    marks += [text(left + columns * WIDTH / 2, top - 30, across, "#777", 'font-style="italic"')]
    title = text(left - 24, top - 24, name, "#222", 'font-size="22" font-weight="bold"')
    return [*cells, *frames, *marks, title]


def legend(left: int, top: int) -> list[str]:
    lines = []
    for i, colour in enumerate(COLOURS):
        y = top + i * 26
        lines.append(f'<rect x="{left}" y="{y}" width="{WIDTH}" height="18" fill="{colour}" stroke="#999"/>')
        names = ", ".join(f"{name}[{i}]" for name, (elements, _) in LAYOUT.items() if i < elements)
        lines.append(text(left + WIDTH + 10, y + 9, names, anchor="start"))
    y = top + len(COLOURS) * 26
    lines.append(
        f'<rect x="{left}" y="{y}" width="{WIDTH}" height="18" fill="none" stroke="#b00020" stroke-width="3"/>'
    )
    lines.append(text(left + WIDTH + 10, y + 9, f"what lane {CHOSEN} has", anchor="start"))
    lines.append(text(left, y + 40, "The numbers are those of lanes.", anchor="start"))
    return lines


def text(x: float, y: float, words: str, colour: str = "#222", style: str = "", anchor: str = "middle") -> str:
    place = f'x="{x:g}" y="{y:g}" fill="{colour}" text-anchor="{anchor}" dy="0.35em"'
    return f"<text {' '.join(filter(None, (place, style)))}>{words}</text>"


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
    print(f"Written: {PICTURE.name}")
