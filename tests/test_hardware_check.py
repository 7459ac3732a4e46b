"""The check for machines with a card: here it checks the emulator, and a stand-in for CuPy.  No card has run it."""

import dataclasses
import subprocess
import sys

import fake_cupy
import numpy as np
import pytest

from minigrad import device, gemm_in_use, tf32_allowed
from minigrad.cudasim.compiler import available
from minigrad.cudasim.runtime import SimRuntime
from minigrad.errors import DeviceError, KernelError
from minigrad.gpu import sources as kernel
from minigrad.gpu.cases import CASES
from minigrad.gpu.hardware_check import __main__ as command
from minigrad.gpu.hardware_check import compare, first, kernels, machine, roofline, steps, tests
from minigrad.gpu.hardware_check.report import Part

pytestmark = [
    pytest.mark.skipif(available() is not None, reason=str(available())),
    pytest.mark.cpu_only("brings its devices along"),
]


def run(function, *arguments):
    """What a part tells that runs here, not in a process of its own."""
    part = Part("Part")
    function(part, *arguments)
    return part


def check(tmp_path, *arguments):
    """The exit status and the results file."""
    out = tmp_path / "results.md"
    status = command.main([*arguments, "--out", str(out)])
    return status, out.read_text() if out.exists() else ""


@pytest.fixture
def broken():
    """broken(old, new) changes kernels/relu.cu for the length of a test."""

    def change(old, new):
        source = kernel.kernel_source("relu")
        assert old in source
        kernel.replace_source("relu", source.replace(old, new))

    yield change
    kernel.replace_source("relu", None)


