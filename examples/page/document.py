"""From a page's data to one HTML file that needs nothing else, and back.

Every name in the data may have been chosen by somebody else.  So the data is JSON in a <script> that is not run, the
page's own script puts it into elements as text, and a Content-Security-Policy lets nothing run or load but what is
written here: it names the scripts and styles by their hashes, and allows pictures from the page itself alone.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minigrad.errors import printable

HERE = Path(__file__).parent
LIBRARY, LIBRARY_STYLE = "vendor/uPlot-1.6.32.iife.min.js", "vendor/uPlot-1.6.32.min.css"
MADE_BY = "minigrad examples/page"  # stands in every page, and tells it from a file of somebody else's


def document(template: str, title: str, data: Mapping[str, Any]) -> str:
    """The page "report" or "index" with this data.  ValueError where the data holds what JSON cannot: nan, say."""
    text = json.dumps(readable(data), allow_nan=False, separators=(",", ":"))
    # < could begin </script> or <!--; as \\u003c it is the same text to JSON
    parts = {"title": html.escape(printable(title)), "data": text.replace("<", "\\u003c")}
    return "".join(parts.get(piece, piece) for piece in _pieces(template))


def data_of(text: str) -> dict[str, Any]:
    """The data of a page; {} where the text is none."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    try:
        data = json.loads(found[1]) if found and MADE_BY in text else {}
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def readable(value: Any) -> Any:
    """The data with every text in it as any screen may show it: see minigrad.errors.printable."""
    if isinstance(value, str):
        return value if value.startswith("data:image/") else printable(value)
    if isinstance(value, Mapping):
        return {printable(key): readable(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [readable(entry) for entry in value]
    return value


@functools.cache
def _pieces(template: str) -> list[str]:
    """The page's text, cut at the places of "title" and "data", with those words between the pieces."""
    scripts = [_read(LIBRARY), _read("common.js"), _read(f"{template}.js")]
    styles = [_read(LIBRARY_STYLE), _read("page.css")]
    policy = (
        f"default-src 'none'; script-src {_hashes(scripts)}; style-src {_hashes(styles)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    filled = {
        "made-by": MADE_BY, "policy": policy,
        "scripts": "\n".join(f"<script>{text}</script>" for text in scripts),
        "styles": "\n".join(f"<style>{text}</style>" for text in styles),
    }  # fmt: skip
    # in one go: what stands in a script is not looked at again
    return [filled.get(piece, piece) for piece in re.split(r"\{\{([a-z-]+)\}\}", _read(f"{template}.html"))]


def _read(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _hashes(texts: list[str]) -> str:
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts)
    return " ".join(f"'sha256-{digest}'" for digest in digests)
