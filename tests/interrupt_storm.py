"""Ctrl-C at random moments of training steps, and what is left of each: `python tests/interrupt_storm.py [TRIALS]`.

Each trial sends this process a SIGINT somewhere in forward, backward or the weights' update.  After the
KeyboardInterrupt, and there must be one, it looks for everything that could spoil what comes next:

    threads     somebody still at work: gradients or weights that change afterwards
    gradients   some leaves have theirs and others not, or wrong ones
    weights     some are changed and others not
    blas        BLAS is left at another number of threads
    handler     Ctrl-C is left with another handler
    next step   has other bits than an undisturbed one
    swallowed   no KeyboardInterrupt came out, or Python printed "Exception ignored"
    hang        nothing at all for a minute: the program ends here, with every thread's place
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

import minigrad
import minigrad.functional as F
from minigrad import Tensor, nn, optim
from minigrad.processor import parallel

FAULTS = ("threads", "gradients", "weights", "blas", "handler", "next step", "swallowed")
HANG_S = 60


class Net(nn.Module):
    """Columns that hear of each other twice, as AlexNet's do; one column where there is one device."""

    def __init__(self, devices: list[str], chunks: bool, width: int):
        self.devices, self.chunks = devices, chunks
        minigrad.manual_seed(0)
        both = width * len(devices)
        self.first = [nn.Conv2d(3, width, 5, padding=2, device=d) for d in devices]
        self.second = [nn.Conv2d(both, width, 3, padding=1, device=d) for d in devices]
        self.last = nn.Linear(both * 36, 10, device=devices[0])

    def forward(self, images: np.ndarray) -> Tensor:
        xs = [Tensor(images, device=d) for d in self.devices]
        on = minigrad.on_devices
        xs = on(self.devices, self._run, [self._first] * len(xs), self.first, xs)
        xs = on(self.devices, self._run, [self._second] * len(xs), self.second, self._everywhere(xs))
        return self.last(F.concat([F.flatten(x, 1).to(self.devices[0]) for x in xs], axis=1))

    def _everywhere(self, xs: list[Tensor]) -> list[Tensor]:
        return [F.concat([x.to(d) for x in xs], axis=1) for d in self.devices]

    def _run(self, part, layer: nn.Module, x: Tensor) -> Tensor:
        if self.chunks:
            return minigrad.in_chunks(lambda images: part(layer, images), x, size=-(-len(x) // 4))
        return part(layer, x)

    def _first(self, layer: nn.Module, x: Tensor) -> Tensor:
        return F.max_pool2d(F.lrn(F.relu(layer(x))), 3, 2)

    def _second(self, layer: nn.Module, x: Tensor) -> Tensor:
        return F.max_pool2d(F.relu(layer(x)), 2)


class Storm:
    def __init__(self, devices: list[str], chunks: bool, images: int, width: int):
        rng = np.random.default_rng(0)
        self.images, self.labels = rng.standard_normal((images, 3, 25, 25)).astype("f"), rng.integers(0, 10, images)
        self.net = Net(devices, chunks, width)
        self.weights = list(self.net.parameters())
        self.optimizer = optim.SGD(self.weights, 0.01, momentum=0.9)
        self.forward_backward()
        self.optimizer.step()
        self.before = self.now()
        self.velocity = self.optimizer.state_dict()
        self.forward_backward()
        self.gradients = [p.grad.numpy().copy() for p in self.weights]
        self.optimizer.step()
        self.after = self.now()
        self.blas = blas_threads()
        self.reset()
        begin = time.perf_counter()
        self.step()
        self.step_s = time.perf_counter() - begin

    def forward_backward(self) -> None:
        self.net.zero_grad()
        F.cross_entropy(self.net(self.images), self.labels).backward()

    def step(self) -> None:
        self.forward_backward()
        self.optimizer.step()

    def now(self) -> list[np.ndarray]:
        return [p.numpy().copy() for p in self.weights]

    def reset(self) -> None:
        with minigrad.no_grad():
            for p, values in zip(self.weights, self.before):
                p.copy_(values)
        self.optimizer.load_state_dict(self.velocity)

    def state(self) -> list[np.ndarray]:
        return [*self.now(), *(np.zeros(0) if p.grad is None else p.grad.numpy().copy() for p in self.weights)]

    def trial(self, random_moment: float, fresh: bool) -> list[str]:
        """The faults that one interrupt leaves.  fresh: the workers' threads have to be started anew."""
        self.reset()
        self.net.zero_grad()
        if fresh:
            parallel._workers.clear()
        ignored: list[Any] = []
        sys.unraisablehook = ignored.append
        came = False
        sender = threading.Thread(target=interrupt_after, args=(random_moment * self.step_s,))
        try:
            sender.start()
            self.step()
            sender.join()
            for _ in range(100):
                time.sleep(0)
        except KeyboardInterrupt:
            came = True
        sender.join()
        first = self.state()
        time.sleep(min(0.02, self.step_s / 2))
        second = self.state()
        sys.unraisablehook = sys.__unraisablehook__

        faults = []
        if not same(first, second):
            faults.append("threads")
        given = [p.grad.numpy() for p in self.weights if p.grad is not None]
        if given and not same(given, self.gradients):
            faults.append("gradients")
        if not same(self.now(), self.before) and not same(self.now(), self.after):
            faults.append("weights")
        if blas_threads() != self.blas:
            faults.append("blas")
        if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            faults.append("handler")
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self.reset()
        self.step()
        if not same([p.grad.numpy() for p in self.weights], self.gradients) or not same(self.now(), self.after):
            faults.append("next step")
        if not came or ignored:
            faults.append("swallowed")
        for what in ignored:
            trace = traceback.format_exception(what.exc_value)
            print(f"swallowed in {what.object}:", *trace, sep="\n", file=sys.stderr)
        return faults


def interrupt_after(seconds: float) -> None:
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGINT)


def same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b))


