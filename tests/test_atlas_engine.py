"""The atlas's pages of the engine and of AlexNet: what they show is what the code does."""

import re
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import minigrad
import minigrad.functional as F
from minigrad import Tensor, engine

pytest.importorskip("pygments", reason="it colours the code of the pages: pip install -e '.[docs]'")
ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "docs"), str(ROOT / "benchmarks")]
from atlas import alexnet_facts, alexnet_page, engine_page, engine_run  # noqa: E402


class Read(HTMLParser):
    """The text of an HTML page by the anchors that it is under, and the anchors that are linked to."""

    def __init__(self, text):
        super().__init__()
        self.anchors, self.links, self.words = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.anchors |= {value for name, value in attrs if name == "id"}
        self.links += [value for name, value in attrs if name == "href"]

    def handle_data(self, data):
        self.words.append(data)


def cells(html):
    """The rows of the tables of a piece of HTML, each a list of what its cells show."""
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", html, re.DOTALL)
    found = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.DOTALL) for row in rows]
    return [[re.sub(r"<[^>]+>", "", cell) for cell in row] for row in found]


@pytest.fixture(scope="module")
def run():
    return engine_run.record()


def by_hand():
    """The gradients of m = r v (r + 1), r = relu(x w), as one writes them down."""
    x, w, v = np.array([1.0, -2.0]), np.array([3.0, 1.0]), np.array([2.0, 5.0])
    r = np.maximum(x * w, 0)
    dr = v * (r + 1) + r * v
    dh = dr * (x * w > 0)
    return {"x": dh * w, "w": dh * x, "v": r * (r + 1)}, dr


def test_the_recording_is_the_run(run):
    grads, dr = by_hand()
    for name, grad in grads.items():
        np.testing.assert_array_equal(run.grads[name], grad)
        np.testing.assert_array_equal(run.backs[-1].gradients[name], grad)
    assert [node.order for node in run.nodes] == [1, 2, 3, 4, 5, 6]
    assert [back.name for back in run.backs] == ["loss", "m", "q", "p", "r", "h"]
    np.testing.assert_array_equal({back.name: back.dy for back in run.backs}["r"], dr)
    assert run.nodes[1].kept.keys() == {"y"} and not run.nodes[3].kept
    assert run.backs[-1].left == dict.fromkeys(engine_run.MADE, 0) and run.backs[0].left["m"] == 2
    assert [back.waiting for back in run.backs] == [["m"], ["q", "p"], ["p", "r"], ["r"], ["h"], []]


def test_nothing_is_left_of_the_looking_on():
    debugger, before = sys.gettrace(), engine.tracing.recorder
    next_number = engine.next_order()
    mine = lambda frame, event, argument: None  # noqa: E731
    sys.settrace(mine)
    try:
        engine_run.record()
        left = sys.gettrace(), engine.tracing.recorder
    finally:
        sys.settrace(debugger)
    assert left == (mine, before)
    assert engine.next_order() == next_number + 1  # a recording draws its numbers from a sequence of its own


def test_the_readers_program_prints_what_was_recorded(run):
    printed = engine_run.printed()
    expected = [f"{node.order} {node.op} {node.value}" for node in run.nodes]
    seen = {}
    for back in run.backs:
        order = next(node.order for node in run.nodes if node.name == back.name)
        expected.append(f"{order} {back.name} has {back.dy}")
        for target, part in back.parts:
            expected.append(f"    to {target} {part}")
            if target in seen:
                expected.append(f"        sum {back.gradients[target]}")
            seen[target] = part
    assert printed.splitlines() == expected and any("sum" in line for line in expected)


