"""The page of the engine: six nodes walked forward and backward, from a run of the engine itself (engine_run.py)."""

from __future__ import annotations

import html
import re

import numpy as np

from minigrad import engine

from . import engine_run
from .engine_run import FORWARD, LEAVES, MADE, OWN, READS, Node, Placed, Run
from .exercises import Exercise
from .exercises import section as exercises_section
from .listing import code, excerpt, function_lines, source_link
from .shell import HERE, Page, Section, figure

LEAD = (
    "<p>What happens between <code>loss.backward()</code> and the gradients, on a graph small enough to look at: six "
    "nodes, one of them read twice. The numbers were recorded from minigrad’s own engine while it ran.</p>"
)

# Where things are in the picture: (x, y, width) of each box, in the picture's own units.
PLACES = {
    "x": (96, 4, 96),
    "w": (208, 4, 96),
    "h": (104, 84, 192),
    "v": (0, 208, 88),
    "r": (104, 186, 192),
    "p": (0, 300, 192),
    "q": (208, 300, 192),
    "m": (104, 402, 192),
    "loss": (104, 504, 192),
}
SIZE = (400, 584)
HEIGHT, LEAF = 74, 52  # of a node's box, of a leaf's
SAYS = {"h": "h = x * w", "r": "r = h.relu()", "p": "p = r * v", "q": "q = r + 1", "m": "m = p * q"}
SAYS["loss"] = "loss = m.sum()"


def numbers(array: np.ndarray) -> str:
    """As the program prints them, in brackets."""
    return re.sub(r"\s+", " ", str(array)).replace("[ ", "[").replace(" ]", "]")


def page() -> Page:
    run = engine_run.record()
    sections = [
        Section("walk", "Forward and back, step by step", walk(run)),
        Section("code", "The same run, by a program of yours", own_code()),
        Section("lines", "The ten lines", ten_lines()),
        Section("diamond", "Two paths into one node", diamond(run)),
        Section("order", "Why the creation number is enough", order(run)),
        Section("freeing", "What is kept, and when it goes", freeing(run)),
        Section("devices", "Two devices", devices()),
        Section("exercises", "Exercises", exercises()),
    ]
    script, css = ((HERE / name).read_text(encoding="utf-8") for name in ("engine.js", "engine.css"))
    return Page("engine", "The engine: six nodes, forward and back", LEAD, sections, script, css)


# ---------------------------------------------------------------- the walk


def walk(run: Run) -> str:
    forward, backward = _lines_of_program(), _printed_by_node()
    steps = []
    for k, node in enumerate(run.nodes):
        title = f"Forward, node {node.order}"
        text = f"<code>{SAYS[node.name]}</code> makes node {node.order}, a <em>{node.op}</em>. {_kept(node)}"
        steps.append(_step(f"forward-{node.name}", title, text, forward[k], picture(run, k + 1, 0)))
    for k, back in enumerate(run.backs):
        node = next(node for node in run.nodes if node.name == back.name)
        title, drawn = f"Back, node {node.order}", picture(run, len(run.nodes), k + 1)
        steps.append(_step(f"backward-{back.name}", title, _told(run, k), backward[k], drawn))
    intro = (
        "<p>Boxes with a number are nodes, in the order of their creation; the others are leaves, the tensors whose "
        "gradient we want. <b class=value>Green</b> numbers are values, <b class=grad>red</b> ones gradients of the "
        "loss.</p>"
    )
    buttons = (
        '<div class="controls" id="buttons" hidden><button type="button" data-go="first">start</button>'
        '<button type="button" data-go="back">◀ back</button><button type="button" data-go="on">on ▶</button>'
        '<span id="where"></span><span class="keys">also by the keys ← and →</span></div>'
    )
    strip = f'<ol class="turns" tabindex="0" aria-label="the steps of the walk">{"".join(steps)}</ol>'
    caption = "Six nodes forward, and back. Each picture is the state after its step."
    return intro + figure("walked", strip, caption, buttons)


