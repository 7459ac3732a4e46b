"""minigrad.draw: which boxes and edges there are, in which frame, and the files."""

import importlib
import re
import shutil
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

import minigrad
import minigrad.functional as F
from minigrad import ArgumentError, DataError, GraphError, MinigradError, MissingDependencyError, Tensor, nn
from minigrad.tools import drawing as drawing_module
from minigrad.tools.drawing import Drawing, Edge, Node

graphviz = pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")


def edges_of(drawing):
    """(start, end, crossing) by the first lines of the boxes, those of one device with its name."""
    names = [f"{node.group} {node.lines[0]}".strip() for node in drawing.nodes]
    return sorted((names[start], names[end], crossing) for start, end, crossing in drawing.edges)


def boxes_of(drawing):
    return [(node.look, node.lines) for node in drawing.nodes]


@pytest.fixture(scope="module")
def alexnet():
    examples = str(Path(__file__).parent.parent / "examples")
    sys.path.insert(0, examples)
    yield importlib.import_module("alexnet")
    sys.path.remove(examples)


def layer_names(drawing):
    """Each box by its device and layer, "0 conv1", or by what it is."""
    names = []
    for node in drawing.nodes:
        layer = next((line.split(":")[0] for line in node.lines if ":" in line), node.lines[0])
        names.append(f"{node.group[-1:]} {layer}".strip())
    return names


def test_alexnet_on_two_devices_is_figure_2(alexnet):
    """Eight layers in two frames; only conv3, fc6, fc7 and fc8 read the other column (section 3.5 and Figure 2)."""
    net = alexnet.AlexNet(10, widths=(2, 4, 4, 4, 4, 8, 8))
    drawing = minigrad.draw(net, (1, 3, 224, 224))
    names = layer_names(drawing)
    columns = [f"{i} {layer}" for i in (0, 1) for layer in alexnet.LAYERS]
    columns.remove("1 fc8")
    assert sorted(names) == sorted([*columns, "input", "output"])
    own = {(f"{i} {a}", f"{i} {b}", False) for i in (0, 1) for a, b in zip(alexnet.LAYERS, alexnet.LAYERS[1:])}
    own.remove(("1 fc7", "1 fc8", False))
    ends = {("input", "0 conv1", False), ("input", "1 conv1", False), ("0 fc8", "output", False)}
    crossing = {
        ("0 conv2", "1 conv3", True), ("1 conv2", "0 conv3", True), ("0 conv5", "1 fc6", True),
        ("1 conv5", "0 fc6", True), ("0 fc6", "1 fc7", True), ("1 fc6", "0 fc7", True), ("1 fc7", "0 fc8", True),
    }  # fmt: skip
    assert {(names[a], names[b], c) for a, b, c in drawing.edges} == own | ends | crossing
    assert len(drawing.edges) == len(own | ends | crossing)
    first = drawing.nodes[names.index("1 conv1")]
    assert first.group == "cpu:1" and first.lines == [
        "conv1: Conv2d 11 x 11, stride 4", "1 x 2 x 55 x 55", "relu, lrn, max_pool2d", "1 x 2 x 27 x 27",
    ]  # fmt: skip
    assert drawing.direction == "LR"
    dot = drawing.dot
    assert re.findall(r'label="(cpu:\d)"', dot) == ["cpu:0", "cpu:1"] and dot.count("penwidth") == len(crossing)
    assert drawing.mermaid.count("==>") == len(crossing) and drawing.mermaid.count("subgraph") == 2


@pytest.mark.slow
def test_the_picture_of_the_documentation_is_this_drawing(alexnet):
    drawing = minigrad.draw(alexnet.AlexNet(), (1, 3, 224, 224))
    picture = Path(__file__).parent.parent / "docs" / "images" / "alexnet.svg"
    root = ET.fromstring(picture.read_bytes())
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    lines = [line for node in drawing.nodes for line in node.lines]
    assert sorted(texts) == sorted([*lines, "cpu:0", "cpu:1"])
    titles = [element.text for element in root.iter("{http://www.w3.org/2000/svg}title")]
    assert sorted(t for t in titles if "->" in t) == sorted(f"n{start}->n{end}" for start, end, _ in drawing.edges)


