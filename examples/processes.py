"""The main job in several processes, under mpirun or srun: rank 0 is the program as ever, the others work for it.

They print nothing, draw nothing and keep nothing: what they write goes to a folder of their own that is removed.  Of an
earlier run they get a copy from rank 0.  Signals are rank 0's: it keeps what there is to keep, and then all end.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from command_line import run_job
from going_on import CONFIG, options_for_config, run_and_checkpoint
from interruption import SIGNALS
from run_folder import CHECKPOINTS, Run

from minigrad.checkpoint import Checkpoints
from minigrad.data import Report, UnreadableImageError
from minigrad.distributed import Comm, init
from minigrad.errors import ArgumentError

SECONDS = 5.0  # that another process than rank 0 waits with ending all: rank 0 may have the same to say, and to keep


def run_together(program: str, job: Callable[[argparse.Namespace, Comm], None], options: argparse.Namespace) -> int:
    """run_job in each of the processes that were started together; where one fails, all end."""
    started = list[Comm]()

    def work(options: argparse.Namespace) -> None:
        comm = init()
        started.append(comm)
        comm.agree("the options", {name: str(value) for name, value in options_for_config(options).items()})
        if comm.rank == 0:
            job(options, comm)
        else:
            with in_the_background(options) as quiet_options:
                job(quiet_options, comm)

    code = run_job(program, work, options)
    for comm in started:
        if code and comm.rank:
            time.sleep(SECONDS)
        comm.leave(code)
    return code


@contextmanager
def in_the_background(options: argparse.Namespace) -> Iterator[argparse.Namespace]:
    """Nothing is printed, signals are left to rank 0, and the options have a folder for the run that is removed."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    with tempfile.TemporaryDirectory(prefix="minigrad-") as folder, open(os.devnull, "w") as nowhere:
        with redirect_stdout(nowhere), redirect_stderr(nowhere):
            yield argparse.Namespace(**{**vars(options), "out": Path(folder)})


@contextmanager
def earlier_run(options: argparse.Namespace, comm: Comm) -> Iterator[tuple[Run, Path | None]]:
    """(the run of --resume, its checkpoint, None for the latest); the others have a copy of it, with one checkpoint."""
    if comm.rank:
        folder, path = options.out / "run", None
        for name, content in comm.broadcast(None).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        with Run(folder, new=False) as run:
            yield run, path
        return
    folder, path = run_and_checkpoint(options.resume)
    with Run(folder, new=False) as run:
        if comm.size > 1:
            latest = path or Checkpoints(folder / CHECKPOINTS).latest()
            names = [CONFIG, *([f"{CHECKPOINTS}/{latest.name}"] if latest else [])]
            comm.broadcast({name: (folder / name).read_bytes() for name in names if (folder / name).is_file()})
        yield run, path


def in_turn(comm: Comm, work: Callable[[], Any]) -> Any:
    """Rank 0 first, then the others: what it makes on a disk that they share is there for them."""
    made = work() if comm.rank == 0 else None
    comm.gather(None)
    return made if comm.rank == 0 else work()


def tell_of_broken(comm: Comm, report: Report) -> None:
    """Enter the broken files of all processes' parts in the report; every process calls it."""
    if comm.size > 1:
        for path, reason in (one for skipped in comm.gather(report.skipped) for one in skipped):
            report.add(UnreadableImageError(path, reason))


def alone(option: str, job: Callable[[argparse.Namespace], None]) -> Callable[[argparse.Namespace, Comm], None]:
    """A job for one process; with several, each would do all of it: ArgumentError."""

    def work(options: argparse.Namespace, comm: Comm) -> None:
        if comm.size > 1:
            raise ArgumentError(f"{option}: works in one process, and {comm.size} were started: leave mpirun out")
        job(options)

    return work
