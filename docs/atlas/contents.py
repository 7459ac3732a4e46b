"""All pages of the site, in the order of the menu: a page's name, what the menu calls it, and what makes it.

A maker takes nothing and returns its Page, whose name is the one given here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from . import alexnet_page, engine_page, index
from .ops import conv2d, lrn, max_pool2d
from .shell import Page


class Entry(NamedTuple):
    title: str
    make: Callable[[], Page]
    in_menu: bool = True  # or only on the first page


ENTRIES: dict[str, Entry] = {
    "index": Entry("Atlas", index.page, in_menu=False),
    "lrn": Entry("lrn", lrn.page),
    "conv2d": Entry("conv2d", conv2d.page),
    "max_pool2d": Entry("max_pool2d", max_pool2d.page),
    "engine": Entry("The engine", engine_page.page),
    "alexnet": Entry("AlexNet", alexnet_page.page),
}


def menu() -> dict[str, str]:
    return {f"{name}.html": entry.title for name, entry in ENTRIES.items() if entry.in_menu}