def test_the_whole_check_on_the_emulator(tmp_path):
    """As a command."""
    arguments = ["--devices", "cudasim:0,cudasim:1", "--parts", "compare,roofline,tests"]
    arguments += ["--cases", "relu", "conv2", "linear, few", "--tests", "tests/test_relu.py"]
    arguments += ["--out", str(tmp_path / "results.md")]
    done = subprocess.run([sys.executable, "-m", "minigrad.hardware_check", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "All that was checked is right." in done.stdout
    text = (tmp_path / "results.md").read_text()
    assert (
        text.startswith("# Hardware check: EMULATED\n")
        and "**EMULATED: no graphics card has run any of this.**" in text
    )
    assert "All that was checked is right." in text
    for title in ("## Comparison", "## Rooflines", "## Tests"):
        assert title in text
    assert "`MINIGRAD_TEST_DEVICE=cudasim:0 python -m pytest tests/test_relu.py`:\n" in text and " passed" in text
    for row in (
        "| relu, small, float64 | 0 (y) | yes |",
        "| conv2d, conv2 | backward |",
        "| linear, few rows | forward |",
    ):
        assert row in text, f"{row!r} is not in\n{text}"
    assert (
        "| conv2d, conv2, TF32, small, float32 | 0." in text and "| conv2d, conv2, TF32, small, float64 |" not in text
    )
    assert text.count("EMULATED") >= 3  # in every part with numbers of time


def test_a_wrong_kernel_fails_the_check(broken):
    broken("x < 0 ? REAL(0) : x", "x < -1 ? REAL(0) : x")
    part = run(compare.compare, device("cudasim:0"), ["relu", "tanh"])
    assert len(part.failures) == 2 and part.failures[1].startswith("Part: relu, small, float64: y is ")
    assert part.lines[-4].startswith("| relu, small, float32 | **") and part.lines[-1].startswith("| tanh, small, ")
    part = run(first.first_light, device("cudasim:0"))
    assert len(part.failures) == 1 and part.failures[0].startswith("Part: relu: y is ")
    assert part.lines[2].startswith("| relu, small, float32 | **y is ")
    assert [line.split(" | ")[1] for line in part.lines[3:]] == ["as NumPy's"] * 2


def test_a_fault_fails_the_check_and_the_rest_goes_on(broken):
    broken("REAL(0) : x; }, x)", "REAL(0) : x; }, x + 1000000000000)")
    part = run(compare.compare, device("cudasim:0"), ["relu", "tanh"])
    assert part.failures[0].startswith("Part: relu, small, float32: relu_forward: grid") and len(part.failures) == 2
    assert part.lines[-4].startswith("| relu, small, float32 | **failed**: relu_forward: grid")
    assert part.lines[-3].startswith("| tanh, small, float32 | 0") and part.lines[-3].endswith("| yes |")
    part = run(roofline.roofline, device("cudasim:0"), ["relu", "tanh"])
    assert part.failures[0].startswith("Part: relu: relu_forward: grid") and len(part.failures) == 1
    assert part.lines[-3].startswith("| relu | **failed**: ") and part.lines[-1].startswith("| tanh | backward |")


def test_a_kernel_that_is_not_repeatable_is_noticed(monkeypatch):
    runs, real = [], compare.run

    def moving(case, where, size, dtype):
        results = real(case, where, size, dtype)
        runs.append(where)
        results["dx"] = results["dx"] + np.float32(1e-7) * len(runs)
        return results

    monkeypatch.setattr(compare, "run", moving)
    part = run(compare.compare, device("cudasim:0"), ["relu"])
    assert [failure for failure in part.failures if "dx differ between two runs" in failure]


def test_failing_tests_are_listed(tmp_path):
    file = tmp_path / "test_wrong.py"
    file.write_text(
        "import os\n\nimport pytest\n\n\ndef test_right():\n    pass\n\n\n"
        "def test_wrong():\n    assert os.environ.get('MINIGRAD_TEST_DEVICE') != 'cudasim:0'\n\n\n"
        "@pytest.mark.parametrize('n', ['a b', 'FAILED '])\ndef test_of_nothing(n, request):\n"
        "    if n == 'a b':\n        request.addfinalizer(lambda: 1 / 0)\n"
    )
    options = ["-c", "/dev/null", "--rootdir", str(tmp_path), "-p", "no:cacheprovider"]
    part = run(tests.run_tests, device("cudasim:0"), [str(file), *options])
    assert [failure.split("::")[1] for failure in part.failures] == ["test_wrong", "test_of_nothing[a b]"]
    assert part.lines[2:4] == [f"- {failure.removeprefix('Part: ')}" for failure in part.failures]
    assert part.lines[5].startswith("1 failed, 3 passed, 1 error in ")
    assert any(line.startswith("- FAILED ") and "::test_wrong - " in line for line in part.lines[6:])
    part = run(tests.run_tests, device("cudasim:0"), ["tests/there_is_no_such_file.py"])
    assert part.failures == ["Part: pytest ended with 4: " + part.lines[-1]]


def test_a_card_is_tested_by_several_processes_where_that_can_be(monkeypatch):
    there = []
    monkeypatch.setattr(tests.importlib.util, "find_spec", lambda name: name in there or None)
    monkeypatch.setattr(tests.os, "cpu_count", lambda: 16)
    assert tests.plugins(device("cuda:0")) == []
    there += ["xdist", "pytest_timeout"]
    assert tests.plugins(device("cuda:0")) == ["-n", "8", "--timeout", "300"]
    assert tests.plugins(device("cudasim:0")) == ["--timeout", "300"]
    for line in (
        "[gw3] [ 10%] FAILED tests/test_relu.py::test_values[a b] ",
        "[gw3] FAILED tests/test_relu.py::test_values[a b]",
        "tests/test_relu.py::test_values[a b] FAILED                  [ 10%]",
    ):
        found = tests.DONE_APART.fullmatch(line.strip()) or tests.DONE.fullmatch(line.strip())
        assert (found["test"], found["outcome"]) == ("tests/test_relu.py::test_values[a b]", "FAILED")


def test_an_installation_without_tests_says_so(monkeypatch):
    monkeypatch.setattr(tests, "checkout", lambda: None)
    part = run(tests.run_tests, device("cudasim:0"), [])
    assert part.failures == [] and "Clone the repository" in part.lines[0]


def test_without_a_card(tmp_path, capsys):
    assert check(tmp_path) == (2, "")
    err = capsys.readouterr().err
    assert "There is nothing to check here." in err and "cuda: CuPy " in err and "--devices cudasim:0" in err
    assert check(tmp_path, "--devices", "cudasim:0,cuda:0") == (2, "")
    assert "give one or two devices cuda:N" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [["--parts", "all"], ["--cases", "nothing of that name"]])
def test_wrong_arguments(wrong, capsys):
    with pytest.raises(SystemExit):
        command.main(["--devices", "cudasim:0", *wrong])
    assert "there are" in capsys.readouterr().err or "no op, and no kernel, is called so" in capsys.readouterr().err


def test_only_an_older_file_of_results_makes_room(tmp_path, monkeypatch):
    """A folder, and what is no file (/dev/null), keep their names."""
    monkeypatch.setattr(command, "_look", lambda *_: (object(), []))
    monkeypatch.setattr(command, "_run", lambda asked, machine, results, out: results.write("new") or 0)
    folder, old, link = tmp_path / "folder", tmp_path / "results.md", tmp_path / "null"
    folder.mkdir()
    old.write_text("old")
    link.symlink_to("/dev/null")
    assert [command.main(["--out", str(out)]) for out in (folder, old, link)] == [2, 0, 0]
    assert folder.is_dir() and link.is_symlink() and len(list(tmp_path.iterdir())) == 4
    assert (old.read_text(), (tmp_path / "results.old.md").read_text()) == ("new\n", "old")


# ---------------------------------------------------------------- cards, as the stand-in for CuPy has them


NAMES = ["relu", "linear, few rows"]


@pytest.fixture
def cards(monkeypatch):
    """Two of them; real shapes are the small ones, and measuring is short."""
    monkeypatch.setattr(roofline, "CARD", dataclasses.replace(roofline.EMULATOR, size="real", seconds=1e-9))
    for name in NAMES:
        monkeypatch.setitem(CASES, name, dataclasses.replace(CASES[name], real=CASES[name].small))
    with fake_cupy.installed() as machine:
        yield machine


def test_cards_are_compared_and_timed(cards):
    found = machine.look()
    text = "\n".join(found.lines)
    assert found.title == "Stand-in 9000" and "EMULATED" not in text and len(found.devices) == 2
    assert "| cuda:1 | Stand-in 9000 | sm_90 | 132 | 80.0 GB |" in text
    assert (
        "CuPy 13.0, CUDA 12.8, the driver allows 13.0" in text
        and "The cards reach each other's memory directly." in text
    )
    assert "NVRTC 12.9" in text
    parts = [run(part, found.devices[0], NAMES) for part in (compare.compare, roofline.roofline)]
    text = "\n".join(parts[0].lines + parts[1].lines)
    assert parts[0].failures == parts[1].failures == []
    for row in (
        "| relu, real, float32 | 0 (y) |  | yes |",
        "| linear, few rows, cublas, small, float64 |",
        "minigrad, real, float32 |",
        "| linear, few rows, cublas, TF32, real, float32 |",
    ):
        assert row in text, f"{row!r} is not in\n{text}"
    assert "| linear, few rows, cublas | backward |" in text
    assert any(call[0] == "gemm" for call in cards.calls)


ONE_OR_TWO = "hardware_check: give one or two devices cuda:N"
NO_CARDS = {
    **dict.fromkeys(["cpu:0", "textbook:0", "cudasim:0,cpu:0", "cudasim:0,cudasim:0"], ONE_OR_TWO),
    "cudasim:0,cudasim:1,cudasim:2": ONE_OR_TWO,
    "gpu": "device: expected a name",
}


@pytest.mark.parametrize("names", NO_CARDS)
def test_what_is_no_card_is_refused(names):
    with pytest.raises(DeviceError, match=NO_CARDS[names]):
        machine.look(names.split(","))


CUPY = """
import dataclasses

import fake_cupy
from minigrad.gpu.hardware_check import roofline
from minigrad.gpu.cases import CASES

for name, value in vars(dataclasses.replace(roofline.EMULATOR, size="real", seconds=1e-9)).items():
    object.__setattr__(roofline.CARD, name, value)  # the object that is in use, which is frozen
object.__setattr__(CASES["relu"], "real", CASES["relu"].small)
fake_cupy.kept = fake_cupy.installed()
machine = fake_cupy.kept.__enter__()
"""

DIES = """
launched, real = [], fake_cupy.RawKernel.__call__

def launch(self, *args, **kwargs):
    launched.append(self.name)
    if len(launched) == 2:  # the second of the first job, in every process
        machine.fault = fake_cupy.CUDARuntimeError(700)
        raise machine.fault
    return real(self, *args, **kwargs)

fake_cupy.RawKernel.__call__ = launch
"""


def test_the_whole_check_on_cards(tmp_path, monkeypatch):
    (tmp_path / "cupy.py").write_text(CUPY)
    monkeypatch.syspath_prepend(tmp_path)
    status, text = check(tmp_path, "--parts", "compare,roofline", "--cases", "relu")
    assert status == 0, text
    assert text.startswith("# Hardware check: Stand-in 9000\n") and "EMULATED" not in text
    assert "| relu, real, float32 | 0 (y) |  | yes |" in text and "| relu | backward |" in text


def test_a_card_that_dies_at_every_job_fails_each_and_no_more(tmp_path, monkeypatch):
    (tmp_path / "cupy.py").write_text(CUPY + DIES)
    monkeypatch.syspath_prepend(tmp_path)
    status, text = check(tmp_path, "--parts", "compare", "--cases", "relu")
    assert status == 1 and text.count("the device cannot be used by this process any more |") == 3
    for job in ("small, float32", "small, float64", "real, float32"):
        assert f"| relu, {job} | **failed**: launch of " in text and f"- Comparison: relu, {job}: launch of " in text


def test_both_ways_of_multiplying_are_checked_on_a_card(cards):
    case, before = CASES["linear, few rows"], gemm_in_use()
    assert list(compare.gemms(device("cuda:0"), case)) == [", cublas", ", minigrad"]
    assert (
        list(compare.gemms(device("cuda:0"), CASES["relu"])) == [""] == list(compare.gemms(device("cudasim:0"), case))
    )
    for gemm in ("cublas", "minigrad"):
        cards.calls.clear()
        with compare.using(f", {gemm}"):
            compare.run(case, "cuda:0", "small", np.float32)
        assert any(call[0] == "gemm" for call in cards.calls) == (gemm == "cublas")
        assert gemm_in_use() == before


def test_a_card_that_has_died_ends_the_comparison(cards):
    error = fake_cupy.CUDARuntimeError(700)
    runtime, real, part = device("cuda:0").runtime, fake_cupy.RawKernel.__call__, Part("Part")

    def illegal(self, *args, **kwargs):
        cards.fault = error
        raise error

    fake_cupy.RawKernel.__call__ = illegal
    try:
        with pytest.raises(DeviceError, match="cannot be used by this process any more"):
            compare.compare(part, device("cuda:0"), ["relu", "tanh"])
    finally:
        fake_cupy.RawKernel.__call__ = real
        cards.fault = None
    assert "relu, small, float32: launch of relu_forward" in part.failures[0] and "700" in part.failures[0]
    assert len(part.failures) == 1 and part.lines[-1].startswith("| relu, small, float32 | **failed**: launch of relu_")
    with pytest.raises(KernelError, match="700"):
        cards.fault = error
        runtime.synchronize()
    cards.fault = None


# ---------------------------------------------------------------- TF32


def test_products_are_compared_with_tf32_too(cards):
    case, before = CASES["linear, few rows"], tf32_allowed()
    names = ["", ", TF32"]
    assert list(compare.ways(device("cudasim:0"), case, "small, float32")) == names
    assert list(compare.ways(device("cudasim:0"), CASES["conv2d, conv1"], "real, float32")) == names
    assert list(compare.ways(device("cudasim:0"), case, "small, float64")) == [""]
    assert list(compare.ways(device("cudasim:0"), CASES["relu"], "small, float32")) == [""]
    assert len(list(compare.ways(device("cuda:0"), case, "small, float32"))) == 4
    modes = {}
    for way in (", cublas", ", cublas, TF32"):
        cards.calls.clear()
        with compare.using(way):
            compare.run(case, "cuda:0", "small", np.float32)
        modes[way] = {call[-1] for call in cards.calls if call[0] == "gemm"}
        assert tf32_allowed() == before
    assert modes == {", cublas": {0}, ", cublas, TF32": {3}}


def test_rounded_factors_are_near_numpy_s_and_others_are_not_excused(monkeypatch):
    """A thousandth away: with TF32 that is right beside NumPy, and wrong beside the emulator, which rounds likewise."""
    case, real = CASES["linear, few rows"], compare.run

    def moved(case, where, size, dtype):
        results = real(case, "cpu:0", size, dtype)
        if where == "here":
            results["y"] = results["y"] + np.float32(1e-3) * np.abs(results["y"]).max()
        return results

    monkeypatch.setattr(compare, "run", moved)
    failures = {}
    for way in (", minigrad", ", minigrad, TF32", ", cublas, TF32"):
        for other in ("cpu:0", "cudasim:0"):
            part = Part("Part")
            compare._compared(part, "label", case, way, "small", "float32", "here", [other])
            failures[way, other] = len(part.failures)
    assert failures == {
        (", minigrad", "cpu:0"): 1,
        (", minigrad", "cudasim:0"): 1,
        (", minigrad, TF32", "cpu:0"): 0,
        (", minigrad, TF32", "cudasim:0"): 1,
        (", cublas, TF32", "cpu:0"): 0,
        (", cublas, TF32", "cudasim:0"): 0,
    }


# ---------------------------------------------------------------- first light


def test_first_light_compiles_all_kernels_on_a_card(cards, monkeypatch):
    monkeypatch.setattr(first, "kernel_names", lambda: ["relu", "tanh"])
    part = run(first.first_light, device("cuda:0"))
    assert part.failures == [] and part.lines[-1].startswith("| all kernels compiled | 4 modules, ")
    options = [options for code, options in cards.modules if "tanh_forward" in code]
    assert sorted(options) == [("--std=c++17", "-DREAL=double"), ("--std=c++17", "-DREAL=float")]
    relu = [(code, options) for code, options in cards.modules if "relu_forward" in code]
    assert relu.count(relu[0]) == 2, "once for the first op, once more in the same words: CuPy's cache knows it"


def test_a_kernel_that_does_not_compile_is_named(cards, monkeypatch, broken):
    monkeypatch.setattr(first, "kernel_names", lambda: ["relu", "tanh"])
    monkeypatch.setattr(first, "FIRST", ("tanh",))
    broken("REAL(0) : x; }, x)", "REAL(0) : x; }, nonsense)")
    part = run(first.first_light, device("cuda:0"))
    assert len(part.failures) == 2 and "kernels/relu.cu --std" not in part.failures[0]
    assert all("kernels/relu.cu -DREAL=" in failure and "nonsense" in failure for failure in part.failures)
    assert "| 2 modules, " in part.lines[-1] and "**2 not**" in part.lines[-1]


# ---------------------------------------------------------------- rooflines


def test_the_least_time_is_what_memory_or_arithmetic_takes():
    peaks = roofline.Peaks(bandwidth=100.0, flops=10.0, flops_double=5.0)
    assert peaks.least(200, 10) == 2.0 and peaks.least(100, 30) == 3.0


def test_the_peaks_count_bytes_and_operations(monkeypatch):
    monkeypatch.setattr(roofline, "measured", lambda where, work, seconds: (work(), 0.5)[1])
    found = roofline.peaks(device("cudasim:0"), roofline.EMULATOR)
    assert found.bandwidth == 4 * (1 << 16)  # read and written in half a second
    assert found.flops == found.flops_double == 2 * (2 * 8 * 16 * 2 * 256)


def test_measuring_repeats_and_takes_the_best():
    ticks, calls = iter([0.25, 3.0, 1.0, 2.0, 4.0, 5.0]), []

    class Runtime:
        def timed(self, work, repeats):
            calls.append(repeats)
            work()
            return next(ticks)

    where = type("Somewhere", (), {"runtime": Runtime()})()
    assert roofline.measured(where, lambda: None, 1.0) == 1.0
    assert calls == [1, 4, 4, 4, 4, 4]


def test_the_file_s_name_is_the_card_s():
    found = machine.Machine((device("cudasim:0"),), "NVIDIA GeForce RTX 4090", [])
    assert command._file(found).name == "hardware_nvidia_geforce_rtx_4090.md"


# ---------------------------------------------------------------- speed


def rows(part):
    """The cells of each row."""
    table = [line for line in part.lines if line.startswith("|")][2:]
    return [line.strip("| ").split(" | ") for line in table]


def test_kernels_are_measured_against_the_peaks(monkeypatch):
    """A second each: bytes and operations are those of the formula, and shares of what the card does at most."""
    launched, per_row, launch = [], [], SimRuntime.launch

    def measured(where, work, seconds):
        launched.clear()
        work()
        per_row.append(" ".join(launched))
        return 1.0

    def noted(self, function, *rest):
        launched.append(function.name)
        launch(self, function, *rest)

    monkeypatch.setattr(SimRuntime, "launch", noted)
    monkeypatch.setattr(kernels, "measured", measured)
    monkeypatch.setattr(kernels, "peaks", lambda where, effort: roofline.Peaks(4e3, 1e6, 1e5))
    part = run(kernels.kernels, device("cudasim:0"), 2, False)
    found = {tuple(cells[:2]): cells[2:] for cells in rows(part)}
    assert part.failures == []
    flops = 2 * (2 * 4 * 13 * 13) * (2 * 3 * 3)  # of conv3, as small as it is on the emulator
    conv3 = found["conv3", f"forward: {flops / 1e12:.3g} TFLOP/s"]
    assert conv3 == ["1e-06, float32's peak", f"{flops / 1e6:.2f}", ">= 0.6", "**missed**"]
    assert [cells[1].split(":")[0] for cells in rows(part)[:5]] == ["forward", "dw", "forward", "dx", "dw"]
    label = "relu, (6, 6, 6, 6)"
    assert found[label, f"forward: {4 * 2 * 6**4 / 1e9:.3g} GB/s"] == [
        "4e-06, a copy",
        f"{8 * 6**4 / 4e3:.2f}",
        ">= 0.7",
        "met",
    ]
    nbytes = 4 * (6**4 + 6)  # dy, db
    assert f"backward: {nbytes / 1e9:.3g} GB/s" in [
        cells[1] for cells in rows(part) if cells[0] == "bias, (6, 6, 6, 6)"
    ]
    assert found["relu, (6, 6)", "forward: 1e+06 us"] == ["1e+06 us, an empty launch", "1.0"]
    flops = 2 * (2 * 4 * 14 * 14) * (2 * 5 * 5)
    assert found["conv2, TF32", f"dx: {flops / 1e12:.3g} TFLOP/s"][1] == f"{flops / 1e6:.2f}"
    work = dict(zip(((cells[0], cells[1].split(":")[0]) for cells in rows(part)), per_row[1:]))  # the first: nothing
    for name in ("conv2", "conv3", "conv2, TF32"):
        for direction in ("forward", "dx", "dw"):
            kernel_name = "conv2d_" + {"dx": "backward_x", "dw": "backward_w"}.get(direction, direction)
            assert kernel_name in work[name, direction] and work[name, direction].count("conv2d_backward") <= 1
    assert work[label, "forward"] == "relu_forward" and work[label, "backward"] == "relu_backward"
    assert work["bias, (6, 6, 6, 6)", "forward"] == "add" and "sum_" in work["bias, (6, 6, 6, 6)", "backward"]
    names = {cells[0].split(",")[0] for cells in rows(part)}
    assert names == {*kernels.LAYERS, *kernels.MOVERS, "SGD"}
    quick = rows(run(kernels.kernels, device("cudasim:0"), 2, True))
    assert [cells[0] for cells in quick[:8]] == ["conv2"] * 3 + ["conv1"] * 2 + ["conv3"] * 3
    assert not any("TF32" in cells[0] for cells in quick)


def stand_ins(monkeypatch, theirs):
    """Contestants that take 1 ms (ours) and 2 (theirs) by a clock of their own, or no PyTorch, and why."""
    clock = [0.0]

    def work(seconds):
        def done():
            clock[0] += seconds

        return done

    def of_pytorch(net, where, batch, tf32):
        asked.append((net, batch, tf32, tf32_allowed()))
        return theirs or dict.fromkeys(names, work(0.0005))

    names, asked = ("launch", "forward 1", "forward 3"), []
    monkeypatch.setattr(steps.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(steps, "_ours", lambda *_: dict.fromkeys(names, work(0.001)))
    monkeypatch.setattr(steps, "_theirs", of_pytorch)
    return asked


def test_steps_are_timed_beside_pytorch_s(monkeypatch):
    asked = stand_ins(monkeypatch, None)
    found = rows(run(steps.steps, device("cudasim:0"), 3, False))
    targets = {"AlexNet, train step of 3, TF32 off": "1.2", "AlexNet, train step of 3, TF32 on": "1.5"}
    targets |= {"AlexNet, inference of 1": "1.2", "AlexNet, inference of 3": "1.2", "LeNet, train step of 64": "1"}
    for label, target in targets.items():
        assert [label, "1 ms", "0.5 ms, PyTorch", "2.00", f"<= {target}", "**missed**"] in found
    host = "AlexNet, train step of 3, TF32 off, host's time of it"
    assert [host, "1 ms", "1 ms, the step", "1.00", "<= 0.15", "**missed**"] in found and len(found) == 6
    assert asked[:3] == [("alexnet", 3, False, False), ("alexnet", 3, True, True), ("alexnet", 3, False, False)]
    assert asked[-1] == ("lenet", 64, False, False) and not tf32_allowed()
    assert len(rows(run(steps.steps, device("cudasim:0"), 3, True))) == 3


def test_both_train_the_same_lenet(monkeypatch):
    """As they are made for the check: the same loss before and after one step, and PyTorch's settings as asked."""
    torch = pytest.importorskip("torch")
    assert steps.programs()
    for tf32 in (True, False):
        theirs = steps._theirs("lenet", device("cudasim:0"), 2, tf32)
        assert torch.backends.cuda.matmul.allow_tf32 == torch.backends.cudnn.allow_tf32 == tf32
    ours = steps._ours("lenet", "cudasim:0", 2)
    losses = []
    for net in (ours, theirs):
        first = net["backward"]()
        net["launch"]()
        losses.append((first, net["backward"]()))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    assert losses[0][0] != losses[0][1]


def test_our_alexnet_answers_and_learns():
    assert steps.programs()
    ours = steps._ours("alexnet", "cudasim:0", 2)
    y = ours["forward 1"]()
    assert y.shape == (1, 1000) and np.isfinite(y.numpy()).all()
    ours["launch"]()
    assert np.abs(ours["forward 1"]().numpy() - y.numpy()).max() > 0


def test_without_pytorch_ours_are_timed_alone(monkeypatch):
    stand_ins(monkeypatch, "PyTorch is not installed here")
    found = rows(run(steps.steps, device("cudasim:0"), 3, True))
    assert found[0][1:3] == ["1 ms", "PyTorch is not installed here"]


def test_an_installation_without_examples_says_so(monkeypatch):
    monkeypatch.setattr(steps, "checkout", lambda: None)
    for part in (run(steps.steps, device("cudasim:0"), 1, True), run(steps.two_columns, device("cudasim:0"), 1)):
        assert part.failures == [] and part.lines == [steps.NO_CLONE]


def test_verdicts():
    assert steps.verdict(1.2, 1.2) == ("1.20", "<= 1.2", "met") and steps.verdict(1.21, 1.2)[2] == "**missed**"
    assert steps.verdict(0.6, 0.6, at_least=True) == ("0.60", ">= 0.6", "met")
    assert steps.verdict(0.59, 0.6, at_least=True)[2] == "**missed**"


def test_two_columns_that_differ_are_a_failure(monkeypatch):
    """The net of two devices is trained a little before it is compared."""
    real = steps.alexnet

    def changed(names):
        net = real(names)
        if len(names) == 2:
            load = net.load_state_dict
            net.load_state_dict = lambda state: load({key: array * np.float32(1.1) for key, array in state.items()})
        return net

    names = ("cudasim:0", "cudasim:1")
    part = Part("Part")
    assert list(steps._same_numbers(part, names, 1))[0][-1] == "met" and part.failures == []
    monkeypatch.setattr(steps, "alexnet", changed)
    assert list(steps._same_numbers(part, names, 1))[0][-1] == "**missed**"
    assert part.failures[0].startswith("Part: two columns: loss ")


def test_two_devices_on_one_card(monkeypatch):
    """The whole part, on the stand-in for CuPy, as MINIGRAD_CUDA=0,0 has it."""
    assert steps.programs()
    monkeypatch.setattr("alexnet.WIDTHS", steps.NARROW)
    with fake_cupy.installed(cards=1, devices="0,0"):
        found = machine.look(["cuda:0", "cuda:1"])
        assert found.lines[-1] == "Both devices are on one card."
        steps.alexnet.cache_clear()
        part = run(steps.two_columns, device("cuda:0"), 1)
        steps.alexnet.cache_clear()
        assert part.failures == [] and [cells[-1] for cells in rows(part)][0] == "met"
        assert rows(part)[1][2].endswith(" ms, one device") and "EMULATED" not in part.lines[0]
    with fake_cupy.installed(cards=3, devices="2,0"):
        assert steps.where_torch_is(device("cuda:0")) == "cuda:2" and steps.where_torch_is(device("cudasim:0")) == "cpu"
        assert machine.look().devices == (device("cuda:0"), device("cuda:1"))
        assert machine.look().lines[-1] == "The cards reach each other's memory directly."
