"""What all optimisers share: parameter groups, state, and a walk over the parameters in tiles that fit the cache.

An update rule is a handful of elementwise formulas.  Written with whole arrays, `w -= lr * v`, each of them
brings 60 million numbers from memory and makes a temporary as large, which costs many times the arithmetic.  So a rule
is applied to one tile after another: a tile of w, its gradient and its state stay in the cache from the first
formula to the last, and the only temporary is one tile long.  Every element gets the same arithmetic wherever the
cuts are.  On a graphics card one kernel does the whole rule for one element after another, with no temporary, and for
all parameters of a group in one launch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..base.arguments import number
from ..base.interrupts import hold
from ..device import Device
from ..engine import Array
from ..errors import ArgumentError, CheckpointError, DeviceError, DTypeError, GraphError, ShapeError
from ..processor.parallel import on_devices, split
from ..tensor import Tensor, wrap
from ..tools import tracing

Parameters = Iterable[Tensor] | Iterable[Mapping[str, Any]]
Group = dict[str, Any]
Arrays = list[Array]  # one for each of some parameters

TILE = 1 << 17  # elements; measured on two threads: half of this is slower by 10 %, more are no faster
SPLIT = 1 << 17  # elements below which a second thread costs more than it saves
FLUSH_EVERY = 64  # steps


class Optimizer:
    """Base of the optimisers; a subclass names its state and gives the rule for one tile.

    params: the parameters, or groups of them, [{"params": [...], "lr": 0.02, "weight_decay": 0}, ...]; a
    group takes the settings that it does not name from the optimiser's.  Each parameter must be a
    floating-point leaf that appears once (DTypeError, GraphError, ArgumentError otherwise).

    Settings live in `param_groups`, a list of dictionaries, and may be changed there between steps.
    """

    state_names: tuple[str, ...] = ()  # arrays kept per parameter
    later_settings: Mapping[str, Any] = {}  # that earlier versions did not save, as they were then

    def __init__(self, params: Parameters, **defaults: Any):
        self._check_settings(defaults)
        self.param_groups: list[Group] = []
        for group in _as_groups(self._name, params):
            unknown = set(group) - {"params", *defaults}
            if unknown:
                raise ArgumentError(f"{self._name}: unknown settings {sorted(unknown)}; there are {sorted(defaults)}")
            settings = {name: group.get(name, default) for name, default in defaults.items()}
            self._check_settings(settings)
            self.param_groups.append({"params": list(group["params"]), **settings})
        self._params = [p for group in self.param_groups for p in group["params"]]
        self._check_params()
        self._state: list[dict[str, Array]] = [{} for _ in self._params]
        self._steps = [0] * len(self._params)

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _check_settings(self, settings: Mapping[str, Any]) -> None:
        for name in ("lr", "weight_decay", "eps"):
            number(self._name, name, settings.get(name, 0.0), minimum=0)

    def _check_params(self) -> None:
        if not self._params:
            raise ArgumentError(
                f"{self._name}: there are no parameters: give list(model.parameters()) (a generator can be used once)"
            )
        seen: dict[int, int] = {}
        for i, p in enumerate(self._params):
            if not isinstance(p, Tensor):
                raise DTypeError(f"{self._name}: parameter {i} must be a floating-point Tensor, {_got(p)}")
            if p.dtype.kind != "f":
                raise DTypeError(
                    f"{self._name}: parameter {i} must be a floating-point Tensor, got a tensor of {p.dtype}: make it "
                    "with dtype='float32', or leave it out"
                )
            if not p.is_leaf:
                raise GraphError(
                    f"{self._name}: parameter {i} {p.shape} is the result of an op; "
                    "only leaves can be optimised: make it with requires_grad=True"
                )
            if id(p) in seen:
                raise ArgumentError(
                    f"{self._name}: parameters {seen[id(p)]} and {i} {p.shape} are the same tensor: name it once"
                )
            seen[id(p)] = i

    # ---------------------------------------------------------------- one step

    def rule(self, group: Group, step: int, w: Array, g: Array, t: Array, state: Sequence[Array]) -> None:
        """Update one tile of w and of the state in place; t is a temporary of the same shape, g is read only.

        step counts the updates of this parameter from 1.
        """
        raise NotImplementedError

    def rule_gpu(
        self, device: Device, group: Group, step: int, w: Arrays, g: Arrays, state: Sequence[Arrays], tiny: list[float]
    ) -> None:
        """The same for some whole parameters on a graphics card, of one element type, all arrays C-contiguous.

        w, g: their arrays, and their gradients.  state: for each name, an array of each; with its `tiny_state`, or 0.
        """
        raise DeviceError(f"{self._name}: has no rule_gpu, for {device}: define it, or keep the parameters on cpu:0")

    def kept(self, group: Group) -> dict[str, float]:
        """The state arrays that these settings need, and what each is multiplied by from step to step."""
        raise NotImplementedError

    def step(self) -> None:
        """Change every parameter that has a gradient; those without one (frozen, unused) are left as they are.

        Parameters of different devices are updated at the same time.  Ctrl-C waits for the end of the step: it never
        leaves some of the weights changed and others not.
        """
        todo: dict[Device, list[tuple[int, Group]]] = {}
        numbered = iter(range(len(self._params)))
        for group in self.param_groups:
            self._check_settings(group)
            for p, i in zip(group["params"], numbered):
                if p.grad is not None:
                    _check_gradient(self._name, i, p)
                    todo.setdefault(p.device, []).append((i, group))
        if todo:
            with hold(finish=True):
                on_devices(list(todo), self._step_on, list(todo), list(todo.values()))

    def _step_on(self, device: Device, todo: list[tuple[int, Group]]) -> None:
        with tracing.region(f"{self._name} step", device):
            if device.on_host:
                for i, group in todo:
                    self._step_one(device, i, group)
            else:
                self._step_on_card(device, todo)

    def _begin(self, i: int, decays: Mapping[str, float]) -> tuple[int, list[Array]]:
        """The number of this update of parameter i; its array, its gradient, and its state, which is made at first."""
        p, state = self._params[i], self._state[i]
        for name in decays:
            if name not in state:
                state[name] = _zeros_like(p)
            elif state[name].dtype != p.dtype:  # Module.to has given the parameter another
                state[name] = p.device.converted(state[name], p.dtype)
        self._steps[i] += 1
        return self._steps[i], [p.data, p.grad.data, *(state[name] for name in decays)]  # type: ignore[union-attr]

    def _step_one(self, device: Device, i: int, group: Group) -> None:
        p, decays = self._params[i], self.kept(group)
        number, arrays = self._begin(i, decays)
        tiny = _tiny_states(p.dtype, decays, number)

        def update(w: Array, g: Array, t: Array, *kept: Array) -> None:
            self.rule(group, number, w, g, t, kept)
            if any(tiny):
                for s, smallest in zip(kept, tiny):
                    np.abs(s, out=t)
                    s[t < smallest] = 0

        if p.data.size <= TILE:  # one tile, whatever its memory order
            w, g, *kept = arrays
            update(w, g, np.empty_like(w), *kept)
        else:
            self._in_tiles(device, update, aligned(arrays))
        p.mark_modified()

    def _step_on_card(self, device: Device, todo: list[tuple[int, Group]]) -> None:
        """One call of `rule_gpu` for all parameters of a group, but for those of another type or number of updates.

        What does not lie in its parameter's order without gaps goes as a copy.  Parameters that may be views of the
        same memory go one after the other: in one launch it would be open which of them is changed first.
        """
        if len(todo) > 1 and not _apart([self._params[i] for i, _ in todo]):
            for one in todo:
                self._step_on_card(device, [one])
            return
        together: dict[Any, tuple[Group, list[list[Array]]]] = {}
        copied: list[tuple[Array, Array]] = []  # where it belongs, and what is changed in its place
        for i, group in todo:
            number, arrays = self._begin(i, self.kept(group))
            if not all([array.flags.c_contiguous for array in arrays]):
                in_order = aligned(arrays)
                arrays = [device.contiguous(array) for array in in_order]
                pairs = [*zip(in_order, arrays)]
                copied += [(array, dense) for array, dense in (pairs[0], *pairs[2:]) if dense is not array]
            together.setdefault((id(group), number, arrays[0].dtype), (group, []))[1].append(arrays)
        for (_, number, dtype), (group, parameters) in together.items():
            w, g, *state = map(list, zip(*parameters))
            self.rule_gpu(device, group, number, w, g, state, _tiny_states(dtype, self.kept(group), number))
        for array, dense in copied:
            device.assign(array, dense)
        for i, _ in todo:
            self._params[i].mark_modified()

    def _in_tiles(self, device: Device, update: Callable[..., None], arrays: list[Array]) -> None:
        """Cut arrays into tiles along their first axis, on all threads of the device; update each with a temporary."""
        row = max(1, math.prod(arrays[0].shape[1:]))
        tile = max(1, TILE // row)

        def work(start: int, stop: int) -> None:
            temporary = np.empty_like(arrays[0][: min(tile, stop - start)])
            for at in range(start, stop, tile):
                w, g, *kept = (array[at : min(at + tile, stop)] for array in arrays)
                update(w, g, temporary[: len(w)], *kept)

        split(device, len(arrays[0]), work, at_least=max(1, SPLIT // row))

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for p in self._params:
            p.grad = None

    # ---------------------------------------------------------------- saving and resuming

    def state_dict(self) -> dict[str, Any]:
        """Everything that resuming needs besides the parameters, as copies.

        {"arrays": {"velocity.0": array, ...}, "settings": {...}}: the arrays go into a checkpoint file, the
        settings (numbers of each group and step counts) into its metadata.
        """
        arrays = {
            f"{name}.{i}": wrap(array, p.device).numpy().copy()
            for i, (p, state) in enumerate(zip(self._params, self._state))
            for name, array in state.items()
        }
        groups = [{k: _plain(v) for k, v in group.items() if k != "params"} for group in self.param_groups]
        return {"arrays": arrays, "settings": {"groups": groups, "steps": list(self._steps)}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()` of an optimiser of the same kind over the same parameters in the same order.

        CheckpointError lists every array that does not fit; nothing is changed then.
        """
        try:
            arrays, groups, steps = state["arrays"], state["settings"]["groups"], state["settings"]["steps"]
        except (KeyError, TypeError):
            raise CheckpointError(f"{self._name}: expected what state_dict() returns: arrays and settings") from None
        if len(groups) != len(self.param_groups) or len(steps) != len(self._params):
            raise CheckpointError(
                f"{self._name}: the state is of {len(groups)} group(s) with {len(steps)} parameters, "
                f"this optimiser has {len(self.param_groups)} with {len(self._params)}: make it over the same "
                "parameters, in the same groups, as the one that was saved"
            )
        loaded: list[dict[str, Array]] = [{} for _ in self._params]
        wrong = []
        for key, value in arrays.items():
            name, _, digits = key.rpartition(".")
            i = int(digits) if digits.isdecimal() else len(self._params)
            if name not in self.state_names or i >= len(self._params):
                wrong.append(f"unexpected: {key}")
                continue
            p, array = self._params[i], np.asarray(value)
            if array.shape != p.shape or array.dtype.kind != "f":
                wrong.append(f"{key}: {array.dtype} {array.shape}, its parameter has shape {p.shape}")
                continue
            loaded[i][name] = _zeros_like(p)
            wrap(loaded[i][name], p.device).copy_(array)
        for i, (group, saved) in enumerate(zip(self.param_groups, groups)):
            expected = set(group) - {"params"}
            if not expected - set(self.later_settings) <= set(saved) <= expected:
                wrong.append(f"group {i}: settings {sorted(saved)}, not {sorted(expected)}")
        if wrong:
            raise CheckpointError(
                f"{self._name}: the state does not fit, it is of another kind of optimiser or of other parameters:\n  "
                + "\n  ".join(wrong)
            )
        complete = [{**self.later_settings, **saved} for saved in groups]
        for saved in complete:
            self._check_settings(saved)
        for group, saved in zip(self.param_groups, complete):
            group.update(saved)
        self._state, self._steps = loaded, [int(step) for step in steps]

    def __repr__(self) -> str:
        lines = []
        for group in self.param_groups:
            settings = ", ".join(f"{name}={value!r}" for name, value in group.items() if name != "params")
            count = sum(p.size for p in group["params"])
            lines.append(f"  {len(group['params'])} tensors, {count:,} parameters: {settings}")
        return f"{self._name}(\n" + "\n".join(lines) + "\n)"


