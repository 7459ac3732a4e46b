"""How long a step of AlexNet takes in many processes, from pieces that were measured in few: a simulation.

    python benchmarks/parallel_model.py [--save]    # its tables, from results/parallel.json; into docs/parallel.md

Sums of gradients travel while backward runs, so of the two the longer counts, and forward and the update come beside:

    step = forward + max(backward, sums) + update                             plain data parallel
    step = forward + activations + max(backward, sums) + update               one weird trick: nothing hides activations

    seconds to travel = bytes sent / bandwidth + messages * latency + bytes * handling (copying and adding up)

Measured: forward, backward and update of one process with one thread, by the number of its images; handling and
latency, through loopback.  Assumed: that a network of so many Gbit/s gives each process all of it, both ways at the
same time, however many there are, with the latency of loopback; and that processes have cores of their own.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
MEASURED = HERE / "results" / "parallel.json"
PROCESSES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
LINKS = (1, 10, 100, 400)  # Gbit/s

BEGIN = (
    "<!-- simulation: written by benchmarks/parallel_model.py --save -->"  # between which the tables are in the page
)
END = "<!-- end of the simulation -->"

FLOAT = 4  # bytes
CONVOLUTIONS, CONNECTED = 2_334_080, 58_631_144  # numbers in the paper's net: conv1 to conv5, fc6 to fc8
FEATURES, HIDDEN, CLASSES = 9216, 4096, 1000
GATHERS = 7  # calls of one weird trick: there and back, less fc8's way back; and the labels'


class Link(NamedTuple):
    """Of each process.  bandwidth: bytes/s; latency: seconds a message; handling: seconds for a byte sent."""

    bandwidth: float
    latency: float
    handling: float

    def seconds(self, processes: int, sent: float, calls: float) -> float:
        """Of so many calls in which each process sends to every other, once."""
        if processes == 1:
            return 0.0
        return sent / self.bandwidth + calls * (processes - 1) * self.latency + sent * self.handling


class Pieces(NamedTuple):
    """Seconds of one process: conv, fc: of forward and backward, (whatever the images, for each); forward: its share of
    the two; update: of all weights.  speed: how many times as fast a device is thought to be."""

    conv: tuple[float, float]
    fc: tuple[float, float]
    forward: float
    update: float
    speed: float = 1.0

    @classmethod
    def of(cls, found: Mapping[str, Any], speed: float = 1.0) -> Pieces:
        return cls(tuple(found["conv"]), tuple(found["fc"]), found["forward"], found["update"], speed)

    def plain(self, processes: int, images: float, link: Link, overlap: bool = True) -> float:
        """Seconds of a step, of so many images in each process; without overlap sums come after backward."""
        compute = (self.conv[0] + self.fc[0] + (self.conv[1] + self.fc[1]) * images) / self.speed
        sent = plain_bytes(processes)
        sums = link.seconds(processes, sent, calls(processes, CONVOLUTIONS + CONNECTED))
        return self._step(compute, sums, self.update / self.speed, 0.0, overlap)

    def trick(self, processes: int, images: float, link: Link, overlap: bool = True) -> float:
        """The same with fully connected layers split: each process has all images for a part of the neurons."""
        connected = (self.fc[0] + self.fc[1] * images * processes) / processes
        compute = (self.conv[0] + self.conv[1] * images + connected) / self.speed
        sums = link.seconds(processes, sums_bytes(processes, CONVOLUTIONS), calls(processes, CONVOLUTIONS))
        activations = link.seconds(processes, trick_bytes(processes, images * processes) -
                                   sums_bytes(processes, CONVOLUTIONS), GATHERS)  # fmt: skip
        held = (CONVOLUTIONS + CONNECTED / processes) / (CONVOLUTIONS + CONNECTED)
        return self._step(compute, sums, self.update * held / self.speed, activations, overlap)

    def _step(self, compute: float, sums: float, update: float, activations: float, overlap: bool) -> float:
        forward, backward = self.forward * compute, (1 - self.forward) * compute
        return forward + activations + (max(backward, sums) if overlap else backward + sums) + update


def sums_bytes(processes: int, numbers: float) -> float:
    """What each process sends to have the sums of so many numbers."""
    return 2 * (processes - 1) / processes * FLOAT * numbers


def calls(processes: int, numbers: float) -> float:
    """How many it takes: of 4 MB, or of 64 KB for each process, there is one in which all send pieces, one for sums."""
    return 2 * math.ceil(FLOAT * numbers / max(4e6, 65536 * processes))


def plain_bytes(processes: int) -> float:
    return sums_bytes(processes, CONVOLUTIONS + CONNECTED)


def trick_bytes(processes: int, images: float) -> float:
    """images: of all processes."""
    numbers = images * (2 * FEATURES + 4 * HIDDEN + CLASSES)
    return (processes - 1) / processes * FLOAT * numbers + sums_bytes(processes, CONVOLUTIONS)


def speedups(found: Mapping[str, Any], gbits: float, speed: float, total: int | None) -> list[tuple[float, float]]:
    """(plain, one weird trick) for each of PROCESSES: images a second, in those of one process.

    total: images of a step in all processes; None: 128 in each.
    """
    pieces, link = Pieces.of(found["pieces"], speed), link_of(found, gbits, speed)
    alone, rows = 128 / pieces.plain(1, 128, link), []
    for processes in PROCESSES:
        each = 128 if total is None else total / processes
        steps = pieces.plain(processes, each, link), pieces.trick(processes, each, link)
        rows.append((each * processes / steps[0] / alone, each * processes / steps[1] / alone))
    return rows


def link_of(found: Mapping[str, Any], gbits: float, speed: float = 1.0) -> Link:
    pieces = found["pieces"]
    return Link(gbits * 1e9 / 8, pieces["latency"], pieces["handling"] / speed)


def tables(found: Mapping[str, Any]) -> list[str]:
    """Markdown: how many times as many images a second as one process."""
    lines = []
    for speed, what in (
        (1.0, "processes as fast as the one measured"),
        (100.0, "processes 100 times as fast (assumed)"),
    ):
        for total, batch in ((None, "128 images in each process"), (1024, "1,024 images in all processes together")):
            lines += ["", f"{what.capitalize()}, {batch}; plain data parallel / one weird trick:", ""]
            lines += ["| processes | " + " | ".join(f"{gbits} Gbit/s" for gbits in LINKS) + " |", "|---" * 5 + "|"]
            columns = [speedups(found, gbits, speed, total) for gbits in LINKS]
            for i, processes in enumerate(PROCESSES):
                cells = [f"{column[i][0]:.3g} / {column[i][1]:.3g}" for column in columns]
                lines.append(f"| {processes} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--save", action="store_true", help="write the tables to docs/parallel.md")
    text = "\n".join(tables(json.loads(MEASURED.read_text())))
    print(text)
    if parser.parse_args().save:
        page = HERE.parent / "docs" / "parallel.md"
        before, rest = page.read_text().split(BEGIN)
        page.write_text(f"{before}{BEGIN}\n{text}\n\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
