"""All pages of the site, in the order of the menu: a page's name, what the menu calls it, and what makes it.

A maker takes nothing and returns its Page, whose name is the one given here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from . import alexnet_page, engine_page, index
from .ops import conv2d, lrn, max_pool2d, rooms
from .shell import Page


class Entry(NamedTuple):
    title: str
    make: Callable[[], Page]
    in_menu: bool = True  # or only on the first page
    lead: str = ""  # HTML, what the page is about, where no Markdown file of the page's name says it


FIRST = ("dropout", "cross_entropy", "linear", "relu", "batch_norm")
OTHERS = {
    "softmax": "softmax, log_softmax",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "avg_pool2d": "avg_pool2d",
    "matmul": "matmul",
    "arithmetic": "add, subtract, multiply, divide, power, negative",
    "reduce": "sum, mean, max, argmax, argmin",
    "extremes": "maximum, minimum, clip, abs",
    "pointwise": "exp, log, sqrt",
    "where": "where",
    "compare": "equal, less, greater, ...",
    "shape": "reshape, flatten, transpose, getitem",
    "concat": "concat, split",
    "pad": "pad",
    "astype": "astype",
    "copy": "copy",
    "prepare": "prepare",
    "adam": "Adam, AdamW",
    "rmsprop": "RMSprop",
}

ENTRIES: dict[str, Entry] = {
    "index": Entry("Atlas", index.page, in_menu=False),
    "lrn": Entry("lrn", lrn.page),
    "conv2d": Entry("conv2d", conv2d.page),
    "max_pool2d": Entry("max_pool2d", max_pool2d.page),
    **{name: Entry(name, rooms.maker(name)) for name in FIRST},
    "sgd": Entry("SGD", rooms.maker("sgd")),
    **{name: Entry(title, rooms.maker(name), in_menu=False) for name, title in OTHERS.items()},
    "engine": Entry("The engine", engine_page.page, lead=engine_page.LEAD),
    "alexnet": Entry("AlexNet", alexnet_page.page, lead=alexnet_page.LEAD),
}


def menu() -> dict[str, str]:
    return {f"{name}.html": entry.title for name, entry in ENTRIES.items() if entry.in_menu}
