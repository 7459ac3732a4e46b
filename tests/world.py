"""MPI among threads of one process, as much of it as minigrad/distributed asks: to try things without starting any.

results = world.run(3, lambda mpi: Comm(mpi).gather(...))
"""

import pickle
import threading


class Mpi:
    def __init__(self, rank, size, shared):
        self.rank, self.size, self.shared = rank, size, shared

    def Get_rank(self):  # noqa: N802 (MPI's names, here and below)
        return self.rank

    def Get_size(self):  # noqa: N802
        return self.size

    def allgather(self, value):
        values, barrier = self.shared
        values[self.rank] = pickle.dumps(value)
        barrier.wait()
        found = [pickle.loads(content) for content in values]
        barrier.wait()
        return found

    def bcast(self, value, root):
        return self.allgather(value)[root]

    def alltoall(self, values):
        return [row[self.rank] for row in self.allgather(values)]

    def Alltoall(self, flat, parts):  # noqa: N802
        parts.reshape(self.size, -1)[:] = self.alltoall(list(flat.reshape(self.size, -1)))

    def Allgather(self, total, flat):  # noqa: N802
        flat.reshape(self.size, -1)[:] = self.allgather(total)

    def Dup(self):  # noqa: N802
        if self.rank == 0:
            self.twin = _shared(self.size)
        return Mpi(self.rank, self.size, self.shared_twin())

    def shared_twin(self):
        """What rank 0 has made: an object that cannot be pickled."""
        values, barrier = self.shared
        if self.rank == 0:
            values[0] = self.twin
        barrier.wait()
        found = values[0]
        barrier.wait()
        return found


def _shared(size):
    return [None] * size, threading.Barrier(size, timeout=60)


def run(size, work):
    """What work(an MPI) returns on each of so many threads; the first error, where one fails."""
    shared, found, errors = _shared(size), [None] * size, []

    def one(rank):
        try:
            found[rank] = work(Mpi(rank, size, shared))
        except BaseException as error:
            errors.append(error)
            shared[1].abort()

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in sorted(errors, key=lambda e: isinstance(e, threading.BrokenBarrierError)):
        raise error
    return found
