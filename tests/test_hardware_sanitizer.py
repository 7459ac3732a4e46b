"""compute-sanitizer beside the emulator, with a stand-in for it: no card, and none of NVIDIA's tools, is needed."""

import json
import os
import subprocess
import sys

import fake_cupy
import pytest

from minigrad import allow_tf32, device, gemm_in_use, set_gemm, tf32_allowed
from minigrad.cudasim.compiler import available
from minigrad.cudasim.settings import options
from minigrad.gpu import sources as kernel
from minigrad.gpu.cases import __main__ as child
from minigrad.gpu.hardware_check import sanitizer
from minigrad.gpu.hardware_check.report import Part
from minigrad.gpu.hardware_check.sanitizer import Found

pytestmark = [
    pytest.mark.skipif(available() is not None, reason=str(available())),
    pytest.mark.cpu_only("brings its devices along"),
]

# Runs what it is given, as compute-sanitizer does, and says what the file that PLAN names wants of (kernel, tool).
STAND_IN = """#!{python}
import json, os, subprocess, sys

tool = sys.argv[sys.argv.index("--tool") + 1]
command = sys.argv[sys.argv.index("{python}") :]
kernel = command[3]
status = 0 if os.environ.get("IDLE") else subprocess.run(command).returncode
print("========= COMPUTE-SANITIZER")
with open(os.environ["PLAN"]) as file:
    plan = json.load(file).get(f"{{kernel}} {{tool}}", {{"errors": 0}})
if "text" in plan:
    print(plan["text"])
if "errors" in plan:
    for i in range(plan["errors"]):
        print(f"========= Invalid __global__ read of size 4 bytes | number {{i}}")
        print("=========     at relu_forward+0x50 in relu.cu:6")
    n = plan["errors"]
    if tool == "memcheck":
        print(f"========= ERROR SUMMARY: {{n}} error{{'' if n == 1 else 's'}}")
    else:
        print(f"========= RACECHECK SUMMARY: {{n}} hazards displayed ({{n}} errors, 0 warnings)")
sys.exit(plan.get("status", status))
"""


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """plan({"relu memcheck": {...}}): what the stand-in finds; it runs no cases unless told so."""
    program = tmp_path / "compute-sanitizer"
    program.write_text(STAND_IN.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("PLAN", str(tmp_path / "plan.json"))
    monkeypatch.setenv("IDLE", "1")

    def put(found, emulator=None):
        (tmp_path / "plan.json").write_text(json.dumps(found))
        if emulator is not None:
            monkeypatch.setattr(sanitizer, "emulator_on", lambda file: emulator.get(file, Found()))

    put({})
    return put


def sanitized(*names, first=0):
    part = Part("Part", first=first)
    sanitizer.sanitize(part, device("cudasim:0"), names)
    return part


def test_the_cases_run_under_it_and_under_the_emulator_s_checks(plan, monkeypatch):
    monkeypatch.delenv("IDLE")
    part = sanitized("tanh")
    assert part.failures == [] and part.lines[-2:] == [
        "| tanh, memcheck | 0 | 0 | yes |",
        "| tanh, racecheck | 0 | 0 | yes |",
    ]


def test_what_it_finds_is_a_row_and_a_failure_and_so_is_every_disagreement(plan):
    reports = {
        "relu": Found(2, "OOB-GLOBAL: kernels/relu.cu:6: reads\nUNWRITTEN: y"),
        "sigmoid": Found(1, "RACE: kernels/sigmoid.cu:3: both"),
        "tanh": Found(1, "OVERFLOW: no tool of NVIDIA's looks for it"),
    }
    plan({"relu memcheck": {"errors": 2}, "softmax racecheck": {"errors": 1}}, reports)
    part = sanitized("relu", "sigmoid", "tanh", "softmax")
    read = "Invalid __global__ read of size 4 bytes / number 0"
    assert part.lines[5:] == [
        f"| relu, memcheck | **2**: {read} | **1**: OOB-GLOBAL: kernels/relu.cu:6: reads | yes |",
        "| sigmoid, memcheck | 0 | 0 | yes |",
        "| softmax, memcheck | 0 | 0 | yes |",
        "| tanh, memcheck | 0 | 0 | yes |",
        "| relu, racecheck | 0 | 0 | yes |",
        "| sigmoid, racecheck | 0 | **1**: RACE: kernels/sigmoid.cu:3: both | **no** |",
        f"| softmax, racecheck | **1**: {read} | 0 | **no** |",
        "| tanh, racecheck | 0 | 0 | yes |",
    ]
    assert part.failures == [
        f"Part: relu, memcheck: 2 errors: {read}",
        "Part: sigmoid, racecheck: compute-sanitizer finds 0, the emulator 1: one of them is wrong",
        f"Part: softmax, racecheck: 1 errors: {read}",
        "Part: softmax, racecheck: compute-sanitizer finds 1, the emulator 0: one of them is wrong",
    ]


def test_whatever_else_becomes_of_it(plan, monkeypatch):
    monkeypatch.setattr(sanitizer, "SECONDS", 8.0)
    plan(
        {
            "relu memcheck": {"text": "no words of its own\n\x1b[31m|", "status": 0},
            "relu racecheck": {"errors": 0, "status": 3},
            "tanh memcheck": {
                "text": "========= Error: Target application terminated before first instrumented API call"
            },
        },
        {"tanh": Found(failed="no emulator: no g++")},
    )
    part = sanitized("relu", "tanh")
    rows = {line.split(" | ")[0].strip("| "): line for line in part.lines[4:]}
    assert rows["relu, memcheck"] == "| relu, memcheck | **no summary, exit status 0: \\x1b[31m/** | 0 |  |"
    assert rows["relu, racecheck"].startswith(
        "| relu, racecheck | **the cases ended with 3: ========= RACECHECK SUMMARY"
    )
    assert "**no summary, exit status 0: ========= Error: Target application terminated" in rows["tanh, memcheck"]
    assert rows["tanh, racecheck"] == "| tanh, racecheck | 0 | **no emulator: no g++** |  |"
    assert len(part.failures) == 3 and all("ended with 3" in f or "no summary" in f for f in part.failures)


def test_one_that_hangs_is_ended(monkeypatch):
    monkeypatch.setattr(sanitizer, "SECONDS", 0.3)
    found = sanitizer._ran([sys.executable, "-c", "import time; time.sleep(60)"], {})
    assert found == Found(failed="no end within 0.3 s")
    assert "No such file" in sanitizer._ran(["./there-is-no-such-program"], {}).failed


def test_another_process_goes_on_where_one_died(plan, monkeypatch):
    plan({}, {})
    asked = []
    monkeypatch.setattr(sanitizer, "sanitizer_on", lambda where, file, tool: asked.append((file, tool)) or Found())
    part = sanitized("relu", "tanh", first=3)
    assert asked == [("tanh", "racecheck")], "what is done is not done again"
    assert part.lines == ["| tanh, racecheck | 0 | 0 | yes |"]


def test_without_it(monkeypatch):
    monkeypatch.setattr(sanitizer.shutil, "which", lambda name: None)
    part = sanitized("relu")
    assert part.failures == [] and part.lines == [
        "Not run: there is no compute-sanitizer on the PATH.  It comes with the CUDA toolkit."
    ]


@pytest.mark.parametrize(
    "status, out, found",
    [
        (0, "a: done\n", Found()),
        (0, "report RACE: x\nreport OOB-SHARED: y\nb: done\n", Found(2, "RACE: x\nOOB-SHARED: y")),
        (1, "", Found(failed="the cases ended with 1: of NumPy's")),
    ],
)
def test_what_the_emulator_s_child_says(monkeypatch, status, out, found):
    ran = subprocess.CompletedProcess([], status, out, "KernelError\nof NumPy's\n")
    asked = []
    monkeypatch.setattr(sanitizer, "_ran", lambda command, environment: asked.append((command, environment)) or ran)
    assert sanitizer.emulator_on("relu") == found
    assert asked == [
        ([sys.executable, "-m", "minigrad.gpu.cases", "relu", "cudasim:0"], {"MINIGRAD_CUDASIM_MODE": "check"})
    ]


# ---------------------------------------------------------------- the child


@pytest.fixture(autouse=True)
def as_before():
    gemm = gemm_in_use()
    yield
    set_gemm(gemm)
    allow_tf32(False)
    kernel.replace_source("relu", None)


def test_the_cases_of_a_kernel(capsys, monkeypatch):
    rounded, run = [], child.run
    monkeypatch.setattr(child, "run", lambda *arguments: rounded.append(tf32_allowed()) or run(*arguments))
    assert child.main(["relu", "cudasim:0"]) == 0
    assert capsys.readouterr().out.splitlines() == ["relu, float32: done", "relu, float64: done"]
    assert child.main(["gemm", "cudasim:0"]) == 0 and gemm_in_use() == "minigrad"
    out = capsys.readouterr().out
    assert "linear, few rows, float32, TF32: done" in out and "float64, TF32" not in out
    assert rounded == [line.endswith(", TF32: done") for line in ("", "", *out.splitlines())]
    with pytest.raises(SystemExit):
        child.main(["nothing", "cudasim:0"])


def test_its_reports_are_lines(capsys):
    kernel.replace_source("relu", kernel.kernel_source("relu").replace("REAL(0) : x; }, x)", "REAL(0) : x; }, x + 1)"))
    with options(mode="check"):
        assert child.main(["relu", "cudasim:0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines and all(line.startswith("report OOB-GLOBAL: ") for line in lines)


def test_a_kernel_that_cannot_run_is_a_failure(capsys):
    kernel.replace_source("relu", kernel.kernel_source("relu").replace("REAL(0)", "NONSENSE(0)"))
    assert child.main(["relu", "cudasim:0"]) == 1
    assert "NONSENSE" in capsys.readouterr().err


def test_on_a_card_arrays_are_not_cut_out_of_larger_pieces():
    with fake_cupy.installed() as cards:
        assert child.main(["gemm", "cuda:0"]) == 0
        assert ("allocator", None) in cards.calls
        assert not any(call[0] == "gemm" for call in cards.calls), "our own kernels, not cuBLAS"
