"""Pages to look names up in, made of the docstrings: `python docs/api.py FOLDER`, then open FOLDER/index.html.

pdoc makes them (`pip install -e '.[docs]'`).  It fails where a link leads nowhere, or a public name has no place.
"""

from __future__ import annotations

import importlib
import re
import sys
import warnings
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
PAGES = (
    "minigrad",  # with PARTS, which it names in __all__
    "minigrad.data",
    "minigrad.device",
    "minigrad.errors",
    "minigrad.nn.hooks",
    "minigrad.nn.init",
    "minigrad.operators",
    "minigrad.tools.profiler",
    "minigrad.tools.summary",
    "minigrad.tools.drawing",
)
PARTS = ("minigrad.checkpoint", "minigrad.functional", "minigrad.nn", "minigrad.onnx", "minigrad.optim")
PAGES_AND_PARTS = (*PAGES, *PARTS)
NOT_PAGES = r"!minigrad\.checkpoint\.files$"
ARGUMENT = re.compile(r"^([a-z_]\w*(?:(?:, | and )[a-z_]\w*)*): ")
OF_NAMED_TUPLES = re.compile(r"Alias for field number \d+$|Create new instance of ")  # Python's own words
INHERITED = re.compile(r'<a href="#(\w+)\.(\w+)">(.*?)</a>')


def as_markdown(docstring: str) -> str:
    """A docstring of ours, where `name: ` at the beginning of a line is an argument: in Markdown, an item of a list."""
    lines: list[str] = []
    in_list = False  # or between a list and what comes after an empty line
    for number, line in enumerate(docstring.splitlines()):
        before = lines[-1].rstrip() if lines else ""
        ended = not before or before[-1] in ".:)"
        item = ARGUMENT.match(line) if number and (in_list or ended) else None
        if item:
            if not in_list and before:
                lines.append("")
            lines.append(f"- **{item[1]}**: {line[item.end() :]}")
        elif in_list and line.startswith("    ") and not before:
            lines += ["<!-- not of the list -->", "", line]
        elif in_list and line[:1].isupper() and ended:  # a sentence after the last argument
            lines += [*([""] if before else []), line]
        else:
            lines.append(line)
        in_list = bool(item) or (in_list and not (line and not before) and not (line[:1].isupper() and ended))
    return "\n".join(lines)


def place(folder: Path, name: str) -> Path:
    """The page of a module."""
    return folder / f"{name.replace('.', '/')}.html"


class Page(HTMLParser):
    """The anchors of a page, and where its links lead."""

    def __init__(self, path: Path):
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.anchors.add(value)
            elif name in ("href", "src") and value:
                self.links.append(value)


def write_index(folder: Path) -> None:
    """All pages, with the first sentence of each: pdoc's own index knows only what `minigrad` names in __all__."""
    lines = ["<!doctype html><meta charset='utf-8'><title>minigrad</title>", "<style>body{font:16px sans-serif;"]
    lines += ["max-width:50em;margin:3em auto;padding:0 1em}li{margin:.6em 0}</style><h1>minigrad</h1><ul>"]
    for name in sorted(PAGES_AND_PARTS):
        first = (importlib.import_module(name).__doc__ or "").split("\n\n")[0]
        page = place(folder, name).relative_to(folder).as_posix()
        lines.append(f"<li><a href='{page}'>{name}</a><br>{escape(first)}</li>")
    (folder / "index.html").write_text("\n".join([*lines, "</ul>"]), encoding="utf-8")


def without_links_to_inherited(folder: Path) -> None:
    """Take away the links that pdoc makes to what a class inherits: it has no anchor there."""
    for name in PAGES_AND_PARTS:
        path, module = place(folder, name), importlib.import_module(name)
        anchors = Page(path).anchors

        def kept(link: re.Match[str], anchors: set[str] = anchors, module: ModuleType = module) -> str:
            inherited = f"{link[1]}.{link[2]}" not in anchors and hasattr(getattr(module, link[1], None), link[2])
            return link[3] if inherited else link[0]

        path.write_text(INHERITED.sub(kept, path.read_text(encoding="utf-8")), encoding="utf-8")


def broken(folder: Path) -> list[str]:
    """What links of the pages in a folder lead nowhere."""
    pages = {path: Page(path) for path in sorted(folder.rglob("*.html"))}
    wrong = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme:  # elsewhere, or data
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            if not target.is_file() or (anchor and anchor not in pages[target].anchors):
                wrong.append(f"{path.relative_to(folder)}: a link to {link} leads nowhere")
    return wrong


def missing(folder: Path) -> list[str]:
    """What public names have no place in the pages."""
    wrong = []
    for name in PAGES_AND_PARTS:
        path, module = place(folder, name), importlib.import_module(name)
        anchors = Page(path).anchors
        for public in getattr(module, "__all__", ()):
            if public not in anchors and not isinstance(getattr(module, public), ModuleType):
                wrong.append(f"{path.relative_to(folder)}: {public} is not there")
    return wrong


def main(folder: Path) -> int:
    try:
        import pdoc
        import pdoc.render
    except ImportError:
        print("docs/api.py: the pages are made by pdoc: pip install -e '.[docs]'", file=sys.stderr)
        return 2
    of_pdoc = pdoc.render.env.filters["to_markdown"]

    def to_markdown(context, docstring):  # type: ignore[no-untyped-def]
        return of_pdoc(context, "" if OF_NAMED_TUPLES.match(docstring) else as_markdown(docstring))

    to_markdown.jinja_pass_arg = of_pdoc.jinja_pass_arg  # that it wants the context
    pdoc.render.env.filters["to_markdown"] = to_markdown
    pdoc.render.configure(show_source=False, footer_text=f"minigrad {importlib.import_module('minigrad').__version__}")
    warnings.filterwarnings("ignore", "Error parsing type annotation")  # a name that is only there for type checkers
    warnings.filterwarnings("ignore", "The module specification")  # what minigrad names in __all__ is there already
    pdoc.pdoc(*PAGES, NOT_PAGES, output_directory=folder)
    without_links_to_inherited(folder)
    write_index(folder)
    wrong = broken(folder) + missing(folder)
    for line in wrong:
        print(line, file=sys.stderr)
    print(f"{len(list(folder.rglob('*.html')))} pages, {len(wrong)} faults: {folder / 'index.html'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("python docs/api.py FOLDER")
    sys.path.insert(0, str(ROOT))
    sys.exit(main(Path(sys.argv[1])))
