"""docs/claims.md, from the results that are there: each claim with its numbers, intervals, seeds, times, verdict."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from run_folder import write_whole

from minigrad.errors import printable

from .rows import CLAIMS, DEVICES, Claim, Comparison, arms, fastest, search_results
from .runs import read_result, result_path
from .setups import ALEXNET, FIGURE1, NARROW, SEARCHED, as_json, searched
from .timing import factors, median
from .verdicts import FEWEST, NONE, NOT_SEEN, REPRODUCED, RULE, WEAKER, Verdict, judge

MOST_SEEDS = 100


class Found:
    """The results in a folder, by arm and seed.  left_out: files that do not count, and why.

    anything: take results of other setups, too: those of --quick.
    """

    def __init__(self, folder: Path, anything: bool = False):
        self.folder, self.anything, self.left_out = folder, anything, list[str]()
        self._known: dict[tuple[str, int], dict[str, Any] | None] = {}
        self._arms = {arm.name: arm for claim in CLAIMS.values() for arm in arms(claim, folder)}

    @property
    def arms(self) -> tuple[str, ...]:
        return tuple(self._arms)

    def result(self, name: str, seed: int) -> dict[str, Any] | None:
        if (name, seed) not in self._known:
            self._known[name, seed] = self._read(name, seed)
        return self._known[name, seed]

    def _read(self, name: str, seed: int) -> dict[str, Any] | None:
        arm = self._arms.get(name)  # None: a search has not ended that says what it is
        if arm is None:
            return None
        path = result_path(self.folder, arm, seed)
        result = read_result(path)
        if result is not None and not self.anything and (result["setup"] != as_json(arm.setup) or result["quick"]):
            self.left_out.append(f"{path.name} does not count: it is of another setup than {name} has now")
            return None
        return result

    def seeds(self, *names: str) -> list[int]:
        """The seeds that all of these arms have been run with, on the same pictures."""
        found = []
        for seed in range(MOST_SEEDS):
            results = [self.result(name, seed) for name in names]
            if None not in results and len({str(result["data"]) for result in results if result}) == 1:
                found.append(seed)
        return found

    def values(self, comparison: Comparison) -> tuple[list[int], list[float]]:
        """(seeds, the number of each); seeds whose runs cannot tell are left out."""
        pairs = []
        for seed in self.seeds(*comparison.arms):
            here, there = (self.result(name, seed) for name in comparison.arms)
            assert here is not None and there is not None
            value = comparison.measure(here, there)
            if value is not None:
                pairs.append((seed, value))
        return [seed for seed, _ in pairs], [value for _, value in pairs]

    def state(self, claim: Claim) -> str:
        counts = [len(self.seeds(name)) for name in claim.arms]
        return f"{min(counts)} to {max(counts)} seeds an arm" if max(counts) else "nothing done"

    def devices(self) -> dict[str, Any] | None:
        result = read_result(self.folder / "devices.json")
        return None if result is not None and result["quick"] and not self.anything else result

    def state_of_devices(self) -> str:
        return "measured" if self.devices() else "nothing done"

    def of_arm(self, name: str) -> list[dict[str, Any]]:
        return [result for seed in range(MOST_SEEDS) if (result := self.result(name, seed)) is not None]


# ---------------------------------------------------------------- one line


def verdict_of(comparison: Comparison, found: Found) -> Verdict:
    return judge(found.values(comparison)[1], comparison.null, comparison.paper)


def number(value: float, unit: str) -> str:
    return f"{value:+.1f}" if unit == "points" else f"{value:.2f}"


def told(verdict: Verdict, unit: str) -> str:
    """Mean and interval in words of the table."""
    if not verdict.values:
        return "-"
    plus = f" ± {abs(verdict.half):.{1 if unit == 'points' else 2}f}" if len(verdict.values) > 1 else ""
    return f"{verdict.bound}{number(verdict.mean, unit)}{plus}"


def word_of(verdict: Verdict, run: bool = False) -> str:
    """run: whether there are pairs of runs, whatever they can tell."""
    if verdict.word == NONE and verdict.values:
        return f"{NONE}: {len(verdict.values)} of {FEWEST} seeds"
    if run and not verdict.values:
        return f"{NONE}: neither run of a pair came that far"
    if verdict.word == NOT_SEEN and verdict.opposite:
        return f"**{NOT_SEEN}**; the opposite was"
    return f"**{verdict.word}**" if verdict.values else "not run"


def judged(comparison: Comparison, found: Found) -> tuple[Verdict, str]:
    """The verdict, and its words."""
    verdict = verdict_of(comparison, found)
    return verdict, word_of(verdict, bool(found.seeds(*comparison.arms)))


def line_of(comparison: Comparison, found: Found) -> str:
    """The comparison in one line, as the command prints it."""
    verdict, word = judged(comparison, found)
    return f"{comparison.what}: {told(verdict, comparison.unit)} {comparison.unit}: {word.replace('**', '')}"


# ---------------------------------------------------------------- the page

HEAD = """\
# The paper's claims, measured

