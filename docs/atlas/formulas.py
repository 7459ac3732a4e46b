"""LaTeX into MathML, with the page's symbols in their colours: once, when the page is made.

In a formula `\\x`, `\\y`, `\\dx` and the other SYMBOLS are the page's coloured symbols; everything else is LaTeX, as
far as latex2mathml knows it (no `aligned`: a derivation is a list of formulas).  A symbol has the class "s-NAME", and
style.css has its colour: the same in formulas, pictures and code.
"""

from __future__ import annotations

import re

SYMBOLS = ("x", "y", "w", "b", "s", "a", "g", "v", "dx", "dy", "dw", "db", "da")
_SYMBOL = re.compile(rf"\\({'|'.join(sorted(SYMBOLS, key=len, reverse=True))})(?![A-Za-z])")
_FOUND = re.compile(rf"<mtext>({'|'.join(SYMBOLS)})</mtext>")


class LibraryError(ImportError):
    """A library that makes the pages is not installed; the message names the command that installs it."""


def formula(latex: str, block: bool = False) -> str:
    """MathML of one formula; block: on a line of its own, and it may be scrolled where a screen is too narrow.

    A block may break at each `\\\\`, where it would not fit.
    """
    try:
        from latex2mathml.converter import convert
    except ImportError as error:
        raise LibraryError("formulas are made by latex2mathml: pip install -e '.[docs]'") from error
    parts = _SYMBOL.sub(r"\\text{\1}", latex).split(r"\\") if block else [_SYMBOL.sub(r"\\text{\1}", latex)]
    text = " ".join(convert(part.strip(), display="block" if block else "inline") for part in parts)
    text = _FOUND.sub(r'<mi class="s-\1">\1</mi>', text)
    return f'<div class="formula" tabindex="0" role="group" aria-label="formula">{text}</div>' if block else text


def prose(text: str) -> str:
    """A paragraph's HTML: `$...$` in it is a formula, and `` `...` `` is code."""
    text = re.sub(r"\$([^$]+)\$", lambda found: formula(found[1]), text)
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", text)


def symbol(name: str) -> str:
    """A symbol in its colour, in running text."""
    assert name in SYMBOLS, name
    return f'<var class="s-{name}">{name}</var>'
