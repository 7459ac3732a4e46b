"""The first page: what there is."""

from __future__ import annotations

import html

from .shell import Page, Section


def page() -> Page:
    from .contents import ENTRIES  # late: contents names this page, too

    rows = "".join(
        f'<li><a href="{name}.html">{html.escape(entry.title)}</a></li>'
        for name, entry in ENTRIES.items()
        if name != "index"
    )
    lead = "<p>Every page is made from the code by one command; every number on it was printed by the code.</p>"
    return Page("index", "The op atlas", lead, [Section("ops", "The pages", f'<ul class="pages">{rows}</ul>')])