*Written by `python examples/claims.py table` from `benchmarks/results/claims/`: the numbers are those of the runs.*

Section by section, what Krizhevsky, Sutskever and Hinton claim has an experiment here that takes minutes: pairs of runs
that differ in one thing, with the same pictures, the same seed and the same order. What was cut is told below. A small
net that sees few pictures says little about a large one that sees many, and where a claim was not seen, that is what it
means: not seen **at this scale**.
"""

SCALE = """\
## What was cut

- **AlexNet**: the paper's plan in two columns, layer by layer, by the same code (`examples/alexnet.py`), with {widths}
  kernels and neurons a column in place of 48-128-192-192-128-2048-2048, and conv1's windows 5 x 5, 2 apart.
- **tiny-imagenet-40**: {classes} of 40 classes of Tiny ImageNet, {per_class} training pictures of each (drawn once, the
  same for all runs) and all 50 held out of each. They are scaled to {size} x {size} pixels, of which the net sees
  {crop} x {crop}.
- **Recipe**: {epochs} epochs of batches of {batch}, the paper's update with momentum 0.9 and decay 0.0005, a rate of
  {lr:g} that falls to 0 along a cosine, dropout of 0.5, first weights fitted to the data. Errors are top-1, one view.
- **cifar10-jpeg**: CIFAR-10 as JPEG files, for Krizhevsky's net of four layers (three convolutions of 32, 32 and 64
  kernels 5 x 5, one fully connected). For Figure 1: {per_class1} pictures of each class, batches of {batch1}, and a
  rate that stays.
{done}
- **Seeds**: three of each at first. Their intervals were wide, so two more were run of the pairs on tiny-imagenet-40,
  of all but those of biases and middle-layers, whatever the first three had shown.
- `--devices cuda:0` is for a card; no run has been made on one yet. For larger runs change
  `examples/paper_claims/setups.py`.
