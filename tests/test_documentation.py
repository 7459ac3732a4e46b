"""The documentation: links of its pages lead somewhere, and the pages of the docstrings (docs/api.py) can be made."""

import re
import runpy
import unicodedata
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "kernels").glob("*.md"),
                *(ROOT / "benchmarks").rglob("*.md")])  # fmt: skip
API = ROOT / "docs" / "api.py"


def anchors(text):
    """What the headings of a page are called in links, as GitHub does it: lower case, - for spaces, no punctuation."""
    found = set()
    for heading in re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.M), re.M):
        words = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading).strip().lower()
        kept = (c for c in words if c in " -_" or unicodedata.category(c)[0] in "LN")
        found.add("".join(kept).replace(" ", "-"))
    return found


def broken(page, text):
    """The links of a page that lead nowhere."""
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", text, flags=re.DOTALL | re.M)
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        known = anchors(target.read_text(encoding="utf-8")) if anchor and target.suffix == ".md" else {anchor}
        if not target.exists() or anchor not in known:
            wrong.append(link)
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    assert broken(page, page.read_text(encoding="utf-8")) == []


def test_links_that_lead_nowhere_are_seen():
    page = ROOT / "docs" / "tutorial.md"
    text = "[a](none.md) [b](data.md#arrays) [c](data.md#none) [d](#here) `[e](f)` [g](https://h.i)\n\n# Here\n"
    assert broken(page, text) == ["none.md", "data.md#none", "#here"]


def test_arguments_in_docstrings_are_items():
    as_markdown = runpy.run_path(str(API))["as_markdown"]
    assert as_markdown(
        "word: no item\n\nWhat it is.\nx, y: tensors,\nof one shape.\nsize and seed: two\nSource: a book."
    ) == (
        "word: no item\n\nWhat it is.\n\n- **x, y**: tensors,\nof one shape.\n- **size and seed**: two\nSource: a book."
    )
    assert as_markdown("First.\n\na: one.\n\n    b: code\n\nIt computes\nnothing: so\n") == (
        "First.\n\n- **a**: one.\n\n<!-- not of the list -->\n\n    b: code\n\nIt computes\nnothing: so"
    )
    assert as_markdown("First.\n\na: one.\nThen a sentence.\n") == "First.\n\n- **a**: one.\n\nThen a sentence."


def test_broken_links_between_the_pages_of_the_docstrings_are_seen(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.html").write_text('<a id="x" href="sub/b.html#y"></a><a href="#z"></a><a href="https://c.d/e"></a>')
    (tmp_path / "sub" / "b.html").write_text(
        '<a id="y" href="../a.html#x"></a><a href="c.html"></a><a href="../a.html#y">'
    )
    assert runpy.run_path(str(API))["broken"](tmp_path) == [
        "a.html: a link to #z leads nowhere",
        "sub/b.html: a link to c.html leads nowhere",
        "sub/b.html: a link to ../a.html#y leads nowhere",
    ]


@pytest.mark.slow
def test_the_pages_of_the_docstrings(tmp_path, capsys):
    pytest.importorskip("pdoc", reason="it makes the pages")
    api = runpy.run_path(str(API))
    assert api["main"](tmp_path) == 0, capsys.readouterr().err
    index = (tmp_path / "index.html").read_text(encoding="utf-8")
    pages = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.html")} - {"index.html"}
    assert pages == set(re.findall("<a href='(.*?)'>", index)) and "minigrad/data.html" in pages
    page = (tmp_path / "minigrad" / "nn.html").read_text(encoding="utf-8")
    assert 'id="Conv2d"' in page and 'id="Module.state_dict"' in page
    assert "<strong>count_include_pad</strong>" in page
    (tmp_path / "minigrad" / "nn.html").write_text(page.replace('id="Conv2d"', ""), encoding="utf-8")
    assert api["missing"](tmp_path) == ["minigrad/nn.html: Conv2d is not there"]
    assert "minigrad/nn.html: a link to #Conv2d leads nowhere" in api["broken"](tmp_path)
