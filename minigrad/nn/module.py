"""Modules: trees of parameters with a forward function.

There is no registry: the parameters, buffers and submodules of a module are those among its attributes, in the order
in which they were set, and those in lists, tuples, deques and dicts among them, to any depth.  So `vars(module)` shows
what there is, and a subclass has no `super().__init__()` to forget.

What is held where it would not be found (in a set, a generator, an object that is no Module, as an attribute of the
class) would be neither trained nor saved, and nobody would see it.  So everything that walks the tree refuses it with
an error that says where it is: parameters(), modules(), train(), state_dict(), ....  Functions, methods and objects
inside of objects are not looked into: `self.teacher = lambda: net` is how to hold a net that is not a part.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, MappingView
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from ..base.arguments import element_type, flag, names_a_dtype
from ..base.foreign import weights_of
from ..base.grad_mode import no_grad
from ..base.spellings import not_found
from ..device import DeviceLike
from ..device import device as device_named
from ..engine import Version
from ..errors import ArgumentError, CheckpointError, DeviceError, DTypeError, GraphError, printable, some
from ..tensor import Tensor
from .hooks import Hooked
from .parameter import Buffer, Parameter, State

Self = TypeVar("Self", bound="Module")


class Module(Hooked):
    """Base of layers and models.  A subclass sets Parameters and Modules as attributes and defines `forward`.

        class Net(Module):
            def __init__(self):
                self.hidden = Linear(784, 100)
                self.output = Linear(100, 10)

            def forward(self, x):
                return self.output(self.hidden(x).relu())

    Calling a module calls its forward.  A parameter or module that appears in several places is one thing: it
    is listed, saved and counted once, under its first name.

    Lists, tuples, deques and dicts of parameters and modules count as attributes do, in each other to any depth; what
    they hold is named by places and keys: "layers.0.1.weight", "blocks.key.weight".  Keys are non-empty strings
    without a dot, or integers.

    ArgumentError from all that walks over parameters or modules, where one is held out of its sight (see this
    module's docstring), has another's name, or is a Tensor that requires a gradient but no Parameter.
    """

    training = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if vars(cls).get("__slots__"):
            raise ArgumentError(f"{cls.__name__}: parameters and modules in __slots__ are not found: leave it out")
        for name, value in vars(cls).items():
            for path, member, _ in _look(f"{cls.__name__}.{name}", value):
                raise ArgumentError(
                    f"{path} is a {type(member).__name__} of the class, the same for all its instances, and would be "
                    "neither trained nor saved: set it in __init__, as an attribute of self"
                )

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__}: define forward")

    if not TYPE_CHECKING:  # which is to know what there is not

        def __getattr__(self, name: str) -> Any:
            """Called for what is not found: the AttributeError says what it is called here."""
            if hasattr(type(self), name):
                return object.__getattribute__(self, name)  # a property that has failed, with its own error
            raise AttributeError(not_found("nn.Module", f"{type(self).__name__!r} object", name))

    def __setattr__(self, name: str, value: Any) -> None:
        # `layer.weight *= 2` outside no_grad records an op and would put its result where the parameter was.
        if isinstance(value, Tensor) and not isinstance(value, State) and isinstance(vars(self).get(name), State):
            kind = type(vars(self)[name]).__name__
            raise GraphError(
                f"{type(self).__name__}.{name} is a {kind}, and another tensor would take its place: change it "
                f"inside `with minigrad.no_grad():`, or assign a {kind}"
            )
        super().__setattr__(name, value)

    # ---------------------------------------------------------------- walking the tree

    def _members(self) -> Iterator[tuple[str, Any, str]]:
        """(name, parameter, buffer or module held directly, "") and (path, what is held out of sight, why it is)."""
        for name, value in vars(self).items():
            if isinstance(value, (Parameter, Module, Buffer)):  # as _look, in less time: for Sequential
                yield name, value, ""
            elif type(value) not in _PLAIN:
                yield from _look(name, value)

    def _tree(self) -> tuple[dict[str, Module], dict[str, Parameter | Buffer]]:
        """Dotted name -> module, this one included, and -> parameter or buffer, each once; refuses the rest."""
        modules: dict[str, Module] = {}
        tensors: dict[str, Parameter | Buffer] = {}
        out_of_sight: list[tuple[str, Any, str]] = []
        seen: set[int] = set()

        def enter(named: dict[str, Any], name: str, member: Any) -> None:
            if name in named:
                raise ArgumentError(
                    f"{type(self).__name__}: two {type(member).__name__}s have the name {name!r}: rename an attribute "
                    "or a key (1 and '1' are one name)"
                )
            seen.add(id(member))
            named[name] = member

        def visit(prefix: str, module: Module) -> None:
            enter(modules, prefix, module)
            children = []
            for name, member, why in module._members():
                name = f"{prefix}.{name}" if prefix else name
                if why:
                    out_of_sight.append((name, member, why))
                elif isinstance(member, Module):
                    children.append((name, member))
                elif id(member) not in seen:
                    enter(tensors, name, member)
            for name, child in children:
                if id(child) not in seen:
                    visit(name, child)

        visit("", self)
        for path, member, why in out_of_sight:
            if id(member) not in seen:  # an optimiser, say, holds what is found elsewhere
                raise ArgumentError(f"{type(self).__name__}: {path} {why}")
        return modules, tensors

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(name, module) of the submodules held directly."""
        return ((name, member) for name, member, why in self._members() if isinstance(member, Module) and not why)

    def children(self) -> Iterator[Module]:
        """The submodules held directly."""
        return (module for _, module in self.named_children())

    def named_modules(self) -> Iterator[tuple[str, Module]]:
        """(dotted name, module) of this module, named "", and of all below it, each once."""
        return iter(self._tree()[0].items())

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once."""
        return iter(self._tree()[0].values())

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(dotted name, parameter) of this module and all below it, each once: "features.conv1.weight"."""
        return ((name, member) for name, member in self._tree()[1].items() if isinstance(member, Parameter))

    def parameters(self) -> Iterator[Parameter]:
        """The parameters of this module and all below it, each once."""
        return (parameter for _, parameter in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Buffer]]:
        """(dotted name, buffer) of this module and all below it, each once: "bn1.running_mean"."""
        return ((name, member) for name, member in self._tree()[1].items() if isinstance(member, Buffer))

    def buffers(self) -> Iterator[Buffer]:
        """The buffers of this module and all below it, each once."""
        return (buffer for _, buffer in self.named_buffers())

    def num_parameters(self) -> int:
        """How many numbers there are to train, frozen ones included."""
        return sum(parameter.size for parameter in self.parameters())

    # ---------------------------------------------------------------- switches

    def train(self: Self, mode: bool = True) -> Self:
        """Set `training` here and below: dropout drops while training; returns self."""
        mode = flag(f"{type(self).__name__}.train", "mode", mode)
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

    def to(self: Self, device: DeviceLike | Any = None, dtype: Any = None) -> Self:
        """Bring all parameters and buffers to a device, to another element type, or to both, in place; returns self.

            net.to("cuda:0"), net.to("float64"), net.to("cuda:0", "float64")

        dtype: float32 or float64 (DTypeError), and may stand in the device's place; buffers of integers keep theirs.
        The Parameter objects stay the same, so an optimiser that holds them goes on holding them; their gradients are
        dropped, and their memory is new.  Move a model before training: an optimiser's state stays on the device where
        it was made.
        """
        if dtype is None and names_a_dtype(device):
            device, dtype = None, device
        if dtype is not None and element_type(dtype) not in (np.float32, np.float64):
            raise DTypeError(
                f"{type(self).__name__}.to: parameters are float32 or float64, got {dtype!r}: "
                "give it as text, 'float32'"
            )
        for tensor in self._tree()[1].values():
            where = tensor.device if device is None else device_named(device)
            kind = tensor.dtype if dtype is None or tensor.dtype.kind != "f" else np.dtype(dtype)
            if where is tensor.device and kind == tensor.dtype:
                continue
            tensor.data = Tensor(tensor, device=where, dtype=kind).data
            tensor.device, tensor.grad, tensor.version = where, None, Version()
        return self

    # ---------------------------------------------------------------- saving and loading

    def state_dict(self) -> dict[str, np.ndarray]:
        """Dotted name -> values of each parameter and buffer.  NumPy copies: training on does not change them."""
        return {name: tensor.numpy().copy() for name, tensor in self._tree()[1].items()}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> LeftOut:
        """Overwrite all parameters and buffers, in place, from arrays or Tensors by name, converted to their dtypes.

        strict: CheckpointError lists every missing, unexpected and misshapen name, and what is not floating-point (for
        a buffer of integers: not integers); nothing is changed then.  strict=False loads what fits, and returns what it
        left out, of the model and of `state`; CheckpointError where nothing fits.
        """
        _, tensors = self._tree()
        values, left_out = fitting_state(type(self).__name__, tensors, state, strict)
        for name, value in values.items():
            tensor = tensors[name]
            with no_grad():
                tensor[...] = np.asarray(value)
        return left_out

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


