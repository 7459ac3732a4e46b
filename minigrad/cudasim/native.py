"""The C++ side as Python sees it: the structs of cpp/interface.hpp, and the library that guards launches."""

from __future__ import annotations

import ctypes
import platform
from ctypes import POINTER, c_char, c_char_p, c_double, c_int, c_uint8, c_uint32, c_uint64, c_void_p
from functools import cache
from typing import Any

from .compiler import compile_host

Triple = c_uint32 * 3

ORDERS = {"forward": 0, "reversed": 1, "random": 2}
FINISHED, SIGNAL, TIME_LIMIT, INTERRUPTED = range(4)


class Kernel(ctypes.Structure):
    """CsKernel: an entry point."""

    _fields_ = [
        ("name", c_char_p),
        ("waits", c_uint32),
        ("describe", ctypes.CFUNCTYPE(None, c_char_p)),
        ("thread", c_void_p),
        ("block", c_void_p),
    ]


class Shared(ctypes.Structure):
    """CsShared: a static __shared__ array."""

    _fields_ = [("address", c_uint64), ("bytes", c_uint64), ("name", c_char_p), ("kernel", c_char_p)]


class Variable(ctypes.Structure):
    """CsVariable: a __constant__ or __device__ variable of somebody's file."""

    _fields_ = [("name", c_char_p), ("address", c_uint64), ("bytes", c_uint64), ("constant", c_uint32)]


class NativeArea(ctypes.Structure):
    """CsArea: an array argument."""

    _fields_ = [
        ("address", c_uint64),
        ("bytes", c_uint64),
        ("written", c_void_p),
        ("writable", c_uint32),
        ("piece", c_uint32),
        ("label", c_char_p),
    ]


class NativeReport(ctypes.Structure):
    """CsReport: something that was found."""

    _fields_ = [
        ("kind", c_char * 24),
        ("pc", c_uint64),
        ("other_pc", c_uint64),
        ("block", Triple),
        ("thread", Triple),
        ("has_thread", c_uint32),
        ("text", c_char * 388),
    ]


class Traced(ctypes.Structure):
    """CsTraced: what the thread that is traced did."""

    _fields_ = [
        ("pc", c_uint64),
        ("address", c_uint64),
        ("before", c_uint8 * 16),
        ("after", c_uint8 * 16),
        ("bytes", c_uint32),
        ("operation", c_char),
        ("has_before", c_uint8),
        ("has_after", c_uint8),
    ]


class Launch(ctypes.Structure):
    """CsLaunch: one launch."""

    _fields_ = [
        ("grid_size", Triple),
        ("block_size", Triple),
        ("shared_bytes", c_uint64),
        ("first_block", c_uint64),
        ("blocks", c_uint64),
        ("block_step", c_uint64),
        ("seed", c_uint64),
        ("order", c_uint32),
        ("poison", c_uint32),
        ("one_by_one", c_uint32),
        ("count", c_uint32),
        ("flush_to_zero", c_uint32),
        ("kernel", c_uint32),
        ("parameters", POINTER(c_void_p)),
        ("areas", POINTER(NativeArea)),
        ("n_areas", c_uint64),
        ("reports", POINTER(NativeReport)),
        ("max_reports", c_uint64),
        ("n_reports", c_uint64),
        ("n_found", c_uint64),
        ("stacks", c_void_p),
        ("trace", POINTER(Traced)),
        ("max_traced", c_uint64),
        ("n_traced", c_uint64),
        ("trace_block", c_uint64),
        ("trace_thread", c_uint32),
        ("keep_cells", c_uint32),
    ]


class Cells(ctypes.Structure):
    """CsCells: what a launch has touched of a piece of memory."""

    _fields_ = [
        ("cells", c_void_p),
        ("begin", c_uint64),
        ("end", c_uint64),
        ("cell_bytes", c_uint32),
        ("launch_phase", c_uint32),
        ("used", c_uint32),
        ("written", c_uint32),
    ]


class Fault(ctypes.Structure):
    """CsFault: how a launch ended before its time."""

    _fields_ = [
        ("end", c_uint32),
        ("signal", c_uint32),
        ("known_address", c_uint32),
        ("stack_overflow", c_uint32),
        ("behind_stack", c_uint32),
        ("address", c_uint64),
        ("trace", c_uint64 * 16),
    ]


def load(path: Any) -> ctypes.CDLL:
    """A library of compiled kernels, with the types of its functions."""
    library = ctypes.CDLL(str(path))
    library.cs_kernel.restype = POINTER(Kernel)
    library.cs_kernel.argtypes = [c_uint32]
    library.cs_note.restype = POINTER(NativeReport)
    library.cs_note.argtypes = [c_uint64]
    library.cs_shared_array.restype = POINTER(Shared)
    library.cs_shared_array.argtypes = [c_uint64]
    library.cs_take_output.restype = c_void_p
    library.cs_take_output.argtypes = [POINTER(c_uint64)]
    library.cs_image.argtypes = [POINTER(c_uint64), POINTER(c_uint64)]
    library.cs_where.argtypes = [POINTER(c_uint32), POINTER(c_uint32)]
    library.cs_block_number.restype = c_uint64
    library.cs_dynamic_shared.restype = c_uint64
    return library


def variables(library: ctypes.CDLL) -> dict[str, Variable]:
    """The table of a library that was made of somebody's file, by name."""
    n = c_uint32.in_dll(library, "cs_n_variables").value
    return {v.name.decode(): v for v in (Variable * n).in_dll(library, "cs_variables")}


@cache
def guarded() -> Any:
    """cs_guarded of cpp/host.cpp."""
    function = ctypes.CDLL(str(compile_host())).cs_guarded
    function.argtypes = [
        c_void_p,
        POINTER(Launch),
        c_void_p,
        c_uint64,
        c_uint64,
        c_double,
        POINTER(Fault),
    ]
    function.restype = c_int
    return function


# A jump to itself, as the machine writes it: a loop whose body the compiler has found to be of no use.
_EMPTY_LOOPS = {"x86_64": b"\xeb\xfe", "aarch64": b"\x00\x00\x00\x14"}


def is_empty_loop(address: int, image: tuple[int, int]) -> bool:
    code = _EMPTY_LOOPS.get(platform.machine())
    if code is None or not image[0] <= address < image[1] - len(code):
        return False
    return ctypes.string_at(address, len(code)) == code
