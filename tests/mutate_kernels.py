"""Are the checks any good?  Break the real kernels, one character at a time, and count how many breaks are noticed.

    python tests/mutate_kernels.py                 every kernel file, a sample of its mutants
    python tests/mutate_kernels.py lrn --all       every mutant of one file
    python tests/mutate_kernels.py --save          and write benchmarks/results/kernel_mutants.md

A mutant is a kernel file with one change: a barrier removed, a comparison or an index calculation changed.  It runs the
cases of its file (minigrad/gpu/cases) on the emulator in check mode; a .cuh file runs those of the files
that include it.  A mutant is caught if the emulator reports a fault or if a result differs from NumPy's; it survives if
neither happens.  A survivor is either equivalent (the change does not matter) or a hole in the cases.  Mutants that do
not compile do not count.
"""

import argparse
import multiprocessing
import os
import random
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np

import minigrad.cudasim.settings as cudasim
from minigrad.errors import KernelError, MinigradError
from minigrad.gpu.cases import cases_of, differences, run
from minigrad.gpu.sources import kernel_folder, kernel_names, kernel_source, replace_source

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results" / "kernel_mutants.md"
SAMPLE = 24  # mutants of one file, unless --all
SECONDS = 20  # for a launch: a mutant may never end
# A file that others include runs their cases.
INCLUDED = {"update.cuh": ("sgd", "adam")} | dict.fromkeys(
    ("tile_product.cuh", "tile_product_tf32.cuh"), ("gemm", "conv2d")
)

# (kind, pattern, replacement).  Patterns match code only: comments and the lines of parameters are left alone.
CHANGES = [
    ("barrier removed", r"__syncthreads\(\);", ""),
    ("barrier removed", r"__syncwarp\([^)]*\);", ""),
    ("< to <=", r" < ", " <= "),
    ("<= to <", r" <= ", " < "),
    ("> to >=", r" > ", " >= "),
    (">= to >", r" >= ", " > "),
    ("== to !=", r" == ", " != "),
    ("&& to ||", r" && ", " || "),
    ("+ to -", r" \+ ", " - "),
    ("- to +", r" - ", " + "),
    ("* to +", r"(?<=\w) \* (?=[\w(])", " + "),
    ("/ to *", r" / ", " * "),
    ("% to /", r" % ", " / "),
    ("0 to 1", r"(?<= = )0(?=[;,])", "1"),
]


def mutants(source: str) -> list[tuple[str, int, str, str]]:
    """(kind, line number, the line as changed, the whole source as changed)."""
    found = []
    for kind, pattern, replacement in CHANGES:
        for match in re.finditer(pattern, source):
            line = source.count("\n", 0, match.start()) + 1
            start = source.rfind("\n", 0, match.start()) + 1
            end = source.find("\n", match.start())
            before = source[start : match.start()]
            # Not in comments, not in the list of template or kernel parameters, not in preprocessor lines.
            if "//" in before or before.lstrip().startswith(("#", "template")) or "__global__" in source[start:end]:
                continue
            changed = source[: match.start()] + replacement + source[match.end() :]
            text = before + "[" + source[match.start() : match.end()].strip() + " -> " + replacement.strip() + "]"
            text += source[match.end() : end]
            found.append((kind, line, text.strip(), changed))
    return found


def verdict(name: str, source: str) -> str:
    """How a mutant is caught: kinds of reports, "wrong result"; "survives"; "does not compile"."""
    replace_source(name, source)
    cases = [case for file in INCLUDED.get(name, (name,)) for case in cases_of(file)]
    with cudasim.options(mode="check", time_limit=SECONDS):
        for case, dtype in ((one, np.dtype(name)) for one in cases for name in one.dtypes):
            expected = run(case, "cpu:0", "small", dtype)
            try:
                got = run(case, "cudasim:0", "small", dtype)
            except KernelError as error:
                if not error.reports and "error:" in str(error):
                    return "does not compile"
                return _kinds(error)
            except MinigradError as error:
                return type(error).__name__
            if max(differences(case, got, expected).values()) > 0.5:  # as tests/test_kernel_cases.py asks
                return "wrong result"
    return "survives"


