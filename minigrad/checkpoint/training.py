"""A training on disk, with everything that going on takes, so that it goes on bit for bit.

    checkpoint.save_training(path, model=model, optimizer=optimizer, schedule=schedule, loader=loader, epoch=epoch)
    ...
    epoch = checkpoint.load_training(path, model=model, optimizer=optimizer, schedule=schedule, loader=loader)["epoch"]

The file is one of weights.py: named arrays, and metadata of JSON, under one checksum; there is nothing in it that could
run.  Its metadata have one entry, "training":

    {"format": 1, "minigrad": "0.1.0", "numpy": ..., "python": ..., "saved": time, "rng": get_rng_state(),
     "objects": {"model": state, ...}, "values": {"epoch": 3, ...}}

States and values are trees of dictionaries, lists, numbers and text.  An array in a tree is stored among the file's
arrays, by its path ("model/conv1.weight"), and the tree has {"array": path} in its place; {"tree": ...} is a dictionary
that would itself look like one of these two.

A file of a newer format is refused.  Who changes the format teaches `_upgraded` to read the older ones.
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..base.random import generator_state, get_rng_state, load_generator_state, set_rng_state
from ..errors import CheckpointError, printable
from ..tensor import Tensor
from .weights import PathLike, load, save

FORMAT = 1


def save_training(
    path: PathLike, *, model: Any = None, optimizer: Any = None, schedule: Any = None, **more: Any
) -> None:
    """Write a training to one file, whole or not at all; `load_training` goes on from it.

    model, optimizer, schedule, and what `more` names: objects that have state_dict and load_state_dict (a Loader too),
    NumPy's random Generators, and plain values: numbers, text, None, arrays, Tensors, and lists, tuples (they come back
    as lists) and dictionaries (with text as keys) of them.  All devices' generators are saved, too.
    None for model, optimizer or schedule: there is none.

    The old file stays as it was until the new one is on the disk.  CheckpointError for a value that cannot be stored,
    and where the place cannot be written.
    """
    arrays: dict[str, np.ndarray] = {}
    objects, values = {}, {}
    for name, value in _named(model, optimizer, schedule, more).items():
        state = _state_of(value)
        if state is None:
            values[name] = _stored(value, name, arrays)
        else:
            objects[name] = _stored(state(), name, arrays)
    facts = {
        "format": FORMAT, "minigrad": _version(), "numpy": np.__version__, "python": platform.python_version(),
        "saved": time.strftime("%Y-%m-%d %H:%M:%S"), "rng": get_rng_state(), "objects": objects, "values": values,
    }  # fmt: skip
    save(path, arrays, {"training": facts})


def load_training(
    path: PathLike, *, model: Any = None, optimizer: Any = None, schedule: Any = None, **more: Any
) -> dict[str, Any]:
    """Go on from a file of `save_training`: bring the objects to what they were, and return the values by name.

    Give every object that was saved, under its name; what was saved and is not given, or is given and was not saved, is
    an error: a forgotten optimiser would start afresh, and nobody would see it.  The generators of all devices go on,
    too.  `training_values` returns the values alone, without any object.

    CheckpointError where the file is missing, damaged, of a newer format or no training, and where an object does not
    fit: then all of them, and the generators, are as they were.
    """
    return go_on_from(read_training(path), _named(model, optimizer, schedule, more))


def training_values(path: PathLike) -> dict[str, Any]:
    """The plain values of a file of `save_training`, by name, as load_training returns them; no object is needed."""
    return values_of(read_training(path))


# ---------------------------------------------------------------- reading


class Training(NamedTuple):
    """What a file holds: its name, for messages, the facts in its metadata, and its arrays."""

    where: str
    facts: dict[str, Any]
    arrays: dict[str, np.ndarray]


def read_training(path: PathLike) -> Training:
    """The content of a file of `save_training`; CheckpointError as load_training has it."""
    arrays, metadata = load(path)
    where, facts = printable(path), metadata.get("training")
    number = facts.get("format") if isinstance(facts, dict) else None
    if not isinstance(facts, dict) or not isinstance(number, int) or number < 1:
        raise CheckpointError(
            f"load_training: {where} is no checkpoint of a training: there is nothing in it but {len(arrays)} arrays.  "
            "Weights alone are read by checkpoint.load"
        )
    if number > FORMAT:
        raise CheckpointError(
            f"load_training: {where} was written by minigrad {printable(facts.get('minigrad'))}, in format {number}; "
            f"this is minigrad {_version()}, which reads formats up to {FORMAT}: install a newer one"
        )
    facts = _upgraded(facts)
    if not all(isinstance(facts.get(key), dict) for key in ("objects", "values", "rng")):
        raise CheckpointError(f"load_training: {where}: objects, values or rng are missing: take another copy")
    return Training(where, facts, arrays)


def _upgraded(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts of an older format as those of this one.  There is no older one yet."""
    return facts


