"""The pages of all other rooms: words and programs from a Markdown file, and what every room has.

Faces, kernels, counters, registers and tests are found in the code.
"""

from __future__ import annotations

import ast
import functools
import html
from collections.abc import Callable
from pathlib import Path

from ..ladders import counters, ladder, registers
from ..listing import ROOT, code, excerpt, source_link
from ..shell import Page, Section
from ..words import page_parts
from .drawn import PICTURES
from .parts import docstring

HERE = Path(__file__).parent
OPTIMISERS = ("sgd", "adam", "rmsprop")
# The kernel files of a room that are not called as it is; the first is the one that is counted.
KERNELS = {
    "arithmetic": ("arithmetic", "arithmetic_backward"), "astype": ("copy",), "concat": ("copy",), "copy": (),
    "linear": ("gemm",), "matmul": ("gemm",), "pad": ("copy",), "shape": ("shape", "copy"),
}  # fmt: skip
LADDERS = {"linear": ("gemm",), "matmul": ("gemm",)}
SHORT = 120  # lines of a kernel file that a page shows as a whole


def maker(room: str) -> Callable[[], Page]:
    return functools.partial(page, room)


def page(room: str) -> Page:
    folder = "minigrad/optim" if room in OPTIMISERS else "minigrad/ops"
    kernels = KERNELS.get(room, (room,))
    drawn = PICTURES[room]() if room in PICTURES else {}
    title, lead, sections = page_parts(HERE / f"{room}.md", {"docstring": docstring(room, folder), **drawn})
    sections = [
        *sections,
        Section("faces", "The faces, side by side", faces(f"{folder}/{room}.py")),
        *([Section("kernels", "The kernels", of_kernels(room, kernels))] if kernels else []),
        Section("tests", "The tests", tests(room)),
    ]
    return Page(room, title, lead, sections)


def faces(path: str) -> str:
    """forward and backward of every Function (rule, of an optimiser), as each face has them."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    parts = [
        "<p>As the textbook has it, fast on a CPU, and what launches the kernels of a card. The number of a line leads "
        f"to the file, {source_link(path)}. "
        'Who calls backward, and adds up gradients that meet: <a href="engine.html">the engine</a>.</p>'
    ]
    for node in tree.body:
        if not isinstance(node, ast.ClassDef):
            continue
        methods = {each.name: each for each in node.body if isinstance(each, ast.FunctionDef)}
        for way in ("forward", "backward", "rule"):
            if way not in methods:
                continue
            cells = []
            for head, suffix in (("textbook", ""), ("fast, on a CPU", "_cpu"), ("on a card", "_gpu")):
                method = methods.get(way + suffix)
                if method is not None:
                    cells.append(excerpt(path, method.lineno, method.end_lineno or method.lineno, caption=head))
                elif suffix != "_gpu" and way != "rule":
                    cells.append(f"<p class='none'>{head}: none, the textbook’s face is used</p>")
            parts.append(
                f'<div class="idea"><h3>{node.name}: {way}</h3><div class="three">{"".join(cells)}</div></div>'
            )
    return "".join(parts)


def of_kernels(room: str, kernels: tuple[str, ...]) -> str:
    parts = []
    for number, name in enumerate(kernels):
        path = f"kernels/{name}.cu"
        lines = (ROOT / path).read_text(encoding="utf-8").count("\n")
        parts.append(f"<h3>{source_link(path)}</h3>")
        if lines <= SHORT:
            parts.append(f"<details><summary>All {lines} lines</summary>{excerpt(path, 1, lines)}</details>")
        if number == 0:
            parts += [*map(ladder, LADDERS.get(room, ())), counters(name, room), registers(name)]
    return "".join(parts)


def tests(room: str) -> str:
    """The tests of a room, by name."""
    path = f"tests/test_{'optim' if room in OPTIMISERS else room}.py"
    names = [
        (node.name, node.lineno)
        for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
        and (room not in OPTIMISERS or room in node.name.lower())
    ]  # fmt: skip
    rows = "".join(
        f"<li>{source_link(path, html.escape(name.removeprefix('test_').replace('_', ' ')), line)}</li>"
        for name, line in names
    )
    return f'{code(f"python -m pytest {path}", "bash", {})}<ul class="tests">{rows}</ul>'