def _kinds(error: KernelError) -> str:
    kinds = {report.kind for report in error.reports}
    kinds |= set(re.findall(r"^([A-Z][A-Z-]+):", str(error), re.MULTILINE))
    return ", ".join(sorted(kinds)) or "fault"


def judged(job: tuple[str, str, int, str, str]) -> tuple[str, str, int, str, str]:
    """In a process of its own: a mutant may do anything.  (name, kind, line, text, verdict)"""
    name, kind, line, text, source = job
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            answer = verdict(name, source)
        except BaseException as error:  # whatever it is, the mutant was noticed
            answer = f"{type(error).__name__}: {error}"[:200]
        os.write(write, answer.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        answer = pipe.read()
    status = os.waitpid(child, 0)[1]
    return name, kind, line, text, answer or f"the process died ({status})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "names", nargs="*", metavar="kernel", help="files of kernels/, without .cu; default: all with cases"
    )
    parser.add_argument("--all", action="store_true", help="every mutant, not a sample")
    parser.add_argument("--save", action="store_true", help=f"write benchmarks/results/{RESULTS.name}")
    args = parser.parse_args()

    names = args.names or [*(name for name in kernel_names() if cases_of(name)), *INCLUDED]
    jobs, made = [], Counter()
    for name in names:
        found = mutants((kernel_folder() / name).read_text() if name in INCLUDED else kernel_source(name))
        made[name] = len(found)
        barriers = [m for m in found if m[0] == "barrier removed"]
        others = [m for m in found if m[0] != "barrier removed"]
        if not args.all and len(others) > SAMPLE:
            others = random.Random(name).sample(others, SAMPLE)
        jobs += [(name, *mutant) for mutant in barriers + others]

    rows, survivors, kinds = {}, [], {}
    with multiprocessing.get_context("spawn").Pool(len(os.sched_getaffinity(0))) as pool:
        for i, (name, kind, line, text, answer) in enumerate(pool.imap(judged, jobs), 1):
            if answer == "does not compile":
                continue
            caught = answer != "survives"
            rows.setdefault(name, Counter())["caught" if caught else "survived"] += 1
            kinds.setdefault(kind, Counter())["caught" if caught else "survived"] += 1
            if not caught:
                survivors.append((name, line, kind, text))
            print(f"{i}/{len(jobs)} {file_name(name)}:{line} {kind}: {answer}", file=sys.stderr, flush=True)

    table = report(rows, kinds, survivors, made, args.all)
    print(table)
    if args.save:
        RESULTS.write_text(table + "\n")


def report(rows: dict, kinds: dict, survivors: list, made: Counter, everything: bool) -> str:
    total = sum((Counter(row) for row in rows.values()), Counter())
    ran = total["caught"] + total["survived"]
    lines = ["# Mutants of the kernels", ""]
    lines += [
        f"`python tests/mutate_kernels.py{' --all' if everything else ''} --save`: of {ran} mutants that compile, "
    ]
    lines[-1] += f"{total['caught']} are caught ({100 * total['caught'] / max(1, ran):.1f} %)."
    lines += ["", "| kernel | mutants made | run | caught |", "|---|---|---|---|"]
    for name, row in sorted(rows.items()):
        lines.append(f"| {name} | {made[name]} | {sum(row.values())} | {row['caught']} |")
    lines += ["", "| change | run | caught |", "|---|---|---|"]
    for kind, row in sorted(kinds.items()):
        lines.append(f"| {kind} | {sum(row.values())} | {row['caught']} |")
    lines += ["", "Survivors:", ""]
    lines += [f"- {file_name(name)}:{line}, {kind}: `{text}`" for name, line, kind, text in survivors] or ["none"]
    return "\n".join(lines)


def file_name(name: str) -> str:
    return name if name in INCLUDED else f"{name}.cu"


if __name__ == "__main__":
    main()
