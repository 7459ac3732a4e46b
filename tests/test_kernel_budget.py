"""Every kernel through NVIDIA's compiler, its registers, shared memory and spills against kernels/budget.json.

Compiled is all that they are here: no card has run them.
"""

import copy
import ctypes
import json
import re
import types

import pytest

from minigrad.errors import KernelError, MinigradError, MissingDependencyError
from minigrad.gpu import nvrtc
from minigrad.gpu import sources as kernel

try:
    nvrtc.library()
    MISSING = None
except MissingDependencyError as error:
    MISSING = str(error)

pytestmark = [pytest.mark.skipif(MISSING is not None, reason=str(MISSING)), pytest.mark.cpu_only("compiles only")]

SPILLING = """
extern "C" __global__ __launch_bounds__(1024) void crowded(REAL* y, const REAL* x, int n) {
    REAL a[96];
    for (int i = 0; i < 96; i++) a[i] = x[i * n + threadIdx.x];
    for (int round = 0; round < n; round++) {
#pragma unroll
        for (int i = 0; i < 96; i++) a[i] = a[i] * a[(i + 7) % 96] + a[(i + 31) % 96];
    }
#pragma unroll
    for (int i = 0; i < 96; i++) y[i * n + threadIdx.x] = a[i];
}
"""


def ptx(name, **types):
    """What NVRTC makes of kernels/<name>.cu before it is assembled for one card."""
    source, program, size = kernel.full_source(name), ctypes.c_void_p(), ctypes.c_size_t()
    nvrtc._check(nvrtc.library().nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"", 0, None, None))
    options = ["--std=c++17", "-ftz=true", "-arch=compute_90", "--device-as-default-execution-space"]
    options += [f"-D{kernel.MACROS.get(macro, macro)}={value}" for macro, value in types.items()]
    passed = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    nvrtc._check(nvrtc.library().nvrtcCompileProgram(program, len(options), passed))
    nvrtc._check(nvrtc.library().nvrtcGetPTXSize(program, ctypes.byref(size)))
    text = ctypes.create_string_buffer(size.value)
    nvrtc._check(nvrtc.library().nvrtcGetPTX(program, text))
    nvrtc.library().nvrtcDestroyProgram(ctypes.byref(program))
    return text.value.decode()


@pytest.mark.parametrize(
    ("name", "types", "loads", "stores"),
    [
        ("relu", {"REAL": "float"}, "v4.f32", "v4.f32"),
        ("dropout", {"REAL": "float", "BITS": 1}, "v4.f32", "v4.f32"),
        ("copy", {"FROM": "float", "TO": "double"}, "v2.f32", "v2.f64"),
        ("arithmetic", {"T": "double"}, "v2.f64", "v2.f64"),
        ("sgd", {"REAL": "float"}, "v4.f32", "v4.f32"),
    ],
)
def test_packs_stay_one_access(name, types, loads, stores):
    """The compiler may take a pack to pieces, and does where it cannot see that 16 bytes begin at a multiple of 16."""
    for kernel_text in ptx(name, **types).split(".entry ")[1:]:
        entry = kernel_text.split("(")[0]
        wanted = [re.compile(rf"st\.global(\.\w+)*\.{stores}")] if entry != "copy_turned" else []
        wanted += [re.compile(rf"ld\.global(\.\w+)*\.{loads}")] if entry not in ("copy_turned", "fill") else []
        for access in wanted:
            assert access.search(kernel_text), (entry, access.pattern)


def measured(lines=None):
    numbers = lines or {"relu_forward REAL=float": {"sm_90": [30, 128, 0, 0]}}
    return {"nvrtc": "13.0", "kernels": {"relu": numbers}}


def test_every_kernel_keeps_its_budget_on_one_architecture():
    assert nvrtc.problems(nvrtc.measure(kernel.kernel_names(), ["sm_90"]), nvrtc.read_budget()) == []


@pytest.mark.slow
def test_every_kernel_keeps_its_budget():
    """About a minute on two cores; a second run takes what the compiler said from the user's cache."""
    assert nvrtc.problems(nvrtc.measure(kernel.kernel_names()), nvrtc.read_budget()) == []


def test_the_budget_is_of_the_kernels_there_are():
    budget = nvrtc.read_budget()
    assert nvrtc.lost_files(budget) == [], "remove their lines: python -m minigrad.nvrtc --write"
    assert set(budget["kernels"]) == set(kernel.kernel_names())
    architectures = {tuple(by_arch) for lines in budget["kernels"].values() for by_arch in lines.values()}
    assert architectures == {nvrtc.ARCHITECTURES}
    assert nvrtc.budget_text(budget) == nvrtc.budget_path().read_text(), "the file is as --write writes it"


def test_no_kernel_spills():
    spills = [
        f"{file}: {line}, {architecture}"
        for file, lines in nvrtc.read_budget()["kernels"].items()
        for line, by_architecture in lines.items()
        for architecture, numbers in by_architecture.items()
        if numbers[nvrtc.COLUMNS.index("spills")]
    ]
    assert spills == []


