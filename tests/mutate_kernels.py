"""Are the checks any good?  Break the real kernels, one character at a time, and count how many breaks are noticed.

    python tests/mutate_kernels.py                 every kernel file, a sample of its mutants
    python tests/mutate_kernels.py lrn --all       every mutant of one file
    python tests/mutate_kernels.py lrn.cuh --all   every mutant of what kernels include
    python tests/mutate_kernels.py --save          and write benchmarks/results/kernel_mutants.md
    python tests/mutate_kernels.py --judged FILE   take the verdicts that FILE has, and add the others to it

A mutant is a kernel file with one change: a barrier removed, a comparison or an index calculation changed.  It runs the
cases of its file (minigrad/gpu/cases) on the emulator in check mode; a .cuh file runs those of all files that include
it, and common.cuh, which is put before every file, those of USERS.  A mutant is caught if the emulator reports a fault
or if a result differs from NumPy's; it survives if neither happens.  A survivor is either equivalent (the change does
not matter) or a hole in the cases.  Mutants that do not compile do not count.
"""

import argparse
import hashlib
import json
import math
import multiprocessing
import os
import random
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np

import minigrad.cudasim.settings as cudasim
from minigrad.cudasim.source import without_comments, without_ptx
from minigrad.errors import KernelError, MinigradError
from minigrad.gpu.cases import Case, cases_of, differences, run
from minigrad.gpu.sources import kernel_folder, kernel_names, kernel_source, replace_source

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results" / "kernel_mutants.md"
SAMPLE = 24  # mutants of one file, unless --all
SECONDS = 20  # for a launch: a mutant may never end
# Every function of common.cuh is used by one of these.
USERS = ("relu", "tanh", "arithmetic", "max_pool2d", "reduce", "softmax", "lrn_within_map", "dropout")
HEADERS = sorted(path.name for path in kernel_folder().glob("*.cuh"))

# (kind, pattern, replacement).  Patterns match code only: comments and the lines of parameters are left alone.
CHANGES = [
    ("barrier removed", r"__syncthreads\(\);", ""),
    ("barrier removed", r"__syncwarp\([^)]*\);", ""),
    ("wait removed", r"copy_async_(?:commit|wait<\d+>)\(\);", ""),
    ("< to <=", r" < ", " <= "),
    ("<= to <", r" <= ", " < "),
    ("> to >=", r" > ", " >= "),
    (">= to >", r" >= ", " > "),
    ("== to !=", r" == ", " != "),
    ("&& to ||", r" && ", " || "),
    ("|| to &&", r" \|\| ", " && "),
    ("+ to -", r" \+ ", " - "),
    ("- to +", r" - ", " + "),
    ("+= to -=", r" \+= ", " -= "),
    ("* to +", r"(?<=\w) \* (?=[\w(])", " + "),
    ("/ to *", r" / ", " * "),
    ("% to /", r" % ", " / "),
    ("^ to |", r" \^(?==? )", " |"),
    ("0 to 1", r"(?<= = )0(?=[;,])", "1"),
]

Job = tuple[str, str, int, str, str]  # name of the file, kind, line number, the line as changed, the source as changed


def mutants(source: str) -> list[tuple[str, int, str, str]]:
    """(kind, line number, the line as changed, the whole source as changed)."""
    found = []
    emulated = without_ptx(source).split("\n")
    for kind, pattern, replacement in CHANGES:
        for match in re.finditer(pattern, source):
            line = source.count("\n", 0, match.start()) + 1
            start = source.rfind("\n", 0, match.start()) + 1
            end = source.find("\n", match.start())
            before = source[start : match.start()]
            # Not in comments, not in the list of template or kernel parameters, not in preprocessor lines, nor in PTX.
            if "//" in before or before.lstrip().startswith(("#", "template")) or "__global__" in source[start:end]:
                continue
            if not emulated[line - 1]:
                continue
            changed = source[: match.start()] + replacement + source[match.end() :]
            text = before + "[" + source[match.start() : match.end()].strip() + " -> " + replacement.strip() + "]"
            text += source[match.end() : end]
            found.append((kind, line, text.strip(), changed))
    return found


def included(name: str) -> set[str]:
    """The headers that a file of kernels/ includes, and those that these include."""
    found = set(re.findall(r'^#include "(\w+\.cuh)"', text_of(name), re.MULTILINE))
    return found.union(*map(included, found))


def text_of(name: str) -> str:
    return (kernel_folder() / name).read_text(encoding="utf-8") if name in HEADERS else kernel_source(name)


def cases_that_run(name: str) -> list[tuple[Case, str]]:
    """The cases of a file, or those of all files that include it, and a dtype of each.

    Those come first that need the fewest libraries and are the smallest: most mutants are caught by the first.
    """
    users = USERS if name == "common.cuh" else [file for file in kernel_names() if name in included(file)]
    files = users if name in HEADERS else [name]
    cases = {case.name: case for file in files for case in cases_of(file)}.values()

    def order(one: tuple[Case, str]) -> tuple[bool, str, int]:
        case, dtype = one
        return case.matrix_units != ("tf32" in name), dtype, sum(map(math.prod, case.small.values()))

    return sorted(((case, dtype) for case in cases for dtype in case.dtypes), key=order)


def verdict(name: str, source: str) -> str:
    """How a mutant is caught: kinds of reports, "wrong result"; "survives"; "does not compile"."""
    cases = [(case, np.dtype(dtype)) for case, dtype in cases_that_run(name)]
    replace_source(name, source)
    with cudasim.options(mode="check", time_limit=SECONDS):
        for case, dtype in cases:
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


def key_of(job: Job) -> str:
    """A mutant's code; comments do not count, nor which line it is."""
    code = " ".join(without_comments(job[4]).split())
    return f"{job[0]} {hashlib.sha256(code.encode()).hexdigest()[:16]}"


def judged(job: Job) -> str:
    """The verdict, of a process of its own: a mutant may do anything."""
    name, source = job[0], job[4]
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
    return answer or f"the process died ({status})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="kernel", help="files of kernels/, without .cu; default: all")
    parser.add_argument("--all", action="store_true", help="every mutant, not a sample")
    parser.add_argument("--save", action="store_true", help=f"write benchmarks/results/{RESULTS.name}")
    parser.add_argument("--judged", type=Path, metavar="FILE", help="verdicts of earlier runs, to which new ones go")
    args = parser.parse_args()

    names = args.names or [*kernel_names(), *HEADERS]
    before = dict(map(json.loads, args.judged.open())) if args.judged and args.judged.exists() else {}
    jobs, made = [], Counter()
    for name in names:
        found = [(name, *mutant) for mutant in mutants(text_of(name))]
        made[name] = len(found)
        sample = [job for job in found if not job[1].endswith("removed")]
        if not args.all and len(sample) > SAMPLE:
            sample = random.Random(name).sample(sample, SAMPLE)
        jobs += [job for job in found if job in sample or job[1].endswith("removed") or key_of(job) in before]

    rows, survivors, kinds = {}, [], {}
    with multiprocessing.get_context("spawn").Pool(len(os.sched_getaffinity(0))) as pool:
        answers = pool.imap(judged, [job for job in jobs if key_of(job) not in before])
        for i, job in enumerate(jobs, 1):
            name, kind, line, text, _ = job
            if key_of(job) not in before:
                before[key_of(job)] = next(answers)
                if args.judged:
                    with args.judged.open("a") as file:
                        print(json.dumps([key_of(job), before[key_of(job)]]), file=file)
            answer = before[key_of(job)]
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
    return name if name in HEADERS else f"{name}.cu"


if __name__ == "__main__":
    main()
