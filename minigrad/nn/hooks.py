"""Hooks: functions of yours that a module calls whenever it runs, and whenever gradients have come back through it.

    maps = []
    with net.conv1.register_forward_hook(lambda module, args, output: maps.append(output)):
        net(images)                                         # maps[0]: what conv1 made of them

    with net.conv5.register_full_backward_hook(lambda module, grad_input, grad_output: print(grad_output[0].shape)):
        F.cross_entropy(net(images), labels).backward()     # the gradient of conv5's output, once it is known

For backward hooks, what goes into a module and what comes out passes a node of the graph, `Watch`, which computes
nothing: y = x, dx = dy.  Its way back is where the gradients are seen.

Hooks belong to the module object: they are neither saved nor copied with it, and what they hold is no part of the
model.  Where the module runs, they run: inside in_chunks once for each chunk, on its threads (whole_batches() keeps
the batch together), and on a device's own thread under on_devices.

Source: the names, the arguments and the order of the calls are those of PyTorch's torch.nn.Module.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any
from weakref import WeakKeyDictionary, ref

from ..base.grad_mode import is_grad_enabled, no_grad
from ..device import Device
from ..engine import Array, Function
from ..errors import ArgumentError, GraphError
from ..tensor import Tensor, apply, wrap

__all__ = ["Handle", "Hooked"]

Hook = Callable[..., Any]
Kinds = dict[str, dict[int, Hook]]  # "forward_pre", "forward", "backward" -> the hooks, in the order they came

_hooked: WeakKeyDictionary[Any, Kinds] = WeakKeyDictionary()
_numbers = count()


class Handle:
    """What registering a hook returns: `remove()` takes the hook away again, and so does the end of a with block."""

    def __init__(self, module: Any, kind: str, number: int):
        self._module, self._kind, self._number = ref(module), kind, number

    def remove(self) -> None:
        """Take the hook away; nothing happens where that was done before."""
        module: Any = self._module()
        kinds = {} if module is None else _hooked.get(module, {})
        kinds.get(self._kind, {}).pop(self._number, None)
        if kinds and not any(kinds.values()):
            del _hooked[module], module._has_hooks

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


class Hooked:
    """What can be called, and has hooks: the part of Module that does not know parameters."""

    forward: Callable[..., Any]
    _has_hooks = False  # of the object, once it has some: looked at in every call, and a look at _hooked takes longer

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self._has_hooks:
            return self.forward(*args, **kwargs)
        return _call(self, _hooked.get(self, {}), args, kwargs)

    def register_forward_pre_hook(self, hook: Hook) -> Handle:
        """Call `hook(module, args)` before each forward; args: the positional arguments, a tuple.

        What it returns takes the place of args (one value that is no tuple: of a single argument); None changes
        nothing.  ArgumentError for a hook that cannot be called.
        """
        return _register(self, "forward_pre", hook)

    def register_forward_hook(self, hook: Hook) -> Handle:
        """Call `hook(module, args, output)` after each forward.

        What it returns takes the place of the output; None changes nothing.  ArgumentError for a hook that cannot be
        called.
        """
        return _register(self, "forward", hook)

    def register_full_backward_hook(self, hook: Hook) -> Handle:
        """Call `hook(module, grad_input, grad_output)` in backward, once for each forward whose outputs it reaches.

        grad_output: a tuple, for each output (one Tensor, or those of a list or tuple) the gradient of the loss with
        respect to it; None where none came.  grad_input: the same for each positional argument; None where it is no
        Tensor or needs no gradient, as the images of a first layer do not.  The gradients are Tensors of the shapes,
        dtypes and devices of what they belong to, and are only to be read, or kept.

        A hook may return what takes the place of grad_input: a Tensor, or a tuple with one entry for each positional
        argument.  This goes for modules with one argument that needs a gradient; those of several go on as they come,
        each by itself, and only the last of them is waited for.

        Called when the gradients of all arguments that reach the outputs are known; where no argument needs one, when
        those of all outputs are.  Ops in a hook record nothing.
        ArgumentError for a hook that cannot be called.  From backward, GraphError: a gradient was changed in place, or
        what came back does not fit.
        """
        return _register(self, "backward", hook)


def _register(module: Any, kind: str, hook: Hook) -> Handle:
    if not callable(hook):
        raise ArgumentError(
            f"{type(module).__name__}: a hook must be a function, got {type(hook).__name__}: give its name, without ()"
        )
    number = next(_numbers)
    _hooked.setdefault(module, {}).setdefault(kind, {})[number] = hook
    module._has_hooks = True
    return Handle(module, kind, number)


def _call(module: Any, kinds: Kinds, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Forward, with the hooks around it.  The lists are copied: a hook may remove itself."""
    for hook in list(kinds.get("forward_pre", {}).values()):
        replaced = hook(module, args)
        if replaced is not None:
            args = replaced if isinstance(replaced, tuple) else (replaced,)
    hooks = list(kinds.get("backward", {}).values()) if is_grad_enabled() else []
    way_back = _WayBack(module, hooks, len(args)) if hooks else None
    watched, nodes = way_back.arguments(args) if way_back else (args, {})
    output = module.forward(*watched, **kwargs)
    for hook in list(kinds.get("forward", {}).values()):
        replaced = hook(module, args, output)
        if replaced is not None:
            output = replaced
    return way_back.outputs(output, nodes) if way_back else output


# ---------------------------------------------------------------- backward