def _version() -> str:
    return str(sys.modules["minigrad"].__version__)  # which imports this module: it is not complete before


def go_on_from(training: Training, given: Mapping[str, Any]) -> dict[str, Any]:
    """Bring the given objects, and the generators of all devices, to what is saved; the values by name."""
    where, facts, arrays = training
    stateful = {name: value for name, value in given.items() if _state_of(value) is not None}
    for name in given.keys() - stateful.keys():
        raise CheckpointError(
            f"load_training: {name} must be an object with load_state_dict, or a Generator, got "
            f"{type(given[name]).__name__}: values come back in the dictionary that is returned"
        )
    saved = facts["objects"]
    if saved.keys() != stateful.keys():
        missing, unknown = sorted(saved.keys() - stateful.keys()), sorted(stateful.keys() - saved.keys())
        raise CheckpointError(
            f"load_training: {where} holds the states of {', '.join(sorted(saved)) or 'nothing'}"
            + (f"; not given: {', '.join(missing)}" if missing else "")
            + (f"; given, but not in it: {', '.join(unknown)}" if unknown else "")
        )
    rng_before = get_rng_state()
    before = {name: _state_of(value)() for name, value in stateful.items()}  # type: ignore[misc]
    name = "the generators"
    try:
        set_rng_state(facts["rng"])
        for name, value in stateful.items():
            _load_into(value, _restored(saved[name], arrays))
        return values_of(training)
    except BaseException as error:
        set_rng_state(rng_before)
        for name_before, state in before.items():
            _load_into(stateful[name_before], state)
        if not isinstance(error, Exception):  # Ctrl-C
            raise
        raise CheckpointError(f"load_training: {where}: {name}: {error}") from error


def values_of(training: Training) -> dict[str, Any]:
    """The plain values, by name."""
    return {name: _restored(value, training.arrays) for name, value in training.facts["values"].items()}


# ---------------------------------------------------------------- objects


def _named(model: Any, optimizer: Any, schedule: Any, more: Mapping[str, Any]) -> dict[str, Any]:
    known = {"model": model, "optimizer": optimizer, "schedule": schedule}
    return {**{name: value for name, value in known.items() if value is not None}, **more}


def _state_of(value: Any) -> Callable[[], Any] | None:
    """What returns the state of an object that has one; None for a plain value."""
    if isinstance(value, np.random.Generator):
        return lambda: generator_state(value)
    if hasattr(value, "state_dict") and hasattr(value, "load_state_dict"):
        return value.state_dict  # type: ignore[no-any-return]
    return None


def _load_into(value: Any, state: Any) -> None:
    if isinstance(value, np.random.Generator):
        load_generator_state(value, state)
    else:
        value.load_state_dict(state)


# ---------------------------------------------------------------- trees


def _stored(value: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    """`value` as JSON can hold it; its arrays go into `arrays`."""
    if isinstance(value, Tensor):
        value = value.numpy()
    if isinstance(value, np.ndarray):
        while path in arrays:  # {"a": {"b": x}, "a/b": y}
            path += "'"
        arrays[path] = value
        return {"array": path}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        if any(not isinstance(key, str) for key in value):
            raise CheckpointError(f"save_training: {path}: the keys of a dictionary must be text, got {list(value)!r}")
        tree = {key: _stored(item, f"{path}/{key}", arrays) for key, item in value.items()}
        return {"tree": tree} if set(tree) in ({"array"}, {"tree"}) else tree
    if isinstance(value, (list, tuple)):
        return [_stored(item, f"{path}/{i}", arrays) for i, item in enumerate(value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise CheckpointError(
        f"save_training: {path} is a {type(value).__name__}: give an object with state_dict and load_state_dict, a "
        "Generator, an array, or numbers, text, lists and dictionaries"
    )


def _restored(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if isinstance(value, list):
        return [_restored(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"array"}:
        if value["array"] not in arrays:
            raise CheckpointError(f"load_training: the array {value['array']!r} is not in the file: take another copy")
        return arrays[value["array"]]
    if set(value) == {"tree"}:
        value = value["tree"]
    return {key: _restored(item, arrays) for key, item in value.items()}