def test_alexnet_on_one_device_is_a_chain(alexnet):
    net = alexnet.AlexNet(10, "original", devices=["cpu:0"], widths=(2, 4, 4, 4, 4, 8, 8))
    drawing = minigrad.draw(net, (2, 3, 224, 224))
    assert layer_names(drawing) == ["input", *alexnet.LAYERS, "output"] and drawing.direction == "TB"
    assert drawing.edges == [Edge(i, i + 1) for i in range(9)]
    assert drawing.nodes[2].lines == [
        "conv2: Conv2d 5 x 5", "2 x 8 x 27 x 27", "relu, lrn, lrn_within_map, max_pool2d", "2 x 8 x 13 x 13",
    ]  # fmt: skip


class Block(nn.Module):
    def __init__(self):
        self.a, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.relu, self.w = nn.ReLU(), nn.Parameter(np.ones((4, 1, 1), np.float32))

    def forward(self, x):
        return (x * self.w + self.b(self.relu(self.a(x)))).relu(), x


class Net(nn.Module):
    def __init__(self):
        self.stem, self.block, self.head = nn.Conv2d(3, 4, 1), Block(), nn.Linear(4 * 16, 2)

    def forward(self, x):
        y, _ = self.block(self.stem(x))
        return {"scores": self.head(y.flatten(1)), "maps": y}


def test_a_residual_block():
    drawing = minigrad.draw(Net(), (1, 3, 4, 4))
    assert boxes_of(drawing) == [
        ("end", ["input", "1 x 3 x 4 x 4"]),
        ("layer", ["stem: Conv2d 1 x 1", "1 x 4 x 4 x 4"]),
        ("layer", ["multiply with block.w", "1 x 4 x 4 x 4"]),
        ("layer", ["block.a: Conv2d 3 x 3", "1 x 4 x 4 x 4", "relu"]),
        ("layer", ["block.b: Conv2d 3 x 3", "1 x 4 x 4 x 4"]),
        ("op", ["add, relu", "1 x 4 x 4 x 4"]),
        ("layer", ["reshape", "head: Linear", "1 x 2"]),
        ("end", ["output", "1 x 2"]),
        ("end", ["output", "1 x 4 x 4 x 4"]),
    ]
    pairs = [(0, 1), (1, 2), (1, 3), (2, 5), (3, 4), (4, 5), (5, 6), (5, 8), (6, 7)]
    assert sorted(drawing.edges) == [(start, end, False) for start, end in pairs]


def test_batch_norm_stands_with_its_convolution_and_ops_without_a_layer_say_what_they_read():
    class WithBare(nn.Module):
        def __init__(self):
            self.w, self.b = nn.Parameter(np.ones((2, 3, 3, 1), np.float32)), nn.Parameter(np.ones(2, np.float32))
            self.norm, self.conv, self.last = nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)

        def forward(self, x):
            w = self.w * 2 / Tensor([3.0]).sqrt()  # has no box
            return self.last(self.conv(self.norm(F.conv2d(x, w, self.b)).relu()).relu())

    assert boxes_of(minigrad.draw(WithBare(), (1, 3, 4, 4)))[1:-1] == [
        ("layer", ["conv2d 3 x 1 with w, b", "1 x 2 x 2 x 4", "batch_norm, relu"]),
        ("layer", ["conv: Conv2d 1 x 1", "1 x 2 x 2 x 4", "relu, batch_norm"]),
    ]


def test_hooks_are_not_drawn():
    net = Net()
    plain = minigrad.draw(net, (1, 3, 4, 4)).dot
    for module in net.modules():
        module.register_full_backward_hook(lambda m, dx, dy: None)
    assert minigrad.draw(net, (1, 3, 4, 4)).dot == plain


