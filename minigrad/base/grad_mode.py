"""Whether ops record a graph: `no_grad`.

The answer belongs to the thread (to the context, in Python's word, which a task of asyncio has for itself too), so one
thread can evaluate while another trains.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Generator
from contextvars import ContextVar
from typing import Any, TypeVar

from ..errors import ArgumentError

_grad_enabled: ContextVar[bool] = ContextVar("minigrad_grad_enabled", default=True)

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class no_grad:  # noqa: N801 (PyTorch's name)
    """Inside `with no_grad():`, or a function decorated with `@no_grad()`, ops leave no graph and keep nothing alive.

    `@no_grad` without brackets does the same.

    A decorated generator or coroutine function records nothing whenever its own lines run, and changes nothing for the
    lines that run between them.  ArgumentError for what cannot be decorated: a class, an asynchronous generator.
    """

    def __new__(cls, function: Any = None) -> Any:
        return super().__new__(cls) if function is None else cls()(function)

    def __init__(self) -> None:
        self._before: list[bool] = []

    def __enter__(self) -> None:
        self._before.append(_grad_enabled.get())
        _grad_enabled.set(False)

    def __exit__(self, *exc: object) -> None:
        _grad_enabled.set(self._before.pop())

    def __call__(self, function: Decorated) -> Decorated:
        if isinstance(function, (staticmethod, classmethod, property)) or not callable(function):
            what = type(function).__name__
            raise ArgumentError(f"no_grad: decorates functions, got a {what}: put @no_grad() below the other decorator")
        if inspect.isclass(function):
            raise ArgumentError(
                f"no_grad: decorates functions, got the class {function.__name__}: decorate its methods"
            )
        if inspect.isasyncgenfunction(function):
            name = function.__name__
            raise ArgumentError(f"no_grad: {name} is an asynchronous generator: put `with no_grad():` around ops in it")

        @functools.wraps(function)
        def whole(*args: Any, **kwargs: Any) -> Any:
            with no_grad():
                return function(*args, **kwargs)

        @functools.wraps(function)
        def step_by_step(*args: Any, **kwargs: Any) -> Any:
            return _resumed(function(*args, **kwargs))

        @functools.wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            return await _Awaited(function(*args, **kwargs))

        if inspect.iscoroutinefunction(function):
            return awaited  # type: ignore[return-value]
        return step_by_step if inspect.isgeneratorfunction(function) else whole  # type: ignore[return-value]


class _Awaited:
    def __init__(self, coroutine: Any):
        self.coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, Any]:
        return _resumed(self.coroutine)


def _resumed(inner: Any) -> Generator[Any, Any, Any]:
    """A generator (or coroutine) that runs `inner` inside no_grad, from each of its yields to the next."""
    resume: Callable[[], Any] = lambda: inner.send(None)  # noqa: E731
    try:
        while True:
            try:
                with no_grad():
                    value = resume()
            except StopIteration as end:
                return end.value
            try:
                sent = yield value
            except GeneratorExit:
                raise
            except BaseException as error:
                resume = functools.partial(inner.throw, error)
            else:
                resume = functools.partial(inner.send, sent)
    finally:
        with no_grad():
            inner.close()


def is_grad_enabled() -> bool:
    """Whether ops record a graph here; False inside no_grad."""
    return _grad_enabled.get()
