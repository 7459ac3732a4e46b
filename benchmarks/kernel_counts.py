"""What is known of every kernel without a card: registers, shared memory, occupancy, and what it asks of memory.

    python benchmarks/kernel_counts.py                        of this tree
    python benchmarks/kernel_counts.py --json counts.json     and kept
    python benchmarks/kernel_counts.py BEFORE [AFTER] [--save]

BEFORE and AFTER: a tree (a checkout of another commit), or what --json has kept of one; AFTER is this tree, if it is
not named.  The emulator runs the cases of each tree in check mode (minigrad/gpu/cases, small), and AlexNet's layers for
one image (fc6 for 128, narrow).  NVIDIA's compiler tells registers and shared memory, minigrad/gpu/occupancy.py how
many warps then fit.  Nothing here is a time.  About five minutes for each tree.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ARCHITECTURES = ("sm_80", "sm_90")
Counts = dict[str, Any]  # see collect

# ---------------------------------------------------------------- in a process of the tree: what is counted there


def collect() -> Counts:
    """The counts of the minigrad that this process imports.

    kernels: {file: {"kernel REAL=float": {"sm_90": [registers, shared, stack, spills]}}}.  blocks: {kernel: [threads of
    a block, bytes of dynamic shared memory]}, the most that a launch had.  work: {name: what one run of it did}.
    """
    from minigrad.gpu import nvrtc
    from minigrad.gpu.sources import kernel_names

    blocks: dict[str, list[int]] = {}
    work = {}
    for name, prepare, least in [*layers(), *cases()]:
        try:
            work[name] = traffic(prepare, blocks) | {"least": least}
        except Exception as error:
            work[name] = {"failed": f"{type(error).__name__}: {error}"[:300]}
        print(f"{name}: {work[name]}", file=sys.stderr, flush=True)
    measured = nvrtc.measure(kernel_names(), ARCHITECTURES)
    return {"nvrtc": measured["nvrtc"], "kernels": measured["kernels"], "blocks": blocks, "work": work}


def traffic(prepare: Callable[[], Callable[[], Any]], blocks: dict[str, list[int]]) -> Counts:
    """What the work that `prepare` returns asks of memory, and its launches, by kernel; `blocks` is brought up to date.

    moved: bytes of the sectors of global memory.  sectors, wavefronts: [how many, how few would do for the same bytes]
    of global, of shared memory.  missed: accesses that were not counted.
    """
    import minigrad
    from minigrad.cudasim.settings import options

    modules = minigrad.device("cudasim:0").runtime.modules
    with options(mode="check", counters=True):
        done = prepare()
        for module in modules():
            if module.mode == "check":
                module.counters().reset()
        with launches(blocks) as seen:
            done()
        counters = [module.counters() for module in modules() if module.mode == "check"]
    rows = [row for each in counters for row in each.rows]
    units = {
        memory: [sum(getattr(row, what) for row in rows if row.memory == memory) for what in ("units", "ideal")]
        for memory in ("global", "shared")
    }
    return {
        "moved": sum(each.bytes_moved for each in counters),
        "sectors": units["global"],
        "wavefronts": units["shared"],
        "launches": seen,
        "missed": sum(each.not_counted for each in counters),
    }


@contextmanager
def launches(blocks: dict[str, list[int]]) -> Iterator[dict[str, int]]:
    """How often each kernel is launched in this block."""
    from minigrad.cudasim.runtime import SimRuntime

    seen: dict[str, int] = {}
    launch = SimRuntime.launch

    def noted(self: Any, function: Any, parameters: Any, grid: Any, block: Any, args: Any, shared_mem: int) -> None:
        seen[function.name] = seen.get(function.name, 0) + 1
        threads, dynamic = blocks.get(function.name, [0, 0])
        blocks[function.name] = [max(threads, math.prod(block)), max(dynamic, shared_mem)]
        launch(self, function, parameters, grid, block, args, shared_mem)

    SimRuntime.launch = noted  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        SimRuntime.launch = launch  # type: ignore[method-assign]


Work = tuple[str, Callable[[], Callable[[], Any]], int]  # a name; what prepares the work; bytes it must move at least


def cases() -> Iterator[Work]:
    """The small cases of the kernels, forward and backward, in float32."""
    import numpy as np

    from minigrad import Tensor
    from minigrad.gpu.cases import CASES, inputs_of, moved_bytes
    from minigrad.gpu.cases.case import gradient_of

    def prepared(case: Any) -> Callable[[], Any]:
        arrays = inputs_of(case, "small", np.float32)
        x = {name: Tensor(array, bool(case.backward), "cudasim:0") for name, array in arrays.items()}
        if case.prepare is not None:
            work = case.prepare(**x)
            work()  # an optimiser's first step makes its velocity
            return work

        def both() -> None:
            y = case.function(**x)
            if case.backward:
                y.backward(Tensor(gradient_of(y.shape, y.dtype), device=y.device))

        return both

    for name, case in CASES.items():
        shape = case.function(**{key: Tensor(a) for key, a in inputs_of(case, "small", np.float32).items()}).shape
        ways = (False, True) if case.backward else (False,)
        least = sum(moved_bytes(case, "small", shape, 4, way) for way in ways)
        yield f"case: {name}", partial(prepared, case), least


# x, w, groups, stride, padding of AlexNet's convolutions, for one image.
CONVOLUTIONS = {
    "conv1": ((1, 3, 224, 224), (96, 3, 11, 11), 1, 4, ((0, 3), (0, 3))),
    "conv2": ((1, 96, 27, 27), (256, 48, 5, 5), 2, 1, 2),
    "conv3": ((1, 256, 13, 13), (384, 256, 3, 3), 1, 1, 1),
    "conv4": ((1, 384, 13, 13), (384, 192, 3, 3), 2, 1, 1),
    "conv5": ((1, 384, 13, 13), (256, 192, 3, 3), 2, 1, 1),
}


def layers() -> Iterator[Work]:
    """AlexNet's layers: the same in every tree, forward and each gradient by itself."""
    import minigrad.functional as F

    for name, (x, w, groups, stride, padding) in CONVOLUTIONS.items():
        settings = {"groups": groups, "stride": stride, "padding": padding}
        shapes = {"x": x, "w": w, "b": w[:1]}
        dx = "" if name == "conv1" else "dy w"  # nobody asks for the images' gradient
        yield from both_ways(
            name, lambda x, w, b, s=settings: F.conv2d(x, w, b, **s), shapes, "x w y", dx, "dy x", "dy"
        )
    shapes = {"x": (128, 1152), "w": (256, 1152), "b": (256,)}  # of fc6, whose sides are 8 and 16 times these
    yield from both_ways("fc6", F.linear, shapes, "x w y", "dy w", "dy x", "dy")
    maps = {"x": (1, 96, 55, 55)}
    yield from both_ways("relu", F.relu, maps, "x y", "dy y")
    yield from both_ways("lrn", lambda x: F.lrn(x, 5, 2.0, 1e-4, 0.75, groups=2), maps, "x y", "dy x y")
    yield from both_ways("max_pool2d", lambda x: F.max_pool2d(x, 3, 2), maps, "x y", "dy")
    yield from both_ways("dropout", lambda x: F.dropout(x, 0.5), {"x": (128, 1024)}, "x y", "dy")
    yield from both_ways("softmax", F.softmax, {"x": (128, 1000)}, "x y", "dy y")
    yield from both_ways("cross_entropy", lambda x: F.cross_entropy(x, [7] * 128), {"x": (128, 1000)}, "x", "x")
    halves = {"a": (1, 128, 13, 13), "b": (1, 128, 13, 13)}
    yield from both_ways("concat", lambda a, b: F.concat([a, b], 1), halves, "a b y")
    yield from both_ways("transpose", lambda x: F.transpose(x, 0, 2, 3, 1).flatten(1), maps, "x y")
    yield from both_ways("bias of maps", lambda x, b: x + b, maps | {"b": (96, 1, 1)}, "x y", "", "dy")
    yield from updates()


