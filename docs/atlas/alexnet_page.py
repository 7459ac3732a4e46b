"""The page of AlexNet: Figure 2 drawn from the program, each layer with its facts, and what differs from the paper."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable

import numpy as np

import minigrad.functional as F
from minigrad import Tensor

from . import alexnet_facts
from .alexnet_facts import TIMES, Facts, Layer, Timed
from .listing import ROOT, code, found_lines, source_link
from .shell import HERE, Page, Section, figure

TEXT = "docs/alexnet.md"
ROOMS = {"reshape": "shape"}  # of ops whose room has another name

LEAD = (
    "<p>The net of Krizhevsky, Sutskever and Hinton (2012), as the program builds it: half of every layer on each of "
    "two devices. Shapes, devices and edges come from a run of it; click a layer.</p>"
)


def page() -> Page:
    facts = alexnet_facts.facts()
    sections = [
        Section("figure2", "Figure 2, from a run of the net", figure2(facts)),
        Section("layers", "All layers", table(facts)),
        *(Section(layer.name, layer.name, one_layer(facts, layer)) for layer in facts.layers),
        Section("differences", "The paper, the original code, and a net that learns at once", differences()),
        Section("others", "What is different from both", others()),
        Section("repeat", "To repeat it", repeat(facts)),
    ]
    css = (HERE / "alexnet.css").read_text(encoding="utf-8")
    return Page("alexnet", "AlexNet, drawn from the program", LEAD, sections, css=css)


def by(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))


def percent(share: float) -> str:
    return f"{share:.1%}".replace("%", " %") if share >= 0.0005 else "< 0.1 %"


# ---------------------------------------------------------------- the picture

WIDE, STEP, LEFT = 996, 105, 132  # of the picture, from layer to layer, of conv1's middle
LANES = {"cpu:0": 102, "cpu:1": 308}  # the middle of each column's slabs
SKEW = 0.26
SHORT = {"max_pool2d": "pool", "lrn": "LRN", "relu": "ReLU"}


def figure2(facts: Facts) -> str:
    talking = [layer.name for layer in facts.layers if layer.talks]
    caption = (
        "The two columns, one on each device. A slab is a layer’s output, as high as its maps and as thick as they are "
        f"many; blue edges cross from one device to the other, into {', '.join(talking[:-1])} and {talking[-1]}."
    )
    return (
        figure("columns", picture(facts), caption)
        + "<p>What follows a layer is written below it; the next layer reads that. Everything but the blue edges stays "
        f"on its device, response normalisation included. {across(document())}</p>"
    )


def across(text: str) -> str:
    heading = "Weights of another net as the beginning"
    words = " ".join(section_of(text, heading).split())
    found = re.search(r"\(with made-up weights, ([\d.]+ %) of the largest logit\)", words)
    if found is None:
        raise LookupError(f"{TEXT} does not say any more what Caffe's normalisation across the columns changes")
    return (
        "In Caffe’s net, which is one column, it sees across the seam: what that changes is, with made-up weights, "
        f"{found[1]} of the largest logit {_see(heading)}."
    )


def picture(facts: Facts) -> str:
    nodes = facts.drawing.nodes
    columns = {layer.name: LEFT + i * STEP for i, layer in enumerate(facts.layers)}
    places: dict[int, tuple[int, int]] = {}
    shapes: dict[int, tuple[int, ...]] = {}
    for i, node in enumerate(nodes):
        name = alexnet_facts.name_of(node.lines)
        if name in columns:
            places[i] = columns[name], LANES[node.group]
            shapes[i] = next(half.output for half in facts.layer(name).halves if half.device == node.group)
        else:
            places[i] = 40 if name == "input" else WIDE - 42, sum(LANES.values()) // 2
            shapes[i] = alexnet_facts.shape_of(node.lines[-1])[1:]
    title = "AlexNet in two columns: its layers, their shapes, and the edges between the devices"
    parts = [f'<svg viewBox="0 0 {WIDE} 420" width="{WIDE}" role="group" aria-label="{title}"><title>{title}</title>']
    for device, y in LANES.items():
        parts.append(f'<rect class="lane" x="86.5" y="{y - 92}.5" width="{WIDE - 174}" height="196" rx="8"/>')
        parts.append(f'<text class="device" x="96" y="{y - 74}">{device}</text>')
    for edge in facts.drawing.edges:
        (x1, y1), (x2, y2) = places[edge.start], places[edge.end]
        begin, end = x1 + half_of(shapes[edge.start]) + 3, x2 - half_of(shapes[edge.end]) - 3
        kind = "cross" if edge.crossing else "along"
        parts.append(f'<line class="{kind}" x1="{begin:.0f}" y1="{y1}" x2="{end:.0f}" y2="{y2}"/>')
    for i, node in enumerate(nodes):
        name = alexnet_facts.name_of(node.lines)
        x, y = places[i]
        drawn = slab(x, y, shapes[i])
        if name in columns:
            parts.append(_drawn_layer(facts.layer(name), shapes[i], node.group, x, y, drawn))
        else:
            lower = 86 if name == "input" else 58
            parts.append(
                f"{drawn}{_text(x, y + lower, name, 'name')}{_text(x, y + lower + 15, tight(shapes[i]), 'shape')}"
            )
    return "".join(parts) + "</svg>"


def tight(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def _drawn_layer(layer: Layer, output: tuple[int, ...], device: str, x: int, y: int, drawn: str) -> str:
    kind = f"window {by(layer.weight[2:])}, stride {layer.stride}" if len(layer.weight) == 4 else "fully connected"
    follows = [SHORT.get(op, op) for op in layer.follows]
    rows = [follows[:2], follows[2:]]
    words = "".join(_text(x, y + 81 + 13 * i, " · ".join(row), "ops") for i, row in enumerate(rows) if row)
    label = f"{layer.name} on {device}: {by(output)}, {kind}"
    return (
        f'<a href="#{layer.name}" class="layer"><title>{label}</title>'
        f'<rect class="hit" x="{x - 50}" y="{y - 66}" width="100" height="166"/>{drawn}'
        f"{_text(x, y + 51, layer.name, 'name')}{_text(x, y + 66, tight(output), 'shape')}{words}</a>"
    )


def measures(shape: tuple[int, ...]) -> tuple[float, float, float]:
    """How high, wide and deep the plate of an output is: as high as a map, and as wide as there are many."""
    if len(shape) == 1:
        return 21 * math.log10(shape[0]), 10.0, 5.0
    high = 7.2 * math.sqrt(shape[1])
    return high, 4 + 2.6 * math.sqrt(shape[0]), high * SKEW


def half_of(shape: tuple[int, ...]) -> float:
    _, wide, deep = measures(shape)
    return (wide + deep) / 2


def slab(x: float, y: float, shape: tuple[int, ...]) -> str:
    """A stack of maps, seen from the side."""
    high, wide, deep = measures(shape)
    left, top = x - (wide + deep) / 2, y - (high - deep) / 2
    right, bottom = left + wide, top + high
    front = f'<rect class="front" x="{left:.1f}" y="{top:.1f}" width="{wide:.1f}" height="{high:.1f}"/>'

    def face(name: str, *points: tuple[float, float]) -> str:
        return f'<polygon class="{name}" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in points)}"/>'

    over = face("over", (left, top), (left + deep, top - deep), (right + deep, top - deep), (right, top))
    side = face("side", (right, top), (right + deep, top - deep), (right + deep, bottom - deep), (right, bottom))
    return front + over + side


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x}" y="{y}" text-anchor="middle">{html.escape(text)}</text>'


# ---------------------------------------------------------------- the layers


def table(facts: Facts) -> str:
    rows = []
    for layer in facts.layers:
        seen = window(layer, with_padding=False)
        rows.append(
            f'<tr><td><a href="#{layer.name}">{layer.name}</a></td><td>{_outputs(layer)}</td><td>{seen}</td>'
            f"<td>{'both columns' if layer.talks else 'the image' if layer.name == 'conv1' else 'its own column'}</td>"
            f'<td class="n">{layer.parameters:,}</td><td class="n">{layer.multiply_adds:,}</td>'
            f'<td class="n">{percent(layer.multiply_adds / facts.multiply_adds)}</td>'
            f'<td class="n">{percent(layer.share)}</td></tr>'
        )
    for name, ops in facts.others.items():
        share = sum(op.share for op in ops)
        rows.append(f'<tr><td>{name}</td><td colspan="6"></td><td class="n">{percent(share)}</td></tr>')
    total = (
        f'<tr class="sum"><td>all</td><td colspan="3"></td><td class="n">{facts.parameters:,}</td>'
        f'<td class="n">{facts.multiply_adds:,}</td><td class="n">100 %</td><td class="n">100 %</td></tr>'
    )
    return (
        f"{scrolled(HEAD, ''.join(rows) + total, 'plain')}"
        "<p>Parameters, and multiply-adds for one image, are those of both columns, by <code>minigrad.summary</code>. "
        f"Time is that of a training step of {facts.batch} images on a processor "
        f"({source_link(TIMES, 'measured')}). The convolutions hold few of the parameters and most of the work; "
        "the fully connected layers are the other way round.</p>"
    )


HEAD = (
    '<tr><th>layer</th><th>output</th><th>window</th><th>reads</th><th class="n">parameters</th>'
    '<th class="n">multiply-adds</th><th class="n">share</th><th class="n">of the time</th></tr>'
)


def scrolled(head: str, rows: str, kind: str = "") -> str:
    return (
        '<div class="scroll-x" tabindex="0" role="group" aria-label="table">'
        f'<table class="{kind}"><thead>{head}</thead><tbody>{rows}</tbody></table></div>'
    )


def _outputs(layer: Layer) -> str:
    """As docs/alexnet.md has them: (48 + 48) × 55 × 55."""
    maps = " + ".join(str(half.output[0]) for half in layer.halves)
    rest = layer.halves[0].output[1:]
    return f"({maps}) × {by(rest)}" if rest else maps


def window(layer: Layer, with_padding: bool = True) -> str:
    if len(layer.weight) != 4:
        return "–"
    (top, bottom), (left, right) = layer.padding if isinstance(layer.padding, tuple) else ((layer.padding,) * 2,) * 2
    if top == bottom == left == right:
        padding = f"padding {top}" if top else ""
    else:
        sides = {"above": top, "below": bottom, "left": left, "right": right}
        padding = f"zeros: {_and([f'{count} {side}' for side, count in sides.items() if count])}"
    stride = f"stride {layer.stride}" if layer.stride != 1 else ""
    return ", ".join(filter(None, [by(layer.weight[2:]), stride, padding if with_padding else ""]))


def one_layer(facts: Facts, layer: Layer) -> str:
    halves = [
        f"<tr><td>{half.device}</td><td>{by(half.output)}</td><td>{by(half.result)}</td>"
        f'<td class="n">{half.parameters:,}</td><td class="n">{half.multiply_adds:,}</td></tr>'
        for half in layer.halves
    ]
    head = (
        '<tr><th>device</th><th>output</th><th>after what follows</th><th class="n">parameters</th>'
        '<th class="n">multiply-adds</th></tr>'
    )
    reads = "the image" if layer.reads == ["input"] else _and([f'<a href="#{name}">{name}</a>' for name in layer.reads])
    whose = ", both columns of it: here the devices talk" if layer.talks else ""
    shape, verb = by(layer.weight), "follows" if len(layer.follows) == 1 else "follow"
    kind = f"a convolution, {window(layer)}" if len(layer.weight) == 4 else "fully connected"
    follow = f" {_and([op_link(op) for op in layer.follows])} {verb}." if layer.follows else ""
    weights = "Each column’s weights are" if len(layer.halves) > 1 else "It is on one device, and its weights are"
    return (
        f"<p>{layer.name} is {kind}. It reads {reads}{whose}. {weights} {shape}: "
        f"{percent(layer.parameters / facts.parameters)} of all parameters, "
        f"{percent(layer.multiply_adds / facts.multiply_adds)} of the multiply-adds, "
        f"{percent(layer.share)} of the time.{follow}</p>"
        f"{scrolled(head, ''.join(halves), 'plain')}{ops_table(layer.ops)}"
    )


def _and(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def op_link(op: str) -> str:
    """To the page of the op's room."""
    return f'<a href="{ROOMS.get(op, op)}.html">{op}</a>'


