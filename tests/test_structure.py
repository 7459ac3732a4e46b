"""The shape of the project: imports go one way, and every op has its three rooms."""

import ast
import importlib
import re
import runpy
import sys
import types
from pathlib import Path

import pytest

import minigrad
from minigrad.engine import Function
from minigrad.gpu.hardware_check.__main__ import PARTS
from minigrad.gpu.sources import kernel_folder
from minigrad.tensor import OPS

PACKAGE = Path(minigrad.__file__).parent
ROOT = PACKAGE.parent

# Each module may import from those that stand before it in this order (and packages from within themselves).
TOWER = (
    "errors spellings foreign arguments interrupts blas files memory casting tracing sources random device indexing "
    "engine parallel cpu textbook cublas cuda_current cuda_runtime gpu cudasim grad_mode backward operators tensor "
    "chunks ops functional nn"
)
ORDER = TOWER.split()
# Beside the tower: what else may each of these know?
ALLOWED = {
    "sources": "errors",
    "cublas": "errors",
    "cuda_current": "",
    "cuda_runtime": "errors cublas cuda_current",
    "cudasim": "errors files sources device gpu",
    "html": "",
    "notebook": "html tensor nn",
    "model_run": "errors arguments grad_mode device tracing parallel chunks tensor nn",
    "summary": "errors html model_run tensor nn",
    "drawing": "errors files",
    "draw": "errors arguments engine chunks tensor nn drawing model_run",
    "profiler": "errors html tracing device parallel engine",
    "debugging": "errors arguments tracing",
    "gradcheck": "errors random device parallel grad_mode engine tensor",
    "distributed": "errors arguments interrupts memory sources random device gpu tracing grad_mode backward tensor",
    "optim": "errors spellings arguments interrupts memory tracing device gpu parallel engine tensor",
    "init": "errors spellings arguments device parallel grad_mode engine tensor",
    "checkpoint": "errors foreign arguments files interrupts random device parallel engine tensor",
    "data": "errors spellings arguments files",
    "nn": "errors spellings foreign arguments device parallel grad_mode engine tensor chunks functional init",
    "onnx": "errors arguments files tracing device parallel grad_mode engine tensor chunks ops functional nn",
    "occupancy": "",
    "nvrtc": "errors files sources occupancy",
    "own_kernels": "errors sources device cudasim cases",
    "cases": "errors sources device gpu grad_mode engine tensor ops functional optim",
}
# Folders that group modules: each module in them has a place of its own in the order.
WINGS = {"base": None, "processor": None, "tools": None, "nn": {"init"}}
WINGS["cudasim"] = {"own_kernels"}
WINGS["gpu"] = {"sources", "cublas", "cuda_current", "cuda_runtime", "cases", "occupancy", "nvrtc", "hardware_check"}
DOORS = {"__init__", "__main__", "hardware_check"}  # what is opened from outside opens on everything
LIBRARIES = {
    "files": set(),
    "onnx": {"numpy", "onnx"},
    "data": {"numpy", "PIL", "scipy"},
    "checkpoint": {"numpy", "safetensors"},
}
HELPERS = ("__init__", "_")  # files in ops/ that are not a room


def place(name: str) -> str:
    """Whose place in the order a module has: minigrad.ops.lrn that of "ops", minigrad.base.files its own, "files"."""
    wing, inside = (*name.split(".")[1:3], "", "")[:2]
    apart = WINGS.get(wing, set())
    return inside if inside and (apart is None or inside in apart) else wing or "__init__"


def unit(path: Path) -> str:
    """The same for a file."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return "__main__" if path.stem == "__main__" else place(".".join(("minigrad", *parts)).removesuffix(".__init__"))


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
            there = place(name)
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


# ---------------------------------------------------------------- the order of a room, and its first face

FACES = ["forward", "backward", "forward_cpu", "backward_cpu", "forward_gpu", "backward_gpu"]
NOT_PLAIN = ("minigrad.processor.memory", "minigrad.processor.parallel", "minigrad.gpu")  # pools, threads, cards


def assigned(statement: ast.stmt) -> list[str]:
    """The names that a statement of a class gives a value: a method's, or those left of "="."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return [statement.name]
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    return [name.id for target in targets if target for name in ast.walk(target) if isinstance(name, ast.Name)]


