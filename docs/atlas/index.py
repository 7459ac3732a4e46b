"""The first page: what there is."""

from __future__ import annotations

import html
from pathlib import Path

from .listing import code
from .shell import Page
from .words import markdown, page_parts

HERE = Path(__file__).parent
COMMAND = "pip install -e '.[docs,nvrtc]'\npython docs/atlas/build.py --out site/"


def page() -> Page:
    from .contents import ENTRIES, OTHERS  # late: contents names this page, too

    first, others = "", ""
    for name, entry in ENTRIES.items():
        words = next((path for path in (HERE / "ops" / f"{name}.md", HERE / f"{name}.md") if path.is_file()), None)
        lead = "" if words is None else words.read_text(encoding="utf-8").split("\n## ", 1)[0].split("\n", 1)[1]
        row = f'<li><a href="{name}.html">{html.escape(entry.title)}</a>{markdown(lead) or entry.lead}</li>'
        if name in OTHERS:
            others += row
        elif name != "index":
            first += row
    blocks = {
        "first": f'<ul class="pages">{first}</ul>',
        "others": f'<ul class="pages">{others}</ul>',
        "command": code(COMMAND, "bash", {}),
    }
    title, lead, sections = page_parts(HERE / "index.md", blocks)
    return Page("index", title, lead, sections)
