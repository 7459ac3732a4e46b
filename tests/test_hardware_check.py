"""The check for machines with a card: here it checks the emulator, and a stand-in for CuPy.  No card has run it."""

import dataclasses
import gc
import subprocess
import sys

import fake_cupy
import numpy as np
import pytest

from minigrad import device, gemm_in_use
from minigrad.cudasim.compiler import available
from minigrad.errors import DeviceError, KernelError
from minigrad.gpu import sources as kernel
from minigrad.gpu.cases import CASES
from minigrad.gpu.hardware_check import __main__ as command
from minigrad.gpu.hardware_check import compare, machine, roofline, tests
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
    arguments = [
        "--devices",
        "cudasim:0,cudasim:1",
        "--cases",
        "relu",
        "conv2",
        "linear, few",
        "--tests",
        "tests/test_relu.py",
    ]
    status, text = check(tmp_path, *arguments)
    assert status == 0, text
    assert (
        text.startswith("# Hardware check: EMULATED\n")
        and "**EMULATED: no graphics card has run any of this.**" in text
    )
    assert "All that was checked is right." in text
    for title in ("## Tests", "## Comparison", "## Rooflines", "## AlexNet train step"):
        assert title in text
    assert "`MINIGRAD_TEST_DEVICE=cudasim:0 python -m pytest tests/test_relu.py`:\n" in text and " passed" in text
    for row in (
        "| relu, small, float64 | 0 (y) | yes |",
        "| conv2d, conv2 | backward |",
        "| linear, few rows | forward |",
    ):
        assert row in text, f"{row!r} is not in\n{text}"
    assert "| minigrad, cudasim:0 |" in text and "| minigrad, cudasim:0 + cudasim:1 |" in text
    assert text.count("EMULATED") >= 4  # in every part with numbers of time


def test_a_wrong_kernel_fails_the_check(broken):
    broken("x < 0 ? REAL(0) : x", "x < -1 ? REAL(0) : x")
    part = run(compare.compare, device("cudasim:0"), ["relu", "tanh"])
    assert len(part.failures) == 2 and part.failures[1].startswith("Part: relu, small, float64: y is ")
    assert part.lines[-4].startswith("| relu, small, float32 | **") and part.lines[-1].startswith("| tanh, small, ")


def test_a_fault_fails_the_check_and_the_rest_goes_on(broken):
    broken("REAL(0) : x; }, x)", "REAL(0) : x; }, x + 1000000000000)")
    part = run(compare.compare, device("cudasim:0"), ["relu", "tanh"])
    assert part.failures[0].startswith("Part: relu, small, float32: relu_forward: grid") and len(part.failures) == 2
    assert part.lines[-4].startswith("| relu, small, float32 | **failed**: relu_forward: grid")
    assert part.lines[-2].startswith("| tanh, small, float32 | 0") and part.lines[-2].endswith("| yes |")
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


def test_an_installation_without_tests_says_so(monkeypatch):
    monkeypatch.setattr(tests, "checkout", lambda: None)
    part = run(tests.run_tests, device("cudasim:0"), [])
    assert part.failures == [] and "Clone the repository" in part.lines[0]


def test_without_a_card(tmp_path, capsys):
    assert check(tmp_path) == (2, "")
    err = capsys.readouterr().err
    assert "There is nothing to check here." in err and "cuda:0: " in err and "--devices cudasim:0" in err
    for wrong in ("cpu:0", "cudasim:0,cudasim:0", "cudasim:0,cuda:0", "cudasim:0,cudasim:1,cudasim:2", "gpu"):
        assert check(tmp_path, "--devices", wrong) == (2, "")


@pytest.mark.parametrize("wrong", [["--parts", "all"], ["--cases", "nothing of that name"]])
def test_wrong_arguments(wrong, capsys):
    with pytest.raises(SystemExit):
        command.main(["--devices", "cudasim:0", *wrong])
    assert "there are" in capsys.readouterr().err or "no op is called so" in capsys.readouterr().err


def test_as_a_command(tmp_path):
    arguments = ["--devices", "cudasim:0", "--parts", "compare", "--cases", "relu", "--out", str(tmp_path / "r.md")]
    done = subprocess.run([sys.executable, "-m", "minigrad.hardware_check", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "All that was checked is right." in done.stdout and (tmp_path / "r.md").exists()


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
        gc.collect()


def test_cards_are_compared_and_timed(cards):
    found = machine.look()
    text = "\n".join(found.lines)
    assert found.title == "Stand-in 9000" and "EMULATED" not in text and len(found.devices) == 2
    assert "| cuda:1 | Stand-in 9000 | sm_90 | 132 | 80.0 GB |" in text
    assert (
        "CuPy 13.0, CUDA 12.8, the driver allows 13.0" in text
        and "The cards reach each other's memory directly." in text
    )
    parts = [run(part, found.devices[0], NAMES) for part in (compare.compare, roofline.roofline)]
    text = "\n".join(parts[0].lines + parts[1].lines)
    assert parts[0].failures == parts[1].failures == []
    for row in (
        "| relu, real, float32 | 0 (y) |  | yes |",
        "| linear, few rows, cublas, small, float64 |",
        "minigrad, real, float32 |",
    ):
        assert row in text, f"{row!r} is not in\n{text}"
    assert "| linear, few rows, cublas | backward |" in text
    assert any(call[0] == "gemm" for call in cards.calls)


@pytest.mark.parametrize("names", [["cpu:0"], ["textbook:0"], ["cudasim:0", "cpu:0"], ["cudasim:0", "cudasim:0"]])
def test_what_is_no_card_is_refused(names):
    with pytest.raises(DeviceError, match="hardware_check: give one or two devices cuda:N"):
        machine.look(names)


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
