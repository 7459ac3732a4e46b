"""Steps of a narrow AlexNet in float64, alone or under mpirun; test_distributed.py compares what comes out.

    mpiexec -n 3 python tests/distributed_steps.py OUT 10         # OUT.npz: weights, losses, bytes, as rank 0 has them
    mpiexec -n 2 python tests/distributed_steps.py FOLDER FAULT   # the last rank does what is wrong (see faulty)

Columns on two devices with chunks of an image and overlap; and on one, whole, each sum when backward is through.  The
last batch of an epoch has 2 images, so that some of 3 or 4 processes have none.
"""

import os
import signal
import subprocess
import sys
import time
import zlib
from contextlib import nullcontext
from pathlib import Path

import numpy as np

import minigrad
import minigrad.functional as F
from minigrad import Tensor, optim
from minigrad.data import ImageArray, Loader, TrainViews
from minigrad.distributed import DataParallel, init
from minigrad.processor import chunks

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from alexnet import AlexNet  # noqa: E402
from one_weird_trick import OneWeirdTrick  # noqa: E402

NARROW = (6, 8, 12, 12, 8, 40, 40)
IMAGES, BATCH = 10, 8


def images():
    rng = np.random.default_rng(0)
    return ImageArray(rng.integers(0, 256, (IMAGES, 256, 256, 3), dtype=np.uint8), np.arange(IMAGES) % 5)


def run(comm, steps, devices, whole, trick):
    """Weights after these steps, of each step the loss over all processes' images, and how many bytes were sent."""
    minigrad.manual_seed(7 + comm.rank)  # the others take the weights and the generators of rank 0
    model, before = AlexNet(5, "trainable", devices, widths=NARROW, dtype="float64").train(), comm.bytes_sent
    if trick:
        net = trained = OneWeirdTrick(model, comm)
    else:
        net, trained = DataParallel(model, comm, bucket_mb=0.05, overlap=not whole, check_every=3), model
    loader = Loader(images(), BATCH, TrainViews(224, scale=1 / 58), shuffle=True, seed=3, workers=0,
                    shard=(comm.rank, comm.size))  # fmt: skip
    optimizer = optim.SGD(trained.parameters(), 0.01, momentum=0.9, weight_decay=5e-4, update_rule="alexnet")
    losses = []
    while len(losses) < steps:
        for batch in loader:
            optimizer.zero_grad()
            with minigrad.whole_batches() if whole else nullcontext():
                logits = net(Tensor(batch.images.astype(np.float64)))
                loss = F.cross_entropy(logits, net.labels(batch.labels) if trick else batch.labels)
                net.backward(loss)
            optimizer.step()
            parts = comm.gather((len(batch.labels), loss.item()))  # with the trick it is that of all, everywhere
            losses.append(loss.item() if trick else sum(n * v for n, v in parts if n) / sum(n for n, _ in parts))
            if len(losses) == steps:
                break
    (net.features if trick else net).check()
    return trained.state_dict(), losses, (net if trick else comm).bytes_sent - before


def main(out, steps):
    chunks.CHUNK_BYTES = 1_300_000  # an image of float64
    comm = init(hung_after=60)
    found = {"size": np.array(comm.size)}
    one, two = ("cpu:0",), ("cpu:0", "cpu:1")
    ways = {"columns": (two, False, False), "one": (one, True, False)}
    if comm.size > 1:
        ways |= {"trick in columns": (two, False, True), "trick": (one, True, True)}
    for name, way in ways.items():
        weights, losses, sent = run(comm, steps, *way)
        found |= {f"{name}/{key}": value for key, value in weights.items()} | {f"{name}/loss": np.array(losses)}
        found[f"{name}/bytes"] = np.array(comm.gather(sent))
    found["checksum"] = np.array(zlib.crc32(b"".join(v.tobytes() for k, v in found.items() if not k.endswith("bytes"))))
    if comm.rank == 0:
        np.savez(out, **found)
    comm.leave()


class Two(minigrad.nn.Module):
    def __init__(self):
        self.first, self.second = minigrad.nn.Linear(3, 4), minigrad.nn.Linear(4, 2)

    def forward(self, x):
        return self.second(self.first(x))


def faulty(folder, fault):
    """Steps of a small net; after three, the last rank does what is wrong.  Who comes to the end leaves a file."""
    comm = init(hung_after=1 if fault in ("hang", "stop", "slow", "pause") else 20, timeout=60)
    last = comm.rank == comm.size - 1
    if fault == "seed":
        comm.agree("the options", {"batch": 8, "seed": 4 if last else 3})
    model = Two().eval()  # which says nothing of gradients
    net = DataParallel(model, comm, check_every=2)
    for step in range(8):
        if fault == "pause" and step == 3:
            Path(folder, str(os.getpid())).touch()
            end = time.monotonic() + 6
            while comm.broadcast(time.monotonic() < end):
                time.sleep(0.01)
        if last and step == 3:
            if fault == "raise":
                raise ValueError("this rank has had enough")
            if fault == "hang":
                time.sleep(60)
            if fault == "apart":
                comm.broadcast("somewhere else")
            if fault == "slow":  # four times as long as one that hangs may take
                end = time.monotonic() + 4
                while time.monotonic() < end:
                    sum(range(10_000))
                subprocess.run(["sleep", "4"], check=True)
            if fault in ("kill", "stop"):
                os.kill(os.getpid(), signal.SIGKILL if fault == "kill" else signal.SIGSTOP)
            if fault == "drift":
                with minigrad.no_grad():
                    model.second.bias += 1e-7
        x = Tensor(np.ones((2, 3), np.float32))
        net.backward((net.model.first(x) if fault == "unused" else net(x)).mean())
        np.testing.assert_allclose(model.second.bias.grad.numpy(), 0.5)
        assert fault in ("none", "slow", "pause") or step < 7, "nobody has noticed"
        model.zero_grad()
    Path(folder, f"rank-{comm.rank}").write_text("done")
    comm.leave()


if __name__ == "__main__":
    if sys.argv[2].isdecimal():
        main(sys.argv[1], int(sys.argv[2]))
    else:
        faulty(*sys.argv[1:])
