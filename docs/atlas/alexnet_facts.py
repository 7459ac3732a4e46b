"""What AlexNet's page says of each layer: from a run of the net, from its launches on a card, and from a benchmark."""

from __future__ import annotations

import functools
import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import minigrad
from minigrad import init
from minigrad.tools.drawing import Drawing

from .listing import ROOT

TIMES = "benchmarks/results/alexnet_layers.md"
BEFORE = {"copy", "concat", "reshape"}  # ops that bring a layer what it reads


@dataclass
class Half:
    """One column's share of a layer."""

    device: str
    output: tuple[int, ...]  # of one image
    result: tuple[int, ...]  # after what follows the layer: ReLU, normalisation, pooling
    parameters: int
    multiply_adds: int  # for one image


@dataclass
class Timed:
    """An op of a layer in a training step."""

    op: str
    forward: float  # seconds
    backward: float
    share: float  # of the step
    kernels: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  # phase -> (file, kernel)


@dataclass
class Layer:
    name: str
    kind: str  # Conv2d or Linear
    weight: tuple[int, ...]  # of one column
    stride: int
    padding: Any  # an int, or ((top, bottom), (left, right))
    halves: list[Half]
    reads: list[str]  # the layers whose results it reads
    talks: bool  # whether it reads both columns
    follows: list[str]  # ops after it, in order
    ops: list[Timed]

    @property
    def parameters(self) -> int:
        return sum(half.parameters for half in self.halves)

    @property
    def multiply_adds(self) -> int:
        return sum(half.multiply_adds for half in self.halves)

    @property
    def share(self) -> float:
        """Of the time of a training step."""
        return sum(op.share for op in self.ops)


@dataclass
class Facts:
    layers: list[Layer]
    drawing: Drawing
    others: dict[str, list[Timed]]  # the loss, the update of the weights
    parameters: int
    multiply_adds: int
    measured: str  # how the times were measured, in the words of the benchmark
    batch: int

    def layer(self, name: str) -> Layer:
        return next(layer for layer in self.layers if layer.name == name)


@contextmanager
def undrawn() -> Iterator[None]:
    """Inside, first weights are not drawn: 61 million numbers that nobody looks at."""
    kept = init.normal_, init.he_normal_
    init.normal_ = init.he_normal_ = lambda tensor, **settings: tensor  # type: ignore[assignment]
    try:
        yield
    finally:
        init.normal_, init.he_normal_ = kept


@functools.cache
def facts() -> Facts:
    sys.path.append(str(ROOT / "examples"))
    try:
        from alexnet import LAYERS, AlexNet
    finally:
        sys.path.remove(str(ROOT / "examples"))
    shape = (1, 3, 224, 224)
    with undrawn():
        net = AlexNet(devices=("cpu:0", "cpu:1"))
    drawing, summary = minigrad.draw(net, shape), minigrad.summary(net, shape)
    rows = {layer.name: layer for layer in summary.layers}
    timed, measured, batch = times()
    for layer, op, phase, file, kernel in launched():
        of_layer = next((one for one in timed.setdefault(layer, []) if one.op == op), None)
        if of_layer is not None:
            of_layer.kernels.setdefault(phase, []).append((file, kernel))
    layers = []
    for name in LAYERS:
        boxes = [i for i, node in enumerate(drawing.nodes) if any(line.startswith(f"{name}: ") for line in node.lines)]
        halves = []
        for box in boxes:
            node = drawing.nodes[box]
            column = next(i for i, device in enumerate(net.devices) if device == node.group)
            row = rows[f"columns.{column}.{name}"]
            assert shape_of(node.lines[1 + _title(node.lines)]) == row.outputs[0] and row.device == node.group
            result = shape_of(next(line for line in reversed(node.lines) if re.fullmatch(r"[\d x]+", line)))
            halves.append(Half(node.group, row.outputs[0][1:], result[1:], row.parameters, row.multiply_adds))
        module = getattr(net.columns[0], name)
        reads = [edge for edge in drawing.edges if edge.end in boxes]
        lines = drawing.nodes[boxes[0]].lines
        words = ", ".join(line for line in lines[_title(lines) + 2 :] if not re.fullmatch(r"[\d x]+", line)).split(", ")
        layers.append(
            Layer(
                name,
                type(module).__name__,
                module.weight.shape,
                getattr(module, "stride", 1),
                getattr(module, "padding", 0),
                halves,
                list(dict.fromkeys(name_of(drawing.nodes[edge.start].lines) for edge in reads)),
                any(edge.crossing for edge in reads),
                ["dropout" if word == "multiply" else word for word in words if word],
                timed.pop(name),
            )
        )
    return Facts(layers, drawing, timed, summary.parameters, summary.multiply_adds, measured, batch)


def _title(lines: list[str]) -> int:
    """Which line of a box names its layer."""
    return next(i for i, line in enumerate(lines) if ": " in line)


def name_of(lines: list[str]) -> str:
    return next((line.split(": ")[0] for line in lines if ": " in line), lines[0])


def shape_of(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(" x ")))


def times() -> tuple[dict[str, list[Timed]], str, int]:
    """By layer, the ops of a training step with their times; what the benchmark says of them, and its batch."""
    text = (ROOT / TIMES).read_text(encoding="utf-8")
    found: dict[str, list[Timed]] = {}
    row = r"^\| (\w+) \| (\w+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+)% \|$"
    for layer, op, forward, backward, share in re.findall(row, text, re.M):
        found.setdefault(layer, []).append(Timed(op, float(forward), float(backward), float(share) / 100))
    total = sum(one.share for ops in found.values() for one in ops)
    assert math.isclose(total, 1, abs_tol=0.005), f"{TIMES}: the shares are {total:.1%} together"
    _, machine, how, *_ = re.split(r"\n\s*\n", text)
    batch = re.search(r"Batch (\d+)", how)
    assert batch, f"{TIMES} names no batch"
    return found, " ".join(f"{machine}. {how}".split()), int(batch[1])


@functools.cache
def launched() -> list[tuple[str, str, str, str, str]]:
    """(layer, op, phase, file, kernel) of a training step on a card."""
    script = ROOT / "docs" / "atlas" / "alexnet_kernels.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise RuntimeError(f"{script.name} failed:\n{done.stderr}")
    return [tuple(one) for one in json.loads(done.stdout)]  # type: ignore[misc]
