"""One run of a model with somebody looking: `summary` and `draw` are told of every op and of every call of a module.

The run leaves the model as it was: nothing is recorded for backward, dropout is off meanwhile, and no random number is
drawn.  It shows the model as a whole: devices take turns, and `in_chunks` keeps the batch together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from ..base.arguments import integer
from ..base.grad_mode import no_grad
from ..device import default_device
from ..errors import ArgumentError
from ..nn import Module
from ..processor.chunks import whole_batches
from ..processor.parallel import in_turn
from ..tensor import Tensor
from . import tracing

OpSeen = Callable[[Any, tuple[Any, ...], Any, str], None]  # function, arrays, result, name of the module at work
CallSeen = Callable[[str, Any], None]  # name of the module, its output

_stack: ContextVar[tuple[str, ...]] = ContextVar("minigrad_modules_at_work", default=())


def run(model: Module, inputs: Sequence[Any], op_seen: OpSeen, call_seen: CallSeen) -> Any:
    """model(*inputs), and what it returns.  `op_seen` is called after each op, `call_seen` after each call of a module.

    The name of the module at work is that of the innermost whose forward is running: "" for the model itself.
    """
    modules = dict(model.named_modules())
    modes = {name: module.training for name, module in modules.items()}
    try:
        with ExitStack() as stack:
            for block in (no_grad(), whole_batches(), in_turn(), _listening(op_seen)):
                stack.enter_context(block)
            for name, module in modules.items():
                module.training = False
                stack.enter_context(module.register_forward_pre_hook(_begin(name)))
                stack.enter_context(module.register_forward_hook(_end(call_seen)))
            return model(*inputs)
    finally:
        _stack.set(())
        for name, module in modules.items():
            module.training = modes[name]


def example_inputs(who: str, model: Any, given: tuple[Any, ...]) -> list[Tensor]:
    """Tensors for a model's forward: those given, and for each shape given random numbers between 0 and 1.

    They are of the device and dtype of the model's first parameter, and the same each time.
    ArgumentError for what is no Module, and for what is neither a shape, with the batch, nor a Tensor.
    """
    if not isinstance(model, Module):
        raise ArgumentError(f"{who}: model must be a Module, got {type(model).__name__}: {who}(net, (1, 3, 224, 224))")
    rule = f"{who}: give for each argument of forward its shape, batch included, or a Tensor"
    if not given:
        raise ArgumentError(f"{rule}: {who}(net, (1, 3, 224, 224))")
    first = next(model.parameters(), None)
    where, dtype = (default_device(), np.dtype(np.float32)) if first is None else (first.device, first.dtype)
    rng, inputs = np.random.default_rng(0), []
    for one in given:
        if isinstance(one, Tensor):
            inputs.append(one)
        elif isinstance(one, (tuple, list)):
            shape = tuple(integer(f"{who}: shape", "a side", side, 0) for side in one)
            inputs.append(Tensor(rng.random(shape, np.float32), device=where, dtype=dtype))
        else:
            raise ArgumentError(f"{rule}, got {type(one).__name__} {one!r:.60}: {who}(net, (1, 3, 224, 224))")
    return inputs


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors that a forward has returned, out of lists, tuples and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple, Mapping)):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from tensors_in(one)


def _begin(name: str) -> Callable[..., None]:
    def begin(module: Module, args: Any) -> None:
        _stack.set((*_stack.get(), name))

    return begin


def _end(call_seen: CallSeen) -> Callable[..., None]:
    def end(module: Module, args: Any, output: Any) -> None:
        *outer, name = _stack.get()
        _stack.set(tuple(outer))
        call_seen(name, output)

    return end


@contextmanager
def _listening(op_seen: OpSeen) -> Iterator[None]:
    before = tracing.recorder
    tracing.recorder = _Listener(before, op_seen)
    try:
        yield
    finally:
        tracing.recorder = before


class _Listener(tracing.PassingOn):
    """Tells of each op.

    Ops of other threads, which compute something else, pass by.
    """

    def __init__(self, inner: tracing.Recorder | tracing.PassingOn | None, op_seen: OpSeen):
        super().__init__(inner)
        self.op_seen = op_seen

    def forward(self, function: Any, *arrays: Any) -> Any:
        y = super().forward(function, *arrays)
        stack = _stack.get()
        if stack:
            self.op_seen(function, arrays, y, stack[-1])
        return y
