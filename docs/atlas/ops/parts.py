"""Sections that the pages of ops have in common."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence

from ..formulas import prose
from ..listing import ROOT, Lines, code, excerpt, source_link


def ideas(rows: Sequence[tuple[str, str, Lines, Lines, Lines]], names: Mapping[str, str]) -> str:
    """The same idea in the textbook's face, the fast one and the card's, side by side."""
    heads = "textbook", "fast, on a CPU", "on a card"
    parts = []
    for heading, words, *places in rows:
        cells = "".join(
            excerpt(*place, names=names, caption=f"{head}: {source_link(place[0], place[0].split('/')[-1], place[1])}")
            for head, place in zip(heads, places)
        )
        parts.append(f'<div class="idea"><h3>{heading}</h3><p>{prose(words)}</p><div class="three">{cells}</div></div>')
    return "".join(parts)


def braced(number: str) -> str:
    """A number's HTML after a dot or under a power: a negative one in brackets."""
    return f"({number})" if ">−" in number else number


def docstring(room: str, folder: str = "minigrad/ops") -> str:
    """What the room says of itself, and what its public functions promise, as it stands in the code; folded."""
    path = f"{folder}/{room}.py"
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    said = [("The room’s docstring: formula, derivative, source", 1, ast.get_docstring(tree) or "")]
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            is_op = any(isinstance(each, ast.Name) and each.id == "op" for each in node.decorator_list)
            text = ast.get_docstring(node)
            if text and (is_op or folder.endswith("optim")):
                said.append((f"What <code>{node.name}</code> promises", node.lineno, text))
    return "".join(
        f"<details><summary>{heading}</summary>{code(text, 'text', {})}<p>{source_link(path, '', line)}</p></details>"
        for heading, line, text in said
    )


def where(room: str, kernels: Sequence[str], folder: str = "minigrad/ops") -> str:
    """Links to the room, its kernels and its tests."""
    links = [source_link(f"{folder}/{room}.py"), *(source_link(f"kernels/{name}.cu") for name in kernels)]
    test = f"tests/test_{room}.py"
    links += [source_link(test)] if (ROOT / test).is_file() else []
    return f"<p>{', '.join(links)}</p>"