class Watch(Function, name="hook"):
    """y = x, dx = dy, and `seen(dy)` on the way back: it returns None, or what is to go on in the place of dy."""

    def __init__(self, seen: Callable[[Array], Array | None]):
        self.seen = seen

    def forward(self, x: Array) -> Array:
        return x

    def backward(self, dy: Array) -> Array:
        replaced = self.seen(dy)
        return dy if replaced is None else replaced

    forward_gpu, backward_gpu = forward, backward


class _WayBack:
    """One call of a module, and the gradients that have come back through it so far.

    An argument's node is older than the nodes of the module, and those are older than an output's: backward goes from
    the outputs to the arguments.  `reach` says, for each output, which arguments it depends on.
    """

    def __init__(self, module: Any, hooks: list[Hook], arguments: int):
        self.module, self.hooks, self.name = module, hooks, type(module).__name__
        self.grad_input: list[Tensor | None] = [None] * arguments
        self.awaited: set[int] = set()  # the arguments whose gradients are under way

    # The graph holds this object.  It holds no node, and no tensor of the way forward: that would be a circle.

    def arguments(self, args: tuple[Any, ...]) -> tuple[tuple[Any, ...], dict[int, Watch]]:
        """The arguments, seen by us on their way back, and the nodes of those that need a gradient, by place."""
        watched, nodes = list(args), {}
        for i, arg in enumerate(args):
            if isinstance(arg, Tensor) and arg.requires_grad:
                nodes[i] = Watch(self._input_seen(i, arg.device))
                watched[i] = apply(nodes[i], arg)
        self.replaceable = len(nodes) == 1
        return tuple(watched), nodes

    def outputs(self, output: Any, nodes: dict[int, Watch]) -> Any:
        """The output as it was, but seen by us on its way back."""
        several = isinstance(output, (list, tuple))
        watched = list(output) if several else [output]
        self.grad_output: list[Tensor | None] = [None] * len(watched)
        self.outputs_left = 0
        for i, one in enumerate(watched):
            if not isinstance(one, Tensor):
                raise GraphError(
                    f"{self.name}: a backward hook needs an output that is a Tensor, or a list or tuple of them, this "
                    f"has a {type(one).__name__}: put the hook on a module inside it"
                )
            if one.requires_grad:
                reach = frozenset(place for place, argument in nodes.items() if _leads_to(one.node, argument))
                watched[i] = apply(Watch(self._output_seen(i, one.device, reach)), one)
                self.outputs_left += 1
        if not several:
            return watched[0]
        return type(output)(*watched) if hasattr(output, "_fields") else type(output)(watched)  # a named tuple or not

    def _output_seen(self, i: int, where: Device, reach: frozenset[int]) -> Callable[[Array], None]:
        def seen(dy: Array) -> None:
            self.grad_output[i] = wrap(dy, where)
            self.awaited |= reach
            self.outputs_left -= 1
            if not self.awaited and not self.outputs_left:
                self._call_hooks(None)

        return seen

    def _input_seen(self, i: int, where: Device) -> Callable[[Array], Array | None]:
        def seen(dy: Array) -> Array | None:
            self.grad_input[i] = wrap(dy, where)
            self.awaited.discard(i)
            return None if self.awaited else self._call_hooks(i)

        return seen

    def _call_hooks(self, last: int | None) -> Array | None:
        """Run the hooks; what they want to go on in the place of the gradient of argument `last`, a copy, or None."""
        new: Tensor | None = None
        for hook in self.hooks:
            shown = [g for g in (*self.grad_input, *self.grad_output) if g is not None]
            before = [g.version.value for g in shown]
            with no_grad():
                result = hook(self.module, tuple(self.grad_input), tuple(self.grad_output))
            if [g.version.value for g in shown] != before:
                raise GraphError(
                    f"{self.name}: a backward hook has changed a gradient in place, which others read too: return a "
                    "new one"
                )
            results = result if isinstance(result, (tuple, list)) else (result,)
            same = len(results) == len(self.grad_input) and all(map(operator.is_, results, self.grad_input))
            if result is not None and not same:
                new = self._replacement(results, last)
                if last is not None:
                    self.grad_input[last] = new
        return None if new is None else new.device.copied(new.data)

    def _replacement(self, results: Sequence[Any], last: int | None) -> Tensor:
        """What a hook has returned, as the gradient of the one argument that has one."""
        if last is None or not self.replaceable:
            seen = "no argument" if last is None else "more than one argument"
            raise GraphError(
                f"{self.name}: {seen} of this call needs a gradient, so that a backward hook cannot replace it: return "
                "None, or put the hook on a module with one such argument"
            )
        old: Any = self.grad_input[last]
        is_tensor = [isinstance(result, Tensor) for result in results]
        if is_tensor != [i == last for i in range(len(self.grad_input))]:
            raise GraphError(
                f"{self.name}: a backward hook must return a Tensor in the place of grad_input[{last}], and None in "
                f"those of the other {len(self.grad_input) - 1} arguments, it returned "
                f"{[type(result).__name__ for result in results]}"
            )
        new = results[last]
        wanted, seen = (f"{one.shape} {one.dtype} on {one.device}" for one in (old, new))
        if seen != wanted:
            raise GraphError(
                f"{self.name}: a backward hook must return a gradient like grad_input[{last}], {wanted}, it returned "
                f"{seen}"
            )
        return new


def _leads_to(start: Function | None, node: Function) -> bool:
    """Whether backward from `start` comes to `node`; what is older than that is not looked at."""
    seen, stack = set(), [start]
    while stack:
        one = stack.pop()
        if one is node:
            return True
        if isinstance(one, Function) and one.order > node.order and one not in seen:
            seen.add(one)
            stack.extend(one.inputs)
    return False
