"""What the emulator and NVIDIA's compiler say of kernels: the ladders' tables, and registers by architecture.

The tables are those of `python benchmarks/kernel_ladder.py`, made by that program when the page is made.  That takes
half a minute, so they are kept in the user's cache folder, under a digest of every file that they come from.
"""

from __future__ import annotations

import hashlib
import html
import importlib
import json
import sys
from collections.abc import Iterable
from typing import Any

from .listing import ROOT, code, source_link
from .pictures import rows_of

counted = True  # build.py --without-counters and quick tests leave the tables out, and the page says so
SOURCES = ("kernels", "minigrad/cudasim", "minigrad/gpu", "minigrad/ops", "benchmarks/kernel_ladder.py")


def ladder(name: str) -> str:
    """One ladder: what is counted, the table, and the command that repeats it."""
    command = f"python benchmarks/kernel_ladder.py {name}"
    if not counted:
        return f'<p class="note">This edition was made without counting; <code>{command}</code> does it.</p>'
    lines = _kept(f"ladder {name}", lambda: _benchmark().table(name))
    table = [_cells(line) for line in lines if line.startswith("|") and not line.startswith("|---")]
    told = [line for line in lines if line and not line.startswith(("|", "#", "`"))]
    shape = next(line for line in lines if line.startswith("`")).split("`: ", 1)[1]
    rows = [[_step(name, row[0]), *map(_bold, row[1:])] for row in table[1:]]
    sentences = " ".join(told).split(".  ", 1)
    return (
        f"<h3>{html.escape(lines[0].lstrip('# '))}</h3><p>{html.escape(shape)} {html.escape('. '.join(sentences))}</p>"
        f"{rows_of(rows, ['step', *table[0][1:]])}{code(command, 'bash', {})}"
    )


def registers(file: str, kernels: Iterable[str] = ()) -> str:
    """Registers of a thread on each architecture, from kernels/budget.json, which the tests hold to the compiler."""
    budget = json.loads((ROOT / "kernels" / "budget.json").read_text(encoding="utf-8"))
    entries = budget["kernels"].get(file, {})
    chosen = {
        key: found for key, found in entries.items()
        if "double" not in key and "long long" not in key and (not kernels or key.split()[0] in set(kernels))
    } or entries  # fmt: skip
    if not chosen:
        return ""
    architectures = list(next(iter(chosen.values())))
    rows = [
        [f"<code>{html.escape(key)}</code>", *(_registers(found[one]) for one in architectures)]
        for key, found in sorted(chosen.items())
    ]
    table = rows_of(rows, ["kernel", *architectures])
    if len(rows) > 8:
        table = f"<details><summary>{len(rows)} ways to compile it</summary>{table}</details>"
    return (
        f"<h3>Registers of a thread, by architecture</h3>{table}"
        f"<p>NVRTC {budget['nvrtc']}, {source_link('kernels/budget.json')}; "
        "<code>python -m minigrad.nvrtc</code> makes the table anew, and a test fails where a kernel takes more.</p>"
    )


def _registers(found: list[int]) -> str:
    spills = f", {found[3]} bytes spilled" if found[3] else ""
    return f"{found[0]}{spills}"


def counters(kernel: str, room: str = "") -> str:
    """What a small case of a kernel file (the room's, if it has one) does to memory, line by line of the source."""
    command = f"python -m minigrad.cudasim kernels/{kernel}.cu"
    if not counted:
        return f'<p class="note">This edition was made without counting; <code>{command}</code> does it.</p>'
    case, lines = _kept(f"case {kernel} {room}", lambda: _case(kernel, room))
    if not lines:
        return f"<p>{code(command, 'bash', {})}</p>"
    rows = [[_line_link(file, line), *map(str, rest)] for file, line, *rest in lines]
    head = ["line", "access", "bytes", "requests", "units/request", "least"]
    return (
        f"<p>Forward and backward of the case “{html.escape(case)}”, counted by the emulator: requests of warps; units "
        "are sectors of 32 bytes (global) or wavefronts (shared).</p>"
        f"{rows_of(rows, head)}{code(command, 'bash', {})}"
    )


def _line_link(file: str, line: int) -> str:
    path = ROOT / file
    if path.is_file() and 0 < line <= path.read_text(encoding="utf-8").count("\n"):
        return source_link(file, f"{file}:{line}", line)
    return "code of a header"


def _case(kernel: str, room: str) -> tuple[str, list[list[Any]]]:
    import numpy as np

    import minigrad
    from minigrad.cudasim.settings import options
    from minigrad.gpu.cases import cases_of, run

    cases = cases_of(kernel)
    if not cases:
        return "", []
    own = [one for one in cases if one.kernels[0] == kernel]
    case = next((one for one in own if one.name.split(",")[0] == room), (own or cases)[0])
    modules = minigrad.device("cudasim:0").runtime.modules
    with options(mode="check", counters=True):
        run(case, "cudasim:0", "small", np.dtype("float32"))  # compiles
        for module in modules():
            if module.mode == "check":
                module.counters().reset()
        run(case, "cudasim:0", "small", np.dtype("float32"))
        found = [row for module in modules() if module.mode == "check" for row in module.counters().rows]
    shared = [row for row in found if row.file != "kernels/copy.cu" or kernel == "copy"]
    return case.name, [
        [row.file, row.line, f"{row.memory} {row.operation}", row.size, row.requests,
         f"{row.units_per_request:.2f}", f"{row.ideal_per_request:.2f}"]
        for row in shared
    ]  # fmt: skip


def _kept(what: str, make: Any) -> Any:
    """make(), or what it returned when every source was as it is now."""
    from minigrad.base import files
    from minigrad.gpu import nvrtc

    digest = hashlib.sha256(f"1 {what} {nvrtc.version()} {sys.version_info[:2]}".encode())
    for source in SOURCES:
        place = ROOT / source
        for path in sorted(place.rglob("*.*")) if place.is_dir() else [place]:
            if path.suffix in (".py", ".cu", ".cuh", ".cpp", ".h", ".hpp"):
                digest.update(path.read_bytes())
    path = files.cache_folder() / "atlas" / f"{what.replace(' ', '-')}.json"
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["digest"] == digest.hexdigest():
            return kept["value"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    value = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.writing(path) as file:
        file.write(json.dumps({"digest": digest.hexdigest(), "value": value}).encode())
    return value


def _benchmark() -> Any:
    """benchmarks/kernel_ladder.py as a module."""
    folder = str(ROOT / "benchmarks")
    sys.path.insert(0, folder)
    try:
        return importlib.import_module("kernel_ladder")
    finally:
        sys.path.remove(folder)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _bold(cell: str) -> str:
    return f"<strong>{html.escape(cell.strip('*'))}</strong>" if cell.startswith("**") else html.escape(cell)


def _step(ladder_name: str, step: str) -> str:
    path = f"kernels/ladder/{step}.cu"
    if (ROOT / path).is_file():
        return source_link(path, html.escape(step.removeprefix(f"{ladder_name}_").replace("_", " ")))
    return source_link(f"kernels/{step}.cu", f"{html.escape(step)}.cu")
