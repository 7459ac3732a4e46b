"""What notebooks show of our objects, as HTML.  Colours and letters are the notebook's own, light or dark."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def table(rows: Sequence[Sequence[str]], words: int) -> str:
    """A table with a head; the first `words` columns to the left, the others, numbers, to the right."""
    lines = ["<table>"]
    for i, row in enumerate(rows):
        kind = "td" if i else "th"
        lines.append("<tr>")
        for column, cell in enumerate(row):
            side = "left" if column < words else "right"
            lines.append(f'<{kind} style="text-align:{side};white-space:pre">{escape(cell)}</{kind}>')
        lines.append("</tr>")
    return "".join([*lines, "</table>"])


def pre(text: str) -> str:
    """Text as it is, line by line."""
    return f'<pre style="line-height:1.3;font-family:monospace">{escape(text)}</pre>'
