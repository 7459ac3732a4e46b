"""What notebooks show: the HTML of tensors, modules, profiles and summaries, and all of it in a real notebook."""

import os
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, nn

VOID = {"br", "img", "hr"}


class Reader(HTMLParser):
    """Rows of tables as lists of cells, and the text; AssertionError where a tag is not closed."""

    def __init__(self, html):
        super().__init__()
        self.open, self.rows, self.text, self.tags = [], [], "", []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def test_a_matrix_is_a_table():
    page = Reader((Tensor([[1.0, -2.5], [1e-9, 12345678.0]], True) * 1)._repr_html_())
    assert page.rows == [["", "0", "1"], ["0", "1", "-2.5"], ["1", "1e-09", "1.235e+07"]]
    assert page.text.startswith("Tensor 2 x 2, float32, cpu:0, op multiply, from -2.5 to 1.235e+07, mean 3.086e+06")


def test_large_ones_show_their_ends_and_others_their_facts():
    values = np.arange(3 * 40, dtype=np.int64).reshape(3, 40)
    page = Reader(Tensor(values)._repr_html_())
    assert page.rows[0] == ["", "0", "1", "2", "3", "…", "36", "37", "38", "39"]
    assert page.rows[2:] == [["1", "40", "41", "42", "43", "…", "76", "77", "78", "79"],
                             ["2", "80", "81", "82", "83", "…", "116", "117", "118", "119"]]  # fmt: skip
    tall = Reader(Tensor(values.T.copy())._repr_html_())
    assert [row[0] for row in tall.rows] == ["", "0", "1", "2", "3", "…", "36", "37", "38", "39"]
    assert tall.rows[5] == ["…"] * 4
    row = Reader(nn.Parameter([1.0, 2.0])._repr_html_())
    assert row.rows == [["", "0", "1"], ["", "1", "2"]]
    assert row.text.startswith("Parameter 2, float32, cpu:0, requires_grad, from 1 to 2, mean 1.5")
    assert Reader(Tensor(7)._repr_html_()).text == "Tensor (), int64, cpu:0, value 7"
    assert Reader(Tensor([[0.5]])._repr_html_()).rows == [["", "0"], ["0", "0.5"]]
    images = Reader(Tensor(np.zeros((2, 3, 4, 4), np.float32))._repr_html_())
    assert images.rows == [] and images.text == "Tensor 2 x 3 x 4 x 4, float32, cpu:0, from 0 to 0, mean 0"
    assert Reader(Tensor(np.zeros((0, 3)))._repr_html_()).text == "Tensor 0 x 3, float64, cpu:0"


def test_what_is_not_finite_is_counted():
    assert "from 1 to 3, mean 2, 2 nan or inf" in Tensor([1.0, 3.0, np.nan, np.inf])._repr_html_()
    assert Reader(Tensor([np.nan, np.nan])._repr_html_()).text.startswith("Tensor 2, float32, cpu:0, 2 nan or inf")
    assert Reader(Tensor([True, False])._repr_html_()).rows == [["", "0", "1"], ["", "True", "False"]]


def test_a_module_is_a_tree_and_its_words_do_not_act():
    class Odd(nn.Module):
        def __init__(self):
            self.inner = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
            self.parts = {"<script>": nn.Linear(1, 1)}

        def settings(self):
            return "<img src=x>"

    page = Reader(Odd()._repr_html_())
    assert set(page.tags) == {"div", "details", "summary", "b", "i"} and page.tags.count("details") == 2
    assert page.text == (
        "Odd(<img src=x>) 11 parametersinner: Sequential() 9 parameters0: Linear(2, 3) 9 parameters1: ReLU()"
        "parts.<script>: Linear(1, 1) 2 parameters"
    )


def test_a_profile_and_a_summary_show_their_tables():
    net = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    with minigrad.profile() as prof:
        net(Tensor(np.ones((4, 3), np.float32))).sum().backward()
    page = Reader(prof._repr_html_())
    head = ["op", "phase", "calls", "time ms", "share", "GFLOP/s", "MB", "GB/s"]
    assert page.rows[0] == head and [row for row in page.rows if row[0] == "linear"][0][2] == "1"
    assert ["device", "thread", "busy ms", "share", "waiting ms", "share"] in page.rows
    text = str(prof).split()
    assert all(word in text for row in page.rows for cell in row for word in cell.split())
    s = minigrad.summary(net, (4, 3))
    page = Reader(s._repr_html_())
    assert page.rows == [["layer", "output", "parameters", "multiply-adds"], ["Sequential", "4 x 2", "", ""],
                         ["  0: Linear", "4 x 2", "8", "32"], ["  1: ReLU", "4 x 2", "", ""]]  # fmt: skip
    assert page.text.endswith(str(s).split("\n\n")[1])
    page = Reader(minigrad.summary(nn.Sequential(**{"<script>": nn.ReLU()}), (1, 1))._repr_html_())
    assert "script" not in page.tags and page.rows[2][0] == "  <script>: ReLU"


CELLS = [
    "import numpy as np\nimport minigrad\nfrom minigrad import nn\nminigrad.Tensor(np.eye(3), requires_grad=True)",
    "net = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2))\nnet",
    "with minigrad.profile() as prof:\n    loss = net(minigrad.Tensor(np.ones((4, 3), np.float32))).sum()\nprof",
    "minigrad.summary(net, (4, 3))",
    "minigrad.draw(loss, names=net)",
    "[net[0].weight]",
]


@pytest.mark.slow
def test_in_a_real_notebook(tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat", reason="a notebook needs nbconvert and ipykernel")
    nbconvert = pytest.importorskip("nbconvert", reason="a notebook needs nbconvert and ipykernel")
    pytest.importorskip("ipykernel", reason="a notebook needs nbconvert and ipykernel")
    root = str(Path(minigrad.__file__).parent.parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]))
    (tmp_path / "dot").write_text("#!/bin/sh\necho '<svg xmlns=\"http://www.w3.org/2000/svg\"><g/></svg>'\n")
    (tmp_path / "dot").chmod(0o755)
    for found in (True, False):
        monkeypatch.setenv("PATH", str(tmp_path) if found else str(tmp_path / "none"))
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
        run = nbconvert.preprocessors.ExecutePreprocessor(timeout=600, startup_timeout=600, kernel_name="python3")
        run.preprocess(notebook, {"metadata": {"path": str(tmp_path)}})
        shown = [cell.outputs[0].data for cell in notebook.cells]
        assert all("text/plain" in data and "output_type" not in data for data in shown)
        assert [("text/html" in data) for data in shown] == [True, True, True, True, False, False]
        assert Reader(shown[0]["text/html"]).rows[1] == ["0", "1", "0", "0"]
        assert ("image/svg+xml" in shown[4], "text/markdown" in shown[4]) == (found, not found)
        page, _ = nbconvert.HTMLExporter().from_notebook_node(notebook)
        assert "Sequential" in page and ('class="mermaid"' in page) is not found
        assert len(re.findall("linear", page)) > 2
