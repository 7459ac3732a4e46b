"""What Python costs on a card: launches, allocations, copies, waits and the processor's time of a step, without a card.

    python benchmarks/launches.py [--base DIR] [--runs 30] [--save]

A stand-in for CuPy answers at once and does nothing: arrays have shapes, strides and an address, kernels and copies
count themselves.  So all the time that is measured is Python's, between one launch and the next; what CuPy and the
driver need for each launch comes on top of it, on a machine with a card.  --base: another checkout of minigrad, say
the one before a change, which is measured in turns with this one.
"""

from __future__ import annotations

import mmap
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from peers import HERE, Peer, arguments, environment, header, report, row

MEMORY = mmap.mmap(-1, 1 << 32)  # addressed, and never touched: all arrays lie here
counts: Counter[str] = Counter()


class Array(np.ndarray):
    """In place of cupy.ndarray; as its own `data`, it has what cupy's MemoryPointer has."""

    ptr, device_id = 4096, 0
    data = property(lambda self: self)  # type: ignore[assignment]
    mem = property(lambda self: self if self.base is MEMORY else self.base)

    def __new__(cls, shape: tuple[int, ...], dtype: Any) -> Array:
        counts["allocations"] += 1
        return super().__new__(OnCard1 if current.card and cls is Array else cls, shape, dtype, MEMORY)


class OnCard1(Array):
    device_id = 1


class Current(threading.local):
    """What a thread has entered: its card, and its stream on each card."""

    card = 0

    def __init__(self) -> None:
        self.before: list[int] = []
        self.streams: list[list[Any]] = [[None], [None]]


current = Current()


class Card:
    """cupy.cuda.Device: inside, this card is the thread's."""

    compute_capability = "90"

    def __init__(self, index: int):
        self.index = index

    def __enter__(self) -> None:
        current.before.append(current.card)
        current.card = self.index

    def __exit__(self, *exc: object) -> None:
        current.card = current.before.pop()


class Kernel:
    def __init__(self, name: str):
        self.name = name

    def __call__(self, grid: Any, block: Any, args: tuple[Any, ...], **more: Any) -> None:
        counts["launches"] += 1


class Module:
    def __init__(self, **source: Any):
        self.get_function = Kernel


class Stream:
    ptr = 1

    def __init__(self, **settings: Any):
        self.card = current.card

    def __enter__(self) -> None:
        current.streams[self.card].append(self)

    def __exit__(self, *exc: object) -> None:
        current.streams[self.card].pop()

    def record(self, event: Any) -> Any:
        return event

    def wait_event(self, event: Any) -> None:
        pass

    def synchronize(self) -> None:
        counts["waits"] += 1


class Event:
    done = True

    def __init__(self, **settings: Any):
        pass


class Pinned(bytearray):
    ptr = 4096


def copied(*what: Any) -> None:
    counts["copies"] += 1


def multiplied(*what: Any) -> None:
    counts["launches"] += 1


def stand_in() -> ModuleType:
    """The module that `import cupy` gives."""
    runtime = SimpleNamespace(
        getDeviceCount=lambda: 2,
        getDevice=lambda: current.card,
        deviceCanAccessPeer=lambda here, there: 1,
        deviceEnablePeerAccess=lambda there: None,
        memcpyAsync=copied,
        memcpyPeerAsync=copied,
        memsetAsync=multiplied,
        memcpyHostToDevice=1,
        memcpyDeviceToHost=2,
        memcpyDeviceToDevice=3,
    )
    cublas = SimpleNamespace(
        **{name: multiplied for name in ("sgemm", "dgemm")},
        **{f"get{mode}": lambda handle: 0 for mode in ("MathMode", "PointerMode")},
        **{f"set{mode}": lambda handle, mode: None for mode in ("MathMode", "PointerMode", "Stream")},
        **dict.fromkeys(("CUBLAS_OP_N", "CUBLAS_DEFAULT_MATH", "CUBLAS_POINTER_MODE_HOST"), 0),
        CUBLAS_OP_T=1,
        create=lambda: 1,
    )
    cupy: Any = ModuleType("cupy")
    cupy.ndarray, cupy.RawModule = Array, Module
    cupy.cuda = SimpleNamespace(
        **{"Device": Card, "Stream": Stream, "Event": Event, "runtime": runtime, "cublas": cublas},
        get_current_stream=lambda card: current.streams[card][-1],
        get_cublas_handle=lambda: 1,
        alloc_pinned_memory=Pinned,
    )
    return cupy


