"""What AlexNet's training on all of ILSVRC-2012 takes: days, gigabytes and what bounds it, from pieces measured here.

    python benchmarks/full_scale.py [--quick] [--runs 5] [--json] [--write] [--folder DIR]

The pieces (full_scale_pieces.py) are those of the main job, preset paper, at batch 128, on pictures that are made here:
no data are needed.  What they add up to is arithmetic, and printed as such.  Cards: from what the hardware check has
left in benchmarks/results/.  --write renews benchmarks/results/full_scale.md and the tables of docs/full-scale.md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from full_scale_pieces import FILES, JPEG, ONE, QUICK, RAW, TWO, Amount, Pieces, measure
from peers import HERE, Save, environment, header, row

from minigrad.data import packing
from minigrad.errors import printable

TRAIN, VAL = 1_281_167, 50_000  # pictures of ILSVRC-2012
TARS = 147_897_477_120 + 6_744_924_160  # bytes of its two tars of pictures
EPOCHS, BATCH = 90, 128  # of the preset paper, as tests/test_full_scale.py checks
CHECKPOINT_S = 600.0  # --checkpoint-minutes
KEPT = 3 + 1  # checkpoints on disk at most: the last two, the best, and the one that is being written
PAPER_IMAGES, PAPER_DAYS = 1_200_000, (5, 6)  # sections 2 and 5
DAY, GB = 86_400, 1e9
NOT_RUN = "not yet run on hardware"
ALONE = "one device"
PAGE = HERE.parent / "docs" / "full-scale.md"
BEGIN, END = "<!-- written by benchmarks/full_scale.py --write: -->", "<!-- end -->"


# ---------------------------------------------------------------- arithmetic


@dataclass(frozen=True)
class Card:
    """What the hardware check has found.  step_s: of a train step of BATCH; view_s: of a test, for each picture.

    cores: of the machine that the card is in.
    """

    name: str
    devices: str
    step_s: float
    view_s: float
    cores: int


@dataclass(frozen=True)
class Training:
    """90 epochs of it.  Seconds, images/s; bound: which piece is the slowest; rates: images/s that each could do."""

    step: float
    rate: float
    training: float
    tests: float
    checkpoints: float
    ten_views: float
    rates: dict[str, float]

    @property
    def bound(self) -> str:
        return min(self.rates, key=lambda name: self.rates[name])

    @property
    def seconds(self) -> float:
        return self.training + self.tests + self.checkpoints + self.ten_views


def on_processor(p: Pieces, devices: str, source: str) -> Training:
    """On this machine: the measured step, plus what its source costs the same cores more than the raw store."""
    more = (p.view_s[source] - p.view_s[RAW]) / p.cores
    rates = {
        "computing": p.batch / p.step_s[devices],
        "loading": p.cores / p.view_s[source],
        "the disk": p.disk_pictures_s,
    }
    step = max(p.step_s[devices] + p.batch * more, p.batch / p.disk_pictures_s)
    return summed(p, step, p.one_view_s[devices] + more, p.ten_views_s[devices] + more, rates)


def on_card(p: Pieces, card: Card, source: str) -> Training:
    """On a card, fed by the cores of its machine, each as fast as one of this machine's."""
    loading = card.cores / p.sent_s[source]
    rates = {"the card": BATCH / card.step_s, "loading": loading}
    return summed(
        p, BATCH / min(rates.values()), max(card.view_s, 1 / loading), max(10 * card.view_s, 1 / loading), rates
    )


