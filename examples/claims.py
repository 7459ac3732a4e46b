"""Measure what the paper claims, claim by claim, at a small scale.

python examples/claims.py list                          the claims, and how many of their runs are done
python examples/claims.py run dropout --data PATH       train its pairs, three seeds of each; what is done stays done
python examples/claims.py run relu --data PATH --quick  does everything work?  It proves nothing
python examples/claims.py table                         docs/claims.md and its figures, from what is there
"""

from __future__ import annotations

import interruption

if __name__ == "__main__":  # before the imports that take a second
    interruption.begin()

import argparse
import json
from pathlib import Path

from command_line import OneLineParser, any_path, device_list, positive, run_job
from paper_claims.pictures import Library
from paper_claims.rows import CLAIMS, DEVICES, Claim, arms, searches
from paper_claims.runs import FORMAT, result_path, train
from paper_claims.setups import Arm, as_json, quick
from paper_claims.table import Found, line_of, write_page
from paper_claims.timing import measure
from run_folder import TrainingError, write_whole

from minigrad.errors import printable

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "claims", ROOT / "docs" / "claims.md"
SEEDS = 3
PROVES_NOTHING = "--quick: a few pictures and steps, to see that everything works; it proves nothing."


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    return run_job("claims.py", options.job, options)


def show(options: argparse.Namespace) -> None:
    found = Found(options.results)
    for claim in CLAIMS.values():
        print(f"{claim.name:20} section {claim.section:14} {claim.data:17} {found.state(claim):28} {claim.says}")
    print(f"{DEVICES:20} section {'3.2':14} {'-':17} {found.state_of_devices():28} Two devices take less time than one")


def run(options: argparse.Namespace) -> None:
    results = options.out / "claims-quick" if options.quick else options.results
    if options.quick:
        print(PROVES_NOTHING)
        options.out = results
    library = Library()
    for name in options.claims:
        if name == DEVICES:
            measure(options, results)
        else:
            run_claim(CLAIMS[name], options, library, results)
    if options.quick:
        print(PROVES_NOTHING)


def run_claim(claim: Claim, options: argparse.Namespace, library: Library, results: Path) -> None:
    for arm in searches(claim):
        try_rate(arm, options, library, results)
    for seed in range(1 if options.quick else options.seeds):
        for arm in arms(claim, results):
            train(quick(arm) if options.quick else arm, seed, options, library, results)
    found = Found(results, anything=options.quick)
    for comparison in claim.comparisons:
        print(f"{claim.name}: {line_of(comparison, found)}")


def try_rate(arm: Arm, options: argparse.Namespace, library: Library, results: Path) -> None:
    """A run of a search.  Where the net diverges, that is what it has found."""
    arm = quick(arm) if options.quick else arm
    try:
        train(arm, 0, options, library, results)
    except TrainingError as error:
        print(f"{arm.name}: diverged, the rate is too high: {error}")
        told = {"format": FORMAT, "arm": arm.name, "seed": 0, "setup": as_json(arm.setup), "quick": options.quick}
        results.mkdir(parents=True, exist_ok=True)
        write_whole(result_path(results, arm, 0), json.dumps({**told, "curve": [], "diverged": str(error)}) + "\n")


def table(options: argparse.Namespace) -> None:
    found = Found(options.results)
    write_page(options.page, found)
    for note in found.left_out:
        print(printable(note))
    print(printable(options.page))


def claim_name(text: str) -> str:
    if text not in (*CLAIMS, DEVICES):
        raise argparse.ArgumentTypeError(f"no such claim: {text}; there are {', '.join((*CLAIMS, DEVICES))}")
    return text


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = OneLineParser(
        prog="claims.py",
        description="Measure what the paper claims, claim by claim, at a small scale: pairs of runs that differ in one "
        "thing, three seeds of each, and a verdict by a rule.",
        epilog="Runs go to runs/ARM-seedN and go on where they were stopped; each leaves its curve in "
        "benchmarks/results/claims/. Exit codes: 0; 1: a training failed; 2: wrong arguments or data; 130, 143, 129: "
        "ended by a signal: the same command goes on.",
    )
    jobs = parser.add_subparsers(required=True, metavar="list | run | table")
    listed = jobs.add_parser("list", help="the claims, and how many of their runs are done")
    listed.set_defaults(job=show)
    running = jobs.add_parser("run", help="train what a claim needs, but for what is done")
    running.set_defaults(job=run)
    add = running.add_argument
    add("claims", nargs="+", type=claim_name, metavar="CLAIM", help="names as list has them")
    add("--data", type=any_path, metavar="PATH", help="the pictures that list names beside the claim")
    add("--quick", action="store_true", help="a few pictures and steps: does everything work?  It proves nothing")
    add("--seeds", type=positive(int, most=1000), default=SEEDS, metavar="N", help="seeds 0 to N - 1 (default: 3)")
    add("--devices", type=device_list, default="cpu:0", metavar="A[,B]",
        help="a column on each of two, or both on one (default: cpu:0)")  # fmt: skip
    add("--workers", type=positive(int, zero=True, most=1000), default=0, metavar="N",
        help="threads that load images (default: 0)")  # fmt: skip
    add("--out", type=any_path, default=Path("runs"), metavar="DIR", help="where runs go (default: runs)")
    written = jobs.add_parser("table", help="write docs/claims.md and its figures from what is there")
    written.set_defaults(job=table)
    written.add_argument("--page", type=any_path, default=PAGE, metavar="FILE.md", help="default: docs/claims.md")
    for each in (listed, running, written):
        each.add_argument(
            "--results", type=any_path, default=RESULTS, metavar="DIR",
            help="where curves are kept (default: benchmarks/results/claims)",
        )  # fmt: skip
    return parser.parse_args(arguments)


if __name__ == "__main__":
    interruption.finish(main)
