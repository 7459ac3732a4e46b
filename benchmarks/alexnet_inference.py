"""AlexNet forward, without gradients: minigrad against onnxruntime and PyTorch, 128 images at once and one by one.

    python benchmarks/alexnet_inference.py [--batch 128 1] [--runs 10] [--runs-one 50] [--compile] [--save]

All contestants hold the same weights and images, and their logits are compared before anything is timed.
"""

from __future__ import annotations

import statistics

from nets import minigrad_alexnet, onnx_alexnet, torch_alexnet
from peers import Peer, arguments, check, environment, header, interleaved, ratio, report, row, verdict

OURS, ONNX = "minigrad, cpu:0", "onnxruntime"
TARGETS = {1: 0.80, 128: 0.50}  # time / onnxruntime


def main() -> None:
    parser = arguments(__doc__, runs=10)
    parser.add_argument("--batch", type=int, nargs="+", default=[128, 1])
    parser.add_argument("--runs-one", type=int, default=50, help="measurements at batch 1 (default 50)")
    parser.add_argument("--compile", action="store_true", help="torch.compile too; it needs g++ and some minutes")
    options = parser.parse_args()

    lines = [
        "# AlexNet inference",
        "",
        environment("numpy", "torch", "onnx", "onnxruntime"),
        "",
        f"In turn; {options.runs} measurements of each after one round that does not count. At batch 1:",
        f"{options.runs_one} measurements, in turns of 10, each turn after a call that does not count. Medians; ratios",
        "are medians of pairs of turns, below 1 minigrad is faster. onnxruntime has one thread per core.",
        "",
        *header("batch", "", "milliseconds", "images/s", "time / onnxruntime", "time / PyTorch eager"),
    ]
    targets = ["", *header("", "measured", "target", "")]
    for batch in options.batch:
        contestants = {
            ONNX: (onnx_alexnet, batch),
            "PyTorch eager": (torch_alexnet, batch, False),
            **({"torch.compile": (torch_alexnet, batch, True)} if options.compile else {}),
            OURS: (minigrad_alexnet, batch, ("cpu:0",)),
        }
        peers = [Peer(name, *make) for name, make in contestants.items()]
        check(peers, "logits", worst=1e-4)
        if batch == 1:
            times = interleaved(peers, "forward", options.runs_one, calls=10)
        else:
            times = interleaved(peers, "forward", options.runs)
        for peer in peers:
            seconds = statistics.median(times[peer.name])
            ratios = [f"{ratio(times, peer.name, rival):.2f}" for rival in (ONNX, "PyTorch eager")]
            lines.append(row(batch, peer.name, f"{seconds * 1e3:.1f}", f"{batch / seconds:.1f}", *ratios))
            peer.close()
        if batch in TARGETS:
            measured = verdict(ratio(times, OURS, ONNX), TARGETS[batch])
            targets.append(row(f"batch {batch}: {OURS}: time / {ONNX}", *measured))
    report("alexnet_inference", lines + targets, options.save)


if __name__ == "__main__":
    main()
