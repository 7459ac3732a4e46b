"""The atlas's pages of the engine and of AlexNet: what they show is what the code does."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import minigrad
from minigrad import engine

pytest.importorskip("pygments", reason="it colours the code of the pages: pip install -e '.[docs]'")
ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs"))
from atlas import engine_page, engine_run  # noqa: E402


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
    before = sys.gettrace(), engine.tracing.recorder
    next_number = engine.next_order()
    engine_run.record()
    assert (sys.gettrace(), engine.tracing.recorder) == before
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
    for _, command, answer in engine_page.EXERCISES:
        tests = (ROOT / re.search(r"tests/\w+\.py", command)[0]).read_text(encoding="utf-8")
        assert all(f"def {name}(" in tests for name in re.findall(r"<code>(test_\w+)</code>", answer))


def engine_page_files():
    from atlas import listing

    return sorted(listing.asked, key=len, reverse=True)