# ---------------------------------------------------------------- the gate itself


def test_the_compiler_s_numbers():
    source = """
extern "C" __global__ void plain(float* y) { y[threadIdx.x] = 1; }
extern "C" __global__ void sharing(REAL* y) {
    __shared__ REAL s[64];
    s[threadIdx.x] = y[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = s[63 - threadIdx.x];
}
"""
    for real, size in (("float", 4), ("double", 8)):
        found = {k.name: k for k in nvrtc.compile_source(source, "two.cu", "sm_75", [f"-DREAL={real}"])}
        assert set(found) == {"plain", "sharing"}
        assert found["sharing"].shared == 64 * size and found["plain"].shared == 0
        assert 4 <= found["plain"].registers <= 40 and found["plain"].spills == found["plain"].stack == 0


def test_spills_of_functions_that_were_not_inlined_count():
    log = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'one' for 'sm_90'
ptxas info    : Function properties for one
ptxas         .     16 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads
ptxas info    : Function properties for helper
ptxas         .     32 bytes stack frame, 1 bytes spill stores, 2 bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers, 128 bytes smem, 384 bytes cmem[0]
ptxas info    : Compiling entry function 'two' for 'sm_90'
ptxas info    : Function properties for two
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 0 barriers
"""
    one, two = nvrtc._parsed(log)
    assert one == nvrtc.CompiledKernel("one", registers=32, shared=128, stack=48, spills=15)
    assert two == nvrtc.CompiledKernel("two", registers=8, shared=0, stack=0, spills=0)


def test_a_spill_breaks_the_budget(monkeypatch):
    monkeypatch.setattr(nvrtc, "kernel_names", lambda: ["relu"])
    kernel.replace_source("relu", SPILLING)
    try:
        now = nvrtc.measure(["relu"], ["sm_80"])
    finally:
        kernel.replace_source("relu", None)
    line = "crowded REAL=float"
    registers, shared, stack, spills = now["kernels"]["relu"][line]["sm_80"]
    assert spills > 0 and stack > 0
    then = copy.deepcopy(now)
    for lines in then["kernels"]["relu"].values():
        lines["sm_80"] = [registers, shared, 0, 0]
    found = nvrtc.problems(now, then)
    assert any(f"{line}, sm_80: spills {spills}, the budget has 0" in problem for problem in found)
    assert nvrtc.problems(now, now) == []  # what the budget file has is allowed


@pytest.mark.parametrize(
    "change, complaint",
    [
        ([30, 128, 0, 0], None),
        ([34, 128, 0, 0], None),
        ([12, 128, 0, 0], None),
        ([35, 128, 0, 0], "registers 35, the budget has 30"),
        ([30, 129, 0, 0], "shared 129, the budget has 128"),
        ([30, 0, 0, 0], "shared 0, the budget has 128"),
        ([30, 128, 8, 0], "stack 8, the budget has 0"),
        ([30, 128, 0, 4], "spills 4, the budget has 0"),
    ],
)
def test_what_breaks_the_budget(change, complaint):
    found = nvrtc.problems(measured({"relu_forward REAL=float": {"sm_90": change}}), measured())
    assert len(found) == (complaint is not None)
    if complaint:
        assert f"kernels/relu.cu: relu_forward REAL=float, sm_90: {complaint}" in found[0]
        assert "python -m minigrad.nvrtc relu --write" in found[0]


def test_another_compiler_may_use_some_more_registers():
    other = measured() | {"nvrtc": "12.8"}
    assert nvrtc.problems(measured({"relu_forward REAL=float": {"sm_90": [50, 128, 0, 0]}}), other) == []
    assert len(nvrtc.problems(measured({"relu_forward REAL=float": {"sm_90": [55, 128, 0, 0]}}), other)) == 1
    assert len(nvrtc.problems(measured({"relu_forward REAL=float": {"sm_90": [30, 128, 0, 4]}}), other)) == 1


def test_new_and_lost_kernels_break_the_budget():
    more = measured({"relu_forward REAL=float": {"sm_90": [30, 128, 0, 0]}, "new REAL=float": {"sm_90": [1, 0, 0, 0]}})
    (problem,) = nvrtc.problems(more, measured())
    assert "new REAL=float is not in kernels/budget.json" in problem and "relu --write" in problem
    (problem,) = nvrtc.problems(measured(), more)
    assert "new REAL=float is in kernels/budget.json only" in problem
    (problem,) = nvrtc.problems(measured(), {"nvrtc": "13.0", "kernels": {}})
    assert "relu_forward" in problem


def test_kernels_that_do_not_compile_and_warnings():
    broken = '#line 1 "kernels/wrong.cu"\nextern "C" __global__ void wrong(float* y) {\n    y[0] = nonsense;\n}\n'
    with pytest.raises(KernelError, match=r"kernels/wrong.cu\(2\): error: identifier \"nonsense\""):
        nvrtc.compile_source(broken, "wrong", "sm_90")
    unused = 'extern "C" __global__ void lax(float* y) { int unused = 3; y[0] = 1; }'
    with pytest.raises(KernelError, match="warnings:(.|\n)*unused"):
        nvrtc.compile_source(unused, "lax", "sm_90")


def test_types_that_a_kernel_leaves_open(monkeypatch):
    assert nvrtc.variants("relu") == [{"REAL": "float"}, {"REAL": "double"}]
    pairs = {name: [tuple(types.values()) for types in nvrtc.variants(name)] for name in ("copy", "reduce")}
    assert pairs == {"copy": [*nvrtc.CONVERSIONS, *nvrtc.TO_INTEGERS], "reduce": list(nvrtc.CONVERSIONS)}
    kernel.replace_source("relu", 'extern "C" __global__ void f(const STRANGE* __restrict__ x, long long n) {}')
    try:
        assert kernel.open_types("relu") == ["STRANGE"]
        with pytest.raises(KernelError, match="leaves STRANGE open"):
            nvrtc.variants("relu")
    finally:
        kernel.replace_source("relu", None)


def test_the_command(monkeypatch, tmp_path, capsys):
    path = tmp_path / "budget.json"
    monkeypatch.setattr(nvrtc, "budget_path", lambda: path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert nvrtc.main(["relu", "--arch", "sm_90"]) == 1
    assert "python -m minigrad.nvrtc relu --write" in capsys.readouterr().out
    assert nvrtc.main(["relu", "--write"]) == 0
    assert set(json.loads(path.read_text())["kernels"]["relu"]["relu_forward REAL=float"]) == set(nvrtc.ARCHITECTURES)
    assert nvrtc.main(["relu"]) == 0
    out = capsys.readouterr().out
    assert "relu: relu_forward REAL=double" in out and "All within" in out
    assert nvrtc.main(["tanh", "--write"]) == 0
    assert sorted(json.loads(path.read_text())["kernels"]) == ["relu", "tanh"]
    assert nvrtc.main(["nothing_of_that_name"]) == 1
    assert "there is no nothing_of_that_name.cu" in capsys.readouterr().err


def test_the_cache_answers_the_second_time(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source, calls, compile_ = 'extern "C" __global__ void f(float* y) { y[0] = 1; }', [], nvrtc._compile
    monkeypatch.setattr(nvrtc, "_compile", lambda *args: calls.append(args) or compile_(*args))
    first = nvrtc.compile_source(source, "f.cu", "sm_90")
    assert nvrtc.compile_source(source, "f.cu", "sm_90") == first and len(calls) == 1
    nvrtc.compile_source(source.replace("1", "2"), "f.cu", "sm_90")
    nvrtc.compile_source(source, "f.cu", "sm_80")
    nvrtc.compile_source(source, "f.cu", "sm_90", ["-DREAL=float"])
    assert len(calls) == 4


def test_without_the_library(monkeypatch):
    monkeypatch.setattr(nvrtc, "_candidates", lambda: ["/nowhere/libnvrtc.so"])
    nvrtc.library.cache_clear()
    try:
        with pytest.raises(MissingDependencyError, match="pip install nvidia-cuda-nvrtc.*12: .*nvidia-cuda-nvrtc-cu12"):
            nvrtc.library()
        assert issubclass(MissingDependencyError, MinigradError) and nvrtc.main(["relu"]) == 1
    finally:
        nvrtc.library.cache_clear()


@pytest.mark.parametrize(
    "cupy, wheels, first",
    [
        ([], ["cu13", "cuda_nvrtc"], "cu13/lib/libnvrtc.so.13"),
        (["cupy-cuda13x"], ["cu13", "cuda_nvrtc"], "cu13/lib/libnvrtc.so.13"),
        (["cupy-cuda12x"], ["cu13", "cuda_nvrtc"], "cuda_nvrtc/lib/libnvrtc.so.12"),
        (["cupy-cuda12x"], ["cu13"], "libnvrtc.so.12"),
        (["cupy-cuda13x"], ["cuda_nvrtc"], "libnvrtc.so.13"),
        ([], ["cuda_nvrtc"], "cuda_nvrtc/lib/libnvrtc.so.12"),
        ([], [], "libnvrtc.so.13"),
    ],
)
def test_the_compiler_is_that_of_the_cuda_that_cupy_is_for(monkeypatch, tmp_path, cupy, wheels, first):
    for wheel in wheels:
        (tmp_path / wheel / "lib").mkdir(parents=True)
        for name in {"cu13": ["libnvrtc.so.13"], "cuda_nvrtc": ["libnvrtc.so.12", "libnvrtc-builtins.so.12.9"]}[wheel]:
            (tmp_path / wheel / "lib" / name).touch()
    here = types.SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(nvrtc.importlib.util, "find_spec", lambda name: here)
    monkeypatch.setattr(nvrtc, "_is_installed", lambda name: name in cupy)
    found = [path.removeprefix(f"{tmp_path}/") for path in nvrtc._candidates()]
    assert found[0] == first and len(found) == 2 + len(wheels) and not any("builtins" in path for path in found)


def test_which_packages_are_installed():
    assert nvrtc._is_installed("numpy") and not nvrtc._is_installed("cupy-cuda7x")
