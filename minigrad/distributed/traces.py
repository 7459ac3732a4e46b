"""The profiles of all processes in one file, to see who waits for whom."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from .comm import Comm


def save_trace(comm: Comm, profile: Any, path: str | os.PathLike[str]) -> None:
    """Write what each process has recorded with minigrad.profile() as one trace for ui.perfetto.dev; rank 0 writes.

    Every process calls it.  Those of one machine have one clock.  That of another machine is set by the end of a call
    in which all were, to the time that such a call takes.
    """
    comm.gather(None)
    now = perf_counter_ns()
    clocks = comm.gather((socket.gethostname(), now))
    later = profile.began if clocks[0][0] == clocks[comm.rank][0] else profile.began - now + clocks[0][1]
    began = min(comm.gather(later))
    found = comm.gather(profile.entries(f"rank {comm.rank}, ", 1000 * comm.rank, later - began))
    if comm.rank == 0:
        entries = [entry for one in found for entry in one]
        Path(path).write_text(json.dumps({"traceEvents": entries, "displayTimeUnit": "ms"}), encoding="utf-8")
