"""What counts as the same result, for --expect, assert_kernel and thread orders."""

import numpy as np
import pytest

from minigrad import ArgumentError
from minigrad.cudasim.comparing import difference


@pytest.mark.parametrize(
    "got, wanted, same",
    [
        (np.float32([1, 2]), [1, 2], True),
        (np.float32([1, 2]), [1, 2.00019], True),
        (np.float32([1, 2]), [1, 2.0003], False),
        (np.float32([1000, 0]), [1000, 0.009], True),  # a tenth of the tolerance of the largest
        (np.float32([1000, 0]), [1000, 0.02], False),
        (np.float64([1.0]), [1 + 1e-8], False),
        (np.float16([1.0]), [1.009], True),
        (np.float32([np.nan, np.inf, -np.inf]), [np.nan, np.inf, -np.inf], True),
        (np.float32([np.nan]), [1], False),
        (np.float32([1]), [np.nan], False),
        (np.uint32([0x7FA00000, 0]).view("f4"), np.uint32([0x7FA00000, 1 << 31]).view("f4"), True),  # signalling
        (np.float32([np.inf]), [-np.inf], False),
        (np.float32([1e38]), [np.inf], False),
        (np.float32([np.inf, 1]), [np.inf, 2], False),  # an infinity does not make all else near
        (np.int32([2**30 + 1]), [2**30], False),
        (np.int64([2**62 + 1]), np.int64([2**62]), False),
        (np.int32([3]), [3.0], True),
        (np.float32([1]), np.float32([1]).view(np.int32), False),
        (np.int32([3]), [3.1], False),
        (np.array([True]), [True], True),
        (np.array([True]), [False], False),
        (np.complex64([1 + 1j]), [1 + 1.5j], False),
        (np.zeros(0, np.float32), np.zeros(0), True),
        (np.array([(1, 2.0)], "i4,f4"), np.array([(1, 2.0)], "i4,f4"), True),
        (np.array([(1, 2.0)], "i4,f4"), np.array([(1, 3.0)], "i4,f4"), False),
    ],
)
def test_difference(got, wanted, same):
    assert (difference("y", got, wanted) is None) is same


def test_the_first_difference_is_named():
    found = difference("y", np.int32([[1, 2], [3, 4]]), [1, 2, 4, 5])
    assert str(found) == "y[1, 0]: 3, expected 4 (2 of 4 elements differ)"
    found = difference("y", np.float32([1, 2]), [1, 3], tolerance=0.25)
    assert str(found) == "y[1]: 2.0, expected 3 (1 of 2 elements differ by more than the tolerance, 0.25)"
    assert str(difference("y", np.array(1.0), 2.0)).startswith("y: 1.0, expected 2.0 (1 of 1")


def test_what_cannot_be_compared():
    for wanted in ([1, 2, 3], 1):
        with pytest.raises(ArgumentError, match=r"y: has shape \(2,\), what is expected has"):
            difference("y", np.float32([1, 2]), wanted)
    with pytest.raises(ArgumentError, match="y: nothing is expected, None: an array is wanted"):
        difference("y", np.float32([1, 2]), None)
    for wanted in (["a", "b"], [None, None], np.zeros(2, "i4,f4")):
        with pytest.raises(ArgumentError, match="y: float32 cannot be compared with"):
            difference("y", np.float32([1, 2]), wanted)


def test_records():
    dtype = np.dtype([("flag", "i1"), ("rows", "f4", (2, 3)), ("inner", [("weight", "f8")])], align=True)
    a, b = (np.frombuffer(bytes([fill]) * 3 * dtype.itemsize, np.uint8).copy().view(dtype) for fill in (0, 255))
    for records in (a, b):  # their padding differs
        for name in ("flag", "rows"):
            records[name] = 1
        records["inner"]["weight"] = np.nan
    assert difference("y", a, b) is None
    b["rows"][1, 1, 2] = 2
    found = difference("y", a, b)
    assert found is not None and (found.index, found.wrong, found.count) == ((1,), 1, 3)
    raw = np.array([b"ab", b"cd"], "V2")
    assert difference("y", raw, raw.copy()) is None and difference("y", raw, raw[::-1].copy()) is not None