def test_the_program_is_one_that_a_reader_can_run(tmp_path):
    (tmp_path / "program.py").write_text(engine_run.PROGRAM, encoding="utf-8")
    command = [sys.executable, str(tmp_path / "program.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={"PYTHONPATH": str(ROOT)})
    assert done.stdout == engine_run.printed() and done.stderr == ""


def test_the_page_shows_what_was_recorded(run):
    page = engine_page.page()
    walk = next(section.body for section in page.sections if section.anchor == "walk")
    steps = dict(re.findall(r'<li class="step" id="step-([\w-]+)">(.*?)</li>', walk, re.DOTALL))
    made = [f"forward-{node.name}" for node in run.nodes] + [f"backward-{back.name}" for back in run.backs]
    assert list(steps) == made
    for node in run.nodes:
        for name, array in node.kept.items():
            assert f"<code>{name}</code> = {engine_page.numbers(array)}" in steps[f"forward-{node.name}"]
    for back in run.backs:
        svg = re.search(r"<svg.*?</svg>", steps[f"backward-{back.name}"], re.DOTALL)[0]
        labels = re.findall(r'class="part"><rect [^>]*/><text [^>]*>([^<]*)<', svg)
        assert labels == [engine_page.numbers(part) for _, part in back.parts]
        assert svg.count('class="edge moved"') == len(back.parts)
        for name, grad in back.gradients.items():
            assert f">{engine_page.numbers(grad)}</text>" in svg, name
        for name in back.waiting:
            assert f"({name})" in steps[f"backward-{back.name}"]
        assert svg.count('class="node waits"') == len(back.waiting)


def test_a_broken_engine_shows(monkeypatch, run):
    """The numbers come from the engine: with another engine there are others."""
    source = engine_run.inspect.getsource(engine.backward_in_ten_lines)
    broken = source.replace("target.device.added(gradients[target], part) if target in gradients else part", "part")
    assert broken != source
    names = dict(vars(engine))
    exec(compile(broken, "engine.py", "exec"), names)
    monkeypatch.setattr(minigrad.backward, "backward_in_ten_lines", names["backward_in_ten_lines"])
    monkeypatch.setattr(engine.backward_in_ten_lines, "__code__", names["backward_in_ten_lines"].__code__)
    wrong = engine_run.record()
    np.testing.assert_array_equal(wrong.grads["x"], [24, 0])
    assert run.grads["x"][0] == 42


def test_another_order(run):
    message, _ = engine_run.oldest_first()
    assert message.startswith("backward: this graph was already used")
    _, wrong = engine_run.oldest_first(check=False)
    assert wrong["x"][0] == 24 and run.grads["x"][0] == 42  # half of r's gradient is lost
    section = next(section.body for section in engine_page.page().sections if section.anchor == "order")
    assert message.split(": ")[1] in section and "[24. 0.]" in section and "[42. 0.]" in section


def test_the_tables_of_the_engines_page(run):
    sections = {section.anchor: section.body for section in engine_page.page().sections}
    assert cells(sections["diamond"])[1:] == [
        ["4 (q)", "[6. 0.]", "1 · dq", "[6. 0.]"],
        ["3 (p)", "[4. 1.]", "[2. 5.] · dp, for p = r * v", "[8. 5.]"],
        ["sum, the gradient of r", "[14. 5.]"],
    ]
    assert cells(sections["order"])[1:] == [
        ["dx", "[42. 0.]", "[24. 0.]"],
        ["dw", "[14. -0.]", "[8. -0.]"],
        ["dv", "[12. 0.]", "[12. 0.]"],
    ]
    expected = [
        ["1", "h = x * w", "multiply", "a = [1. -2.], b = [3. 1.]", "16", "6"],
        ["2", "r = h.relu()", "relu", "y = [3. 0.]", "8", "5"],
    ]
    assert cells(sections["freeing"])[1:3] == expected and len(cells(sections["freeing"])) == 7


def test_what_is_freed_and_what_is_refused():
    lines = engine_run.printed(engine_run.FREEING).splitlines()
    assert lines[:3] == ["[3. 0.] False", "True True", "False True ()"] and "already used" in lines[3]
    assert "multiply: backward needs input 1 (2,), which was modified" in engine_run.printed(engine_run.CHANGED)


def test_two_devices_and_their_threads():
    printed, nodes, grads = engine_run.on_two_devices()
    crossing = [node.op for node in nodes for one in nodes if one.name in node.inputs and one.device != node.device]
    assert crossing == ["copy"]
    np.testing.assert_array_equal(grads["w0"], [0.5, 0])
    np.testing.assert_array_equal(grads["w1"], [3, 0])
    lines = printed.splitlines()
    for device, count in ("cpu:0", 5), ("cpu:1", 2):
        back = [line for line in lines if line.startswith(f"backward {device}")]
        assert len(back) == count and len({line.split(" by ")[1] for line in back}) == 1
    assert len({line.split(" by ")[1] for line in lines if line.startswith("backward")}) == 2
    assert [node.order for node in nodes] == sorted({node.order for node in nodes})
    section = next(section.body for section in engine_page.page().sections if section.anchor == "devices")
    assert all(line.replace("&", "&amp;") in Read(section).words[-1] or line in section for line in lines)


def test_links_of_the_engines_page_lead_somewhere():
    page = engine_page.page()
    read = Read("".join(section.body for section in page.sections))
    for link in read.links:
        path, _, anchor = link.partition("#")
        if path.startswith("source/"):
            file = next(one for one in engine_page_files() if link.startswith(f"source/{one.replace('/', '.')}.html"))
            assert not anchor or int(anchor[1:]) <= len((ROOT / file).read_text(encoding="utf-8").splitlines())
        else:
            assert not path and anchor in read.anchors | {section.anchor for section in page.sections}


def engine_page_files():
    from atlas import listing

    return sorted(listing.asked, key=len, reverse=True)


# ---------------------------------------------------------------- AlexNet


@pytest.fixture(scope="module")
def facts():
    return alexnet_facts.facts()


@cache
def sections_of_alexnet():
    return {section.anchor: section.body for section in alexnet_page.page().sections}


def section(anchor):
    return sections_of_alexnet()[anchor]


def rows_of_the_document():
    """docs/alexnet.md's table of layers: name -> (reads, parameters)."""
    rows = alexnet_page.table_of(alexnet_page.section_of(alexnet_page.document(), "Layer by layer"))
    return {row[0]: (row[3], int(row[4].strip("*").replace(",", ""))) for row in rows[1:] if row[4]}


def test_the_figures_of_layers_are_those_of_the_document_and_of_the_formula(facts):
    written = rows_of_the_document()
    assert facts.parameters == written.pop("total")[1] == sum(layer.parameters for layer in facts.layers)
    assert [layer.name for layer in facts.layers] == list(written)
    for layer in facts.layers:
        reads, parameters = written[layer.name]
        assert layer.parameters == parameters and layer.talks == ("**both columns**" in reads)
        for half in layer.halves:
            positions = int(np.prod(half.output[1:]))
            assert half.multiply_adds == positions * (np.prod(layer.weight) + layer.weight[0]), layer.name
    assert facts.multiply_adds == sum(layer.multiply_adds for layer in facts.layers)
    assert [half.result for half in facts.layer("conv1").halves] == [(48, 27, 27)] * 2
    assert facts.layer("fc6").reads == ["conv5"] and facts.layer("conv1").reads == ["input"]
    assert facts.layer("conv2").follows == ["relu", "lrn", "max_pool2d"]
    assert facts.layer("fc7").follows == ["relu", "dropout"] and facts.layer("fc8").follows == []


def test_the_picture_has_every_layer_on_its_device_and_every_edge(facts):
    svg = re.search(r"<svg.*?</svg>", section("figure2"), re.DOTALL)[0]
    expected = [
        f'href="#{layer.name}" class="layer"><title>{layer.name} on {half.device}: {alexnet_page.by(half.output)},'
        for layer in facts.layers
        for half in layer.halves
    ]
    assert len(expected) == svg.count("<a ") == 15
    for label in expected:
        assert svg.count(label) == 1
    crossing = [edge for edge in facts.drawing.edges if edge.crossing]
    assert svg.count('class="cross"') == len(crossing) == 7
    assert svg.count('class="along"') == len(facts.drawing.edges) - 7


def test_a_step_runs_the_ops_that_were_timed(facts):
    """So the benchmark's table is not that of another net; and its shares are what the page shows."""
    import alexnet_layers

    sys.path.append(str(ROOT / "examples"))
    from alexnet import AlexNet

    net = AlexNet(10, devices=("cpu:0", "cpu:1"), widths=(2, 4, 4, 4, 4, 8, 8))
    found = []
    recorder = alexnet_layers.ByLayer(net, lambda layer, op, phase, work: (found.append((layer, op, phase)), work())[1])
    engine.tracing.recorder, before = recorder, engine.tracing.recorder
    try:
        with minigrad.in_turn():
            F.cross_entropy(net(Tensor(np.zeros((2, 3, 224, 224), "f"))), [0, 1]).backward()
    finally:
        engine.tracing.recorder = before
    timed, _, _ = alexnet_facts.times()
    ran = {(layer[0], op) for layer, op, _ in found} | {("update", "sgd")}
    assert ran == {(layer, op.op) for layer, ops in timed.items() for op in ops}
    assert {(layer[0], op) for layer, op, phase in found if phase == "backward"} >= {
        ("conv3", "copy"),
        ("fc6", "concat"),
    }
    text = (ROOT / alexnet_facts.TIMES).read_text(encoding="utf-8")
    for layer in facts.layers:
        shares = re.findall(rf"^\| {layer.name} \|.* ([\d.]+)% \|$", text, re.M)
        assert layer.share == pytest.approx(sum(map(float, shares)) / 100)
    table = {row[0]: row for row in cells(section("layers"))}
    for layer in facts.layers:
        work = alexnet_page.percent(layer.multiply_adds / facts.multiply_adds)
        numbers = [f"{layer.parameters:,}", f"{layer.multiply_adds:,}", work, alexnet_page.percent(layer.share)]
        assert table[layer.name][4:] == numbers
    assert table["conv1"][1:4] == ["(48 + 48) × 55 × 55", "11 × 11, stride 4", "the image"]
    assert table["fc8"][1:4] == ["1000", "–", "both columns"] and table["conv4"][3] == "its own column"


def test_every_kernel_of_the_page_is_in_its_file_and_does_what_its_layer_needs(facts):
    for layer in facts.layers:
        launched = {(op.op, phase): op.kernels[phase] for op in layer.ops for phase in op.kernels}
        for kernels in launched.values():
            for file, kernel in kernels:
                text = (ROOT / "kernels" / f"{file}.cu").read_text(encoding="utf-8")
                line = int(re.search(r"#L(\d+)", alexnet_page.kernel_link(file, kernel))[1])
                assert re.search(rf"\b{kernel}\(", text.splitlines()[line - 1])
        if layer.kind == "Conv2d":  # images need no gradient
            wanted = [("conv2d", "conv2d_backward_x")] * (layer.name != "conv1") + [("conv2d", "conv2d_backward_w")]
            back = launched["conv2d", "backward"]
            assert [one for one in back if "backward" in one[1]] == wanted
            assert launched["conv2d", "forward"][0] == ("conv2d", "conv2d_forward")
            row = next(row for row in cells(section(layer.name)) if row[0] == "conv2d")
            assert row[4].startswith("conv2d_forward") and row[5].startswith(wanted[0][1])
        for op in layer.follows:
            assert launched[op, "forward"] and launched[op, "backward"], (layer.name, op)


def test_the_differences_are_those_of_the_document():
    body, text = section("differences"), alexnet_page.document()
    numbers = re.findall(r'<tr id="difference-(\d+)">', body)
    assert numbers == re.findall(r"^\| (\d+) \|", alexnet_page.section_of(text, "The presets"), re.M)
    assert len(numbers) == 15 and set(alexnet_page.EFFECTS) < set(numbers)
    assert "1e-4 / 5 = 2e-5" in body and "config 145 decays weights only" in body.lower()
    effects = dict(re.findall(r'id="difference-(\d+)">.*?</tr>(.*?)</tr>', body, re.DOTALL))
    assert "by 0.9 % in <code>paper</code>" in effects["6"] and "He et al. 2015" in effects["6"]
    assert "76.0, 76.7 % with noise" in effects["8"] and "96.3 % top-1 with ten views" in effects["14"]
    assert "both orders gave the same bits" in effects["3"] and "Measured" not in effects["13"]


def test_what_was_measured_comes_out_of_the_document():
    text = alexnet_page.document()
    changed = text.replace("paper      fc7 0.50 +- 0.0043", "paper      fc7 0.50 +- 0.0500")
    assert "by 10.0 % in <code>paper</code>" in alexnet_page.plateau(changed)
    assert "2 % of the largest logit" in section("figure2")
    assert "7 % of the largest logit" in alexnet_page.across(text.replace("weights, 2 % of", "weights, 7 % of"))
    changed = text.replace("| 76.0, 76.7 % |", "| 12.0, 13.0 % |")
    assert changed != text and "12.0, 13.0 % with noise" in alexnet_page.conv1(changed)
    with pytest.raises(LookupError, match="docs/alexnet.md has no heading 'The presets'"):
        alexnet_page.section_of(text.replace("## The presets", "## Presets"), "The presets")


def test_markdown_of_the_document_as_html():
    html = alexnet_page.inline("a < b, `c*d*e`, **f** *g*, [h](speed.md)\n  and [i](#the-presets), x*y*z")
    assert html.startswith('a &lt; b, <code>c*d*e</code>, <b>f</b> <em>g</em>, <a href="source/docs.speed.md.html')
    line = alexnet_page.document().splitlines().index("## The presets") + 1
    assert f'<a href="source/docs.alexnet.md.html#L{line}">i</a>, x*y*z' in html


def test_links_of_alexnets_page_lead_somewhere():
    from atlas import contents

    page = alexnet_page.page()
    read = Read("".join(section.body for section in page.sections))
    anchors = read.anchors | {section.anchor for section in page.sections}
    for link in read.links:
        path, _, anchor = link.partition("#")
        if path.startswith("source/"):
            file = next(one for one in engine_page_files() if path == f"source/{one.replace('/', '.')}.html")
            assert not anchor or 0 < int(anchor[1:]) <= len((ROOT / file).read_text(encoding="utf-8").splitlines())
        else:
            assert (path.removesuffix(".html") in contents.ENTRIES) if path else anchor in anchors, link
    for layer in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"):
        assert layer in anchors