def test_a_layer_that_is_used_twice_is_two_boxes_and_arguments_have_numbers():
    class Twice(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(3, 3)

        def forward(self, a, b):
            return self.layer(self.layer(a)) - b

    drawing = minigrad.draw(Twice(), (2, 3), Tensor(np.zeros((2, 3), np.float32)))
    assert edges_of(drawing) == [
        ("input 0", "layer: Linear", False),
        ("input 1", "subtract", False),
        ("layer: Linear", "layer: Linear", False),
        ("layer: Linear", "subtract", False),
        ("subtract", "output", False),
    ]


def test_the_graph_of_a_loss():
    layer, x = nn.Linear(2, 2), Tensor([[1.0, 2.0]])
    hidden = layer(x)
    loss = (hidden * hidden.tanh()).sum()
    drawing = minigrad.draw(loss, names=layer)
    assert boxes_of(drawing) == [
        ("op", ["sum", "()"]),
        ("op", ["multiply", "1 x 2"]),
        ("op", ["linear", "1 x 2"]),
        ("op", ["tanh", "1 x 2"]),
        ("parameter", ["weight", "2 x 2"]),
        ("parameter", ["bias", "2"]),
    ]
    assert edges_of(drawing) == [
        ("bias", "linear", False),
        ("linear", "multiply", False),
        ("linear", "tanh", False),
        ("multiply", "sum", False),
        ("tanh", "multiply", False),
        ("weight", "linear", False),
    ]
    loss.backward()  # drawing has changed nothing
    with pytest.raises(GraphError, match="already used"):
        minigrad.draw(loss)


def test_a_loss_over_two_devices_and_one_of_chunks():
    a, b = Tensor([1.0], True, "cpu:0"), Tensor([2.0], True, "cpu:1")
    drawing = minigrad.draw(a * b.to("cpu:0"), names={"a": a})
    assert edges_of(drawing) == [
        ("cpu:0 a", "cpu:0 multiply", False),
        ("cpu:0 copy", "cpu:0 multiply", False),
        ("cpu:1 leaf", "cpu:0 copy", True),
    ]
    minigrad.set_num_threads(2)
    x = Tensor(np.ones((6, 2), np.float32), True)
    assert boxes_of(minigrad.draw(minigrad.in_chunks(F.exp, x, size=1).sum()))[1] == (
        "op",
        ["in_chunks, 6 chunks", "6 x 2"],
    )


def test_a_long_chain_needs_no_recursion():
    x = Tensor([1.0], True)
    y = x
    for _ in range(3000):
        y = y + 1.0
    assert len(minigrad.draw(y).edges) == 3000


def test_what_cannot_be_drawn():
    net, x = nn.Linear(2, 2), Tensor([1.0], True)
    for tensor in (x, x.detach() * 2):
        with pytest.raises(GraphError, match="draw: this tensor has no graph"):
            minigrad.draw(tensor)
    for args, kwargs, match in [
        ((3,), {}, "takes a Tensor or a Module, got int"),
        ((net,), {}, "give for each argument of forward its shape"),
        ((x * 2, (1, 2)), {}, "shapes are for models"),
        ((net, (1, 2), "a.svg"), {"path": "b.svg"}, "two paths, 'a.svg' and 'b.svg': give one"),
        ((net, (1, 2)), {"direction": "RL"}, "direction must be 'TB' or 'LR', got 'RL'"),
        ((net, (1, 2)), {"names": {}}, "names= is for tensors"),
        ((net, (1, 2), "net.jpg"), {}, r"net.jpg: drawings are files that end in .svg, .png, .pdf, .dot, .gv, .mmd"),
        ((net, (1, 2), "net"), {}, "drawings are files that end in"),
    ]:
        with pytest.raises(ArgumentError, match=match):
            minigrad.draw(*args, **kwargs)


# ---------------------------------------------------------------- text and files

BAD = ['a"b\\n', "line\nbreak", "\x1b[31m", "<b onload=x>&amp;", "`#35;`", "end", "\\"]


def test_names_that_would_act_are_only_names():
    drawing = Drawing([Node("op", BAD, 'g"1'), Node("end", ["x"], "")], [Edge(0, 1)], "TB")
    for text in (drawing.dot, drawing.mermaid):
        assert "\x1b" not in text and "line\nbreak" not in text
    label = re.search(r'n0 \[label="((?:[^"\\]|\\.)*)", shape', drawing.dot)[1]
    assert label.replace("\\n", "\n").split("\n")[-1] == "\\\\"
    assert 'label="g\\"1"' in drawing.dot
    shown = re.search(r'n0\["(.*)"\]:::op_', drawing.mermaid)[1]
    back = re.sub(r"#(\d+);", lambda m: chr(int(m[1])), shown.replace("<br/>", "\n"))
    assert back.split("\n") == ['a"b\\n', "line\\nbreak", "\\x1b[31m", "<b onload=x>&amp;", "`#35;`", "end", "\\"]
    assert not set(shown.replace("<br/>", "")) & set('"<>&`\\[]')


@graphviz
def test_graphviz_draws_what_it_is_given():
    drawing = Drawing([Node("op", BAD, 'g"1'), Node("end", ["x"], "h")], [Edge(0, 1, True)], "LR")
    root = ET.fromstring(drawing.svg())
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    expected = ['a"b\\n', "line\\nbreak", "\\x1b[31m", "<b onload=x>&amp;", "`#35;`", "end", "\\", 'g"1', "h", "x"]
    assert sorted(texts) == sorted(expected)


def program(folder, monkeypatch, text):
    """A program `dot`, alone on the path."""
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / "dot").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "bin" / "dot").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:/usr/bin:/bin")


