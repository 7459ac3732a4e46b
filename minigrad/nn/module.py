"""Modules: trees of parameters with a forward function.

There is no registry: the parameters and submodules of a module are those among its attributes, in the order
in which they were set (a list or tuple of them counts too).  So `vars(module)` shows what there is, and a
subclass has no `super().__init__()` to forget.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

from ..device import DeviceLike
from ..device import device as device_named
from ..engine import Version, no_grad
from ..errors import CheckpointError, GraphError, printable
from ..tensor import Tensor, TensorLike

Self = TypeVar("Self", bound="Module")


class Parameter(Tensor):
    """A leaf tensor that a module trains: `self.weight = Parameter(array)`.

    data, device and dtype as in Tensor (floating-point: DTypeError otherwise).  `requires_grad_(False)` freezes it.
    """

    __slots__ = ()

    def __init__(
        self,
        data: TensorLike,
        requires_grad: bool = True,
        device: DeviceLike | None = None,
        dtype: Any = None,
    ):
        super().__init__(data, requires_grad=True, device=device, dtype=dtype)
        self.requires_grad = requires_grad


class Module:
    """Base of layers and models.  A subclass sets Parameters and Modules as attributes and defines `forward`.

        class Net(Module):
            def __init__(self):
                self.hidden = Linear(784, 100)
                self.output = Linear(100, 10)

            def forward(self, x):
                return self.output(self.hidden(x).relu())

    Calling a module calls its forward.  A parameter or module that appears in several places is one thing: it
    is listed, saved and counted once, under its first name.
    """

    training = True

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__}: define forward")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        # `layer.weight *= 2` outside no_grad records an op and would put its result where the parameter was.
        if (
            isinstance(value, Tensor)
            and not isinstance(value, Parameter)
            and isinstance(vars(self).get(name), Parameter)
        ):
            raise GraphError(
                f"{type(self).__name__}.{name} is a Parameter, and another tensor would take its place: change it "
                "inside `with minigrad.no_grad():`, or assign a Parameter"
            )
        super().__setattr__(name, value)

    # ---------------------------------------------------------------- walking the tree

    def _members(self) -> Iterator[tuple[str, Parameter | Module]]:
        for name, value in vars(self).items():
            if isinstance(value, (Parameter, Module)):
                yield name, value
            elif isinstance(value, (list, tuple)):
                for i, item in enumerate(value):
                    if isinstance(item, (Parameter, Module)):
                        yield f"{name}.{i}", item

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(name, module) of the submodules held directly."""
        return ((name, member) for name, member in self._members() if isinstance(member, Module))

    def children(self) -> Iterator[Module]:
        """The submodules held directly."""
        return (module for _, module in self.named_children())

    def named_modules(self, prefix: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, Module]]:
        """(dotted name, module) of this module, named "", and of all below it, each once."""
        seen = set() if seen is None else seen
        if id(self) in seen:
            return
        seen.add(id(self))
        yield prefix, self
        for name, child in self.named_children():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name, seen)

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once."""
        return (module for _, module in self.named_modules())

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(dotted name, parameter) of this module and all below it, each once: "features.conv1.weight"."""
        seen: set[int] = set()
        for prefix, module in self.named_modules():
            for name, member in module._members():
                if isinstance(member, Parameter) and id(member) not in seen:
                    seen.add(id(member))
                    yield (f"{prefix}.{name}" if prefix else name), member

    def parameters(self) -> Iterator[Parameter]:
        """The parameters of this module and all below it, each once."""
        return (parameter for _, parameter in self.named_parameters())

    def num_parameters(self) -> int:
        """How many numbers there are to train, frozen ones included."""
        return sum(parameter.size for parameter in self.parameters())

    # ---------------------------------------------------------------- switches

    def train(self: Self, mode: bool = True) -> Self:
        """Set `training` here and below: dropout drops while training; returns self."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self: Self) -> Self:
        """`train(False)`."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for parameter in self.parameters():
            parameter.grad = None

    def to(self: Self, device: DeviceLike) -> Self:
        """Move all parameters to a device, in place; returns self.

        The Parameter objects stay the same, so an optimiser that holds them goes on holding them; their
        gradients are dropped, and their memory is new.  Move a model before training: an optimiser's state
        stays where it was made.
        """
        where = device_named(device)
        for parameter in self.parameters():
            if parameter.device is where:
                continue
            parameter.data = Tensor(parameter, device=where).data
            parameter.device, parameter.grad, parameter.version = where, None, Version()
        return self

    # ---------------------------------------------------------------- saving and loading

    def state_dict(self) -> dict[str, np.ndarray]:
        """Dotted name -> values of each parameter.  NumPy copies: training on does not change them."""
        return {name: parameter.numpy().copy() for name, parameter in self.named_parameters()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Overwrite all parameters, in place, from arrays or Tensors by name; converted to each parameter's dtype.

        CheckpointError lists every missing, unexpected and misshapen name, and what is not floating-point; nothing is
        changed then.
        """
        parameters = dict(self.named_parameters())
        for name, value in fitting_state(type(self).__name__, parameters, state).items():
            parameter = parameters[name]
            with no_grad():
                parameter[...] = np.asarray(value)

    # ---------------------------------------------------------------- printing

    def settings(self) -> str:
        """What a layer prints in its parentheses; layers override it."""
        return ""

    def __repr__(self) -> str:
        return "\n".join(self._lines(""))

    def _lines(self, name: str) -> list[str]:
        """One line for this module, then the indented lines of its children."""
        count = self.num_parameters()
        line = f"{name and name + ': '}{type(self).__name__}({self.settings()})"
        lines = [f"{line}  {count:,} parameters" if count else line]
        for child_name, child in self.named_children():
            lines += ["  " + text for text in child._lines(child_name)]
        return lines


def fitting_state(model: str, expected: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """`state` as NumPy arrays, once its names and shapes are those of `expected` (arrays or tensors by name).

    CheckpointError lists every missing, unexpected and misshapen name, and what is not floating-point: quantised
    weights, for one, are whole numbers that mean something else.
    """
    values = {name: value.numpy() if isinstance(value, Tensor) else np.asarray(value) for name, value in state.items()}
    wrong = [f"missing: {name} {p.shape}" for name, p in expected.items() if name not in values]
    for name, value in values.items():
        if name not in expected:
            wrong.append(f"unexpected: {printable(name)} {value.shape}")
        elif value.shape != expected[name].shape:
            wrong.append(f"wrong shape: {name} is {value.shape}, the model has {expected[name].shape}")
        elif value.dtype.kind != "f":
            wrong.append(f"wrong type: {name} is {value.dtype}, the model has {expected[name].dtype}")
    if wrong:
        raise CheckpointError(
            f"load_state_dict: {len(wrong)} name(s) do not fit {model}; nothing was loaded:\n  " + "\n  ".join(wrong)
        )
    return values
