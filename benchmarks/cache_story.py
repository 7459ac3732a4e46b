"""What chunks gain, and what the cache has to do with it: time per image of AlexNet's convolutions by chunk size.

    python benchmarks/cache_story.py [--batch 128] [--sizes 1 2 4 8 16 32 64] [--runs 5] [--save]

conv1 to the last pooling, forward and backward, with `minigrad.in_chunks` on all threads, and once op by op.  Two
times are taken: how long the cores were occupied (the clock, times the cores), and how long they worked (CPU time).
CPU time that grows with the chunk is spent on memory, because the chunk no longer fits the cache; what lies between
the two is cores that wait for each other.  All ways give the same gradients, which is checked first.  `--save` also
draws docs/images/cache.png, for which it needs matplotlib.
"""

from __future__ import annotations

import statistics
from pathlib import Path

from nets import minigrad_conv_stack
from peers import HERE, Peer, Times, arguments, check, cores, environment, header, ratio, report, row

OP_BY_OP = "op by op"
SIZES = (1, 2, 4, 8, 16, 32, 64)


def sweep(batch: int, sizes: list[int], runs: int) -> tuple[Times, Times, int]:
    """By images per chunk ("1", "2", ...) and op by op: seconds of all cores a step, seconds of work in them.

    Third, the bytes per image of the largest array that one op hands to the next.
    """

    def contestants() -> list[Peer]:
        return [Peer(str(size or OP_BY_OP), minigrad_conv_stack, batch, size) for size in (*sizes, None)]

    check(contestants(), "gradients", worst=1e-2, close=True)  # ReLU and pooling decide otherwise here and there
    peers = contestants()
    occupied: Times = {peer.name: [] for peer in peers}
    work: Times = {peer.name: [] for peer in peers}
    for run in range(1 + runs):  # the first does not count
        for peer in peers:
            seconds = peer.time("step")
            if run:
                occupied[peer.name].append(seconds * cores())
                work[peer.name].append(peer.call("cpu seconds"))
    largest = peers[0].call("largest")
    for peer in peers:
        peer.close()
    return occupied, work, largest


def table(occupied: Times, work: Times, batch: int, largest: int) -> list[str]:
    lines = header("images in a chunk", "clock, ms/image", "/ op by op", "CPU, ms/image", "/ op by op", "array, MB")
    for name in occupied:
        megabytes = largest * _images(name, batch) / 2**20
        cells = []
        for times, share in ((occupied, cores()), (work, 1)):
            milliseconds = statistics.median(times[name]) / share / batch * 1e3
            cells += [f"{milliseconds:.2f}", f"{ratio(times, name, OP_BY_OP):.2f}"]
        lines.append(row(name, *cells, f"{megabytes:.1f}"))
    return lines


def _images(name: str, batch: int) -> int:
    return batch if name == OP_BY_OP else int(name)


def caches() -> dict[str, tuple[int, int]]:
    """ "L2", "L3": bytes, and how many of this machine's cores share them.  Empty where Linux does not tell."""
    found = {}
    for cache in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size, users = (
            (cache / what).read_text().strip() for what in ("level", "type", "size", "shared_cpu_list")
        )
        if kind == "Unified":
            ranges = [[int(end) for end in part.split("-")] for part in users.split(",")]
            found[f"L{level}"] = int(size.rstrip("K")) * 1024, sum(part[-1] - part[0] + 1 for part in ranges)
    return found


def described(caches: dict[str, tuple[int, int]]) -> str:
    return ", ".join(
        f"{name} {size / 2**20:.0f} MB" + (f" shared by {users} cores" if users > 1 else " a core")
        for name, (size, users) in caches.items()
    )


def draw(occupied: Times, work: Times, batch: int, largest: int, path: Path) -> None:
    """Core time per image against images per chunk; above, the bytes, with one core's share of each cache marked."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = [name for name in occupied if name != OP_BY_OP]
    sizes = [int(name) for name in names]
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    axes.set_xscale("log", base=2)

    curves = []
    for times, colour, label, offset in (
        (occupied, "tab:red", f"occupied: clock x {cores()} cores", 8),
        (work, "tab:blue", "at work: CPU time (the grey between: cores that wait)", -16),
    ):
        per_image = {name: statistics.median(seconds) / batch * 1e3 for name, seconds in times.items()}
        curves.append([per_image[name] for name in names])
        axes.plot(sizes, curves[-1], "o-", color=colour)
        axes.plot([batch], [per_image[OP_BY_OP]], "s", color=colour)
        # Above the left end, and below all of the lower curve.
        place = (sizes[0], curves[-1][0]) if offset > 0 else (sizes[1], min(curves[-1]))
        axes.annotate(label, place, (0, offset), textcoords="offset points", color=colour)
    axes.fill_between(sizes, *curves, color="0.92", linewidth=0)

    top = 1.25 * max(statistics.median(seconds) for seconds in occupied.values()) / batch * 1e3
    axes.set_ylim(0, top)
    axes.set_xlim(sizes[0] / 1.5, batch * 1.5)
    axes.set_xticks([*sizes, batch], [*names, f"all {batch},\nop by op"])
    axes.minorticks_off()
    axes.set_xlabel("images in a chunk")
    axes.set_ylabel("milliseconds of a core per image")
    axes.spines[["top", "right"]].set_visible(False)
    for name, (size, users) in caches().items():
        axes.axvline(size / users / largest, color="0.6", linewidth=1, zorder=0)
        label = f"{name}: {size / users / 2**20:.0f} MB a core"
        axes.annotate(label, (size / users / largest, 0), (4, 6), textcoords="offset points", color="0.4")

    scale = largest / 2**20
    above = axes.secondary_xaxis("top", functions=(lambda images: images * scale, lambda megabytes: megabytes / scale))
    above.set_xscale("log", base=2)
    above.set_xticks([size * scale for size in (*sizes, batch)], [f"{size * scale:.0f}" for size in (*sizes, batch)])
    above.minorticks_off()
    above.set_xlabel("largest array that an op hands to the next, MB")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = arguments(__doc__, runs=5)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="images in a chunk")
    parser.add_argument("--picture", type=Path, help="draw it here, saved or not")
    options = parser.parse_args()

    occupied, work, largest = sweep(options.batch, options.sizes, options.runs)
    lines = [
        "# The convolutional layers in chunks",
        "",
        environment("numpy"),
        "",
        f"Batch {options.batch}, conv1 to the last pooling, forward and backward, all threads; in turn, {options.runs}",
        "measurements of each after one round that does not count. Medians; ratios are medians of pairs. CPU: the work",
        "of all threads together. Array: the largest that an op hands to the next.",
        f"Caches: {described(caches()) or 'unknown'}.",
        "",
        *table(occupied, work, options.batch, largest),
    ]
    report("cache_story", lines, options.save)
    if options.save or options.picture:
        path = options.picture or HERE.parent / "docs" / "images" / "cache.png"
        draw(occupied, work, options.batch, largest, path)


if __name__ == "__main__":
    main()