def ops_table(ops: list[Timed]) -> str:
    rows = []
    for op in sorted(ops, key=lambda op: op.op not in alexnet_facts.BEFORE):
        kernels = [
            ", ".join(kernel_link(file, kernel) for file, kernel in op.kernels.get(phase, []))
            for phase in ("forward", "backward")
        ]
        rows.append(
            f'<tr><td>{op_link(op.op)}</td><td class="n">{op.forward:.3f}</td><td class="n">{op.backward:.3f}</td>'
            f'<td class="n">{percent(op.share)}</td><td>{kernels[0] or "–"}</td><td>{kernels[1] or "–"}</td></tr>'
        )
    head = (
        '<tr><th>op</th><th class="n">forward, s</th><th class="n">backward, s</th><th class="n">of the step</th>'
        "<th>its kernels, forward</th><th>backward</th></tr>"
    )
    return scrolled(head, "".join(rows), "kernels")


def kernel_link(file: str, kernel: str) -> str:
    """To the line of a kernel's file where the kernel begins."""
    path, line, _ = found_lines(f"kernels/{file}.cu", f" {kernel}(", "")
    return source_link(path, f"<code>{kernel}</code>", line)


# ---------------------------------------------------------------- what differs, from docs/alexnet.md


def differences() -> str:
    """The table of the presets with the note of each row, and what was measured of it, out of the document."""
    text = document()
    head, *rows = table_of(section_of(text, "The presets"))
    notes = dict(re.findall(r"^(\d+)\. (.*?)(?=^\d+\. |^\S|\Z)", section_of(text, "The presets"), re.DOTALL | re.M))
    body = []
    for number, what, *values in rows:
        cells = "".join(f"<td>{inline(value)}</td>" for value in values)
        effect = EFFECTS[number](text) if number in EFFECTS else ""
        shown = f'<p class="effect"><b>Measured:</b> {effect}</p>' if effect else ""
        body.append(
            f'<tr id="difference-{number}"><td class="n">{number}</td><th scope="row">{inline(what)}</th>{cells}</tr>'
            f'<tr class="why"><td></td><td colspan="4"><p>{inline(notes[number])}</p>{shown}</td></tr>'
        )
    named = "".join(f"<th>{inline(cell)}</th>" for cell in ["Row", *head[1:]])
    return (
        "<p>The paper and the code behind it disagree, and the paper’s net takes long to begin to learn. So there are "
        f"presets. A dash means “as in <code>paper</code>”. From {source_link(TEXT)}, where what is said has its "
        f"sources.</p>" + scrolled(f"<tr>{named}</tr>", "".join(body), "presets")
    )