_KEYED: Any = (dict, MappingProxyType)
_ORDERED: Any = (list, tuple, deque, *_KEYED)
_UNORDERED: Any = (set, frozenset, MappingView)
_IN_AN_OBJECT = "in an object"
_PLAIN = frozenset((bool, int, float, complex, str, bytes, type(None), np.float32, np.float64, np.int64))


def _look(name: str, value: Any, why: str = "", inside: tuple[int, ...] = ()) -> Iterator[tuple[str, Any, str]]:
    """(dotted name, member, why it would not be found) of each parameter and module that a value is or holds.

    why: "" in what is walked; else what a message says after the name.  inside: what the value is held by.
    """
    kind = type(value).__name__
    inside = (*inside, id(value))
    if isinstance(value, (*State, Module)):
        yield name, value, why
    elif isinstance(value, Tensor):
        if value.requires_grad and value.is_leaf and not why:
            rule = "is a Tensor that requires a gradient, but no Parameter, and would be neither trained nor saved"
            yield name, value, f"{rule}: make it an nn.Parameter, or use .detach() or requires_grad_(False)"
    elif id(value) in inside[:-1]:  # a list in itself
        return
    elif isinstance(value, _ORDERED):
        for key, item in enumerate(value) if not isinstance(value, _KEYED) else value.items():
            if type(item) not in _PLAIN:
                bad = "" if type(key) is int else _unfit(key)
                in_sight = not bad and why in ("", _IN_AN_OBJECT)  # else the reason is that of what holds the item
                yield from _look(f"{name}.{key}" if in_sight else name, item, why or bad, inside)
            if type(key) not in _PLAIN:
                yield from _look(
                    name, key, why or f"is a {kind} with a Module as a key: keep it as a value too", inside
                )
    elif isinstance(value, _UNORDERED) or (isinstance(value, np.ndarray) and value.dtype == object):
        rule = f"is a {kind}, in which parameters and modules have no names: keep them in a list, a tuple or a dict"
        for item in value.flat if isinstance(value, np.ndarray) else value:
            if type(item) in _PLAIN:
                continue
            yield from _look(name, item, why or rule, inside)
    elif isinstance(value, Iterator) and type(value).__module__ == "builtins":
        if not why:
            yield name, value, f"is a {kind}, which can be looked through only once: make it a list"
    elif not why and type(value).__module__ != "builtins" and not isinstance(value, type):
        for attribute, held in _attributes(value):
            for path, member, _ in _look(f"{name}.{attribute}", held, _IN_AN_OBJECT, inside):
                rule = f"is a {type(member).__name__} in a {kind}, which is no Module, and would be neither trained nor"
                yield path, member, f"{rule} saved: derive it from Module, or keep what it holds in a list or a dict"