def contestant(tree: str, job: str, batch: int) -> dict[str, Callable[[], Any]]:
    """A net on the card that does nothing, with the minigrad of a tree; in a process of its own."""
    sys.path[:0] = [tree, str(Path(tree) / "examples")]
    sys.modules["cupy"] = stand_in()
    import minigrad

    assert Path(minigrad.__file__).is_relative_to(tree), f"minigrad is that of {minigrad.__file__}, not of {tree}"
    from nets import minigrad_alexnet, minigrad_lenet

    minigrad.set_default_devices("cuda:0")
    if job == "LeNet":
        net = minigrad_lenet(batch, False, "cuda:0")
    else:
        net = minigrad_alexnet(batch, ("cuda:0", "cuda:1") if job == "columns" else ("cuda:0",))

    def counted(what: str) -> dict[str, int]:
        net["step"](), net[what]()  # all is compiled, and every parameter has its gradient
        counts.clear()
        net[what]()
        return dict(counts)

    def timed(what: str, calls: int) -> float:
        """Milliseconds of the processor that one of `calls` takes; the least, as other programs only add to it."""
        least = float("inf")
        for _ in range(calls):
            begin = time.process_time()
            net[what]()
            least = min(least, time.process_time() - begin)
        return least * 1e3

    return {"counted": counted, "timed": timed}


JOBS = {  # what, of which net, at which batch
    "AlexNet, train step": ("one device", "step", 128),
    "AlexNet, forward and backward": ("one device", "backward", 128),
    "AlexNet, step of SGD": ("one device", "update", 128),
    "AlexNet, inference": ("one device", "forward", 128),
    "AlexNet in two columns, train step": ("columns", "step", 128),
    "LeNet, train step": ("LeNet", "step", 64),
}
STEP = 9.0  # milliseconds that a train step of AlexNet in float32 is to take on a card: a goal, nothing measured
COUNTED = ("launches", "allocations", "copies", "waits")


def main() -> None:
    parser = arguments(__doc__, runs=30)
    parser.add_argument("--base", type=Path, help="another checkout, measured in turns with this one")
    options = parser.parse_args()
    trees = {"before": options.base.resolve()} if options.base else {}
    trees["now"] = HERE.parent
    lines = [
        "# Python's share of a step on a card",
        "",
        environment("numpy"),
        "",
        "Counts of one step, and the processor's time for it, on a stand-in for CuPy that does nothing: no card, no",
        f"driver, no CuPy.  Milliseconds: medians of {options.runs} turns, each the least of 10 calls; the trees take",
        "turns.",
        "",
        *header("", "tree", *COUNTED, "Python, ms", "us a launch", "ratio"),
    ]
    shares: list[str] = []
    for net in dict.fromkeys(net for net, _, _ in JOBS.values()):
        batch = next(batch for name, _, batch in JOBS.values() if name == net)
        peers = [Peer(name, contestant, str(tree), net, batch) for name, tree in trees.items()]
        for title, (name, what, _) in JOBS.items():
            if name != net:
                continue
            counted = {peer.name: peer.call("counted", what) for peer in peers}
            times: dict[str, list[float]] = {peer.name: [] for peer in peers}
            for _ in range(options.runs):
                for peer in peers:
                    times[peer.name].append(peer.call("timed", what, 10))
            first = times[peers[0].name]
            for peer in peers:
                numbers = [counted[peer.name].get(count, 0) for count in COUNTED]
                ms = statistics.median(times[peer.name])
                ratio = statistics.median(a / b for a, b in zip(times[peer.name], first))
                each = f"{1e3 * ms / numbers[0]:.1f}"
                lines.append(row(title, peer.name, *numbers, f"{ms:.2f}", each, f"{ratio:.2f}"))
                if title == "AlexNet, train step":
                    shares.append(f"{ms / STEP:.0%} {peer.name}")
        for peer in peers:
            peer.close()
    lines += ["", f"Of a train step that takes a card {STEP:g} ms, the goal, AlexNet's Python is {', '.join(shares)}."]
    report("launches", lines, options.save)


if __name__ == "__main__":
    main()
