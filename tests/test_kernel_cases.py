"""The table of cases: nothing in kernels/ is left out, and each case gives NumPy's numbers."""

import dataclasses
import math
import re

import numpy as np
import pytest

from minigrad.cudasim.compiler import available
from minigrad.cudasim.runtime import SimRuntime
from minigrad.gpu import sources as kernel
from minigrad.gpu.cases import CASES, cases_of, computed_flops, differences, inputs_of, moved_bytes, run
from minigrad.tensor import OPS

emulated = [
    pytest.mark.skipif(available() is not None, reason=str(available())),
    pytest.mark.cpu_only("brings its devices along"),
]
VIEWS = {"reshape", "flatten", "copy"}  # ops that need no kernel, or two devices
COMPARE = {"equal", "not_equal", "less", "less_equal", "greater", "greater_equal"}


def cudasim(parameter):
    return pytest.param(parameter, marks=emulated)


@pytest.fixture
def launched(monkeypatch):
    """(file, entry point) of what is launched on the emulator."""
    seen, real = set(), SimRuntime.function

    def function(self, source, options, name):
        seen.add((re.findall(r'^#line 1 "kernels/(.+)\.cu"$', source, re.MULTILINE)[-1], name))
        return real(self, source, options, name)

    monkeypatch.setattr(SimRuntime, "function", function)
    return seen


@pytest.mark.parametrize("dtype", [cudasim("float32"), cudasim("float64")])
@pytest.mark.parametrize("name", CASES)
def test_a_case_gives_numpy_s_numbers(name, dtype, launched):
    case = CASES[name]
    if dtype not in case.dtypes:
        pytest.skip(f"takes {', '.join(case.dtypes)} alone")
    results, expected = (run(case, device, "small", dtype) for device in ("cudasim:0", "cpu:0"))
    far = differences(case, results, expected)
    assert max(far.values()) <= 0.5, far  # half of the tolerance is for cards, which round in another order
    assert set(case.kernels) <= {file for file, _ in launched}


@pytest.mark.parametrize("cases", [cudasim(list(CASES.values()))])
def test_every_entry_point_is_launched_by_a_case(cases, launched):
    for case in cases:
        run(case, "cudasim:0", "small", "float32")
    there_are = set()
    for file in kernel.kernel_names():
        types = {name: "float" for name in kernel.open_types(file)}
        there_are |= {(file, name) for name in kernel.entry_points(kernel.full_source(file), types)}
    assert there_are - launched == set()


def test_every_kernel_file_and_every_op_has_a_case():
    assert [file for file in kernel.kernel_names() if not cases_of(file)] == []
    names = " ".join(CASES).split() + [*VIEWS, *COMPARE]
    assert [op for op in OPS if not any(name.rstrip(",") == op for name in names)] == []


@pytest.mark.parametrize("name", CASES)
def test_real_shapes_go_through_the_op(name):
    """On the CPU, with batches of 2 and short rows in place of the real ones."""
    case = CASES[name]

    def shorter(shape):
        return tuple({128: 2, 224: 63, 4096: 64, 9216: 64, 290400: 300, 10**7: 1000}.get(n, n) for n in shape)

    small = dataclasses.replace(case, real={name: shorter(shape) for name, shape in case.real.items()})
    results = run(small, "cpu:0", "real", "float32")
    assert all(np.isfinite(array).all() for array in results.values())
    y = results["y"].shape
    assert moved_bytes(small, "real", y, 4, backward=False) > 0
    assert computed_flops(small, "real", y, backward=True) >= computed_flops(small, "real", y, backward=False) >= 0


def test_bytes_and_flops_follow_the_formula():
    relu, conv = CASES["relu"], CASES["conv2d, conv2"]
    n = math.prod(relu.small["x"])
    assert moved_bytes(relu, "small", relu.small["x"], 4, backward=False) == 2 * 4 * n
    assert moved_bytes(relu, "small", relu.small["x"], 8, backward=True) == 3 * 8 * n
    assert moved_bytes(CASES["pad"], "small", (2, 3, 10, 8), 4, backward=True) == 0
    y = (128, 256, 27, 27)  # 57.33 GFLOP forward, as every source has it
    assert computed_flops(conv, "real", y, backward=False) == 2 * 128 * 256 * 27 * 27 * 48 * 5 * 5
    assert computed_flops(conv, "real", y, backward=True) == 2 * computed_flops(conv, "real", y, backward=False)
    assert computed_flops(relu, "small", relu.small["x"], backward=False) == 0


def test_inputs_are_the_same_on_every_call():
    for a, b in zip(*(inputs_of(CASES["divide"], "small", "float32").values() for _ in range(2)), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.min() > 0 and a.dtype == np.float32


def test_differences_are_counted_in_tolerances():
    case, expected = CASES["relu"], {"y": np.array([0.0, -4.0, np.nan, np.inf], "f")}

    def far(*values, dtype="f"):
        return differences(case, {"y": np.array(values, dtype)}, expected)["y"]

    assert far(0, -4, np.nan, np.inf) == 0
    assert far(0, -4.00004, np.nan, np.inf) == pytest.approx(1, rel=0.05)
    assert far(8e-5, -4, np.nan, np.inf) == pytest.approx(2, rel=0.05)
    for wrong in [(0, -4, 1, np.inf), (np.nan, -4, np.nan, np.inf), (0, -4, np.nan, -np.inf), (0, -4, np.inf, np.inf)]:
        assert far(*wrong) == math.inf
    assert far(0, -4, np.nan, np.inf, dtype="d") == math.inf
    assert far(0, -4, np.nan) == math.inf
    assert differences(case, {}, expected) == {"y": math.inf}
    double = {"y": np.array([1.0])}
    assert differences(case, {"y": np.array([1 + 2e-12])}, double)["y"] == pytest.approx(2, rel=0.01)
    flags = {"y": np.array([True, False])}
    assert differences(case, {"y": np.array([True, True])}, flags)["y"] == math.inf
    assert differences(case, {"y": np.zeros(2)}, {"y": np.zeros(2)})["y"] == 0
    assert differences(case, {"y": np.ones(2)}, {"y": np.zeros(2)})["y"] == math.inf
