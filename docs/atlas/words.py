"""The words of a page: Markdown files, with formulas, and with places for what the code makes.

- `# Title`, and what the page is about; `## Heading {#anchor}` begins a section.
- `$\\dx_i$` is a formula; `$$ ... $$` is one on lines of its own, which may break at each `\\\\`.
- `{{example}}` is HTML that the page's module makes, by its name; also within a line.
- A program stands in a fence of three backticks: `run` shows it, runs it, and shows what it printed; `refused` shows
  the error that minigrad raises; `proof` ends in a line "function | inputs", whose backward is compared with finite
  differences; `break` is an exercise (exercises.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from . import exercises, programs
from .formulas import LibraryError, formula
from .shell import Section

_PLACE = re.compile(
    r"^```(?P<kind>run|refused|proof|break)\n(?P<program>.*?)^```$"
    r"|\$\$(?P<block>.+?)\$\$|\$(?P<inline>[^$\n]+(?:\n[^$\n]+)?)\$|\{\{(?P<name>[\w-]+)\}\}",
    re.DOTALL | re.M,
)
_HEAD = re.compile(r"^## (.+?) \{#([\w-]+)\}$", re.M)
_SCROLLED = '<div class="scroll-x" tabindex="0" role="group" aria-label="table"><table>'


def page_parts(path: Path, blocks: Mapping[str, str]) -> tuple[str, str, list[Section]]:
    """(title, HTML of the lead, sections) of a file; LookupError where its places and the blocks are not the same."""
    text = path.read_text(encoding="utf-8")
    asked = {found["name"] for found in _PLACE.finditer(text) if found["name"]}
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
    """HTML of a text with formulas, programs and places."""
    try:
        from markdown import markdown as convert
    except ImportError as error:
        raise LibraryError("the words of the pages are read by Markdown: pip install -e '.[docs]'") from error
    made: list[str] = []

    def keep(found: re.Match[str]) -> str:
        if found["kind"]:
            made.append(_program(found["kind"], found["program"]))
        elif found["name"]:
            made.append((blocks or {})[found["name"]])
        else:
            made.append(formula((found["block"] or found["inline"]).strip(), block=bool(found["block"])))
        return f"PLACE{len(made) - 1}END"

    html = convert(_PLACE.sub(keep, text), extensions=["tables", "attr_list", "sane_lists", "fenced_code"])
    html = re.sub(r"<th( [^>]*)?></th>", "<td></td>", html)  # an empty heading says nothing to those who do not see it
    html = html.replace("<table>", _SCROLLED).replace("</table>", "</table></div>")
    html = re.sub(r"<p>PLACE(\d+)END</p>", lambda found: made[int(found[1])], html)
    return re.sub(r"PLACE(\d+)END", lambda found: made[int(found[1])], html)


def _program(kind: str, text: str) -> str:
    if kind == "run":
        return programs.printed(text)
    if kind == "refused":
        return programs.refused(text.strip())
    if kind == "break":
        return exercises.shown(exercises.read(text))
    before, _, last = text.strip().rpartition("\n")
    f, _, inputs = last.rpartition("|")
    shown, worst = programs.proof(f.strip(), inputs.strip(), before)
    words = f"Moved by a millionth up and down, in float64: the largest difference to backward is {worst:.1e}."
    return f"<p>{words}</p>{shown}"