def both_ways(
    name: str, op: Callable[..., Any], shapes: dict[str, Any], forward: str, *backward: str
) -> Iterator[Work]:
    """The op's forward, and one work for the gradient of each input that `backward` tells of ("" for none).

    forward: the arrays that it must move; backward: those that it must, besides the gradient itself.
    """
    import numpy as np

    from minigrad import Tensor

    def tensors(wanted: str = "") -> dict[str, Any]:
        random = np.random.default_rng(0)
        return {
            key: Tensor(random.standard_normal(shape, np.float32), key == wanted, "cudasim:0")
            for key, shape in shapes.items()
        }

    def forwards() -> Callable[[], Any]:
        inputs = tensors(next(iter(shapes)))  # as in training: max-pooling then notes which number was the largest
        return lambda: op(*inputs.values())

    def gradient(key: str) -> Callable[[], Any]:
        inputs = tensors(key)
        y = op(*inputs.values())
        dy = y.device.upload(np.random.default_rng(1).standard_normal(y.shape).astype(np.float32))
        return lambda: y.device.backward(y.node, dy)

    sizes = {key: math.prod(shape) for key, shape in shapes.items()}
    y = op(*(Tensor(np.zeros(shape, np.float32)) for shape in shapes.values()))
    sizes |= {"y": y.size, "dy": y.size}
    yield f"{name} forward", forwards, 4 * sum(sizes[key] for key in forward.split())
    for key, moves in zip(shapes, backward):
        if moves:
            least = 4 * (sum(sizes[other] for other in moves.split()) + sizes[key])
            yield f"{name} d{key}", (lambda key=key: gradient(key)), least


