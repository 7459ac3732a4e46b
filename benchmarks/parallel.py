"""AlexNet in 2 and 4 processes through loopback: steps with and without overlap, bytes, and the pieces of a simulation.

    python benchmarks/parallel.py [--images 32] [--runs 3] [--save]

One process has all images of a step, two have half each, four a quarter; each has one thread.  With two cores, four
processes share them: what one of them computes takes twice as long, which the simulation (parallel_model.py) is told.
Messages go through TCP, and not through memory that processes of one machine could share.  It needs mpi4py and MPICH;
results/parallel.json and parallel_trace.json are what docs/images/parallel.py draws.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from parallel_model import MEASURED, Link, Pieces, plain_bytes, tables, trick_bytes
from peers import arguments, cores, environment, header, report, row

TRACE = MEASURED.with_name("parallel_trace.json")
BY_TCP = {"MPIR_CVAR_NOLOCAL": "1", "UCX_TLS": "tcp,self"}
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
OVERLAP, AFTER, TRICK = "sums during backward", "sums after backward", "one weird trick"


def main() -> None:
    parser = arguments(__doc__, runs=3)
    parser.add_argument("--images", type=int, default=32, help="of a step, in all processes together (default 32)")
    parser.add_argument("--part", type=Path, help=argparse.SUPPRESS)  # one of the processes, and where rank 0 writes
    options = parser.parse_args()
    if options.part:
        part(options)
        return
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        measured = {k: measure(k, options, Path(folder)) for k in (1, 2, 4)}
        trace = (Path(folder) / "trace.json").read_text()
    found = {"images": options.images, "cores": cores(), "load": load, "pieces": pieces(measured), "measured": measured}
    if options.save:
        MEASURED.write_text(json.dumps(found, indent=1) + "\n")
        TRACE.write_text(trace)
    report("parallel", page(found, options.runs), options.save)


def measure(processes: int, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    out, launcher = folder / f"{processes}.json", Path(sys.executable).with_name("mpiexec")
    command = [sys.executable, __file__, "--part", out, "--images", options.images, "--runs", options.runs]
    if processes > 1:
        command = [launcher, "-n", processes, *command]
    print(f"{processes} process(es) ...", flush=True)
    subprocess.run(list(map(str, command)), env={**os.environ, **BY_TCP, **ONE_THREAD}, check=True, timeout=900)
    return json.loads(out.read_text())


# ---------------------------------------------------------------- one of the processes


def part(options: argparse.Namespace) -> None:
    import minigrad
    from minigrad.distributed import init

    minigrad.set_num_threads(1)
    comm = init(hung_after=120)
    found = alone(options) if comm.size == 1 else together(comm, options)
    if comm.rank == 0:
        options.part.write_text(json.dumps(found))
    comm.leave()


def alone(options: argparse.Namespace) -> dict[str, Any]:
    """Medians of forward, backward and update, and which share of the first two the fully connected layers take."""
    from minigrad import profile

    found: dict[str, Any] = {}
    for images in (options.images, options.images // 2, options.images // 4):
        net = Training(images)
        net.step(net.model, lambda loss: loss.backward())
        times = [net.step(net.model, lambda loss: loss.backward()) for _ in range(options.runs)]
        found[str(images)] = dict(zip(("forward", "backward", "update"), map(statistics.median, zip(*times))))
        with profile() as prof:
            net.forward(net.model).backward()
        rows = [(row.name, row.time) for row in prof.summary()]
        found[str(images)]["fc"] = sum(t for name, t in rows if name == "linear") / sum(t for _, t in rows)
    one, other = np.zeros((2, 1_000_000), np.float32)

    def add_and_copy() -> None:  # of k pieces that come k - 1 are added, and all is copied into a bucket and out of it
        np.add(one, other, out=one)
        np.copyto(other, one)

    found["handling"] = median_of(add_and_copy, 20) / one.nbytes
    return found


def together(comm: Any, options: argparse.Namespace) -> dict[str, Any]:
    from one_weird_trick import OneWeirdTrick

    from minigrad import profile
    from minigrad.distributed import DataParallel, save_trace

    flat, few = np.zeros(1_000_000, np.float32), np.zeros(comm.size, np.float32)
    bucket = median_of(lambda: comm.add_up(flat), 20)
    found: dict[str, Any] = {
        "bucket": bucket,
        "latency": median_of(lambda: comm.add_up(few), 100) / (2 * (comm.size - 1)),
    }
    training = Training(options.images // comm.size)
    net = DataParallel(training.model, comm)

    def step(overlap: bool) -> float:
        net.overlap = overlap
        comm.gather(None)
        return sum(training.step(net, net.backward))

    for _ in range(2):  # the second is the first whose buckets have their order
        step(True)
    times, before = {OVERLAP: [], AFTER: []}, comm.bytes_sent
    for _ in range(options.runs):
        times[OVERLAP].append(step(True))
        times[AFTER].append(step(False))
    sent = (comm.bytes_sent - before) / (2 * options.runs)
    found |= {way: {"seconds": statistics.median(seconds), "bytes": sent} for way, seconds in times.items()}
    if comm.size == 2:
        with profile() as prof:
            step(True)
        save_trace(comm, prof, options.part.with_name("trace.json"))

    training = Training(options.images // comm.size)
    trick = OneWeirdTrick(training.model, comm)
    training.optimize(trick.parameters())
    training.labels = trick.labels(training.labels)
    for _ in range(2):
        training.step(trick, trick.backward)
    before, seconds = trick.bytes_sent, []
    for _ in range(options.runs):
        comm.gather(None)
        seconds.append(sum(training.step(trick, trick.backward)))
    sent = (trick.bytes_sent - before) / options.runs
    # A process's share differs by a row or two of fc8; the formula is the mean of all.
    sent = statistics.mean(comm.gather(sent))
    found[TRICK] = {"seconds": statistics.median(seconds), "bytes": sent}
    return found


class Training:
    """The paper's net on one device, images, and steps."""

    def __init__(self, images: int):
        from alexnet import AlexNet

        from minigrad import Tensor, manual_seed

        manual_seed(0)
        self.model = AlexNet(preset="trainable", devices=("cpu:0",)).train()
        self.images = Tensor(np.random.default_rng(1).standard_normal((images, 3, 224, 224)).astype(np.float32))
        self.labels = np.arange(images) % 1000
        self.optimize(self.model.parameters())

    def optimize(self, parameters: Any) -> None:
        from minigrad import optim

        self.optimizer = optim.SGD(parameters, 0.001, momentum=0.9, weight_decay=5e-4, update_rule="alexnet")

    def forward(self, net: Callable[..., Any]) -> Any:
        import minigrad.functional as F

        return F.cross_entropy(net(self.images), self.labels)

    def step(self, net: Callable[..., Any], backward: Callable[[Any], Any]) -> tuple[float, float, float]:
        """Seconds of forward, backward and update."""
        self.optimizer.zero_grad()
        begin = time.perf_counter()
        loss = self.forward(net)
        middle = time.perf_counter()
        backward(loss)
        end = time.perf_counter()
        self.optimizer.step()
        return middle - begin, end - middle, time.perf_counter() - end