def others() -> str:
    items = re.findall(
        r"^- (.*?)(?=^- |\Z)", section_of(document(), "What we do differently from both"), re.DOTALL | re.M
    )
    assert items
    return f"<ul>{''.join(f'<li>{inline(item)}</li>' for item in items)}</ul>"


def document() -> str:
    return (ROOT / TEXT).read_text(encoding="utf-8")


def section_of(text: str, heading: str) -> str:
    """What stands under a heading, up to the next one."""
    found = re.search(rf"^#+ {re.escape(heading)}$\n(.*?)(?=^#+ |\Z)", text, re.DOTALL | re.M)
    if found is None:
        raise LookupError(f"{TEXT} has no heading {heading!r}: AlexNet's page takes what stands under it")
    return found[1]


def table_of(text: str) -> list[list[str]]:
    """The cells of the first Markdown table, its head first."""
    lines = re.findall(r"^\|(.*)\|$", text, re.M)
    return [[cell.strip() for cell in line.split("|")] for line in lines if not re.fullmatch(r"[-:| ]+", line)]


def inline(text: str) -> str:
    """Markdown's `code`, **bold**, *emphasis* and [links] as HTML."""
    text = html.escape(" ".join(text.split()), quote=False)
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", text)
    text = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", text)
    text = re.sub(r"(?<![\w*])\*([^*<>]+?)\*(?![\w*])", r"<em>\1</em>", text)
    return re.sub(r"\[([^\]]*)\]\(([^)]*)\)", lambda link: linked(link[1], link[2]), text)


