"""The two columns of AlexNet at the same time and one after the other: what two CPU devices gain.

    python benchmarks/columns.py [--batch 32] [--runs 5] [--save]

Three ways to run the same forward, loss and backward: the columns on cpu:0 and cpu:1 at the same time, which share the
cores; the same columns one after the other, on one core; and the grouped net on one device with all cores.
"""

from __future__ import annotations

import statistics

from nets import minigrad_alexnet
from peers import Peer, arguments, check, environment, header, interleaved, ratio, report, row

AT_ONCE, AFTER, ONE = "two devices at once", "one after the other", "one device"
WAYS = {
    AT_ONCE: (("cpu:0", "cpu:1"), None, False),
    AFTER: (("cpu:0", "cpu:1"), 1, True),
    ONE: (("cpu:0",), None, False),
}


def main() -> None:
    parser = arguments(__doc__, runs=5)
    parser.add_argument("--batch", type=int, default=32)
    options = parser.parse_args()

    def contestants(dropout: float) -> list[Peer]:
        return [
            Peer(name, minigrad_alexnet, options.batch, devices, dropout, threads, in_turn)
            for name, (devices, threads, in_turn) in WAYS.items()
        ]

    check(contestants(0.0), "gradients", worst=1e-2, close=True)
    peers = contestants(0.5)
    times = interleaved(peers, "backward", options.runs)
    lines = [
        "# The two columns of AlexNet, at once and one after the other",
        "",
        environment("numpy"),
        "",
        f"Batch {options.batch}, forward and backward, in turn; {options.runs} measurements of each after one round",
        "that does not count. Medians; ratios are medians of pairs.",
        "",
        *header("", "seconds", "time / one after the other", "time / one device"),
    ]
    for peer in peers:
        seconds = statistics.median(times[peer.name])
        ratios = [f"{ratio(times, peer.name, rival):.2f}" for rival in (AFTER, ONE)]
        lines.append(row(peer.name, f"{seconds:.2f}", *ratios))
        peer.close()
    report("columns", lines, options.save)


if __name__ == "__main__":
    main()
