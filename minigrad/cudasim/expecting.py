"""--expect: what a function of somebody's says that a kernel must leave."""

from __future__ import annotations

import inspect
import os
import runpy
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError, printable, some
from .passing import Parameter


def expected_outputs(asked: str, parameters: Sequence[Parameter], given: Sequence[Any]) -> dict[str, Any]:
    """What the function returns, by the names of outputs.  asked: FILE.py:FUNCTION.

    It is called with copies of those arguments of the kernel that it takes, by their names.  ArgumentError where there
    is no such function, where it fails, and for what it returns and is no output.
    """
    path, colon, name = asked.rpartition(":")
    if not colon:
        raise ArgumentError(f"--expect {printable(asked)}: is written FILE.py:FUNCTION")
    outputs = [p.name for p, value in zip(parameters, given) if p.pointer and not p.const and value is not None]
    function = _function(path, name)
    takes = inspect.signature(function).parameters.values()
    everything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes)
    arguments = {
        parameter.name: _copy(value)
        for parameter, value in zip(parameters, given)
        if everything or parameter.name in {one.name for one in takes}
    }
    try:
        returned = function(**arguments)
    except (Exception, SystemExit) as error:
        raise ArgumentError(
            f"--expect: {printable(asked)} failed: {type(error).__name__}: {printable(str(error))}"
        ) from error
    if returned is None:
        raise ArgumentError(f"--expect: {printable(name)} returned nothing: it returns an array, or a dict of them")
    if not isinstance(returned, dict):
        if len(outputs) != 1:
            raise ArgumentError(
                f"--expect: {printable(name)} must return a dict by the names of outputs: {some(outputs)}"
            )
        returned = {outputs[0]: returned}
    wrong = [key for key in returned if key not in outputs]
    if wrong or not returned:
        raise ArgumentError(
            f"--expect: {printable(name)} returned {some(wrong) or 'nothing'}; outputs are {some(outputs)}"
        )
    return returned


def _function(path: str, name: str) -> Callable[..., Any]:
    if not os.path.isfile(path):
        raise ArgumentError(f"--expect: {printable(path)}: there is no such file")
    before = list(sys.path)
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))  # as if the file were run
    try:
        found = runpy.run_path(path).get(name)
    except (Exception, SystemExit) as error:
        raise ArgumentError(
            f"--expect: {printable(path)} cannot be run: {type(error).__name__}: {printable(str(error))}"
        ) from error
    finally:
        sys.path[:] = before
    if not callable(found):
        raise ArgumentError(f"--expect: {printable(path)} has no function {printable(name)}")
    return found


def _copy(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.copy()
    shape = getattr(value, "shape", None)
    return np.zeros(shape, value.dtype) if isinstance(shape, tuple) and not isinstance(value, np.generic) else value
