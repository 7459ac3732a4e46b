"""The atlas: `python docs/atlas/build.py [--out site/]`, then open site/index.html.

It runs in a checkout (it reads kernels and tests) and needs `pip install -e '.[docs]'`.  Every number on a page comes
out of the code while the page is made.  It fails where a link leads nowhere.  The pages of all names, docs/api.py's,
go into the same site, to its folder api/.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Collection
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[2]


def build(out: Path, only: tuple[str, ...] = (), counters: bool = True) -> list[str]:
    """Write the pages (or only those named) and the source files they show into `out`; returns what is broken.

    counters: whether the emulator counts, which needs g++ and NVRTC; without it pages say that they lack the tables.
    """
    from atlas import contents, ladders, listing, shell

    ladders.counted = counters
    listing.asked.clear()
    (out / "source").mkdir(parents=True, exist_ok=True)
    written = set()
    for name, entry in contents.ENTRIES.items():
        if only and name not in only:
            continue
        begun = time.monotonic()
        page = entry.make()
        assert page.name == name, (page.name, name)
        written.add((out / f"{name}.html").resolve())
        (out / f"{name}.html").write_text(shell.render(page, contents.menu()), encoding="utf-8")
        print(f"{name:<20}{time.monotonic() - begun:6.1f} s", flush=True)
    for path in sorted(listing.asked):
        page = shell.Page(
            f"source/{path}", path, "", [shell.Section("file", path, listing.source_page(path))], wide=True
        )
        (out / listing.page_of(path)).write_text(shell.render(page, contents.menu(), depth=1), encoding="utf-8")
    if only:
        known = {(out / f"{name}.html").resolve() for name in (*contents.ENTRIES, "api/index")}
        return broken(out, known, written)
    import api

    wrong = ["the API pages have faults, told above"] if api.main(out / "api") else []
    return broken(out, (), written) + wrong


class Links(HTMLParser):
    """The anchors of a page, and where its links lead."""

    def __init__(self, text: str):
        super().__init__()
        self.anchors: set[str] = set()
        self.twice: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.twice += [value] if value in self.anchors else []
                self.anchors.add(value)
            elif name in ("href", "src") and value:
                self.links.append(value)


def broken(folder: Path, not_made: Collection[Path] = (), looked_at: Collection[Path] = ()) -> list[str]:
    """Links of a folder's pages that lead nowhere, anchors that are there twice, and anything from elsewhere.

    not_made: pages that may be missing.  looked_at: whose links are followed, if not those of all pages.
    """
    pages = {path.resolve(): Links(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.html"))}
    wrong = []
    for path, page in pages.items():
        if looked_at and path not in looked_at:
            continue  # of an earlier edition
        name = path.relative_to(folder.resolve())
        wrong += [f"{name}: the anchor {anchor} is there twice" for anchor in page.twice]
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                wrong += [f"{name}: {link} is elsewhere"] if not link.startswith(("https://", "data:image/")) else []
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target in not_made and target not in pages:
                continue
            if target not in pages or (parts.fragment and unquote(parts.fragment) not in pages[target].anchors):
                wrong.append(f"{name}: a link to {link} leads nowhere")
    return wrong


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=Path("site"), metavar="FOLDER", help="where the site goes (site/)")
    parser.add_argument("--only", default="", metavar="NAMES", help="only these pages, with commas: lrn,conv2d")
    told = "leave out the tables that the emulator and NVRTC make (they need g++ and pip install -e '.[nvrtc]')"
    parser.add_argument("--without-counters", action="store_true", help=told)
    options = parser.parse_args(arguments)
    sys.path[:0] = [str(ROOT), str(ROOT / "docs")]
    import minigrad
    from atlas import contents
    from atlas.formulas import LibraryError

    only = tuple(filter(None, options.only.split(",")))
    unknown = [name for name in only if name not in contents.ENTRIES]
    if unknown:
        parser.error(f"there is no page {unknown[0]!r}: there are {', '.join(contents.ENTRIES)}")
    try:
        wrong = build(options.out, only, not options.without_counters)
    except LibraryError as error:
        print(f"docs/atlas/build.py: {error}", file=sys.stderr)
        return 2
    except (minigrad.MissingDependencyError, minigrad.DeviceError) as error:
        print(f"docs/atlas/build.py: {error}; or build --without-counters", file=sys.stderr)
        return 2
    for line in wrong:
        print(line, file=sys.stderr)
    files = [path for path in options.out.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    print(f"{len(files)} files, {size / 1e6:.1f} MB, {len(wrong)} faults: {options.out / 'index.html'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
