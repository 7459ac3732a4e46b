"""How minigrad's train step of AlexNet grows with the images and the threads.

    python benchmarks/scaling.py [--batch 16 32 64 128 256] [--threads-batch 128] [--runs 5] [--save]

Two tables.  The cost per image by batch size, with the part that the fully connected layers and the update of the
weights have in it: their 59 million weights are read and written once a step, however few the images.  One thread
against two.  (cache_story.py varies the images in a chunk.)
"""

from __future__ import annotations

import statistics

from nets import minigrad_alexnet
from peers import Peer, arguments, check, cores, environment, header, interleaved, ratio, report, row, verdict

ONE_DEVICE = ("cpu:0",)


def by_batch(batches: list[int], runs: int) -> list[str]:
    peers = {batch: Peer(str(batch), minigrad_alexnet, batch, ONE_DEVICE) for batch in batches}
    seconds = {}
    for what in ("step", "fully connected", "update"):
        times = interleaved(list(peers.values()), what, runs)
        seconds[what] = {batch: statistics.median(times[str(batch)]) for batch in batches}
    for peer in peers.values():
        peer.close()
    reference = min(batches, key=lambda batch: abs(batch - 128))
    per_image = {batch: seconds["step"][batch] / batch for batch in batches}
    fixed = {batch: seconds["fully connected"][batch] + seconds["update"][batch] for batch in batches}
    rest = {batch: (seconds["step"][batch] - fixed[batch]) / batch for batch in batches}
    lines = ["## Images in a batch", ""]
    lines += header(
        "batch",
        "seconds a step",
        "ms/image",
        f"/ that at {reference}",
        "fc6 to fc8, s",
        "update, s",
        "rest, ms/image",
    )
    for batch in batches:
        lines.append(
            row(
                batch,
                f"{seconds['step'][batch]:.2f}",
                f"{per_image[batch] * 1e3:.1f}",
                f"{per_image[batch] / per_image[reference]:.2f}",
                f"{seconds['fully connected'][batch]:.2f}",
                f"{seconds['update'][batch]:.2f}",
                f"{rest[batch] * 1e3:.1f}",
            )
        )
    lines += ["", *header("", "measured", "target", "")]
    for what, costs in (("ms/image", per_image), ("rest (without fc6 to fc8 and update)", rest)):
        mean = statistics.mean(costs.values())
        deviation = max(abs(cost / mean - 1) for cost in costs.values())
        lines.append(row(f"{what}: largest deviation from the mean of all batches", *verdict(deviation, 0.15)))
    return [*lines, ""]


def by_threads(batch: int, runs: int) -> list[str]:
    numbers = sorted({1, cores()})

    def contestants(dropout: float) -> list[Peer]:
        return [Peer(f"{n} thread(s)", minigrad_alexnet, batch, ONE_DEVICE, dropout, n) for n in numbers]

    check(contestants(0.0), "gradients", worst=1e-2, close=True)
    peers = contestants(0.5)
    times = interleaved(peers, "step", runs)
    lines = [f"## Threads, batch {batch}", "", *header("threads", "seconds a step", "speedup")]
    for peer in peers:
        median, speedup = statistics.median(times[peer.name]), ratio(times, peers[0].name, peer.name)
        lines.append(row(peer.name.split()[0], f"{median:.2f}", f"{speedup:.2f}"))
        peer.close()
    if len(numbers) == 2:
        target = 1.85 / 2 * cores()
        lines += ["", *header("", "measured", "target", "")]
        lines.append(row(f"{cores()} threads: speedup", *verdict(speedup, target, at_least=True)))
    return [*lines, ""]


def main() -> None:
    parser = arguments(__doc__, runs=5)
    parser.add_argument("--batch", type=int, nargs="+", default=[16, 32, 64, 128, 256])
    parser.add_argument("--threads-batch", type=int, default=128, help="batch of the second table")
    options = parser.parse_args()

    lines = [
        "# AlexNet train step of minigrad: batch size and threads",
        "",
        environment("numpy"),
        "",
        f"In turn, {options.runs} measurements of each after one round that does not count. Medians; the speedup is",
        "a median of pairs. fc6 to fc8: their forward and backward, timed by themselves.",
        "",
        *by_batch(options.batch, options.runs),
        *by_threads(options.threads_batch, options.runs),
    ]
    report("scaling", lines, options.save)


if __name__ == "__main__":
    main()
