"""Code in colours, and whole source files as pages: what is said of a line links to that line."""

from __future__ import annotations

import html
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .formulas import LibraryError

ROOT = Path(__file__).resolve().parents[2]
Lines = tuple[str, int, int]  # a piece of a file: path from the root, first and last line, counted from 1

asked: set[str] = set()  # the source files that pages link to, or show: build.py makes pages of them

# Names in code that are a page's symbols.
NAMES = {name: name for name in ("x", "y", "w", "b", "s", "dx", "dy", "dw", "db")} | {"weight": "w", "bias": "b"}
KINDS = ("Comment", "Keyword", "String", "Number")


def coloured(code: str, language: str, names: Mapping[str, str] | None = None) -> list[str]:
    """The lines of a piece of code as HTML.  language: as Pygments calls it.  names: names in it that are symbols."""
    try:
        from pygments.lexers import get_lexer_by_name
        from pygments.token import Token
    except ImportError as error:
        raise LibraryError("code is coloured by Pygments: pip install -e '.[docs]'") from error
    names = NAMES if names is None else names
    lines, before = [""], ["", ""]
    for kind, text in get_lexer_by_name(language, stripnl=False, ensurenl=False).get_tokens(code):
        style = next(
            (k.lower() for k in KINDS if kind in Token.__getattr__(k) or kind in Token.Literal.__getattr__(k)), ""
        )
        # c.dw in a kernel is a member of a struct, and not the gradient dw; self.w is the op's w.
        if not style and text in names and (before[1] != "." or before[0] == "self"):
            style = f"s-{names[text]}"
        before = [before[1], text]
        for number, part in enumerate(text.split("\n")):
            if number:
                lines.append("")
            if not lines[-1]:  # a line's indent stands outside of its colours: excerpt cuts it
                lines[-1] = part[: len(part) - len(part.lstrip(" "))]
                part = part.lstrip(" ")
            if part:
                shown = html.escape(part)
                lines[-1] += f'<span class="{style}">{shown}</span>' if style else shown
    return lines


def code(text: str, language: str = "python", names: Mapping[str, str] | None = None) -> str:
    """A piece of code that is no file's: a command, a program of the page's own, what it printed ("text")."""
    lines = "\n".join(coloured(text.strip("\n"), language, names))
    return f'<pre class="code" tabindex="0"><code>{lines}</code></pre>'


def page_of(path: str) -> str:
    """The name of the page of a source file, from the site's folder."""
    return f"source/{path.replace('/', '.')}.html"


def source_link(path: str, text: str = "", line: int = 0) -> str:
    """A link to a source file (or one line of it), path from the checkout's root."""
    assert (ROOT / path).is_file(), path
    asked.add(path)
    anchor = f"#L{line}" if line else ""
    return f'<a href="{page_of(path)}{anchor}">{text or f"<code>{html.escape(path)}</code>"}</a>'


def excerpt(path: str, first: int, last: int, names: Mapping[str, str] | None = None, caption: str = "") -> str:
    """Lines first..last of a file, counted from 1, each with its number, which leads to the file's page."""
    asked.add(path)
    text = (ROOT / path).read_text(encoding="utf-8")
    lines = coloured(text, _language(path), names)[first - 1 : last]
    plain = text.split("\n")[first - 1 : last]
    indents = [len(line) - len(line.lstrip(" ")) for line in plain]
    # All move left by the smallest indent; but #pragma stands at the beginning of its line, and stays there.
    shift = min((indent for indent, line in zip(indents, plain) if line.strip() and line[0] != "#"), default=0)
    rows = "".join(
        f'<span class="row"><a class="line" href="{page_of(path)}#L{number}">{number}</a>'
        f'<span style="--i:{max(0, indent - shift)}">{line[min(shift, indent) :] or " "}</span></span>'
        for number, (indent, line) in enumerate(zip(indents, lines), first)
    )
    head = f"<figcaption>{caption}</figcaption>" if caption else ""
    return f'<figure class="excerpt">{head}<pre class="code" tabindex="0"><code>{rows}</code></pre></figure>'


def function_lines(thing: Any) -> Lines:
    """(path from the root, first line, last line) of a function or class."""
    thing = inspect.unwrap(thing)
    lines, first = inspect.getsourcelines(thing)
    path = Path(inspect.getsourcefile(thing) or "").resolve().relative_to(ROOT).as_posix()
    while not lines[-1].strip():
        lines.pop()
    return path, first, first + len(lines) - 1


def found_lines(path: str, begin: str, end: str) -> Lines:
    """(path, first, last): the lines of a file from the first place of `begin` to the line of the next `end`."""
    text = (ROOT / path).read_text(encoding="utf-8")
    first = text.find(begin)
    last = text.find(end, first + len(begin)) if first >= 0 else -1
    if last < 0:
        missing = repr(begin) if first < 0 else f"{end!r} after {begin!r}"
        raise LookupError(f"{path} has no {missing}: the page that shows it must look elsewhere")
    return path, text.count("\n", 0, first) + 1, text.count("\n", 0, last) + 1


def source_page(path: str) -> str:
    """The HTML of a whole file, every line with an anchor (L1, L2, ...)."""
    lines = coloured((ROOT / path).read_text(encoding="utf-8").rstrip("\n"), _language(path))
    rows = "\n".join(f'<a class="line" id="L{n}" href="#L{n}">{n}</a>{line}' for n, line in enumerate(lines, 1))
    return f'<pre class="code whole" tabindex="0"><code>{rows}</code></pre>'


def _language(path: str) -> str:
    return {"cu": "cuda", "cuh": "cuda", "py": "python", "md": "markdown"}.get(path.rsplit(".", 1)[-1], "text")
