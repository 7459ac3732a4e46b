"""Threads that prepare pictures ahead, in order, and that nobody waits for longer than need be when the work is left.

A picture may take for ever: its disk is at the end of a cable that somebody has pulled out.  Ctrl-C and `break` must
work even so.  The thread that is at such a picture cannot be ended; it is left behind, and ends when its picture does.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

PATIENCE = 5.0  # seconds that the block `with Threads(...)` waits for what is at work when it is left early
AFTER_CTRL_C = 0.5  # the same after Ctrl-C, which somebody sits and waits for
# Seconds between two looks while a picture is waited for.  A signal that comes when the wait has all but begun does not
# end it, and Python runs the handler only when the wait is over.
AWAKE = 0.2
_numbers = itertools.count()  # of the blocks, in the names of their threads


class Threads:
    """`with Threads(workers, name) as threads:` submit work, take what it gives in the same order.

    When the block is left, what has not begun is not begun any more, and what is at work is waited for, within reason.
    """

    def __init__(self, workers: int, name: str) -> None:
        self._name = f"{name}-{next(_numbers)}"
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix=self._name)
        self._pending: deque[Future[Any]] = deque()

    def __enter__(self) -> Threads:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        hurry = kind is not None and issubclass(kind, KeyboardInterrupt)
        until = time.monotonic() + (AFTER_CTRL_C if hurry else PATIENCE)
        self._pool.shutdown(wait=False, cancel_futures=True)
        # By name, not by what was submitted: Ctrl-C in the middle of submit leaves a thread at work of which no future
        # tells, and the pool would wait for it without end.
        for thread in threading.enumerate():
            if thread.name.startswith(f"{self._name}_"):
                thread.join(max(0.0, until - time.monotonic()))

    def __len__(self) -> int:
        """How much was submitted and not yet taken."""
        return len(self._pending)

    def submit(self, work: Callable[..., Any], *arguments: Any) -> None:
        self._pending.append(self._pool.submit(work, *arguments))

    def take(self) -> Any:
        """What the first work that was not yet taken returns; what it raises is raised here."""
        future = self._pending[0]
        while not future.done():
            wait([future], AWAKE)
        self._pending.popleft()
        return future.result()
