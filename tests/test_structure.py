"""The shape of the project: imports go one way, and every op has its three rooms."""

import ast
import re
import runpy
import sys
import types
from pathlib import Path

import pytest

import minigrad
from minigrad.kernel import kernel_folder
from minigrad.tensor import OPS

PACKAGE = Path(minigrad.__file__).parent
ROOT = PACKAGE.parent

# Each module may import from those that stand before it in this order (and packages from within themselves).
TOWER = (
    "errors arguments interrupts blas files memory casting tracing kernel cudasim cuda device gpu parallel grad_mode "
    "engine backward operators tensor chunks ops functional nn"
)
ORDER = TOWER.split()
# Beside the tower: what else may each of these know?
ALLOWED = {
    "kernel": "errors",
    "cudasim": "errors files",
    "cuda": "errors",
    "profiler": "errors tracing device parallel engine",
    "gradcheck": "errors device parallel grad_mode engine tensor",
    "optim": "errors arguments interrupts memory tracing device gpu parallel engine tensor",
    "init": "errors arguments device parallel grad_mode engine tensor",
    "checkpoint": "errors files device parallel engine tensor",
    "data": "errors arguments files",
    "nn": "errors arguments device parallel grad_mode engine tensor chunks functional init",
    "nvrtc": "errors files kernel",
    "kernel_cases": "errors kernel device gpu grad_mode engine tensor functional optim",
}
DOORS = {"__init__", "__main__", "hardware_check"}  # what is opened from outside opens on everything
LIBRARIES = {"files": set(), "data": {"numpy", "PIL"}, "checkpoint": {"numpy", "safetensors"}}
HELPERS = ("__init__", "_")  # files in ops/ that are not a room


def unit(path: Path) -> str:
    """The module of the package that a file belongs to: minigrad/ops/lrn.py is in "ops"."""
    return "__main__" if path.stem == "__main__" else path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Full names of what a file imports, wherever in the file: "minigrad.tensor", "numpy"."""
    found: set[str] = set()
    package = ["minigrad", *path.relative_to(PACKAGE).parent.parts]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):  # names that only a type checker reads are no dependency
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            folder = PACKAGE.parent / module.replace(".", "/")
            submodules = [
                a.name for a in node.names if (folder / f"{a.name}.py").is_file() or (folder / a.name).is_dir()
            ]
            found |= {f"{module}.{name}" for name in submodules} if submodules else {module}
    return found


SOURCES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    here = unit(path)
    if here in DOORS:
        return
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "minigrad":
            there = parts[1] if len(parts) > 1 else "__init__"
            below = set(ORDER[: ORDER.index(here)]) if here in ORDER else set()
            allowed = (set(ALLOWED[here].split()) if here in ALLOWED else below) | {here}
            assert there in allowed, f"{path.name} imports minigrad.{there}; {here} may know {sorted(allowed)}"
        elif here in LIBRARIES and parts[0] not in LIBRARIES[here]:
            assert parts[0] in sys.stdlib_module_names, (
                f"{path.name} imports {parts[0]}; {here} may use {LIBRARIES[here]}"
            )


ROOMS = [path for path in sorted((PACKAGE / "ops").glob("*.py")) if not path.name.startswith(HELPERS)]


@pytest.mark.parametrize("room", ROOMS, ids=lambda p: p.stem)
def test_every_room_is_complete(room):
    tree = ast.parse(room.read_text(encoding="utf-8"))
    assert (ROOT / "tests" / f"test_{room.stem}.py").is_file(), f"tests/test_{room.stem}.py is missing"
    assert len(ast.get_docstring(tree) or "") > 100, "the module docstring is to give the formula and its source"
    others = {path.stem for path in ROOMS} - {room.stem}
    for name in imports(room):
        if name.startswith("minigrad.ops."):
            assert name.split(".")[2] not in others, f"{room.name} imports another op: {name}"
    public = [node for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
    assert public, "a room has a public function"
    for function in public:
        assert OPS.get(function.name), f"{function.name} is not entered with @op"
        assert ast.get_docstring(function), f"{function.name} has no docstring"


def test_functional_offers_every_op():
    missing = [name for name in OPS if getattr(minigrad.functional, name, None) is not OPS[name]]
    assert not missing, f"minigrad.functional lacks {missing}"


def test_sources_and_their_sizes():
    """A file that outgrows one sitting is to be split by idea."""
    lengths = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in SOURCES}
    assert {name: n for name, n in lengths.items() if n > 400} == {}


def test_the_extras_bring_one_cuda_only(monkeypatch):
    """Beside CuPy for CUDA 12 there must be no NVRTC of 13: CuPy would take it, and drivers for 12 not its output."""
    told = {}
    stand_in = types.SimpleNamespace(setup=told.update, find_packages=lambda **_: [])
    monkeypatch.setitem(sys.modules, "setuptools", stand_in)
    monkeypatch.chdir(ROOT)
    runpy.run_path(str(ROOT / "setup.py"))
    extras = told["extras_require"]
    for cuda in ("cuda12", "cuda13"):
        (cupy,) = extras[cuda]
        assert cupy.startswith(f"cupy-{cuda}x[ctk]>=14")  # before 14 there is no [ctk], and CuPy needs a toolkit
    assert not [need for extra in ("cuda12", "test", "plot") for need in extras[extra] if "nvrtc" in need]
    assert set(extras["nvrtc"]) <= set(extras["dev"])
    assert ".venv/bin/pip install -e '.[test,nvrtc]' && .venv/bin/python -m pytest" in (ROOT / "README.md").read_text()


def test_constants_are_written_once():
    """What a kernel #defines and its host needs is read from the source (kernel.constants), not written again."""
    files = [*kernel_folder().rglob("*.cu"), *kernel_folder().rglob("*.cuh")]
    defined = {}
    for file in files:
        for name, number in re.findall(r"^#define (\w+)[ \t]+(\d+)\b", file.read_text(encoding="utf-8"), re.MULTILINE):
            defined.setdefault(name, {})[file.stem] = int(number)
    assert {"WARP", "ROWS", "COLUMNS", "THREADS"} <= set(defined)
    twice = []
    for path in sorted((PACKAGE / "ops").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        launched = {file.stem for file in files if f'"{file.stem}"' in text} | {"common", "tile_product"}
        for name, value in _upper_case_integers(ast.parse(text)):
            for kernel, number in defined.get(name.lstrip("_"), {}).items():
                if kernel in launched or value == number:
                    twice.append(
                        f"{path.name} has {name} = {value}, and {kernel} #defines it: constants({kernel!r}, ...)"
                    )
    assert twice == []


def _upper_case_integers(tree):
    """(NAME, integer) of every assignment of a number, or of a product, sum or shift of numbers."""
    for node in ast.walk(tree):
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        for target in targets:
            names, values = [target], [node.value]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                names, values = target.elts, node.value.elts
            for name, value in zip(names, values):
                if isinstance(name, ast.Name) and name.id.isupper() and value is not None:
                    if all(isinstance(part, _ARITHMETIC) for part in ast.walk(value)):
                        number = eval(compile(ast.Expression(value), "<a constant>", "eval"), {"__builtins__": {}})
                        if isinstance(number, int):
                            yield name.id, number


_ARITHMETIC = (ast.Constant, ast.BinOp, ast.operator)
