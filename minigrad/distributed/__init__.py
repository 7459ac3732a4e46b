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

    comm            the processes, what they tell each other, and how an exception ends all of them
    watch           how a process that hangs is found
    buckets         gradients side by side, and their sums, which travel while backward is running
    data_parallel   the model: parts of batches, masks of dropout, what is refused
    nccl            sums from card to card, without the host
    traces          the profiles of all processes in one file
"""

from .comm import Comm, init
from .data_parallel import DataParallel
from .traces import save_trace

__all__ = ["Comm", "DataParallel", "init", "save_trace"]