def median_of(work: Callable[[], Any], runs: int) -> float:
    """Seconds."""
    seconds = []
    for _ in range(runs):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


# ---------------------------------------------------------------- what comes of it


def pieces(measured: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """What parallel_model.py goes by."""
    runs = {int(name): run for name, run in measured[1].items() if name.isdecimal()}
    images = np.array(list(runs))

    def line(part: Callable[[dict[str, float]], float]) -> list[float]:
        """Seconds whatever the number of images, and for each image; neither is less than nothing."""
        slope, start = np.polyfit(images, [part(run) for run in runs.values()], 1)
        return [max(float(start), 0.0), max(float(slope), 0.0)]

    return {
        "conv": line(lambda run: (run["forward"] + run["backward"]) * (1 - run["fc"])),
        "fc": line(lambda run: (run["forward"] + run["backward"]) * run["fc"]),
        "forward": statistics.mean(run["forward"] / (run["forward"] + run["backward"]) for run in runs.values()),
        "update": statistics.median(run["update"] for run in runs.values()),
        "handling": measured[1]["handling"],
        "latency": measured[2]["latency"],
    }


def page(found: dict[str, Any], runs: int) -> list[str]:
    lines = [
        "# AlexNet in several processes",
        "",
        environment("numpy", "mpi4py", "mpich"),
        "",
        f"The paper's net, {found['images']} images a step in all, float32, one thread in each process; TCP through",
        f"loopback; medians of {runs} steps, the ways in turn. Simulated: by parallel_model.py, with the bandwidth of",
        "buckets of 4 MB as measured here; where processes share cores, with that much less speed. Programs that were",
        f"running on the machine before (load average): {found['load']:.1f}.",
        "",
        *header("processes", "way", "seconds a step", "simulated", "MB sent by each", "formula"),
    ]
    base, loops = found["pieces"], []
    for k in (2, 4):
        run, images, held = found["measured"][k], found["images"] / k, Pieces.of(base, min(1.0, found["cores"] / k))
        link = loopback(k, run, base)
        loops.append(f"{link.bandwidth / 1e6:.0f} MB/s with {k} processes")
        simulated = {
            OVERLAP: held.plain(k, images, link),
            AFTER: held.plain(k, images, link, overlap=False),
            TRICK: held.trick(k, images, link),
        }
        for way, seconds in simulated.items():
            formula = trick_bytes(k, found["images"]) if way == TRICK else plain_bytes(k)
            sizes = f"{run[way]['bytes'] / 1e6:.2f}", f"{formula / 1e6:.2f}"
            lines.append(row(k, way, f"{run[way]['seconds']:.2f}", f"{seconds:.2f}", *sizes))
    one = found["measured"][1][str(found["images"])]
    (conv, conv_each), (fc, fc_each) = base["conv"], base["fc"]
    lines += [
        "",
        f"One process with all images: {one['forward'] + one['backward'] + one['update']:.2f} seconds.",
        "",
        f"Pieces: forward and backward of n images take {conv:.3f} + {conv_each:.4f} n seconds in the convolutions and",
        f"{fc:.3f} + {fc_each:.4f} n in the fully connected layers, {base['forward']:.0%} of it forward; the update",
        f"{base['update']:.3f}. A message {base['latency'] * 1e6:.0f} us; adding and copying",
        f"{base['handling'] * 1e9:.2f} ns a byte. Loopback: {', '.join(loops)}.",
        "",
        "## Simulation",
        "",
        "How many times as many images a second as one process alone; what is assumed is in parallel_model.py.",
        *tables(found),
    ]
    return lines


def loopback(processes: int, run: dict[str, Any], base: dict[str, Any]) -> Link:
    """What loopback gives: of the time of a bucket, less its messages and what adding and copying take."""
    sent = 2 * (processes - 1) / processes * 4e6
    rest = run["bucket"] - 2 * (processes - 1) * run["latency"] - sent * base["handling"]
    return Link(sent / max(rest, 1e-4), run["latency"], base["handling"])


if __name__ == "__main__":
    main()