def _step(anchor: str, title: str, text: str, printed: str, svg: str) -> str:
    return (
        f'<li class="step" id="step-{anchor}">{svg}<div class="told"><h3>{title}</h3><p>{text}</p>'
        f'<pre class="code" tabindex="0" role="group" aria-label="code and output"><code>{html.escape(printed)}</code>'
        "</pre></div></li>"
    )


def _kept(node: Node) -> str:
    if not node.kept:
        return "Backward will need none of these numbers, so it keeps no array."
    return f"For backward it keeps {_and([f'<code>{name}</code> = {numbers(a)}' for name, a in node.kept.items()])}."


def _and(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _told(run: Run, k: int) -> str:
    """What happens in turn k of the engine's loop."""
    back = run.backs[k]
    node = next(node for node in run.nodes if node.name == back.name)
    before = run.backs[k - 1].gradients if k else {}
    sent = []
    for target, part in back.parts:
        if target in before:
            sent.append(
                f"{numbers(part)} to {target}, where {numbers(before[target])} is already: the sum is "
                f"{numbers(back.gradients[target])}"
            )
        else:
            sent.append(f"{numbers(part)} to {target}")
    begun = "The gradient of the loss by itself" if not k else f"{back.name} is the newest that waits. Its gradient"
    text = f"{begun} is {numbers(back.dy)}. Node {node.order} sends {_and(sent)}, and keeps nothing."
    waiting = [f"{next(n.order for n in run.nodes if n.name == name)} ({name})" for name in back.waiting]
    rest = f"Waiting: {_and(waiting)}." if waiting else "Nobody waits any more: the leaves have their gradients."
    return f"{text} {rest}"


def picture(run: Run, made: int, gone: int) -> str:
    """The graph after `made` nodes have been made and `gone` turns of the way back."""
    nodes = {node.name: node for node in run.nodes}
    seen = {name for name in MADE[:made]}
    back = run.backs[gone - 1] if gone else None
    spent = {one.name for one in run.backs[:gone]}
    gradients = dict(back.gradients) if back else {}
    had = {one.name: one.dy for one in run.backs[:gone]}
    moved = dict(back.parts) if back else {}
    doing = back.name if back else MADE[made - 1]
    title = f"The graph after going back through {back.name}" if back else f"The graph when {doing} has been made"
    parts = [f'<svg viewBox="0 0 {SIZE[0]} {SIZE[1]}" width="{SIZE[0]}" role="img"><title>{title}</title>']
    for target, sources in READS.items():
        for source in sources:
            active = back is not None and doing == target and source in moved
            new = back is None and doing == target
            kind = "moved" if active else "new" if new else "there" if target in seen else "ahead"
            parts.append(_edge(source, target, kind, back=active))
    for name in LEAVES:
        parts.append(_leaf(name, run.values[name], gradients.get(name), name in moved))
    for name in MADE:
        if name not in seen:
            kind = "ahead"
        elif name == doing:
            kind = "doing"
        elif name in spent:
            kind = "spent"
        else:
            kind = "waits" if back and name in back.waiting else "there"
        kept = 0 if name in spent else len(nodes[name].kept)
        assert back is None or kept == back.left[name], name
        parts.append(_box(nodes[name], kind, had.get(name, gradients.get(name)), kept))
    for target, part in moved.items():
        parts.append(_label(target, doing, numbers(part)))
    return "".join(parts) + "</svg>"


def _ends(source: str, target: str) -> tuple[float, float, float, float]:
    """Where an edge begins, at the bottom of its source, and ends, at the top of its target."""
    (sx, sy, sw), (tx, ty, tw) = PLACES[source], PLACES[target]
    down = sy + (LEAF if source in LEAVES else HEIGHT)
    middle_s, middle_t = sx + sw / 2, tx + tw / 2
    return middle_s + (middle_t - middle_s) * 0.15, down, middle_t + (middle_s - middle_t) * 0.4, ty


def _edge(source: str, target: str, kind: str, back: bool) -> str:
    x1, y1, x2, y2 = _ends(source, target)
    if back:
        x1, y1, x2, y2 = x2, y2, x1, y1
    length = ((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5
    ux, uy = (x2 - x1) / length, (y2 - y1) / length
    wings = [f"{x2 - 8 * ux + side * uy:.1f},{y2 - 8 * uy - side * ux:.1f}" for side in (4, -4)]
    tip = f"{x2:.0f},{y2:.0f} {' '.join(wings)}"
    return (
        f'<g class="edge {kind}"><line x1="{x1:.0f}" y1="{y1:.0f}" x2="{x2 - 6 * ux:.1f}" y2="{y2 - 6 * uy:.1f}"/>'
        f'<polygon points="{tip}"/></g>'
    )


def _label(target: str, node: str, text: str) -> str:
    """A part of a gradient on its way from a node up to `target`."""
    x1, y1, x2, y2 = _ends(target, node)
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    wide = 8.2 * len(text) + 6
    return (
        f'<g class="part"><rect x="{x - wide / 2:.0f}" y="{y - 9:.0f}" width="{wide:.0f}" height="18" rx="3"/>'
        f'<text x="{x:.0f}" y="{y + 4.5:.0f}" text-anchor="middle">{text}</text></g>'
    )


def _leaf(name: str, value: np.ndarray, grad: np.ndarray | None, moved: bool) -> str:
    x, y, width = PLACES[name]
    grown = "" if grad is None else f'<text class="g" x="{x + 8}" y="{y + 46}">{numbers(grad)}</text>'
    return (
        f'<g class="leaf{" doing" if moved else ""}">'
        f'<rect x="{x}.5" y="{y}.5" width="{width - 1}" height="{LEAF}" rx="9"/>'
        f'<text x="{x + 8}" y="{y + 17}" class="name">{name}</text>'
        f'<text class="v" x="{x + 8}" y="{y + 31}">{numbers(value)}</text>{grown}</g>'
    )


def _box(node: Node, kind: str, grad: np.ndarray | None, kept: int) -> str:
    x, y, width = PLACES[node.name]
    rows = [
        f'<rect x="{x}.5" y="{y}.5" width="{width - 1}" height="{HEIGHT}" rx="5"/>',
        f'<text class="number" x="{x + 9}" y="{y + 18}">{node.order}</text>',
        f'<text class="name" x="{x + 26}" y="{y + 18}">{SAYS[node.name]}</text>',
    ]
    if kind != "ahead":
        rows.append(f'<text class="v" x="{x + 9}" y="{y + 35}">{numbers(node.value)}</text>')
        keeps = "spent" if kind == "spent" or (kind == "doing" and grad is not None) else "keeps " + " ".join(node.kept)
        keeps = "" if keeps == "keeps " else keeps
        rows.append(f'<text class="kept" x="{x + 9}" y="{y + 68}">{keeps}</text>')
        assert (kept == 0) == (keeps in ("", "spent")), node.name
    if grad is not None:
        rows.append(f'<text class="g" x="{x + 9}" y="{y + 51}">{numbers(grad)}</text>')
    if kind == "waits":
        rows.append(f'<text class="kept" x="{x + width - 9}" y="{y + 68}" text-anchor="end">waits</text>')
    return f'<g class="node {kind}">{"".join(rows)}</g>'


# ---------------------------------------------------------------- the reader's program


def _lines_of_program() -> list[str]:
    """The program's line for each node, and what it prints for it."""
    printed = engine_run.printed().splitlines()
    lines = [line for line in FORWARD.splitlines() if re.match(rf"({'|'.join(MADE)}) = ", line)]
    assert len(lines) == 6 and all(line.split(" = ")[0] == name for line, name in zip(lines, MADE))
    return [f"{line}\n{out}" for line, out in zip(lines, printed)]


def _printed_by_node() -> list[str]:
    """What the program's own way back prints, cut into its turns."""
    blocks: list[str] = []
    for line in engine_run.printed().splitlines()[6:]:
        if line.startswith(" "):
            blocks[-1] += f"\n{line}"
        else:
            blocks.append(line)
    return blocks


def own_code() -> str:
    return (
        "<p>Forward is six lines. The second half is an engine of your own: a dictionary of gradients, a list of nodes "
        "that wait, and the rule that the newest goes first. It asks each node for its parts by "
        "<code>gradients_of</code>, as the real one does, and what it prints is what the pictures show.</p>"
        f'<div class="pair"><div><h3>The program</h3>{code(f"{FORWARD}{chr(10)}{OWN}")}</div>'
        f"{_prints(engine_run.printed())}</div><p>-0. is 0: NumPy keeps the sign of 0 times -2.</p>"
    )


def ten_lines() -> str:
    return (
        "<p>And this is all of the engine that <code>textbook:0</code> runs. A heap in place of the list, for the "
        "newest to be found at once; the rest is the same.</p>"
        + excerpt(*function_lines(engine.backward_in_ten_lines))
        + "<p>On other devices "
        + source_link("minigrad/engine.py", "<code>walk</code>", function_lines(engine.walk)[1])
        + " does the same, and what a framework needs besides: nothing begins on a graph that is spent, sums are made "
        "in place, and Ctrl-C leaves none half added.</p>"
    )


# ---------------------------------------------------------------- the diamond, the order


def diamond(run: Run) -> str:
    nodes = {node.name: node for node in run.nodes}
    backs = {back.name: back for back in run.backs}
    rows = []
    for name in ("q", "p"):
        part = dict(backs[name].parts)["r"]
        how = "1 · dq" if name == "q" else f"{numbers(nodes['p'].kept['b'])} · dp, for p = r * v"
        rows.append(
            f"<tr><td>{nodes[name].order} ({name})</td><td>{numbers(backs[name].dy)}</td><td>{how}</td>"
            f'<td class="grad">{numbers(part)}</td></tr>'
        )
    total = f'<tr><td colspan="3">sum, the gradient of r</td><td class="grad">{numbers(backs["r"].dy)}</td></tr>'
    return (
        "<p>r is read by p and by q. A small change of r reaches the loss on both ways, and what it does there adds "
        "up: so gradients add. Node 2 must not run before both parts have come.</p>"
        f"{_table(['from node', 'its own gradient', 'times', 'part for r'], ''.join(rows) + total)}"
        "<p>The second element of r is 0 because h was negative there. ReLU stops what comes for it: of "
        f"{numbers(backs['r'].dy)}, {numbers(dict(backs['r'].parts)['h'])} goes on to h.</p>"
    )


def order(run: Run) -> str:
    message, _ = engine_run.oldest_first()
    _, wrong = engine_run.oldest_first(check=False)
    ran = _and([str(next(n.order for n in run.nodes if n.name == back.name)) for back in run.backs])
    rows = "".join(
        f'<tr><td>d{name}</td><td class="grad">{numbers(run.grads[name])}</td><td>{numbers(wrong[name])}</td></tr>'
        for name in LEAVES
    )
    return (
        "<p>Whoever reads an output was made after it. So when a node is the newest that waits, all that could "
        "still send it something has run, and its sum is complete. No search, no recursion, no count of readers: "
        f"the way back here was {ran}.</p><p>Turn the rule round, and let the oldest go first. Node 3 comes before "
        "node 4, and node 2 right after it, with half of its gradient. When the other half arrives, the engine "
        "refuses:</p>"
        f'<div class="prints">{code(message, "text")}</div>'
        "<p>Without that check there would be no error, only other numbers:</p>"
        f"{_table(['of', 'newest first', 'oldest first, unchecked'], rows)}"
        "<p>Threads that make nodes at the same time draw their numbers from interleaved sequences, so that the order, "
        "and with it each sum’s last bit, belongs to the program and not to who was faster: "
        f"{_source(engine.Clocks)}.</p>"
    )


def _table(head: list[str], rows: str) -> str:
    named = "".join(f"<th>{cell}</th>" for cell in head)
    return (
        '<div class="scroll-x" tabindex="0" role="group" aria-label="table">'
        f"<table><thead><tr>{named}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _source(thing: object) -> str:
    path, first, _ = function_lines(thing)
    return source_link(path, f"<code>{getattr(thing, '__name__', '')}</code>", first)


# ---------------------------------------------------------------- freeing


def freeing(run: Run) -> str:
    rows = []
    for node in run.nodes:
        kept = ", ".join(f"{name} = {numbers(array)}" for name, array in node.kept.items()) or "–"
        size = sum(array.nbytes for array in node.kept.values())
        turn = 1 + next(i for i, back in enumerate(run.backs) if back.name == node.name)
        rows.append(
            f"<tr><td>{node.order}</td><td><code>{SAYS[node.name]}</code></td><td>{node.op}</td><td>{kept}</td>"
            f"<td>{size}</td><td>{turn}</td></tr>"
        )
    return (
        "<p>An op keeps what its own backward needs, and nothing else. A node drops it as soon as it has run, so that "
        "the memory of a step shrinks on the way back.</p>"
        f"{_table(['node', 'line', 'op', 'keeps', 'bytes', 'dropped in turn'], ''.join(rows))}"
        "<p>Edges lead to nodes, not to tensors. An array that no op has kept lives as long as the program has a name "
        "for it: h goes at once, because ReLU keeps its output and not its input.</p>"
        f"{_program('After the six lines', engine_run.FREEING)}"
        "<p>What a node has kept must not change before it runs. Each array counts its changes in place, the node has "
        "noted the count, and a different one is an error, for a wrong gradient is worse:</p>"
        f"{_program('After the six lines', engine_run.CHANGED)}"
    )


def _prints(text: str) -> str:
    return f'<div class="prints"><h3>What it prints</h3>{code(text, "text")}</div>'


def _program(caption: str, program: str) -> str:
    return (
        f'<div class="pair"><div><h3>{caption}</h3>{code(engine_run.after_forward(program))}</div>'
        f"{_prints(engine_run.printed(program))}</div>"
    )


# ---------------------------------------------------------------- two devices


def devices() -> str:
    printed, nodes, grads = engine_run.on_two_devices()
    copy = next(node for node in nodes if node.op == "copy")
    caption = (
        "A graph on two devices, each node with its creation number; the columns, which were made at the same time, "
        "drew theirs in turn. One edge crosses: it ends in the copy."
    )
    return (
        "<p>Tensors of two devices never meet in an op. <code>.to()</code> is an op itself: it leaves a node, and "
        "its gradient goes home by the same edge. This is how the two columns of AlexNet talk, on two cards or on "
        "two lanes of one processor.</p>"
        + figure("lanes", lanes(nodes, grads), caption)
        + "<p>On the way back each device has a queue of the nodes that are ready, and a worker that takes the "
        f"newest of them. The worker of cpu:1 waits until node {copy.order}, the copy, has sent it something. Parts "
        "that come from several threads are added in the order of the program, whoever is first.</p>"
        f'<div class="pair"><div><h3>The program</h3>{code(engine_run.DEVICES)}</div>'
        f"{_prints(printed)}</div>"
        f"<p>{source_link('minigrad/backward.py')} has the queues, {source_link('minigrad/ops/copy.py')} the copy.</p>"
    )


LANES = {"cpu:0": 0, "cpu:1": 1}


def lanes(nodes: list[Placed], grads: dict[str, np.ndarray]) -> str:
    """Two columns of boxes, one for each device, from top to bottom as the values flow."""
    height, gap, wide, apart = 56, 24, 168, 232
    depth: dict[str, int] = {}
    for node in nodes:
        depth[node.name] = 1 + max((depth[one] for one in node.inputs if one in depth), default=0)
    places = {node.name: (LANES[node.device] * apart, 30 + depth[node.name] * (height + gap)) for node in nodes}
    for name in grads:
        reader = next(node for node in nodes if name in node.inputs)
        places[name] = (places[reader.name][0], 30)
    total = 30 + (max(depth.values()) + 1) * (height + gap) - gap + 14
    parts = [
        f'<svg viewBox="0 0 400 {total}" width="400" role="img"><title>Two lanes of nodes, cpu:0 and cpu:1</title>'
    ]
    for device, lane in LANES.items():
        parts.append(
            f'<rect class="lane" x="{lane * apart}.5" y="0.5" width="{wide - 1}" height="{total - 1}" rx="8"/>'
        )
        parts.append(f'<text class="name" x="{lane * apart + 10}" y="19">{device}</text>')
    for node in nodes:
        for source in node.inputs:
            (sx, sy), (tx, ty) = places[source], places[node.name]
            crosses = sx != tx
            x1, x2 = (sx + 30, tx + wide - 40) if crosses else (sx + wide / 2, tx + wide / 2)
            if not crosses and depth.get(node.name, 0) - depth.get(source, 0) > 1:
                x1 = x2 = sx + 24  # past what lies between
            down = sy + (44 if source in grads else height)
            parts.append(f'<line class="{"cross" if crosses else "along"}" x1="{x1}" y1="{down}" x2="{x2}" y2="{ty}"/>')
    for name, grad in grads.items():
        x, y = places[name]
        parts.append(
            f'<g class="leaf"><rect x="{x + 10}.5" y="{y}.5" width="{wide - 21}" height="44" rx="9"/>'
            f'<text class="name" x="{x + 20}" y="{y + 18}">{name}</text>'
            f'<text class="g" x="{x + 20}" y="{y + 35}">{numbers(grad)}</text></g>'
        )
    for node in nodes:
        x, y = places[node.name]
        left = x + (40 if node.op == "copy" else 10)  # an edge goes past the copy
        value = f'<text class="v" x="{left + 10}" y="{y + 40}">{numbers(node.value)}</text>' if node.value.size else ""
        box = f'width="{x + wide - 11 - left}" height="{height}" rx="5"'
        parts.append(
            f'<g class="node there"><rect x="{left}.5" y="{y}.5" {box}/>'
            f'<text class="number" x="{left + 10}" y="{y + 20}">{node.order}</text>'
            f'<text class="name" x="{left + 34}" y="{y + 20}">{node.op}</text>{value}</g>'
        )
    return "".join(parts) + "</svg>"


# ---------------------------------------------------------------- exercises

PUSHED = "                    heappush(waiting, (-target.order, target))"
SUMMED = "target.device.added(gradients[target], part) if target in gradients else part"
SAME = "test_ten_lines_give_what_walk_gives"
REFUSED = "test_textbook_runs_the_ten_lines_and_refuses_what_the_others_refuse"
EXERCISES = [
    Exercise(
        file="minigrad/engine.py",
        line=PUSHED,
        broken=PUSHED.replace("-target", "target"),
        tests="tests/test_engine.py",
        red=(SAME,),
        green=("test_a_diamond_is_visited_once",),
        question="The oldest first. What notices it?",
        why="Only graphs in which a node is read by nodes of different age. The diamond of the other test has them, "
        "too, but it is on cpu:0, where <code>walk</code> goes back.",
    ),
    Exercise(
        file="minigrad/engine.py",
        line="        node.release()  # its arrays are not needed any more",
        broken="        pass",
        tests="tests/test_engine.py",
        red=(SAME, REFUSED),
        question="Nothing is freed. Does anybody mind?",
        why="A second backward is not refused any more, and would add the same gradients once more. And the memory of "
        "a step would stay until its graph is gone.",
    ),
    Exercise(
        file="minigrad/engine.py",
        line=f"                gradients[target] = {SUMMED}",
        broken="                gradients[target] = part",
        tests="tests/test_engine.py",
        red=(SAME, REFUSED),
        question="The last part in place of the sum.",
        why="Whatever is read twice gets the gradient of one path alone.",
    ),
]


def exercises() -> str:
    more = source_link("docs/path.md", "the path")
    return f"{exercises_section(EXERCISES)}<p>More of them, from ReLU to two columns: {more}.</p>"
