"""The first page: what there is, and for whom."""

from __future__ import annotations

import html
from pathlib import Path

from .listing import code
from .shell import Page, Section
from .words import markdown

OPS = Path(__file__).parent / "ops"


def page() -> Page:
    from .contents import ENTRIES, OTHERS  # late: contents names this page, too

    first, others = "", ""
    for name, entry in ENTRIES.items():
        words = OPS / f"{name}.md"
        lead = (
            markdown(words.read_text(encoding="utf-8").split("## ", 1)[0].split("\n", 1)[1]) if words.is_file() else ""
        )
        row = f'<li><a href="{name}.html">{html.escape(entry.title)}</a>{lead}</li>'
        if name in OTHERS:
            others += row
        elif name != "index":
            first += row
    lead = (
        "<p>Formula, picture, worked example, derivation, proof, three implementations side by side, kernels, mistakes, "
        "exercises: a page for every op of minigrad, a deep learning framework written to be read.</p>"
    )
    promise = (
        "<p>The pages are made from the code by one command, and every number on them was printed by the code while they "
        "were made. Where a page and the code would not agree, there is no page.</p>"
        + code("pip install -e '.[docs,nvrtc]'\npython docs/atlas/build.py --out site/", "bash", {})
        + "<p>A symbol has one colour on a page: <var class='s-x'>x</var> in the formula is <var class='s-x'>x</var> in the "
        "picture and in all codes, and its gradient is <var class='s-dx'>dx</var>. A line's number leads to the file it "
        "stands in. Anchors stay as they are; at the foot of each page is how to cite it. Pictures may be used elsewhere, "
        "under the MIT licence, with the line below them.</p>"
    )
    return Page(
        "index", "The op atlas", lead,
        [
            Section("pages", "Begin here", f'<ul class="pages">{first}</ul>'),
            Section("others", "All other ops", f'<ul class="pages small">{others}</ul>'),
            Section("promise", "How these pages are made", promise),
        ],
    )  # fmt: skip