def out_of_order(tree: ast.Module) -> list[str]:
    """What stands in the wrong place: public functions come before classes, and a class's faces in one order."""
    first_class = next((i for i, node in enumerate(tree.body) if isinstance(node, ast.ClassDef)), len(tree.body))
    late = [n.name for n in tree.body[first_class:] if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")]
    wrong = [f"the public function {name} comes after a class" for name in late]
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            faces = [name for statement in node.body for name in assigned(statement) if name in FACES]
            if faces != sorted(faces, key=FACES.index):
                wrong.append(f"{node.name} defines {faces}, in this order")
    return wrong


def not_plain(tree: ast.Module) -> list[str]:
    """What the textbook's face of a class uses of the others': out=, names from NOT_PLAIN, methods of its device."""
    foreign = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            package = "minigrad.ops" if node.level == 1 else "minigrad"
            module = f"{package}.{node.module}" if node.module else package
            for alias in node.names:
                if module in NOT_PLAIN or f"{module}.{alias.name}" in NOT_PLAIN:
                    foreign.add(alias.asname or alias.name)
    found = []
    for cls in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
        for way in cls.body:
            if isinstance(way, ast.FunctionDef) and way.name in ("forward", "backward"):
                used = set()
                for node in ast.walk(way):
                    if isinstance(node, ast.Name) and node.id in foreign:
                        used.add(node.id)
                    elif isinstance(node, ast.keyword) and node.arg == "out":
                        used.add("out=")
                    elif isinstance(node, ast.Call) and ast.unparse(node.func).startswith("self.device."):
                        used |= {ast.unparse(node.func)} - {"self.device.received"}  # which is what copy is
                found += [f"{cls.name}.{way.name} uses {name}" for name in sorted(used)]
    return found


@pytest.mark.parametrize("room", ROOMS, ids=lambda p: p.stem)
def test_a_room_reads_from_the_formula_to_the_card(room):
    """Docstring, public functions, then the faces: textbook, fast, card.  A reader may stop after any of them."""
    tree = ast.parse(room.read_text(encoding="utf-8"))
    assert isinstance(tree.body[0], ast.Expr) and ast.get_docstring(tree)
    assert not out_of_order(tree)


@pytest.mark.parametrize("room", ROOMS, ids=lambda p: p.stem)
def test_every_op_has_the_textbooks_face(room):
    module = importlib.import_module(f"minigrad.ops.{room.stem}")
    own = [thing for thing in vars(module).values() if getattr(thing, "__module__", None) == module.__name__]
    for cls in (thing for thing in own if isinstance(thing, type) and issubclass(thing, Function)):
        for way in ("forward", "backward"):
            has = {face: getattr(cls, face) is not getattr(Function, face) for face in FACES if face.startswith(way)}
            assert has[way] or not any(has.values()), f"{cls.__name__}: {has}: {way} is the formula in plain NumPy"


@pytest.mark.parametrize("path", sorted((PACKAGE / "ops").glob("*.py")), ids=lambda p: p.stem)
def test_the_textbooks_face_is_plain_numpy(path):
    assert not not_plain(ast.parse(path.read_text(encoding="utf-8")))


FAST = """
from .. import gpu
from ..processor import parallel as threads
from ..processor.memory import empty_like as fresh, empty
from ..processor.parallel import split
from ._windows import taps
class A:
    def forward(self, x):
        return np.exp(x, {0})
    def backward(self, dy):
        return [lambda: ({1}) for t in taps(dy)]
    def forward_cpu(self, x):
        return np.exp(x, out=split(self.device, gpu.empty(empty(fresh(x)))))
"""


def test_these_rules_can_be_broken():
    plain = "np.empty_like(x), np.split(x, 2), x.empty, x.split(), random_key(self.device)"
    assert not_plain(ast.parse(FAST.format("x", plain))) == []
    for code, name in [
        ("out=x", "out="), ("fresh(x)", "fresh"), ("empty(1)", "empty"), ("split(x)", "split"), ("gpu.add", "gpu"),
        ("threads.split", "threads"), ("self.device.launch(x)", "self.device.launch"),
    ]:  # fmt: skip
        assert not_plain(ast.parse(FAST.format(code, plain))) == [f"A.forward uses {name}"]
        code = f"dict({code})"
        assert not_plain(ast.parse(FAST.format("x", code))) == [f"A.backward uses {name}"]
    for body, right in [
        ("def forward(self): 0\n def backward(self): 0\n forward_gpu, backward_gpu = forward, backward", True),
        ("forward_cpu = backward_cpu = None\n def forward_gpu(self): 0", True),
        ("def forward_cpu(self): 0\n def forward(self): 0", False),
        ("def forward(self): 0\n def forward_gpu(self): 0\n def forward_cpu(self): 0", False),
        ("def forward(self): 0\n def forward_cpu(self): 0\n def backward(self): 0", False),
        ("forward_gpu, backward_gpu = a, b\n def forward(self): 0", False),
    ]:
        assert bool(out_of_order(ast.parse(f"def a(): 0\nclass A:\n {body}\ndef _b(): 0"))) is not right
    assert out_of_order(ast.parse("class A: 0\ndef a(): 0")) == ["the public function a comes after a class"]


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
    """What a kernel #defines and its host needs is read from the source (sources.constants), not written again."""
    files = [*kernel_folder().rglob("*.cu"), *kernel_folder().rglob("*.cuh")]
    defined = {}
    for file in files:
        for name, number in re.findall(r"^#define (\w+)[ \t]+(\d+)\b", file.read_text(encoding="utf-8"), re.MULTILINE):
            defined.setdefault(name, {})[file.stem] = int(number)
    assert {"WARP", "ROWS", "TILE_COLUMNS", "THREADS"} <= set(defined)
    twice = []
    for path in sorted((PACKAGE / "ops").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        launched = {file.stem for file in files if f'"{file.stem}"' in text or file.suffix == ".cuh"}
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


def test_the_house_shows_its_rooms_at_one_glance():
    """The entries of minigrad/, each a line in docs/architecture.md."""
    others = ("__pycache__", "__init__.py", "py.typed")
    shown = sorted(path.name for path in PACKAGE.iterdir() if path.name not in others)
    assert len(shown) <= 21, shown
    told = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert [name for name in shown if f"`{name}" not in told] == []


def test_the_documentation_has_every_header_of_the_kernels_and_every_part_of_the_check():
    told = (ROOT / "kernels" / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in (ROOT / "kernels").glob("*.cuh") if f"| `{path.name}` |" not in told] == []
    told = (ROOT / "docs" / "cuda.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", told, re.MULTILINE) == list(PARTS)


def test_the_core_asks_the_device_and_never_what_kind_it_is():
    for name in ("engine.py", "tensor.py", "backward.py"):
        text = (PACKAGE / name).read_text(encoding="utf-8")
        assert "is_cpu" not in text and "device.kind" not in text and "where.kind" not in text
        known = {place(found) for found in imports(PACKAGE / name) if found.startswith("minigrad.")}
        assert not known & {"gpu", "cpu", "textbook", "cudasim"}
    assert len((PACKAGE / "engine.py").read_text().splitlines()) < 300


def test_the_ten_lines_that_the_documentation_shows_are_the_engine_s():
    source = (PACKAGE / "engine.py").read_text(encoding="utf-8")
    lines = source[source.index("    gradients, waiting = ") : source.index("class Version:")].rstrip()
    assert lines in (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert len(lines.splitlines()) == 10
