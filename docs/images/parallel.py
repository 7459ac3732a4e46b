"""Draws docs/images/overlap.png and scaling.png from what benchmarks/parallel.py has measured; needs matplotlib.

    python docs/images/parallel.py

overlap.png: a step of two processes, each thread a line, from benchmarks/results/parallel_trace.json, which opens in
ui.perfetto.dev too.  scaling.png: the simulation of benchmarks/parallel_model.py.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "benchmarks"))
from parallel_model import LINKS, MEASURED, PROCESSES, speedups  # noqa: E402

TRACE = MEASURED.with_name("parallel_trace.json")
COLOURS = {"forward": "#6fa8dc", "backward": "#f0a35e", "sums": "#4f9d69", "waiting": "#dddddd", "region": "#b7a6d8"}
WORDS = {
    "forward": "forward",
    "backward": "backward",
    "sums": "a bucket's sum travels",
    "waiting": "waiting",
    "region": "update, and other work",
}


def lines_of(entries: list[dict[str, Any]]) -> dict[str, list[tuple[float, float, str]]]:
    """Of each process and thread, in turn: (begin, length, kind), in milliseconds, from the beginning of the step."""
    names = {(e["ph"], e["name"], e["pid"], e.get("tid")): e["args"]["name"] for e in entries if e["ph"] == "M"}
    found: dict[str, list[tuple[float, float, str]]] = {}
    events = [e for e in entries if e["ph"] == "X"]
    first = min(e["ts"] for e in events)
    for e in sorted(events, key=lambda e: -e["dur"]):  # what is inside is drawn later
        rank = names["M", "process_name", e["pid"], None].split(",")[0]
        sums = e["name"] == "sum over processes"
        line = f"{rank}, {'sums' if sums else 'backward and all else'}"
        kind = "sums" if sums else e["cat"] if e["cat"] in COLOURS else "region"
        found.setdefault(line, []).append(((e["ts"] - first) / 1e3, e["dur"] / 1e3, kind))
    return dict(sorted(found.items()))


def overlap() -> None:
    lines = lines_of(json.loads(TRACE.read_text())["traceEvents"])
    figure, axes = plt.subplots(figsize=(10, 2.6))
    for y, line in enumerate(lines):
        for begin, length, kind in lines[line]:
            axes.barh(-y, length, left=begin, height=0.7, color=COLOURS[kind], edgecolor="white", linewidth=0.2)
    axes.set_yticks([-y for y in range(len(lines))], list(lines))
    axes.set_xlabel("milliseconds")
    shown = [plt.Rectangle((0, 0), 1, 1, color=COLOURS[kind]) for kind in WORDS]
    axes.legend(
        shown, list(WORDS.values()), ncols=5, loc="lower center", bbox_to_anchor=(0.5, 1), frameon=False, fontsize=8
    )
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(HERE / "overlap.png", dpi=110)


def scaling() -> None:
    found = json.loads(MEASURED.read_text())
    figure, all_axes = plt.subplots(2, 2, figsize=(10, 7), sharex=True, sharey=True)
    for row, (speed, whose) in zip(all_axes, ((1, "as measured"), (100, "100 times as fast (assumed)"))):
        for axes, (total, batch) in zip(row, ((None, "128 images in each process"), (1024, "1,024 images in all"))):
            axes.plot(PROCESSES, PROCESSES, color="#bbbbbb", linewidth=1)
            for colour, gbits in zip(("#b00020", "#f0a35e", "#6fa8dc", "#4f9d69"), LINKS):
                plain, trick = zip(*speedups(found, gbits, speed, total))
                axes.plot(PROCESSES, plain, color=colour, label=f"{gbits} Gbit/s")
                axes.plot(PROCESSES, trick, color=colour, linestyle="--")
            axes.set(xscale="log", yscale="log", title=f"processes {whose}, {batch}")
            axes.title.set_fontsize(9)
            axes.set_xticks(PROCESSES, list(map(str, PROCESSES)))
            axes.minorticks_off()
    all_axes[0, 0].legend(frameon=False, title="data parallel; dashed: one weird trick", fontsize=8, title_fontsize=8)
    for axes in all_axes[1]:
        axes.set_xlabel("processes")
    for axes in all_axes[:, 0]:
        axes.set_ylabel("images a second, in those of one")
    figure.tight_layout()
    figure.savefig(HERE / "scaling.png", dpi=90)


if __name__ == "__main__":
    overlap()
    scaling()
