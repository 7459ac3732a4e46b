"""A second stream of a card, for work at the same time: sums that travel while backward is running.

Arrays are both's, and nothing orders what the two do with one: see `follow`.  Memory belongs to the stream of which it
was asked.
"""

from __future__ import annotations

import copy

from .cuda import Cuda
from .cuda_current import Current
from .cuda_runtime import CudaRuntime


def beside(device: Cuda) -> Cuda:
    """The same device with another stream."""
    runtime: CudaRuntime = copy.copy(device.runtime)
    with runtime._here("another stream"):
        runtime.stream = runtime.cuda.Stream(non_blocking=True)
    runtime.here = Current(runtime.cuda, runtime.card, runtime.stream, runtime._translated)
    runtime._blas, runtime._in_flight = None, []
    other = object.__new__(type(device))
    vars(other).update(vars(device), _runtime=runtime)
    return other


def follow(device: Cuda, other: Cuda) -> None:
    """What this device's stream is given from here on comes after all that the other's, of the same card, has been."""
    with other.runtime._here("event"):
        done = other.runtime._event()
    with device.runtime._here("event"):
        device.runtime.stream.wait_event(done)