def updates() -> Iterator[Work]:
    """An optimiser's step over AlexNet's sixteen parameters, narrow."""
    import numpy as np

    from minigrad import Tensor
    from minigrad.optim import SGD, Adam

    shapes = [shape for _, w, *_ in CONVOLUTIONS.values() for shape in ((w[0] // 4, *w[1:]), w[:1])]
    shapes += [(256, 512), (256,), (256, 256), (256,), (100, 256), (100,)]

    def prepared(make: Callable[[Any], Any]) -> Callable[[], Any]:
        random = np.random.default_rng(0)
        parameters = [Tensor(random.standard_normal(shape, np.float32), True, "cudasim:0") for shape in shapes]
        for parameter in parameters:
            parameter.grad = Tensor(random.standard_normal(parameter.shape, np.float32), device="cudasim:0")
        optimizer = make(parameters)
        optimizer.step()
        return optimizer.step

    numbers = sum(map(math.prod, shapes))
    rules = {
        "SGD, alexnet rule": (lambda p: SGD(p, lr=0.01, momentum=0.9, weight_decay=5e-4, update_rule="alexnet"), 5),
        "Adam": (lambda p: Adam(p, lr=0.01), 7),
    }
    for name, (make, arrays) in rules.items():
        yield f"{name}, 16 parameters", (lambda make=make: prepared(make)), 4 * arrays * numbers


# ---------------------------------------------------------------- here: trees, and what is written of them


def counts_of(tree: Path) -> Counts:
    """The counts of a tree, in a process that imports its minigrad; or those that a file has kept."""
    if tree.is_file():
        return json.loads(tree.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "counts.json"
        environment = os.environ | {"PYTHONPATH": str(tree)}
        subprocess.run([sys.executable, __file__, "--collect", str(file)], env=environment, cwd=tree, check=True)
        return {"commit": commit_of(tree), **json.loads(file.read_text(encoding="utf-8"))}


def commit_of(tree: Path) -> str:
    """The commit of a checkout, and whether files were changed since."""

    def git(*command: str) -> str:
        return subprocess.run(["git", "-C", str(tree), *command], capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no")
    return (git("log", "-1", "--format=%h of %cs") or "no commit") + (", and changes" if changed else "")


def kernel_rows(found: Sequence[Counts]) -> list[tuple[str, ...]]:
    """A row for each kernel in float32: what it takes, and how many of its warps fit."""
    from minigrad.gpu.occupancy import occupancy

    def cells(counts: Counts, file: str, line: str) -> tuple[str, ...] | None:
        numbers = counts["kernels"].get(file, {}).get(line)
        if numbers is None:
            return None
        threads, dynamic = counts["blocks"].get(line.split()[0], [256, 0])
        fits = [
            f"{occupancy(arch, threads, registers, shared + dynamic).share:.0%}"
            for arch, (registers, shared, *_) in numbers.items()
        ]
        registers = [str(of[0]) for of in numbers.values()]
        shared, spills = (max(of[i] for of in numbers.values()) for i in (1, 3))
        return (str(threads), *registers, str(shared + dynamic), str(spills), *fits)

    names = dict.fromkeys(
        (file, line) for counts in found for file, lines in counts["kernels"].items() for line in lines
    )
    floats = sorted(name for name in names if not set(re.findall(r"=([a-z ]+)", name[1])) & {"double", "long long"})
    return [
        (f"{file}: {line.split()[0]}{more_of(line)}", *changes([cells(counts, file, line) for counts in found]))
        for file, line in floats
    ]


def more_of(line: str) -> str:
    """What is compiled in besides the element type: " TF32=1"."""
    kept = [option for option in line.partition(" ")[2].split(", ") if option and not option.endswith("=float")]
    return "".join(f" {option}" for option in kept)


def work_rows(found: Sequence[Counts], cases: bool) -> list[tuple[str, ...]]:
    """A row for each layer, or for each case: what it asks of memory."""

    def cells(counts: Counts, name: str) -> tuple[str, ...] | None:
        work = counts["work"].get(name)
        if work is None or "failed" in work:
            return work and ("failed", *[""] * 4)
        units = [f"{work[what][0] / max(1, work[what][1]):.2f}" if work[what][0] else "-" for what in UNITS]
        at_least = ">= " if work["missed"] else ""
        moved = f"{at_least}{work['moved'] / 1e6:.3g}", f"{at_least}{work['moved'] / work['least']:.2f}"
        return (*moved, *units, str(sum(work["launches"].values())))

    rows = []
    for name in dict.fromkeys(name for counts in found for name in counts["work"]):
        if name.startswith("case: ") == cases:
            each = [counts["work"].get(name, {}) for counts in found]
            other = len({work["least"] for work in each if "least" in work}) > 1
            note = " (other shapes before)" if other else ""
            rows.append((name.removeprefix("case: ") + note, *changes([cells(counts, name) for counts in found])))
    return rows


UNITS = ("sectors", "wavefronts")


def changes(trees: Sequence[tuple[str, ...] | None]) -> list[str]:
    """One cell for each column: before and after where they differ, "-" where a tree does not have the row."""
    width = max(len(cells) for cells in trees if cells)
    columns = zip(*(cells or ("-",) * width for cells in trees))
    return [values[0] if len(set(values)) == 1 else " → ".join(values) for values in columns]


def lines_of(found: Sequence[Counts]) -> list[str]:
    from peers import environment, header, row

    memory = "MB moved", "times the least", "sectors", "wavefronts", "launches"
    trees = " → ".join(counts["commit"] for counts in found)
    return [
        "# What the kernels take and move",
        "",
        environment("numpy"),
        "",
        f"Commit {trees}.  Compiled with NVRTC {found[-1]['nvrtc']}, executed on the CPU emulator, not yet run on",
        f"hardware: nothing here is a time.{'  Where the two differ: before → after.' if len(found) > 1 else ''}",
        "",
        "## Kernels in float32",
        "",
        "Threads of a block, registers of a thread, bytes of shared memory of a block (static, and dynamic as in the",
        "cases), bytes of spills, and the share of a multiprocessor's warps that fit at once.",
        "",
        *header("", "threads", *(f"registers, {a}" for a in ARCHITECTURES), "shared", "spills", *ARCHITECTURES),
        *(row(*cells) for cells in kernel_rows(found)),
        "",
        "## AlexNet's layers",
        "",
        "For one image; fully connected layers, dropout and softmax for 128.  MB: of all sectors of global memory, no",
        "cache counted; the least is every array of the formula moved once.  Sectors of 32 bytes of global memory, and",
        "wavefronts of shared memory, as multiples of the fewest that would do for the same accesses: above 1, threads",
        "of a warp read far from each other, or want different words of one bank.",
        "",
        *header("", *memory),
        *(row(*cells) for cells in work_rows(found, cases=False)),
        "",
        "## The small cases, forward and backward",
        "",
        *header("", *memory),
        *(row(*cells) for cells in work_rows(found, cases=True)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("trees", nargs="*", type=Path, metavar="TREE", help="a checkout, or a file of --json")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to keep the counts of the last tree")
    parser.add_argument("--save", action="store_true", help="write what is printed to benchmarks/results/")
    parser.add_argument("--collect", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.collect:
        asked.collect.write_text(json.dumps(collect()), encoding="utf-8")
        return
    trees = asked.trees if len(asked.trees) == 2 else [*asked.trees, ROOT]
    found = [counts_of(tree) for tree in trees]
    if asked.json:
        asked.json.write_text(json.dumps(found[-1], indent=1) + "\n", encoding="utf-8")
    sys.path.insert(0, str(ROOT))
    from peers import report

    report("kernel_counts", lines_of(found), asked.save)


if __name__ == "__main__":
    main()