# ---------------------------------------------------------------- helpers


def aligned(arrays: Sequence[Array]) -> list[Array]:
    """Views of arrays of one shape that can be cut in tiles along their first axis.

    Arrays that share one gapless memory order become flat; others (a gradient that came out transposed) keep
    their axes, and tiles are rows.
    """
    first = arrays[0]
    axes = sorted(range(first.ndim), key=lambda axis: -abs(first.strides[axis]))
    turned = [array.transpose(axes) for array in arrays]
    if all(array.flags.c_contiguous for array in turned):
        return [array.reshape(-1) for array in turned]
    return turned


def _apart(params: Sequence[Tensor]) -> bool:
    """Whether each weight on a card has a piece of memory to itself, in which no gradient lies either."""
    weights = {id(p.data.data.mem) for p in params}
    gradients = {id(p.grad.data.data.mem) for p in params}  # type: ignore[union-attr]
    return len(weights) == len(params) and weights.isdisjoint(gradients)


def _zeros_like(p: Tensor) -> Array:
    """Zeros in the shape and memory order of a parameter, on its device."""
    if p.device.on_host:
        return np.zeros_like(p.data)
    return p.device.fill(p.device.empty_in_order_of(p.data), 0)


def tiny_state(dtype: np.dtype[Any], decay: float) -> float:
    """State smaller than this would decay into denormal numbers before the next flush, which sets it to 0.

    The velocity of a weight whose gradient stays 0 (a dead unit) shrinks by `decay` at each step, and never
    reaches 0: rounding holds it among the denormal numbers, where processors compute far slower, for good.
    """
    return float(np.finfo(dtype).tiny) * min(1e8, max(decay, 1e-3) ** -FLUSH_EVERY)