def _unfit(key: Any) -> str:
    """What is wrong with a key that is to be part of a name; "" for nothing."""
    string, integer = isinstance(key, str), isinstance(key, (int, np.integer)) and not isinstance(key, bool)
    if integer or (string and key and "." not in key):
        return ""
    return f"has a key {key!r} that cannot be part of a name: take a string without a dot, or an integer"


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    """(name, value) of an object's attributes, those in slots too."""
    yield from getattr(value, "__dict__", {}).items()
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name != "__dict__" and hasattr(value, name):
                yield name, getattr(value, name)


class LeftOut(NamedTuple):
    """What load_state_dict(strict=False) did not load: names that the state lacks, that the model lacks, and whose
    shapes differ.
    """

    missing: list[str]
    unexpected: list[str]
    misshapen: list[str]


def fitting_state(
    model: str, expected: Mapping[str, Any], state: Mapping[str, Any], strict: bool = True
) -> tuple[dict[str, np.ndarray], LeftOut]:
    """`state` as NumPy arrays, once its names and shapes are those of `expected` (arrays or tensors by name).

    CheckpointError lists every missing, unexpected and misshapen name, and what is not floating-point: quantised
    weights, for one, are whole numbers that mean something else.  strict=False: the part of it that fits, and what was
    left out; CheckpointError where nothing fits, or what fits is not floating-point.
    """
    if not isinstance(state, Mapping):
        raise CheckpointError(
            f"load_state_dict: {model} takes a dictionary of arrays by name, as state_dict() returns, "
            f"got {type(state).__name__}"
        )
    values = {name: _array(name, value) for name, value in state.items()}
    left_out = LeftOut([name for name in expected if name not in values], [], [])
    if not flag("load_state_dict", "strict", strict):
        left_out.unexpected.extend(name for name in values if name not in expected)
        left_out.misshapen.extend(n for n, v in values.items() if n in expected and v.shape != expected[n].shape)
        values = {n: v for n, v in values.items() if n not in {*left_out.unexpected, *left_out.misshapen}}
        if not values:
            raise CheckpointError(
                f"load_state_dict: not one name and shape of the {len(state)} given fits {model}, so nothing was "
                f"loaded: the model has {some(list(expected), 3)}, given were "
                f"{some([printable(name) for name in state], 3)}"
            )
        expected = {name: expected[name] for name in values}
    wrong = [f"missing: {name} {p.shape}" for name, p in expected.items() if name not in values]
    for name, value in values.items():
        if name not in expected:
            wrong.append(f"unexpected: {printable(name)} {value.shape}")
        elif value.shape != expected[name].shape:
            wrong.append(f"wrong shape: {name} is {value.shape}, the model has {expected[name].shape}")
        elif _kind(value) != _kind(expected[name]):
            wrong.append(f"wrong type: {name} is {value.dtype}, the model has {expected[name].dtype}")
    if wrong:
        raise CheckpointError(
            f"load_state_dict: {len(wrong)} name(s) do not fit {model}, so nothing was loaded: build the model as it "
            "was when they were saved, or rename and convert what differs:\n  " + "\n  ".join(wrong)
        )
    return values, left_out


def _array(name: str, value: Any) -> np.ndarray:
    try:
        return value.numpy() if isinstance(value, Tensor) else weights_of(value, f"load_state_dict: {printable(name)}")
    except (DTypeError, DeviceError) as error:
        raise CheckpointError(str(error)) from error


def _kind(x: Any) -> str:
    return "i" if x.dtype.kind == "u" else x.dtype.kind  # type: ignore[no-any-return]
