"""The train step of AlexNet, minigrad against PyTorch eager: time and memory, interleaved.

    python benchmarks/alexnet_step.py [--batch 32 128] [--runs 5] [--save]

Both sides hold the same weights and images; before anything is timed, their losses and gradients are compared with
dropout off.  A step is forward, loss, backward, and SGD with momentum and weight decay.  minigrad runs on one
device with all cores, and as two columns on cpu:0 and cpu:1, as in the paper.  There it keeps freed memory
(minigrad/memory.py), as the main job does; once more it does not.  PyTorch runs as it comes.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "examples")]

from peers import Peer, environment, interleaved, ratio  # noqa: E402

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")


def start(batch: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Weights in the one-device form, images (N, 3, 224, 224), labels: the same in every process."""
    rng = np.random.default_rng(0)
    shapes = [(96, 3, 11, 11), (256, 48, 5, 5), (384, 256, 3, 3), (384, 192, 3, 3), (256, 192, 3, 3),
              (4096, 9216), (4096, 4096), (1000, 4096)]  # fmt: skip
    state = {}
    for layer, shape in zip(LAYERS, shapes):
        state[f"{layer}.weight"] = rng.standard_normal(shape, dtype="f") * np.float32(np.sqrt(2 / np.prod(shape[1:])))
        state[f"{layer}.bias"] = np.full(shape[0], 0.1, "f")
    return state, rng.standard_normal((batch, 3, 224, 224), dtype="f"), rng.integers(0, 1000, batch)


def minigrad_net(batch: int, devices: tuple[str, ...], keep: bool) -> dict[str, Any]:
    from alexnet import AlexNet, merged

    import minigrad
    import minigrad.functional as F
    from minigrad import Tensor, optim

    if keep:
        minigrad.keep_freed_memory()
    state, x, target = start(batch)
    net = AlexNet(devices=devices)
    net.load_state_dict(state)
    optimizer = optim.SGD(net.parameters(), 0.001, momentum=0.9, weight_decay=5e-4)
    images = Tensor(np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2), device=devices[0])

    def backward() -> float:
        optimizer.zero_grad()
        loss = F.cross_entropy(net(images), target)
        loss.backward()
        return loss.item()

    def step() -> None:
        net.train()
        backward()
        optimizer.step()

    def check() -> tuple[float, dict[str, np.ndarray]]:
        for column in net.columns:
            column.p = 0.0
        loss = backward()
        grads = merged([{n: p.grad.numpy() for n, p in c.named_parameters()} for c in net.columns])
        for column in net.columns:
            column.p = 0.5
        return loss, sampled(grads)

    return {"step": step, "check": check}


def torch_net(batch: int) -> dict[str, Any]:
    import torch
    import torch.nn.functional as f

    state, x, target = start(batch)
    w = {name: torch.nn.Parameter(torch.from_numpy(array)) for name, array in state.items()}
    images, labels = torch.from_numpy(x), torch.from_numpy(target)
    optimizer = torch.optim.SGD(w.values(), 0.001, momentum=0.9, weight_decay=5e-4)

    def conv(name: str, h: Any, **kw: Any) -> Any:
        return f.relu(f.conv2d(h, w[f"{name}.weight"], w[f"{name}.bias"], **kw), inplace=True)

    def pool(h: Any) -> Any:
        return f.max_pool2d(h, 3, 2)

    def lrn(h: Any) -> Any:  # each column by itself: a free view; PyTorch divides alpha by n
        n, c, *size = h.shape
        return f.local_response_norm(h.view(2 * n, c // 2, *size), 5, alpha=5e-4, beta=0.75, k=2.0).view(h.shape)

    def forward(p: float) -> Any:
        h = pool(lrn(conv("conv1", f.pad(images, (0, 3, 0, 3)), stride=4)))
        h = pool(lrn(conv("conv2", h, padding=2, groups=2)))
        h = conv("conv4", conv("conv3", h, padding=1), padding=1, groups=2)
        h = pool(conv("conv5", h, padding=1, groups=2)).flatten(1)
        for name in ("fc6", "fc7"):
            h = f.dropout(f.relu(f.linear(h, w[f"{name}.weight"], w[f"{name}.bias"]), inplace=True), p)
        return f.linear(h, w["fc8.weight"], w["fc8.bias"])

    def backward(p: float) -> float:
        optimizer.zero_grad()
        loss = f.cross_entropy(forward(p), labels)
        loss.backward()
        return loss.item()

    def step() -> None:
        backward(0.5)
        optimizer.step()

    return {"step": step, "check": lambda: (backward(0.0), sampled({n: p.grad.numpy() for n, p in w.items()}))}


def sampled(grads: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every 97th number of each gradient: enough to compare, small enough to send."""
    return {name: g.reshape(-1)[::97].copy() for name, g in grads.items()}


def agree(a: tuple[float, Any], b: tuple[float, Any]) -> float:
    """The largest relative L2 difference of a gradient; AssertionError where losses or gradients differ.

    Gradients of the first layers may differ by some 1e-3: two float32 programs break near-ties in a pooling window
    differently, and the gradient then goes to another pixel.
    """
    assert abs(a[0] - b[0]) < 1e-4 * abs(b[0]), f"losses differ: {a[0]} and {b[0]}"
    worst = max(float(np.linalg.norm(a[1][n] - b[1][n]) / np.linalg.norm(b[1][n])) for n in b[1])
    assert worst < 1e-2, f"gradients differ by {worst}"
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 128])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/alexnet_step.md")
    options = parser.parse_args()
    import torch

    import minigrad

    lines = [
        "# AlexNet train step, minigrad against PyTorch eager",
        "",
        environment(minigrad, np, torch),
        "",
        f"Interleaved, median of {options.runs}; ratio: median of pairs, below 1 minigrad is faster (or smaller).",
        "minigrad keeps freed memory (`minigrad.keep_freed_memory()`) but for the last row; PyTorch runs as it comes.",
        "",
        "| batch | | seconds a step | images/s | time / PyTorch | peak RSS, MB | RSS / PyTorch |",
        "|---|---|---|---|---|---|---|",
    ]
    for batch in options.batch:
        peers = [
            Peer("PyTorch eager", torch_net, batch),
            Peer("minigrad, cpu:0", minigrad_net, batch, ("cpu:0",), True),
            Peer("minigrad, cpu:0 + cpu:1", minigrad_net, batch, ("cpu:0", "cpu:1"), True),
            Peer("the same, memory not kept", minigrad_net, batch, ("cpu:0", "cpu:1"), False),
        ]
        theirs = peers[0].call("check")
        for peer in peers[1:]:
            print(f"batch {batch}: {peer.name}: gradients agree to {agree(peer.call('check'), theirs):.1e}")
        times = interleaved(peers, "step", options.runs)
        memory = {peer.name: peer.peak_mb() for peer in peers}
        for peer in peers:
            seconds = statistics.median(times[peer.name])
            lines.append(
                f"| {batch} | {peer.name} | {seconds:.2f} | {batch / seconds:.1f} | "
                f"{ratio(times, peer.name, 'PyTorch eager'):.2f} | {memory[peer.name]:.0f} | "
                f"{memory[peer.name] / memory['PyTorch eager']:.2f} |"
            )
            peer.close()
    text = "\n".join(lines) + "\n"
    print(text)
    if options.save:
        (HERE / "results").mkdir(exist_ok=True)
        (HERE / "results" / "alexnet_step.md").write_text(text)


if __name__ == "__main__":
    main()