def linked(text: str, to: str) -> str:
    """A link of the document: into a document, to the heading's line on its page here."""
    path, _, anchor = to.partition("#")
    if "://" in to:
        return f'<a href="{to}">{text}</a>'
    file = (ROOT / TEXT).parent / path if path else ROOT / TEXT
    name = file.resolve().relative_to(ROOT).as_posix()
    headings = {
        re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).replace(" ", "-"): k
        for k, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if line.startswith("#")
    }
    if anchor and anchor not in headings:
        raise LookupError(f"{TEXT} has a link to {to}, and {name} no such heading")
    return source_link(name, text, headings.get(anchor, 0))


def plateau(text: str) -> str:
    """How much the pictures change what fc7 says in a new net, by preset."""
    found = re.findall(r"^(\w+) +fc7 ([\d.]+) \+- ([\d.]+) +logits \+- ([\d.]+)$", text, re.M)
    assert [name for name, *_ in found] == ["paper", "original", "trainable"]
    shares = [f"{percent(float(spread) / float(mean))} in <code>{name}</code>" for name, mean, spread, _ in found]
    there = _see("Known pitfall: the plateau")
    return f"from picture to picture fc7 of a new net varies by {_and(shares)} of its mean {there}."


def conv1(text: str) -> str:
    heading = "conv1's kernels: Figure 3"
    _, *rows = table_of(section_of(text, heading))
    noise, fitted = rows[0], next(row for row in rows if "the preset" in row[0])
    return (
        f"top-1 of the demo set after 3 epochs, with one view and with ten, is {noise[1]} with noise in all directions "
        f"of conv1, {fitted[1]} with these; of photographs after 16 epochs {noise[2]} and {fitted[2]} {_see(heading)}."
    )


