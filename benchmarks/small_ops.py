"""Where the library itself costs more than the numbers: LeNet on 28 x 28 pixels, and a chain of scalars.

    python benchmarks/small_ops.py [--runs 60] [--save]

minigrad against PyTorch eager: a train step of LeNet at batch 64 (forward, loss, backward, SGD with momentum), and
1,000 ops on single numbers, forward and backward.  Losses and gradients are compared before anything is timed.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
from nets import minigrad_lenet, torch_lenet
from peers import Peer, Sample, arguments, check, environment, header, interleaved, ratio, report, row, verdict

OPS = 1000


def minigrad_scalars() -> dict[str, Any]:
    import minigrad

    return chain(lambda value: minigrad.Tensor(value, requires_grad=True))


def torch_scalars() -> dict[str, Any]:
    import torch

    return chain(lambda value: torch.tensor(value, requires_grad=True))


def chain(leaf: Callable[[float], Any]) -> dict[str, Any]:
    """y = (...((x w + b) w + b)...) w + b: OPS ops, and their gradients, in either library."""
    x, w, b = leaf(1.0), leaf(0.999), leaf(0.001)

    def step() -> Any:
        y = x
        for _ in range(OPS // 2):
            y = y * w
            y = y + b
        y.backward()
        return y

    def gradients() -> Sample:
        for parameter in (x, w, b):
            parameter.grad = None
        y = step()
        return y.item(), {name: np.array([p.grad.item()]) for name, p in (("x", x), ("w", w), ("b", b))}

    return {"step": step, "gradients": gradients}


def main() -> None:
    parser = arguments(__doc__, runs=60)
    parser.add_argument("--batch", type=int, default=64)
    options = parser.parse_args()

    plain, chunked = "minigrad, net(x)", "minigrad, in_chunks(net, x)"
    lenet = [
        Peer("PyTorch eager", torch_lenet, options.batch),
        Peer(plain, minigrad_lenet, options.batch, False),
        Peer(chunked, minigrad_lenet, options.batch, True),
    ]
    scalars = [Peer("PyTorch eager", torch_scalars), Peer("minigrad", minigrad_scalars)]
    check(lenet, "gradients", worst=1e-4)
    check(scalars, "gradients", worst=1e-4)
    times = interleaved(lenet, "step", options.runs, calls=10)
    chain_times = interleaved(scalars, "step", options.runs, calls=10)
    best = min((plain, chunked), key=lambda name: ratio(times, name, "PyTorch eager"))
    lines = [
        "# Small work: LeNet on 28 x 28 pixels, and single numbers",
        "",
        environment("numpy", "torch"),
        "",
        f"{options.runs} measurements of each, in turns of 10, each after one that does not count. Medians; ratios are",
        "medians of pairs of turns, below 1 minigrad is faster.",
        "",
        *header("", "", "milliseconds", "time / PyTorch eager"),
    ]
    work = {f"LeNet, batch {options.batch}, train step": (lenet, times)}
    work[f"{OPS} scalar ops, forward and backward"] = (scalars, chain_times)
    for what, (peers, seconds) in work.items():
        for peer in peers:
            milliseconds = statistics.median(seconds[peer.name]) * 1e3
            against = ratio(seconds, peer.name, "PyTorch eager")
            lines.append(row(what, peer.name, f"{milliseconds:.2f}", f"{against:.2f}"))
            peer.close()
    lines += [
        "",
        *header("", "measured", "target", ""),
        row(f"LeNet, {best}: time / PyTorch eager", *verdict(ratio(times, best, "PyTorch eager"), 0.95)),
        row("scalar ops: time / PyTorch eager", *verdict(ratio(chain_times, "minigrad", "PyTorch eager"), 1.2)),
    ]
    report("small_ops", lines, options.save)


if __name__ == "__main__":
    main()
