"""What CuPy calls current: for each thread a card, and for each card a stream."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

_NOTHING = nullcontext()


class Current:
    """`with here():` makes a card and a stream this thread's current ones; where they are already, it does nothing.

    CuPy remembers, thread by thread, what was current before, so that one object does for all of them.
    translated: makes minigrad's error of one that CuPy raises.
    """

    def __init__(self, cuda: Any, card: int, stream: Any, translated: Callable[[str, Exception], Exception]):
        self.card, self.device, self.stream = card, cuda.Device(card), stream
        self.current_card, self.current_stream = cuda.runtime.getDevice, cuda.get_current_stream
        self.translated = translated

    def __call__(self) -> AbstractContextManager[Any]:
        try:
            there = self.current_card() == self.card and self.current_stream(self.card) is self.stream
        except Exception as error:
            raise self.translated("asking for the current card", error) from error
        return _NOTHING if there else self

    def __enter__(self) -> None:
        try:
            self.device.__enter__()
            try:
                self.stream.__enter__()
            except BaseException:
                self.device.__exit__(None, None, None)
                raise
        except Exception as error:
            raise self.translated("making it the current card", error) from error

    def __exit__(self, *error: object) -> None:
        try:
            self.stream.__exit__(*error)
        finally:
            self.device.__exit__(*error)
