"""From a page's parts to one HTML file that needs nothing else: style and script are inside, nothing is loaded."""

from __future__ import annotations

import functools
import html
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .listing import ROOT

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Section:
    """anchor: stable, others link to it.  heading: text.  body: HTML."""

    anchor: str
    heading: str
    body: str


@dataclass(frozen=True)
class Page:
    """name: of the file, NAME.html.  title: text.  lead: HTML, what the page is about.  script: plain JavaScript.

    A page must be whole without its script, and no script may load anything.
    """

    name: str
    title: str
    lead: str
    sections: Sequence[Section]
    script: str = ""
    css: str = ""  # beside style.css, of this page alone
    wide: bool = field(default=False)  # no list of sections at the side: a source file


@dataclass(frozen=True)
class Edition:
    """What the pages were made from."""

    commit: str
    date: str  # of the commit, YYYY-MM-DD
    version: str


@functools.cache
def edition() -> Edition:
    import minigrad

    def git(*words: str) -> str:
        try:
            done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    commit, date = git("rev-parse", "--short=10", "HEAD"), git("log", "-1", "--format=%cs")
    changed = " with changes" if commit and git("status", "--porcelain", "--untracked-files=no") else ""
    return Edition((commit or "unknown") + changed, date or "unknown", minigrad.__version__)


def render(page: Page, menu: Mapping[str, str], depth: int = 0) -> str:
    """The whole page.  menu: the pages that every page leads to, from file to what it is called.

    depth: how many folders below the site's own the page lies.  Links in a page count from the site's folder.
    """
    made, up = edition(), "../" * depth
    title = html.escape(page.title)
    links = "".join(
        f'<a href="{up}{file}"{" aria-current=page" if file == f"{page.name}.html" else ""}>{html.escape(text)}</a>'
        for file, text in menu.items()
    )
    contents = "".join(f'<li><a href="#{s.anchor}">{html.escape(s.heading)}</a></li>' for s in page.sections)
    aside = "" if page.wide else f'<nav class="contents" aria-label="on this page"><ol>{contents}</ol></nav>'
    body = "".join(_section(s) for s in page.sections)
    script = f"<script>\n{_wide()}{page.script}\n</script>"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title} · minigrad atlas</title>
<style>
{_style()}{page.css}</style>
</head>
<body>
<a class="skip" href="#main">to the text</a>
<header class="top"><nav aria-label="pages">
<a class="home" href="{up}index.html">minigrad atlas</a>{links}
</nav></header>
<div class="frame{" wide" if page.wide else ""}">
{aside}
<main id="main">
<h1>{title}</h1>
<div class="lead">{page.lead}</div>
{body}
</main>
</div>
<footer>{cite(page, made)}</footer>
{script}
</body>
</html>
"""


def _section(s: Section) -> str:
    heading = html.escape(s.heading)
    return (
        f'<section id="{s.anchor}" aria-labelledby="{s.anchor}-h"><h2 id="{s.anchor}-h">{heading} '
        f'<a class="anchor" href="#{s.anchor}" aria-label="link to: {heading}">#</a></h2>\n{s.body}</section>\n'
    )


def cite(page: Page, made: Edition) -> str:
    """What the page was made from, and how to name it."""
    year, name = made.date[:4], html.escape(page.title)
    line = f"“{name}”, minigrad atlas, version {made.version}, commit {made.commit}, {made.date}."
    key = page.name.replace("/", "-")
    bib = (
        f"@misc{{minigrad-{key},\n  title  = {{{name}}},\n  author = {{{{The minigrad authors}}}},\n"
        f"  year   = {{{year}}},\n  note   = {{minigrad atlas, version {made.version}, commit {made.commit}}}\n}}"
    )
    return (
        f"<p>Made on commit <code>{made.commit}</code> of {made.date} by <code>python docs/atlas/build.py</code>. "
        f'Text and pictures: MIT licence, as the code.</p><details id="cite"><summary>Cite this page</summary>'
        f'<p>{line}</p><pre class="code" tabindex="0"><code>{bib}</code></pre></details>'
    )


def figure(anchor: str, picture: str, caption: str, controls: str = "") -> str:
    """A picture (SVG with a <title>, or HTML) with its caption; it may be used elsewhere, and says so."""
    made = edition()
    return (
        f'<figure class="picture" id="{anchor}">{controls}<div class="scroll" tabindex="0" role="group" '
        f'aria-label="picture">{picture}</div><figcaption>{caption} <span class="licence">MIT licence · minigrad '
        f"atlas, {made.commit}</span></figcaption></figure>"
    )


@functools.cache
def _wide() -> str:
    return (HERE / "wide.js").read_text(encoding="utf-8")


@functools.cache
def _style() -> str:
    return (HERE / "style.css").read_text(encoding="utf-8")
