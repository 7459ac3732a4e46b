"""Threads that prepare pictures ahead, in order, and that nobody waits for longer than need be when the work is left.

A picture may take for ever: its disk is at the end of a cable that somebody has pulled out.  Ctrl-C and `break` must
work even so.  The thread that is at such a picture cannot be ended; it is left behind, and ends when its picture does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

PATIENCE = 5.0  # seconds that the block `with Threads(...)` waits for what is at work when it is left early
AFTER_CTRL_C = 0.5  # the same after Ctrl-C, which somebody sits and waits for


class Threads:
    """`with Threads(workers, name) as threads:` submit work, take what it gives in the same order.

    When the block is left, what has not begun is not begun any more, and what is at work is waited for, within reason.
    """

    def __init__(self, workers: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix=name)
        self._pending: deque[Future[Any]] = deque()

    def __enter__(self) -> Threads:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        at_work = [future for future in self._pending if not future.cancel()]
        hurry = kind is not None and issubclass(kind, KeyboardInterrupt)
        _, blocked = wait(at_work, AFTER_CTRL_C if hurry else PATIENCE)
        self._pool.shutdown(wait=not blocked, cancel_futures=True)

    def __len__(self) -> int:
        """How much was submitted and not yet taken."""
        return len(self._pending)

    def submit(self, work: Callable[..., Any], *arguments: Any) -> None:
        self._pending.append(self._pool.submit(work, *arguments))

    def take(self) -> Any:
        """What the first work that was not yet taken returns; what it raises is raised here."""
        made = self._pending[0].result()  # stays there while it is waited for: Ctrl-C must find it
        self._pending.popleft()
        return made