def _tiny_states(dtype: np.dtype[Any], decays: Mapping[str, float], step: int) -> list[float]:
    """`tiny_state` of each state array in the steps that set tiny numbers to 0; in others 0."""
    return [tiny_state(dtype, decay) if step % FLUSH_EVERY == 0 else 0.0 for decay in decays.values()]


def _plain(setting: Any) -> Any:
    """A NumPy number as Python's, which JSON can hold."""
    if isinstance(setting, (tuple, list)):
        return tuple(map(_plain, setting))
    return setting.item() if isinstance(setting, np.generic) else setting


def _as_groups(name: str, params: Any) -> list[Mapping[str, Any]]:
    if isinstance(params, Tensor):
        raise ArgumentError(f"{name}: params must be a list of tensors or of groups, got one tensor: put it in a list")
    items = None if isinstance(params, (Mapping, str)) else _as_list(params)
    if items is None:
        raise ArgumentError(f"{name}: params must be a list of tensors or of groups, {_got(params)}")
    if not any(isinstance(item, Mapping) for item in items):
        return [{"params": items}]
    groups: list[Mapping[str, Any]] = []
    for item in items:
        if not isinstance(item, Mapping):
            raise ArgumentError(f"{name}: each group must be a dictionary with a list under 'params', {_got(item)}")
        group = {**item, "params": _as_list(item.get("params"))}
        if group["params"] is None:
            found = "it has none" if "params" not in item else _got(item["params"])
            raise ArgumentError(f"{name}: each group must be a dictionary with a list under 'params', {found}")
        groups.append(group)
    return groups


def _as_list(params: Any) -> list[Any] | None:
    """None for what is no collection; a tensor is one parameter, not its elements."""
    try:
        return None if isinstance(params, Tensor) else list(params)
    except TypeError:
        return None


def _got(wrong: Any) -> str:
    """What stands where tensors should, and for a module what to give instead."""
    is_module = hasattr(wrong, "parameters") and not isinstance(wrong, type)
    return f"got {type(wrong).__name__}" + ": give model.parameters()" * is_module


def _check_gradient(name: str, i: int, p: Tensor) -> None:
    grad = p.grad
    if grad is None:
        return
    w, g = p.data, grad.data
    if g.shape != w.shape or g.dtype != w.dtype or grad.device is not p.device:
        raise ShapeError(
            f"{name}: parameter {i} is {p.dtype} {p.shape} on {p.device}, "
            f"its gradient {grad.dtype} {grad.shape} on {grad.device}: call zero_grad() and backward again"
        )
