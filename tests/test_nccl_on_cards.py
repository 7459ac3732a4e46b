"""NCCL itself, on the cards that this machine has: one rank on one card, a rank and a thread for each of several.

    MINIGRAD_TEST_DEVICE=cuda:0 pytest tests/test_nccl_on_cards.py

Elsewhere it is skipped; test_nccl.py runs the same on the stand-in.
"""

import numpy as np
import pytest
import world

import minigrad
from minigrad.distributed import Comm
from minigrad.distributed.nccl import Nccl, _library
from minigrad.gpu.cuda import cards


def sums_of_ranks(size, length=30_000):
    """What each of so many ranks has after a sum over all: arrays, and how many bytes it has sent."""
    values = np.random.default_rng(0).standard_normal((size, length * size)).astype(np.float32)

    def work(mpi):
        comm, device = Comm(mpi), minigrad.device(f"cuda:{mpi.rank}")
        way, flat = Nccl(comm, device), device.upload(values[mpi.rank])
        way.add_up(flat)
        return device.to_host(flat), comm.bytes_sent

    expected = values[0].copy()
    for row in values[1:]:
        expected += row
    for found, sent in world.run(size, work):
        np.testing.assert_array_equal(found, expected)
        assert sent == 2 * (size - 1) * length * 4


def test_a_sum_over_all_cards(device):
    if minigrad.device(device).kind != "cuda":
        pytest.skip("no card is under test")
    minigrad.device(device).synchronize()  # or an error that says what is missing
    if not hasattr(_library(), "NcclCommunicator"):
        pytest.skip("CuPy finds no NCCL")
    sums_of_ranks(len(set(cards())))