def blas_threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


KINDS = {
    "cpu, one device": (["cpu:0"], False, 64, 16),
    "cpu, one device, chunks": (["cpu:0"], True, 64, 16),
    "cpu, two devices": (["cpu:0", "cpu:1"], False, 64, 16),
    "cpu, two devices, chunks": (["cpu:0", "cpu:1"], True, 64, 16),
    "cudasim, one device": (["cudasim:0"], False, 2, 3),
    "cudasim, two devices": (["cudasim:0", "cudasim:1"], False, 2, 3),
}


def storm(kind: str, trials: int, seed: int = 0) -> Counter[str]:
    """How many of the trials left each fault; "any": how many left one."""
    # A shell's background job begins with SIGINT ignored: its first trial would wait for a KeyboardInterrupt in vain.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        weather, moments = Storm(*KINDS[kind]), random.Random(seed)
        counts: Counter[str] = Counter()
        for number in range(trials):
            faulthandler.dump_traceback_later(HANG_S, exit=True)
            faults = weather.trial(moments.random(), fresh=number % 4 == 0)
            counts.update([*faults, *["any"] * bool(faults)])
        faulthandler.cancel_dump_traceback_later()
        return counts
    finally:
        signal.signal(signal.SIGINT, before)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("trials", type=int, nargs="?", default=400, help="of each kind (default: %(default)s)")
    parser.add_argument("--kinds", default="", help="only those whose names contain this")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is deaf to it
    print(f"{'kind':26}{'trials':>8}{'any fault':>11}" + "".join(f"{fault:>11}" for fault in FAULTS), flush=True)
    worst = 0
    for kind in KINDS:
        if options.kinds in kind:
            counts = storm(kind, options.trials)
            worst = max(worst, counts["any"])
            row = "".join(f"{counts[fault]:>11}" for fault in FAULTS)
            print(f"{kind:26}{options.trials:>8}{counts['any']:>11}{row}", flush=True)
    return 1 if worst else 0


if __name__ == "__main__":
    sys.exit(main())