def epochs(text: str) -> str:
    rows = {row[0]: row[2] for row in table_of(section_of(text, "Results")) if len(row) == 3}
    short, long = inline(rows["the main job"]), inline(rows["... trained anew, for longer"])
    return f"3 epochs on the demo set: {short}. 10 epochs: {long}."


def order(text: str) -> str:
    """Row 3 says that it changes nothing: computed now, on random numbers."""
    random = np.random.default_rng(0)
    found = []
    for first, then in ((F.relu, pool), (pool, F.relu)):
        x = Tensor(random.standard_normal((2, 8, 13, 13)), True) if not found else Tensor(found[0][0], True)
        y = then(first(x))
        y.backward(np.ones(y.shape))
        found.append((x.numpy(), y.numpy(), x.grad.numpy()))
    (_, y0, dx0), (_, y1, dx1) = found
    assert np.array_equal(y0, y1) and np.array_equal(dx0, dx1)
    return f"on {y0.size} windows of random numbers both orders gave the same bits, when this page was made."


def pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, 2)


def _see(heading: str) -> str:
    lines = document().splitlines()
    at = next(k for k, line in enumerate(lines, 1) if line.lstrip("# ") == heading and line.startswith("#"))
    return f"({source_link(TEXT, 'there', at)})"


EFFECTS: dict[str, Callable[[str], str]] = {
    "3": order,
    "6": plateau,
    "7": lambda text: 'together with <a href="#difference-6">row 6</a>: see there.',
    "8": conv1,
    "14": epochs,
}


PROGRAM = """\
import sys

sys.path.insert(0, "examples")
import minigrad
from alexnet import AlexNet

net = AlexNet()
print(minigrad.summary(net, (1, 3, 224, 224)))
minigrad.draw(net, (1, 3, 224, 224), "alexnet.svg")
"""


def repeat(facts: Facts) -> str:
    return (
        f"<p>Shapes, parameters, multiply-adds and the graph:</p>{code(PROGRAM)}"
        f"<p>The times:</p>{code('python benchmarks/alexnet_layers.py', 'bash')}<p>{html.escape(facts.measured)}</p>"
        "<p>The kernels, from the launches of a step on a stand-in for a card. There minigrad’s own kernels do all "
        "products; on a card cuBLAS does those of fc6, fc7 and fc8, unless <code>minigrad.set_gemm</code> says "
        f"otherwise.</p>{code('python docs/atlas/alexnet_kernels.py', 'bash')}"
        f"<p>The net itself is {source_link('examples/alexnet.py')}. To train it: "
        "<code>python examples/alexnet_imagenet.py</code>.</p>"
    )