"""


def write_page(page: Path, found: Found) -> None:
    """The page, and its figures beside it in images/."""
    from .drawn import draw

    drawn = draw(page.parent / "images", found)
    parts = [HEAD, "## In short\n", count(found), short_table(found), "## The rule\n", RULE + "\n"]
    for claim in CLAIMS.values():
        parts.append(section(claim, found, drawn.get(claim.name)))
    parts += [devices_section(found), scale(found), how()]
    page.parent.mkdir(parents=True, exist_ok=True)
    write_whole(page, "\n".join(parts))


def short_table(found: Found) -> str:
    """One line a comparison: what the paper says, what was measured, and the verdict."""
    lines = ["| Claim | Section | Compared | Paper | Measured | Seeds | Verdict |", "|---|---|---|---:|---:|---:|---|"]
    for claim in CLAIMS.values():
        for i, comparison in enumerate(claim.comparisons):
            verdict, word = judged(comparison, found)
            paper = "" if comparison.paper is None else number(comparison.paper, comparison.unit)
            name = f"[{claim.says}](#{claim.name})" if i == 0 else ""
            lines.append(
                f"| {name} | {claim.section if i == 0 else ''} | {comparison.what}, {comparison.unit} | {paper} | "
                f"{told(verdict, comparison.unit)} | {len(verdict.values) or ''} | {word} |"
            )
    verdict, rounds = devices_verdict(found)
    lines.append(
        f"| [Two devices take slightly less time than one](#{DEVICES}) | 3.2 | time of a step, one / two, times | | "
        f"{told(verdict, 'times')} | {rounds or ''} | {word_of(verdict)} |"
    )
    return "\n".join(lines) + "\n"


def count(found: Found) -> str:
    """How many lines came out how."""
    words = [verdict_of(line, found).word for claim in CLAIMS.values() for line in claim.comparisons]
    words.append(devices_verdict(found)[0].word)
    named = {REPRODUCED: REPRODUCED, WEAKER: WEAKER, NOT_SEEN: NOT_SEEN, NONE: "not run, or not often enough"}
    told_so = ", ".join(f"{words.count(word)} {name}" for word, name in named.items())
    return f"Of {len(words)} lines: {told_so}.\n"


def section(claim: Claim, found: Found, picture: str | None) -> str:
    lines = [f"## {claim.name}\n", f"*{claim.says}* (section {claim.section}).", *filter(None, [claim.note]), ""]
    if picture:
        lines += [f"![{claim.says}](images/{picture})", ""]
    done = [name for name in claim.arms if found.of_arm(name)]
    if any("figure1" in name for name in claim.arms):
        lines += search_table(found, [name.removeprefix("figure1-") for name in claim.arms])
    lines += ["| Compared | Each seed | Mean, 95 % interval | null | Verdict |", "|---|---|---:|---:|---|"]
    for comparison in claim.comparisons:
        _, values = found.values(comparison)
        (verdict, word), unit = judged(comparison, found), comparison.unit
        each = ", ".join(number(value, unit) for value in values) or "-"
        lines.append(f"| {comparison.what} | {each} | {told(verdict, unit)} {unit} | {comparison.null:g} | {word} |")
    lines.append("")
    if done:
        lines += arms_table(done, found)
    missing = [name for name in claim.arms if len(found.of_arm(name)) < FEWEST]
    if missing:
        names = ", ".join(f"`{name}`" for name in missing)
        lines += [f"Not run, or not with {FEWEST} seeds, because there was no time for it yet: {names}.", ""]
    lines += ["```sh", f"python examples/claims.py run {claim.name} --data {claim.data}", "```", ""]
    return "\n".join(lines)


def arms_table(names: list[str], found: Found) -> list[str]:
    """What each kind of run came to, on average, and what it took."""
    lines = ["| Runs | Seeds | Training error | Held-out error | Parameters | Seconds of training a run |",
             "|---|---|---:|---:|---:|---:|"]  # fmt: skip
    for name in names:
        results = found.of_arm(name)
        seeds = ", ".join(str(result["seed"]) for result in results)
        ends = [[point for point in result["curve"] if "val_error" in point] for result in results]
        errors = [
            f"{100 * statistics.mean(end[-1][kind] for end in ends):.1f} %" if all(ends) else "-"
            for kind in ("seen_error", "val_error")
        ]
        seconds = statistics.mean(result["seconds"] for result in results)
        lines.append(
            f"| `{name}` | {seeds} | {errors[0]} | {errors[1]} | {results[0]['parameters']:,} | {seconds:.0f} |"
        )
    return [*lines, ""]


def search_table(found: Found, kinds: Sequence[str]) -> list[str]:
    """The search for the rates of Figure 1, as it went."""
    rates = [arm.setup.lr for arm in searched(kinds[0])]
    lines = [
        f"The search: mean training loss of epoch {SEARCHED}, seed 0.", "",
        "| Rate | " + " | ".join(f"{rate:g}" for rate in rates) + " | fastest |", "|---|" + "---:|" * (len(rates) + 1),
    ]  # fmt: skip
    for kind in kinds:
        losses, best = search_results(kind, found.folder), fastest(kind, found.folder)
        cells = [("-" if rate not in losses else f"{losses[rate]:.3f}".replace("inf", "diverged")) for rate in rates]
        lines.append(f"| {kind.rpartition('-')[2]} | {' | '.join(cells)} | {'-' if best is None else f'{best:g}'} |")
    return [*lines, ""]


def devices_verdict(found: Found) -> tuple[Verdict, int]:
    result = found.devices()
    values = factors(result) if result else []
    return judge(values, 1.0), len(values)


def devices_section(found: Found) -> str:
    result = found.devices()
    lines = [
        f"## {DEVICES}\n", "*Two devices take slightly less time than one* (section 3.2).",
        "Training steps of the full net, its columns on two devices and side by side on one, in turns.", "",
    ]  # fmt: skip
    if result is None:
        lines += ["Not run, because it takes two processor cores, or a card, that nothing else is using.", ""]
    else:
        verdict, rounds = devices_verdict(found)
        lines += [
            f"On {' and '.join(result['devices'])} ({printable(result['machine'])}), {rounds} rounds: one device "
            f"{median(result, 'one'):.2f} s, two {median(result, 'two'):.2f} s a step (medians); one / two "
            f"{told(verdict, 'times')}: {word_of(verdict)}.", "",
        ]  # fmt: skip
    return "\n".join([*lines, "```sh", f"python examples/claims.py run {DEVICES} --devices cpu:0,cpu:1", "```", ""])


def scale(found: Found) -> str:
    runs = [run for arm in found.arms for run in found.of_arm(arm)]
    places = sorted({f"{', '.join(run['devices'])} of {printable(run['machine'])}" for run in runs})
    done = f"- {len(runs)} runs are there, {sum(run['seconds'] for run in runs) / 60:.0f} minutes of training"
    done += f": on {'; '.join(places)}." if runs else "."
    widths = "-".join(str(width) for width in NARROW)
    return SCALE.format(
        done=done, widths=widths, per_class=ALEXNET.per_class, classes=ALEXNET.classes, size=ALEXNET.size,
        crop=ALEXNET.crop, epochs=ALEXNET.epochs, batch=ALEXNET.batch_size, lr=ALEXNET.lr,
        per_class1=FIGURE1.per_class, batch1=FIGURE1.batch_size,
    )  # fmt: skip


def how() -> str:
    names = ", ".join([*CLAIMS, DEVICES])
    return (
        "## Again, and on\n\n```sh\n"
        "python examples/claims.py list                      # what is done\n"
        "python examples/claims.py run NAME --data PATH      # what is not; --seeds 5 adds two\n"
        "python examples/claims.py run NAME --data PATH --quick   # seconds; it proves nothing\n"
        "python examples/claims.py table                     # this page\n```\n\n"
        f"NAME: {names}. Every run writes what it is and its curve to one file in `benchmarks/results/claims/`, and is "
        "not done again; one that was stopped goes on. Files of another machine may be put beside them.\n"
    )