def summed(p: Pieces, step: float, one_view: float, ten_views: float, rates: dict[str, float]) -> Training:
    epoch = TRAIN // BATCH * step  # the rest of an epoch is left out
    checkpoints = (epoch // CHECKPOINT_S + 1) * p.checkpoint_s + p.weights_s
    return Training(
        step, BATCH / step, EPOCHS * epoch, EPOCHS * VAL * one_view, EPOCHS * checkpoints, VAL * ten_views, rates
    )


def store_bytes(p: Pieces, source: str) -> float:
    return (TRAIN + VAL) * p.picture_bytes[source]


def packing_room() -> int:
    """Bytes that only a store has that is being packed: the sum of each shard's pictures."""
    return math.ceil(TRAIN / packing._IN_SHARD) * 256 * 256 * 3 * np.dtype(np.uint32).itemsize


def run_bytes(p: Pieces) -> int:
    return KEPT * p.checkpoint_bytes + p.weights_bytes


# ---------------------------------------------------------------- cards


def cards(results: Path = HERE / "results") -> list[Card]:
    """Of all results files of hardware checks; none of the emulator, and none of a row that failed."""
    found = []
    for path in sorted(results.glob("hardware_*.md")):
        text = path.read_text(encoding="utf-8")
        title, cores = re.match(r"# Hardware check: (.+)", text), re.search(r", (\d+) cores,", text)
        if title is None or cores is None or title[1] == "EMULATED" or path.stem.endswith(".old"):
            continue
        forward = _seconds(text, f"AlexNet, inference of {BATCH}")
        for devices, label in (
            (ALONE, f"AlexNet, train step of {BATCH}, TF32 off"),
            ("two columns on one card", f"AlexNet in two columns, train step of {BATCH}"),
        ):
            step = _seconds(text, label)
            if step is not None:
                view = step / 3 if forward is None or devices != ALONE else forward
                found.append(Card(title[1], devices, step, view / BATCH, int(cores[1])))
    return found


def _seconds(text: str, label: str) -> float | None:
    cell = re.search(rf"^\| {re.escape(label)} \| ([\d.e+]+) ms \|", text, re.MULTILINE)
    return float(cell[1]) / 1e3 if cell else None


# ---------------------------------------------------------------- tables


def days(seconds: float) -> str:
    return f"{seconds / DAY:.1f}"


def training_table(p: Pieces, found: Sequence[Card]) -> list[str]:
    lines = header(
        "on", "pictures from", "s a step", "images/s", "days of steps", "of tests", "of checkpoints", "days in all",
        "bound by", "GB of memory",
    )  # fmt: skip
    for devices, source in ((ONE, RAW), (TWO, RAW), (TWO, JPEG), (TWO, FILES)):
        memory = f"{p.peak_mb[devices] * 2**20 / GB:.1f}"
        lines.append(_row(f"`{devices}`", source, on_processor(p, devices, source), memory))
    for card in found:
        for source in (RAW, JPEG, FILES):
            lines.append(_row(f"{card.name}, {card.devices}", source, on_card(p, card, source), ""))
    missing = ("two cards",) if found else ("a card", "two cards")  # of two cards the check times no step
    lines += [row(what, "", NOT_RUN, *[""] * 7) for what in missing]
    slow, fast = paper_rates()
    told = "**{} to {}**".format(*PAPER_DAYS)
    lines.append(row("the paper: two GTX 580 3GB", "", "", f"{slow:.0f} to {fast:.0f}", "", "", "", told, "", "2 x 3"))
    return lines


def paper_rates() -> tuple[float, float]:
    """Images/s of "roughly 90 cycles through the training set of 1.2 million images, which took five to six days"."""
    slow, fast = (PAPER_IMAGES * EPOCHS / (of * DAY) for of in reversed(PAPER_DAYS))
    return slow, fast


def _row(where: str, source: str, t: Training, memory: str) -> str:
    parts = (t.training, t.tests + t.ten_views, t.checkpoints)
    return row(
        where, source, f"{t.step:.3g}", f"{t.rate:.4g}", *map(days, parts), f"**{days(t.seconds)}**", t.bound, memory
    )


def loading_table(p: Pieces) -> list[str]:
    lines = header(
        "pictures from", "ms of a core", "images/s, one core", f"all {p.cores}", f"least step of {BATCH} so fed, ms",
        "days of 90 epochs", "1,000 images/s take of cores", "and of the disk, MB/s",
    )  # fmt: skip
    for source in (RAW, JPEG, FILES):
        rate = p.cores / p.sent_s[source]
        lines.append(
            row(
                source,
                f"{1e3 * p.sent_s[source]:.2f}",
                f"{rate / p.cores:.0f}",
                f"{rate:.0f}",
                f"{1e3 * BATCH / rate:.0f}",
                f"{EPOCHS * TRAIN / rate / DAY:.2f}",
                f"{1000 * p.sent_s[source]:.2f}",
                f"{1000 * p.picture_bytes[source] / 1e6:.0f}",
            )
        )
    return lines


def storage_table(p: Pieces) -> list[str]:
    lines = header("", "GB", "")
    rows: list[tuple[str, float, str]] = [
        ("ILSVRC-2012's two tars", TARS, "can go once a store is packed and checked"),
        ("raw store", store_bytes(p, RAW), f"{packing_room() / GB:.1f} GB more while it is packed"),
        ("JPEG store", store_bytes(p, JPEG), "of quality 90; as the pictures are"),
        ("a checkpoint", p.checkpoint_bytes, f"a run has {KEPT} at most: the last two, the best, and the next"),
        ("the weights", p.weights_bytes, "with the preparation"),
        ("tars, raw store and a run", TARS + store_bytes(p, RAW) + packing_room() + run_bytes(p), ""),
        ("tars, JPEG store and a run", TARS + store_bytes(p, JPEG) + packing_room() + run_bytes(p), ""),
        ("raw store and a run", store_bytes(p, RAW) + run_bytes(p), "without the tars"),
        ("JPEG store and a run", store_bytes(p, JPEG) + run_bytes(p), ""),
    ]
    return lines + [
        row(name, f"{size / GB:.2f}" if size < GB else f"{size / GB:.1f}", more) for name, size, more in rows
    ]


def sentences(p: Pieces) -> list[str]:
    """What the tables do not say."""
    main = on_processor(p, TWO, RAW)
    epoch, test = main.training / EPOCHS, main.tests / EPOCHS
    pack = {name: (TRAIN + VAL) * p.pack_s[name] / 3600 for name in (RAW, JPEG)}
    disk = main.rate * p.picture_bytes[RAW] / 1e6
    whole, core = ({name: 1 / of[name] for name in (RAW, JPEG)} for of in (p.pack_s, p.pack_core_s))
    slow, fast = paper_rates()
    return [
        f"- **Packing** on {p.cores} cores takes {pack[RAW]:.1f} hours to a raw store ({whole[RAW]:.0f} pictures/s; "
        f"{core[RAW]:.0f} for each core that does nothing else), {pack[JPEG]:.1f} to a JPEG store ({whole[JPEG]:.0f} "
        f"pictures/s; {core[JPEG]:.0f}). The mean image is made with it. Checking a raw store takes a processor "
        f"{store_bytes(p, RAW) / p.check_bytes_s / 60:.0f} minutes ({p.check_bytes_s / 1e6:.0f} MB/s), a disk perhaps "
        "more.",
        f"- **An epoch** on `{TWO}` takes {epoch / 3600:.1f} hours, its test with one view {test / 60:.0f} minutes, "
        f"the test with ten views at the end {main.ten_views / 3600:.1f} hours.",
        f"- **A loss of power** costs {CHECKPOINT_S / 60:.0f} minutes at most, and up to "
        f"{(CHECKPOINT_S + test) / 60:.0f} in a test, during which no checkpoint is written. To write one takes "
        f"{p.checkpoint_s:.1f} s, {p.checkpoint_s / CHECKPOINT_S:.1%} of ten minutes; to go on from it "
        f"{p.resume_s:.1f} s.",
        f"- **The disk** has to give {disk:.1f} MB/s to a training from a raw store, {main.rate:.0f} pictures a second "
        f"from anywhere in it; here it gave {p.disk_pictures_s:.0f} pictures a second. Steps waited for data "
        f"{p.waiting[TWO]:.2%} of their time.",
        f"- **The paper's** two cards did {slow:.0f} to {fast:.0f} images/s: {slow / main.rate:.1f} to "
        f"{fast / main.rate:.1f} times what `{TWO}` does here.",
    ]


def block(p: Pieces, found: Sequence[Card]) -> list[str]:
    """What stands on the page and in the results file."""
    return [
        f"{EPOCHS} epochs, batch {p.batch}, a test after each, checkpoints every ten minutes, ten views at the end:",
        "",
        *training_table(p, found),
        "",
        *sentences(p),
        "",
        "What loading could feed to a card, which draws the views itself:",
        "",
        *loading_table(p),
        "",
        "Storage:",
        "",
        *storage_table(p),
    ]


def pieces_table(p: Pieces) -> list[str]:
    lines = header("measured", "", "")
    for devices in (ONE, TWO):
        lines += [
            row(f"training step of {p.batch}, raw store", f"`{devices}`", f"{p.step_s[devices]:.3f} s"),
            row("the same", f"`{devices}`, of all cores", f"{p.step_core_s[devices]:.3f} s"),
            row("of it waiting for data", f"`{devices}`", f"{p.waiting[devices]:.3%}"),
            row("most memory", f"`{devices}`", f"{p.peak_mb[devices]:.0f} MB of 2^20"),
            row("test, one view, a picture", f"`{devices}`", f"{1e3 * p.one_view_s[devices]:.1f} ms"),
            row("test, ten views, a picture", f"`{devices}`", f"{1e3 * p.ten_views_s[devices]:.1f} ms"),
        ]
    lines += [
        row("decoding a JPEG file to 256 x 256", "a core", f"{1e3 * p.decode_s:.2f} ms"),
        row("a picture's share in the mean image", "a core, the files", f"{1e3 * p.stats_s:.2f} ms"),
    ]
    for source in (RAW, JPEG, FILES):
        lines += [
            row("reading a picture, drawing a view", f"a core, {source}", f"{1e3 * p.view_s[source]:.2f} ms"),
            row("the same for a card", f"a core, {source}", f"{1e3 * p.sent_s[source]:.2f} ms"),
            row("a picture's bytes", source, f"{p.picture_bytes[source]:.0f}"),
        ]
    for store in (RAW, JPEG):
        lines += [
            row("packing a picture", f"all cores, {store}", f"{1e3 * p.pack_s[store]:.2f} ms"),
            row("packing a picture", f"a core, {store}", f"{1e3 * p.pack_core_s[store]:.2f} ms"),
        ]
    return lines + [
        row("checking a store, in memory", "", f"{p.check_bytes_s / 1e6:.0f} MB/s"),
        row("raw pictures from the disk, any order", "one thread", f"{p.disk_pictures_s:.0f} a second"),
        row("a checkpoint", f"{p.checkpoint_bytes:,} bytes", f"{p.checkpoint_s:.2f} s to write"),
        row("going on from it", "in memory", f"{p.resume_s:.2f} s"),
        row("the weights", f"{p.weights_bytes:,} bytes", f"{p.weights_s:.2f} s to write"),
    ]


COMPUTED = [
    "Computed: days are the measured step times 10,009 steps an epoch and 90 epochs (the 15 pictures that are left of",
    "an epoch are left out, as the main job does), and so for tests and checkpoints. On a processor the step was",
    "measured with a raw store; another source adds the difference of the cores' seconds, over all cores. What bounds",
    "is the slowest of computing, loading and the disk, each alone. A store's bytes are those of a picture, times all.",
    "",
    "Assumed: pictures of 500 x 375 and 115 KB, made by code, compress and decode as ILSVRC's (they were fitted to 200",
    "photographs of ImageNet); a store that is too large for the memory is read as fast as a small one that was just",
    "dropped from it, and smaller pictures are no slower to read; the speed stays what it was in these minutes. Small",
    "stores have small shards: packing is a little dearer here than in shards of 1024. Another machine's cores load as",
    "fast as these, and many cores as many times as much, of which Python's lock may keep something. On a card a test",
    "with ten views takes ten times one view, and where no inference was measured, one view a third of a training",
    "picture. Memory is that of a process that loads ahead and writes checkpoints. Not counted: the search of the",
    "tars, the page of the run, restarts, and a card's fetching of the pictures.",
]


def results_lines(p: Pieces, found: Sequence[Card], amount: Amount, load: float) -> list[str]:
    return [
        "# What AlexNet's training on all of ILSVRC-2012 takes",
        "",
        *conditions(p, load),
        "",
        f"Rounds: {amount.rounds}. In each, on each choice of devices, in turns: training steps, {amount.steps}, after "
        f"one that does not count; pictures tested with one view, {amount.one_view}, and with ten, {amount.ten_views}. "
        f"Pictures packed: {amount.train + amount.val}. Medians. No number below was measured at full scale.",
        "",
        *block(p, found),
        "",
        *pieces_table(p),
        "",
        *COMPUTED,
    ]


def conditions(p: Pieces, load: float) -> list[str]:
    """The machine, and whether it had other work before the measurements began."""
    lines = [environment("numpy", "pillow")]
    if load > 0.3 * p.cores:
        step, alone = p.step_core_s[TWO], p.step_core_s[TWO] / p.cores
        lines += [
            "",
            f"**The machine was busy with other work ({load:.1f} programs wanted its {p.cores} cores before): all "
            f"times by the clock are too long.** Of the cores' own time a step on `{TWO}` took {step:.1f} s: about "
            f"{alone:.1f} s where it has them to itself, which makes {days(EPOCHS * (TRAIN // BATCH) * alone)} days of "
            "steps.",
        ]
    return lines


def renewed(page: str, lines: Sequence[str]) -> str:
    """The page with other lines between its markers; ValueError where it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page has not both markers, {BEGIN} and {END}: put them around its tables")
    return before + "\n".join([BEGIN, "", *lines, "", END]) + after


def facts(p: Pieces, found: Sequence[Card]) -> dict:
    """Everything as JSON has it."""

    def of(t: Training) -> dict:
        return {**asdict(t), "seconds": t.seconds, "days": t.seconds / DAY, "bound": t.bound}

    choices = [(devices, source) for devices in (ONE, TWO) for source in (RAW, JPEG, FILES)]
    return {
        "measured": asdict(p),
        "computed": {
            "processor": [{"devices": d, "source": s, **of(on_processor(p, d, s))} for d, s in choices],
            "cards": [
                {**asdict(card), "source": s, **of(on_card(p, card, s))} for card in found for s in (RAW, JPEG, FILES)
            ],
            "bytes": {"tars": TARS, "raw store": store_bytes(p, RAW), "JPEG store": store_bytes(p, JPEG)},
            "run bytes": run_bytes(p),
        },
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of everything, in a minute or two")
    parser.add_argument("--runs", type=int, help="rounds of measurements (default: 5; with --quick 1)")
    parser.add_argument("--json", action="store_true", help="print all numbers as JSON, and nothing else")
    parser.add_argument(
        "--write", action=Save, help="renew benchmarks/results/full_scale.md and the tables of the page"
    )
    parser.add_argument(
        "--folder", help="where the pictures, stores and checkpoints go meanwhile: on the disk in question"
    )
    asked = parser.parse_args(arguments)
    amount = QUICK if asked.quick else Amount()
    if asked.runs is not None:
        if asked.runs < 1:
            parser.error(f"--runs: must be 1 or more, got {asked.runs}")
        amount = replace(amount, rounds=asked.runs)
    if asked.folder is not None and not os.path.isdir(asked.folder):
        parser.error(f"--folder: there is no folder {printable(asked.folder)}")
    load, page = os.getloadavg()[0], PAGE.read_text(encoding="utf-8")
    renewed(page, [])  # its markers are looked for now, and not after the measurements
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        pieces, found = measure(Path(folder), amount, BATCH, TRAIN), cards()
    if asked.json:
        print(json.dumps(facts(pieces, found), indent=1))
    lines = results_lines(pieces, found, amount, load)
    if not asked.json:
        print("\n".join(lines))
    if asked.write:
        (HERE / "results" / "full_scale.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
        PAGE.write_text(renewed(page, [*conditions(pieces, load), "", *block(pieces, found)]), encoding="utf-8")
        print(f"Written: {HERE / 'results' / 'full_scale.md'} and {PAGE}", file=sys.stderr)


if __name__ == "__main__":
    main()
