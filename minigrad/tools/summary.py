"""`minigrad.summary(model, shape)`: the layers of a model, what comes out of each, and what it costs.

    print(minigrad.summary(net, (1, 1, 28, 28)))

    layer          output           parameters  multiply-adds
    Sequential     1 x 10
      0: Conv2d    1 x 6 x 24 x 24         156         89,856
      ...

Source: the figures are those of torchinfo 1.8 (github.com/TylerYep/torchinfo), where it counts as this does: see
Summary.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable
from typing import Any, NamedTuple

from ..errors import printable
from ..nn import Module
from ..tensor import Tensor
from . import html
from .model_run import example_inputs, run, tensors_in


class Layer(NamedTuple):
    """One row of a Summary: a module of the model."""

    name: str  # dotted, "" for the model itself
    kind: str  # its class
    calls: int  # how often its forward ran
    outputs: tuple[tuple[int, ...], ...]  # the shapes of what came out, in the last call
    device: str  # of its parameters, or of what came out; "" where there is neither
    parameters: int  # numbers that it holds itself, not its submodules; those of a shared Parameter count once
    trainable: int  # those of them that are not frozen
    multiply_adds: int  # of its own ops, not its submodules', in all calls


class Summary:
    """What one run of a model has shown: the rows, in `layers`, and sums over them.  Printed, it is a table.

    parameters, trainable: how many numbers; torchinfo's Total params and Trainable params.
    multiply_adds: of convolutions and matrix products, batch included, by the ops' own formulas, where adding a bias
        counts as one multiply-add for each output.  torchinfo's total mult-adds for layers like Conv2d and Linear with
        (N, features); it counts the scales of a normalisation besides, only one of the rows of (N, T, features), and
        nothing that is computed without a layer (`x @ w`).
    input_bytes, parameter_bytes: what the given tensors and the parameters hold.
    pass_bytes: torchinfo's forward/backward pass size, an estimate: twice what comes out of each call of a layer with
        parameters, once for itself and once for its gradient; and of each op that reads a parameter outside of such a
        layer, which torchinfo passes over.  What a step really takes depends on what the ops keep.
    total_bytes: the sum of these three.
    """

    def __init__(self, layers: list[Layer], input_bytes: int, parameter_bytes: int, pass_bytes: int):
        self.layers = layers
        self.parameters = sum(layer.parameters for layer in layers)
        self.trainable = sum(layer.trainable for layer in layers)
        self.multiply_adds = sum(layer.multiply_adds for layer in layers)
        self.input_bytes, self.parameter_bytes, self.pass_bytes = input_bytes, parameter_bytes, pass_bytes
        self.total_bytes = input_bytes + parameter_bytes + pass_bytes

    def __str__(self) -> str:
        rows = self._rows()
        columns = []
        for number, cells in enumerate(zip(*rows)):
            width = max(map(len, cells))
            columns.append([cell.ljust(width) if number < len(rows[0]) - 2 else cell.rjust(width) for cell in cells])
        return "\n".join(["  ".join(cells).rstrip() for cells in zip(*columns)] + ["", *self._sums()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = self._rows()
        return html.table(rows, len(rows[0]) - 2) + html.pre("\n".join(self._sums()))

    def _rows(self) -> list[list[str]]:
        """The table; with a column for devices, where there are several."""
        several = len({layer.device for layer in self.layers} - {""}) > 1
        rows = [["layer", "output", *(["device"] if several else []), "parameters", "multiply-adds"]]
        depths = {"": 0}
        for layer in self.layers:
            above = _holder(layer.name, depths)
            depths[layer.name] = depths[above] + 1 if layer.name else 0
            own = layer.name.removeprefix(f"{above}.")
            title = "  " * depths[layer.name] + (f"{printable(own)}: {layer.kind}" if layer.name else layer.kind)
            outputs = ", ".join(" x ".join(map(str, shape)) or "()" for shape in layer.outputs)
            if layer.calls != 1:
                outputs += f"  ({layer.calls} times)" if layer.calls else "not called" if layer.parameters else ""
            parameters = f"{layer.parameters:,}" if layer.parameters else ""
            if layer.trainable < layer.parameters:
                parameters += " (frozen)" if not layer.trainable else f" ({layer.trainable:,} trained)"
            costs = f"{layer.multiply_adds:,}" if layer.multiply_adds else ""
            rows.append([title, outputs, *([layer.device] if several else []), parameters, costs])
        return rows

    def _sums(self) -> list[str]:
        frozen = self.parameters - self.trainable
        sizes = (self.input_bytes, self.parameter_bytes, self.pass_bytes, self.total_bytes)
        given, held, passed, total = (f"{size / 1e6:,.2f} MB" if size >= 1e4 else f"{size:,} bytes" for size in sizes)
        return [
            f"parameters     {self.parameters:,}" + (f", {frozen:,} of them frozen" if frozen else ""),
            f"multiply-adds  {self.multiply_adds:,}",
            f"memory         about {total}: input {given}, parameters {held}, layers' outputs and gradients {passed}",
        ]


def summary(model: Module, *inputs: Any) -> Summary:
    """Run a model once, and list its layers: output shapes, parameters, multiply-adds, memory.

    inputs: for each argument of forward its shape, batch included, or a Tensor: `summary(net, (1, 3, 224, 224))`.
    For shapes the model gets random numbers between 0 and 1 of its own device and dtype.  It runs in eval mode, whole
    and without a graph, and is left as it was; what is drawn at random elsewhere does not change.
    What a forward computes by itself, between its submodules, counts for the module whose forward it is.
    ArgumentError for what is no Module, shape or Tensor; whatever the model raises on such inputs.
    """
    given = example_inputs("summary", model, inputs)
    costs: dict[str, int] = {}
    shapes: dict[str, tuple[tuple[int, ...], ...]] = {}
    places: dict[str, str] = {}
    modules = dict(model.named_modules())
    own: dict[str, list[Tensor]] = {name: [] for name in modules}
    for name, parameter in model.named_parameters():
        own[_holder(name, modules)].append(parameter)
    leaves = {name for name, module in modules.items() if name and next(module.children(), None) is None}
    weights = {id(parameter.data) for parameter in model.parameters()}
    count = dict.fromkeys(modules, 0)
    passed = 0

    def op_seen(function: Any, arrays: tuple[Any, ...], y: Any, module: str) -> None:
        nonlocal passed
        costs[module] = costs.get(module, 0) + _multiply_adds(function, arrays, y)
        if module not in leaves and any(id(array) in weights for array in arrays):
            passed += 2 * y.nbytes

    def call_seen(name: str, output: Any) -> None:
        nonlocal passed
        tensors = list(tensors_in(output))
        count[name] += 1
        shapes[name] = tuple(tensor.shape for tensor in tensors)
        places[name] = ", ".join(dict.fromkeys(str(tensor.device) for tensor in tensors))
        if own[name] and name in leaves:
            passed += 2 * _bytes(tensors)

    run(model, given, op_seen, call_seen)
    layers = []
    for name, module in modules.items():
        held = own[name]
        where = ", ".join(dict.fromkeys(str(p.device) for p in held)) or places.get(name, "")
        trainable = sum(p.size for p in held if p.requires_grad)
        facts = (count[name], shapes.get(name, ()), where, sum(p.size for p in held), trainable, costs.get(name, 0))
        layers.append(Layer(name, type(module).__name__, *facts))
    return Summary(layers, _bytes(given), _bytes(model.parameters()), passed)


def _holder(name: str, modules: Container[str]) -> str:
    """The module that holds what has this dotted name: there may be lists and keys between, "blocks.0.weight"."""
    above = name.rpartition(".")[0]
    while above not in modules:
        above = above.rpartition(".")[0]
    return above


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.data.nbytes for tensor in tensors)


def _multiply_adds(function: Any, arrays: tuple[Any, ...], y: Any) -> int:
    """Of one run of an op; a bias, the third input of a convolution or a linear layer, is one for each output."""
    products = function.flops(*arrays) // 2
    return products + math.prod(y.shape) if products and len(arrays) == 3 else products
