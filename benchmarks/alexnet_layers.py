"""Where the time of a train step goes, layer by layer and op by op: AlexNet in two columns.

    python benchmarks/alexnet_layers.py [--batch 128] [--runs 3] [--save]

What is counted is the processor's time for each op, with one thread, in which the columns take turns: so other programs
on the machine change it little.  What lies between the ops is not counted.  Shares are what it is for; how long a step
takes is in alexnet_step.md.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from nets import DECAY, SGD, channels_last, start
from peers import arguments, environment, header, report, row

import minigrad
import minigrad.functional as F
from minigrad import Tensor, optim
from minigrad.processor.parallel import one_blas_thread
from minigrad.tools import tracing

BEFORE = {"copy", "concat", "reshape"}  # ops that bring a layer what it reads
DEVICES = ("cpu:0", "cpu:1")


class ByLayer(tracing.PassingOn):
    """A recorder that knows the layer of each op: `seen(layer, op, phase, work)` runs `work()` and returns its result.

    A layer is an op that reads its weights, and what follows it on that device; copies and the like belong to the
    layer after them.  Which one that is turns out when it begins: so a layer is a list, which holds its name then.
    """

    def __init__(self, net: Any, seen: Callable[[list[str], str, str, Callable[[], Any]], Any]):
        super().__init__(tracing.recorder)
        self.weights = {id(p.data): name.split(".")[-2] for name, p in net.named_parameters()}
        self.seen = seen
        self.nodes: dict[int, list[str]] = {}  # node -> [its layer], a list, as the layer may be found later
        self.at: dict[Any, list[str]] = {}
        self.before: dict[Any, list[str]] = {}

    def forward(self, function: Any, *arrays: Any) -> Any:
        if function.name == "in_chunks":  # the ops in it are seen by themselves
            return super().forward(function, *arrays)
        device = function.device
        named = next((self.weights[id(array)] for array in arrays if id(array) in self.weights), None)
        if named is not None:
            layer = self.at[device] = self.before.pop(device, [""])
            layer[0] = named
        elif function.name in BEFORE:
            layer = self.before.setdefault(device, [""])
        else:
            layer = ["loss"] if function.name == "cross_entropy" else self.at[device]
        self.nodes[id(function)] = layer
        return self.seen(layer, function.name, "forward", lambda: super(ByLayer, self).forward(function, *arrays))

    def backward(self, node: Any, dy: Any) -> Any:
        if node.name == "in_chunks":
            return super().backward(node, dy)
        layer = self.nodes[id(node)]
        return self.seen(layer, node.name, "backward", lambda: super(ByLayer, self).backward(node, dy))


def measured(batch: int, runs: int) -> list[dict[tuple[str, str, str], float]]:
    """Of each run the seconds by (layer, op, phase)."""
    from alexnet import AlexNet

    state, x, target = start(batch)
    net = AlexNet(preset="trainable", devices=DEVICES)
    net.load_state_dict(state)
    images = Tensor(channels_last(x), device=DEVICES[0])
    optimizer = optim.SGD(net.parameters(), **SGD, **DECAY)
    for device in DEVICES:
        minigrad.set_num_threads(1, device)
    found = []
    for _ in range(runs + 1):
        notes: list[tuple[list[str], str, str, float]] = []

        def timed(layer: list[str], op: str, phase: str, work: Callable[[], Any], notes: list[Any] = notes) -> Any:
            begin = time.thread_time()
            result = work()
            notes.append((layer, op, phase, time.thread_time() - begin))
            return result

        tracing.recorder, before = ByLayer(net, timed), tracing.recorder
        try:
            with minigrad.in_turn(), one_blas_thread():
                optimizer.zero_grad()
                loss = F.cross_entropy(net(images), target)
                loss.backward()
                timed(["update"], "sgd", "", optimizer.step)
        finally:
            tracing.recorder = before
        sums: dict[tuple[str, str, str], float] = {}
        for (layer,), op, phase, seconds in notes:
            sums[layer, op, phase] = sums.get((layer, op, phase), 0.0) + seconds
        found.append(sums)
    return found[1:]


def main() -> None:
    parser = arguments(__doc__, runs=3)
    parser.add_argument("--batch", type=int, default=128)
    options = parser.parse_args()
    found = measured(options.batch, options.runs)
    medians = {key: statistics.median(sums[key] for sums in found) for key in found[0]}
    total = sum(medians.values())
    lines = [
        "# A train step of AlexNet, layer by layer",
        "",
        environment("numpy"),
        "",
        f"Batch {options.batch}, two columns that take turns in one thread.  Seconds of the processor, medians of",
        f"{options.runs} steps after one that does not count; {total:.2f} in all.  A layer is a convolution or a",
        "product with what follows it; both columns together.",
        "",
        *header("layer", "op", "forward, s", "backward, s", "share of the step"),
    ]
    for layer, op in dict.fromkeys((layer, op) for layer, op, _ in medians):
        there, back = (medians.get((layer, op, phase), 0.0) for phase in ("forward", "backward"))
        there += medians.get((layer, op, ""), 0.0)
        lines.append(row(layer, op, f"{there:.4f}", f"{back:.4f}", f"{(there + back) / total:.2%}"))
    report("alexnet_layers", lines, options.save)


if __name__ == "__main__":
    main()
