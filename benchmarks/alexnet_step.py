"""The train step of AlexNet: minigrad against PyTorch, eager and compiled, and against the processor itself.

    python benchmarks/alexnet_step.py [--batch 128] [--runs 3] [--save]

All contestants hold the same weights and images; before anything is timed, their losses and gradients are compared,
with dropout off, in processes that end there.  A step is forward, loss, backward, and SGD with momentum and weight
decay.  minigrad runs on one device with all cores, and as two columns on cpu:0 and cpu:1, as in the paper.  The floor
is the time that the step's multiplications alone take at the speed of large matrix products, measured between the
steps.  torch.compile needs g++.
"""

from __future__ import annotations

import re
import statistics

from nets import LAYERS, gflop, matmul, minigrad_alexnet, torch_alexnet
from peers import Peer, Sample, Times, agree, arguments, environment, header, interleaved, ratio, report, row, verdict

EAGER, COMPILED, ONE, TWO = "PyTorch eager", "torch.compile", "minigrad, cpu:0", "minigrad, cpu:0 + cpu:1"
CONTESTANTS = {
    EAGER: (torch_alexnet, False),
    COMPILED: (torch_alexnet, True),
    ONE: (minigrad_alexnet, ("cpu:0",)),
    TWO: (minigrad_alexnet, ("cpu:0", "cpu:1")),
}
MATRIX = 4096  # the side of the matrices whose product measures the processor


def check(batch: int) -> dict[str, str]:
    """Compare losses and gradients; returns why torch.compile cannot take part, by its name, if it cannot.

    Gradients of the first layers may differ by some 1e-3: two float32 programs break near-ties in a pooling window
    differently, and the gradient then goes to another pixel.
    """
    theirs: Sample | None = None
    absent: dict[str, str] = {}
    for name, (make, variant) in CONTESTANTS.items():
        try:
            with Peer(name, make, batch, variant, 0.0) as peer:
                ours = peer.call("gradients")
        except RuntimeError as error:
            if name != COMPILED:
                raise
            reasons = [line for line in str(error).splitlines()[1:] if re.match(r"[\w.]+: ", line)]  # "SomeError: ..."
            absent[name] = reasons[-1] if reasons else "see above"
            print(f"{name} does not run here: {error}")
            continue
        if theirs is None:
            theirs = ours
        else:
            agree(f"batch {batch}: {name} and {EAGER}", ours, theirs, worst=1e-2)
    return absent


def measure(batch: int, runs: int, names: list[str]) -> tuple[Times, dict[str, float]]:
    """Seconds of the steps, and of the floor; peak memory of processes that did nothing but train."""
    peers = [Peer(name, *_args(name, batch)) for name in names]
    product = Peer("floor", matmul, MATRIX)
    times = interleaved([*peers, product], "step", runs)
    work = sum(sum(gflop(layer, batch)) for layer in LAYERS)
    times["floor"] = [seconds * work / (2 * MATRIX**3 / 1e9) for seconds in times["floor"]]
    memory = {peer.name: peer.peak_mb() for peer in peers}
    for peer in [*peers, product]:
        peer.close()
    return times, memory


def _args(name: str, batch: int) -> tuple:
    make, variant = CONTESTANTS[name]
    return make, batch, variant


def report_batch(batch: int, times: Times, memory: dict[str, float], absent: dict[str, str]) -> list[str]:
    lines = [f"## Batch {batch}", ""]
    lines += header("", "seconds a step", "images/s", "time / eager", "time / compiled", "peak RSS, MB", "RSS / eager")
    for name in CONTESTANTS:
        if name in absent:
            lines.append(row(name, f"does not run here: {absent[name]}", *[""] * 5))
            continue
        seconds = statistics.median(times[name])
        lines.append(
            row(
                name,
                f"{seconds:.2f}",
                f"{batch / seconds:.1f}",
                f"{ratio(times, name, EAGER):.2f}",
                "" if absent else f"{ratio(times, name, COMPILED):.2f}",
                f"{memory[name]:.0f}",
                f"{memory[name] / memory[EAGER]:.2f}",
            )
        )
    floor = statistics.median(times["floor"])
    work = sum(sum(gflop(layer, batch)) for layer in LAYERS)
    lines.append(row(f"the floor ({work / floor:.0f} GFLOP/s)", f"{floor:.2f}", f"{batch / floor:.1f}", *[""] * 4))

    lines += ["", *header("", "measured", "target", "")]
    eager = 0.33 if batch >= 128 else 0.45
    for name in (ONE, TWO):
        lines.append(row(f"{name}: time / PyTorch eager", *verdict(ratio(times, name, EAGER), eager)))
        compiled = ("not measured", "<= 0.45", "") if absent else verdict(ratio(times, name, COMPILED), 0.45)
        lines.append(row(f"{name}: time / torch.compile", *compiled))
        lines.append(row(f"{name}: time / floor", *verdict(ratio(times, name, "floor"), 1.3)))
        lines.append(row(f"{name}: RSS / PyTorch eager", *verdict(memory[name] / memory[EAGER], 0.45)))
    lines.append(row("two columns: time / one device", *verdict(ratio(times, TWO, ONE), 1.0)))
    return [*lines, ""]


def layers(batch: int) -> list[str]:
    """The work of a step, layer by layer, from the shapes."""
    lines = [f"## The work of a step at batch {batch}, in GFLOP", ""]
    lines += header("", "forward", "gradient of the weights", "gradient of the input", "step")
    parts = {layer: gflop(layer, batch) for layer in LAYERS}
    parts["all"] = tuple(map(sum, zip(*parts.values())))
    return lines + [row(name, *(f"{part:.2f}" for part in (*of, sum(of)))) for name, of in parts.items()]


def main() -> None:
    parser = arguments(__doc__, runs=3)
    parser.add_argument("--batch", type=int, nargs="+", default=[128])
    options = parser.parse_args()
    lines = [
        "# AlexNet train step",
        "",
        environment("numpy", "torch"),
        "",
        f"In turn: one step of each, then a {MATRIX} x {MATRIX} matrix product; {options.runs} rounds after one that",
        "does not count. Medians; ratios are medians of pairs, below 1 minigrad is faster (or smaller). Each runs as",
        "it comes, but torch.compile: with the fused SGD, which is faster, and without reorder_for_peak_memory, which",
        "makes its gradients wrong. Targets were set for batch 128.",
        "",
    ]
    for batch in options.batch:
        absent = check(batch)
        times, memory = measure(batch, options.runs, [name for name in CONTESTANTS if name not in absent])
        lines += report_batch(batch, times, memory, absent)
    report("alexnet_step", lines + layers(options.batch[-1]), options.save)


if __name__ == "__main__":
    main()
