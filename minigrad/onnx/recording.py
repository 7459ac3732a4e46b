"""The ops that a model runs, written down while it runs as nodes of ONNX.

Values are known by their arrays: `apply` gives an op the arrays of its inputs, and the array that comes out is that of
the output's tensor.  An array that no op has made and the model does not hold is a constant; that it is one, and does
not depend on the input, a second recording shows (exporting.py).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..errors import GraphError
from ..processor.chunks import whole_batches
from ..processor.parallel import in_turn
from ..tools import tracing


class Step(NamedTuple):
    """One node of ONNX."""

    op: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, Any]


@dataclass
class Recording:
    """The nodes, and the constants among their inputs, by name.

    sizes: those constants that are shapes, and may depend on how many images there are.
    """

    names: dict[int, str] = field(default_factory=dict)  # id of an array -> its name
    held: list[Any] = field(default_factory=list)  # the arrays, so that nothing else gets their ids
    steps: list[Step] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    sizes: set[str] = field(default_factory=set)
    refused: dict[str, int] = field(default_factory=dict)  # what cannot be written -> how often
    taken: set[str] = field(default_factory=set)

    def enter(self, array: Any, name: str) -> None:
        """From now on this array has this name."""
        self.names[id(array)] = name
        self.held.append(array)
        self.taken.add(name)

    def name_of(self, array: Any, device: Any) -> str:
        """The name of an array; a constant where nobody has given it one."""
        if id(array) not in self.names:
            values = np.array(array if isinstance(array, np.generic) else device.to_host(array))
            self.enter(array, self.constant(values))
        return self.names[id(array)]

    def constant(self, values: np.ndarray) -> str:
        name = self._free("constant")
        self.constants[name] = values
        return name

    def name_output(self, source: str, name: str) -> None:
        """Call a value `name`: the output of the node that makes it, or else that of one more node."""
        made = next((i for i, step in enumerate(self.steps) if step.output == source), None)
        if made is None or source.startswith("output"):
            self.steps.append(Step("Identity", (source,), name, {}))
            return
        self.steps[made] = self.steps[made]._replace(output=name)
        for i, step in enumerate(self.steps):
            self.steps[i] = step._replace(inputs=tuple(name if used == source else used for used in step.inputs))
        self.names = {key: name if known == source else known for key, known in self.names.items()}

    # ---------------------------------------------------------------- what writers.py calls

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node; the name of its output."""
        output = self._free(op.lower())
        self.steps.append(Step(op, inputs, output, attributes))
        return output

    def shape(self, sizes: Sequence[int]) -> str:
        """A constant: a shape, in which one size may change with the number of images."""
        name = self.constant(np.array(sizes, np.int64))
        self.sizes.add(name)
        return name

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def number(self, value: float, dtype: Any) -> str:
        return self.constant(np.array(value, dtype))

    def _free(self, word: str) -> str:
        number = len(self.steps) + len(self.constants)
        while f"{word}_{number}" in self.taken:
            number += 1
        self.taken.add(f"{word}_{number}")
        return f"{word}_{number}"


class Ran(NamedTuple):
    """An op that has run: what a writer is told of it."""

    function: Any
    names: list[str]  # of its inputs
    xs: Sequence[Any]  # and their arrays
    y: Any
    out: Recording


Writers = dict[type, Callable[[Ran], str]]


class _Listener(tracing.PassingOn):
    """Writes down the ops of one thread."""

    def __init__(self, recording: Recording, writers: Writers):
        super().__init__(tracing.recorder)
        self.recording, self.writers = recording, writers
        self.thread = threading.get_ident()

    def forward(self, function: Any, *arrays: Any) -> Any:
        y = super().forward(function, *arrays)
        if threading.get_ident() == self.thread:  # what others do meanwhile is theirs
            self._note(function, arrays, y)
        return y

    def _note(self, function: Any, arrays: Sequence[Any], y: Any) -> None:
        out, writer = self.recording, self.writers.get(type(function))
        source = getattr(function, "source", function.device)  # the op copy has its input elsewhere
        names = [out.name_of(array, source) for array in arrays]
        try:
            if writer is None:
                raise UnwritableError(type(function).__name__)
            output = writer(Ran(function, names, arrays, y, out))
        except UnwritableError as reason:  # goes on, so that all of it can be told
            output = out.node(type(function).__name__, *names)
            out.refused[str(reason)] = out.refused.get(str(reason), 0) + 1
        out.enter(y, output)


class UnwritableError(Exception):
    """An op with settings that no node of ONNX has; the message names them."""


@contextmanager
def listening(recording: Recording, writers: Writers) -> Iterator[None]:
    """Inside, the ops of this thread are written down: one device after the other, and batches whole."""
    before = tracing.recorder
    tracing.recorder = _Listener(recording, writers)
    try:
        with in_turn(), whole_batches():
            yield
    finally:
        tracing.recorder = before


def merged(first: Recording, second: Recording, images: tuple[int, int]) -> dict[str, np.ndarray]:
    """The constants of two recordings of one model, on other images and another number of them.

    A size that differs becomes -1, "what remains".  GraphError where anything else does: the file would hold what was
    right for one input alone.
    """
    a, b = first.steps, second.steps
    if [step.op for step in a] != [step.op for step in b]:
        place = next((i for i, (x, y) in enumerate(zip(a, b)) if x.op != y.op), min(len(a), len(b)))
        seen = [steps[place].op if place < len(steps) else "nothing more" for steps in (a, b)]
        raise GraphError(
            f"export: which ops the model runs depends on the images: its op number {place} was {seen[0]}, and "
            f"{seen[1]} for others: a file holds one way alone, so keep `if` out of forward"
        )
    for x, y in zip(a, b):
        if x != y:
            raise GraphError(
                f"export: settings of {x.op} ({x.output}) depend on the images, or on their number: {x.attributes} "
                f"for {images[0]}, {y.attributes} for {images[1]}: take them from the model"
            )
    constants = {}
    for name, values in first.constants.items():
        constants[name] = _same(name, values, second.constants[name], name in first.sizes, images)
    return constants


def _same(name: str, a: np.ndarray, b: np.ndarray, is_shape: bool, images: tuple[int, int]) -> np.ndarray:
    if a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes():
        return a
    if is_shape and a.shape == b.shape and (a != b).sum() == 1:
        return np.where(a == b, a, -1)
    what = (
        f"a shape, {a.tolist()} for {images[0]} image(s) and {b.tolist()} for {images[1]}"
        if is_shape
        else f"an array {a.shape} that no op has made ({name})"
    )
    raise GraphError(
        f"export: {what}, changes with the input, and the file would hold that of the example: compute it with ops on "
        "the input (no .numpy(), .item() or .data on the way), and let one size alone depend on the batch"
    )