def test_files(tmp_path, monkeypatch):
    program(tmp_path, monkeypatch, 'echo "<svg $1>"; cat')
    loss = (Tensor([1.0], True) * 2).sum()
    drawing = minigrad.draw(loss, tmp_path / "a.SVG")
    assert (tmp_path / "a.SVG").read_text() == "<svg -Tsvg>\n" + drawing.dot == drawing.svg() == drawing._repr_svg_()
    assert drawing._repr_markdown_() is None
    minigrad.draw(loss, path=str(tmp_path / "a.png"))
    assert (tmp_path / "a.png").read_text().startswith("<svg -Tpng>\ndigraph {")
    assert drawing.save(tmp_path / "a.gv") == tmp_path / "a.gv" and (tmp_path / "a.gv").read_text() == drawing.dot
    drawing.save(tmp_path / "a.mmd")
    assert (tmp_path / "a.mmd").read_text() == drawing.mermaid and drawing.mermaid.startswith("flowchart TB\n")
    with pytest.raises(DataError, match="draw: cannot write .*: .*make the folder first"):
        drawing.save(tmp_path / "none" / "a.dot")


def test_graphviz_that_fails_or_does_not_end(tmp_path, monkeypatch):
    drawing = minigrad.draw((Tensor([1.0], True) * 2).sum())
    (tmp_path / "a.svg").write_text("as it was")
    program(tmp_path, monkeypatch, "echo too large >&2; exit 3")
    with pytest.raises(MinigradError, match=r"Graphviz \(.*dot\) has not made a picture of 3 nodes: too large: write"):
        drawing.save(tmp_path / "a.svg")
    program(tmp_path, monkeypatch, "exec sleep 60")
    monkeypatch.setattr(drawing_module, "LONGEST", 0.2)
    with pytest.raises(MinigradError, match="has not made a picture of 3 nodes: TimeoutExpired"):
        drawing.save(tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_text() == "as it was"


def test_without_graphviz_there_is_text(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    loss = (Tensor([1.0], True) * 2).sum()
    with pytest.warns(
        UserWarning, match=r"`dot` is not installed here: apt install .*; wrote .*a.svg.dot instead"
    ) as w:
        drawing = minigrad.draw(loss, tmp_path / "a.svg")
    assert len(w) == 1
    assert (tmp_path / "a.svg.dot").read_text() == drawing.dot and not (tmp_path / "a.svg").exists()
    with pytest.raises(MissingDependencyError, match="apt install graphviz"):
        drawing.svg()
    assert drawing._repr_svg_() is None
    assert drawing._repr_markdown_() == f"```mermaid\n{drawing.mermaid}```"
