"""The words of a page: Markdown files, with formulas and with places for what the code makes.

# Title
What the page is about.
## Heading {#anchor}            a section; ### headings in it may have anchors, too
Text with $\\dx_i$ in it.        a formula; $$ ... $$ is one on lines of its own
{{example}}                     HTML that the page's module makes, by its name; also within a line
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from .formulas import LibraryError, formula
from .shell import Section

_PLACE = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+(?:\n[^$\n]+)?)\$|\{\{([\w-]+)\}\}", re.DOTALL)
_HEAD = re.compile(r"^## (.+?) \{#([\w-]+)\}$", re.M)


def page_parts(path: Path, blocks: Mapping[str, str]) -> tuple[str, str, list[Section]]:
    """(title, HTML of the lead, sections) of a file; LookupError where its places and the blocks are not the same."""
    text = path.read_text(encoding="utf-8")
    asked = {found[3] for found in _PLACE.finditer(text) if found[3]}
    if asked != set(blocks):
        raise LookupError(f"{path.name} and its module do not agree: {sorted(asked ^ set(blocks))}")
    first, *rest = _HEAD.split(text)
    title, lead = first.strip().split("\n", 1)
    sections = [
        Section(anchor, heading, markdown(body, blocks))
        for heading, anchor, body in zip(rest[::3], rest[1::3], rest[2::3])
    ]
    return title.removeprefix("# "), markdown(lead, blocks), sections


def markdown(text: str, blocks: Mapping[str, str] | None = None) -> str:
    """HTML of a text with formulas and places."""
    try:
        from markdown import markdown as convert
    except ImportError as error:
        raise LibraryError("the words of the pages are read by Markdown: pip install -e '.[docs]'") from error
    made: list[str] = []

    def keep(found: re.Match[str]) -> str:
        block, inline, name = found.groups()
        made.append(
            formula(block.strip(), block=True) if block else formula(inline) if inline else (blocks or {})[name]
        )
        return f"PLACE{len(made) - 1}END"

    html = convert(_PLACE.sub(keep, text), extensions=["tables", "attr_list", "sane_lists", "fenced_code"])
    scrolled = '<div class="scroll-x" tabindex="0" role="group" aria-label="table"><table>'
    html = html.replace("<table>", scrolled).replace("</table>", "</table></div>")
    html = re.sub(r"<p>PLACE(\d+)END</p>", lambda found: made[int(found[1])], html)
    return re.sub(r"PLACE(\d+)END", lambda found: made[int(found[1])], html)
