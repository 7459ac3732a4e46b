"""Sums from card to card: NCCL's calls on the stand-in for CuPy, by threads for processes, and CuPy's own wrapper.

No card has run any of this: what is shown is that the calls fit each other, streams and memory, that the bits are those
of sums by the host, and that CuPy hands NCCL what is meant.
"""

import subprocess
import sys
from pathlib import Path

import fake_cupy
import numpy as np
import pytest
import world
from test_nccl_on_cards import sums_of_ranks

import minigrad
import minigrad.functional as F
from minigrad import ArgumentError, DeviceError, Tensor, distributed
from minigrad.cudasim.compiler import available
from minigrad.distributed import Comm, DataParallel
from minigrad.gpu import cuda
from minigrad.gpu.cuda import cards

pytestmark = [
    pytest.mark.skipif(available() is not None, reason=str(available())),
    pytest.mark.cpu_only("its devices are its own"),
]


class Net(minigrad.nn.Module):
    """The first layer is on one device, the second on another, which may be the same."""

    def __init__(self, first, second, dtype="float32"):
        self.first = minigrad.nn.Linear(6, 5, device=first, dtype=dtype)
        self.second = minigrad.nn.Linear(5, 3, device=second, dtype=dtype)

    def forward(self, x):
        hidden = F.relu(self.first(x.to(self.first.weight.device)))
        return self.second(hidden.to(self.second.weight.device))


X = np.random.default_rng(0).standard_normal((7, 6))
LABELS = np.arange(7) % 3


def gradients(mpi, devices, rows, backend="", dtype="float32", **options):
    """Of one rank with its rows of X: gradients by name, bytes sent, and the devices whose sums pass by the host."""
    comm = Comm(mpi, backend)
    model = Net(*devices, dtype=dtype)
    weights = np.random.default_rng(1)
    model.load_state_dict({name: weights.standard_normal(p.shape) for name, p in model.named_parameters()})
    net = DataParallel(model, comm, bucket_mb=60e-6, **options)
    for _ in range(3):  # the second time in the order in which gradients have come
        model.zero_grad()
        net.backward(F.cross_entropy(net(Tensor(X[rows].astype(dtype), device=devices[0])), LABELS[rows]))
    found = {name: p.grad.numpy().copy() for name, p in model.named_parameters()}
    return found, comm.bytes_sent, sorted(map(str, net.cards))


ROWS = [slice(0, 3), slice(3, 6), slice(6, 7)]


@pytest.mark.parametrize("size, columns, dtype", [(2, 2, "float32"), (3, 1, "float64")])
def test_the_bits_are_those_of_sums_by_the_host(size, columns, dtype):
    rows = ROWS if size == 3 else [slice(0, 3), slice(3, 7)]

    def work(mpi, backend):
        own = [f"cuda:{mpi.rank * columns + i}" for i in range(columns)]
        return gradients(mpi, (own[0], own[-1]), rows[mpi.rank], backend, dtype, overlap=mpi.rank != 1)

    with fake_cupy.installed(cards=size * columns) as machine:
        by_cards = world.run(size, lambda mpi: work(mpi, ""))
        calls = [call[0] for call in machine.calls]
        by_host = world.run(size, lambda mpi: work(mpi, "mpi"))
    alone, _, _ = gradients(None, ("cpu:0", "cpu:0"), slice(0, 7), dtype=dtype)
    assert "nccl" in calls
    for rank in range(size):
        assert by_cards[rank][2] == sorted({f"cuda:{rank * columns + i}" for i in range(columns)})
        assert by_host[rank][2] == []
        for name, value in alone.items():
            np.testing.assert_allclose(
                by_cards[rank][0][name], value, rtol=0, atol=1e-6 if dtype == "float32" else 1e-14
            )
            np.testing.assert_array_equal(by_cards[rank][0][name], by_host[rank][0][name])
            np.testing.assert_array_equal(by_cards[rank][0][name], by_cards[0][0][name])
        sent, least = by_cards[rank][1], 3 * 2 * (size - 1) / size * sum(v.nbytes for v in alone.values())
        assert least <= sent <= least + 3 * 2 * (size - 1) * 4 * np.dtype(dtype).itemsize


@pytest.mark.parametrize("size", [1, 3])
def test_what_a_machine_with_cards_is_asked(size):
    with fake_cupy.installed(cards=size):
        sums_of_ranks(size)


def test_who_adds_up():
    """By itself NCCL, where all parameters are on cards, and each rank has a card of its own; else the host."""

    def work(devices, backend=""):
        return lambda mpi: gradients(mpi, devices[mpi.rank], ROWS[mpi.rank], backend)[2]

    same, apart, mixed = [("cuda:0",) * 2] * 2, [("cuda:0",) * 2, ("cuda:1",) * 2], [("cuda:0", "cpu:0")] * 2
    with fake_cupy.installed():
        assert world.run(2, work(apart)) == [["cuda:0"], ["cuda:1"]]
        assert world.run(2, work(apart, "mpi")) == world.run(2, work(same)) == world.run(2, work(mixed)) == [[], []]
        with pytest.raises(
            DeviceError, match=r"=nccl: ranks 0 and 1 have the same card, 0000:00:00.0 of .*BACKEND=mpi"
        ):
            world.run(2, work(same, "nccl"))
        with pytest.raises(DeviceError, match="=nccl: rank 0: parameters are on cpu:0, and NCCL knows cards alone"):
            world.run(2, work(mixed, "nccl"))
        del sys.modules["cupy.cuda.nccl"].NcclCommunicator  # as CuPy's module is where the library is missing
        assert world.run(2, work(apart)) == [[], []]
        with pytest.raises(DeviceError, match="=nccl: rank 0: CuPy finds no NCCL: pip install nvidia-nccl-cu13"):
            world.run(2, work(apart, "nccl"))
    assert gradients(None, ("cpu:0", "cpu:0"), ROWS[0], "nccl")[2] == []  # alone there is nothing to add up


def test_an_error_of_nccl():
    with fake_cupy.installed() as machine:

        def work(mpi):
            comm = Comm(mpi)
            net = DataParallel(Net(*[f"cuda:{mpi.rank}"] * 2), comm)
            loss = net(Tensor(X.astype("f"), device=f"cuda:{mpi.rank}")).mean()
            loss.item(), comm.gather(None)
            machine.fault = fake_cupy.NcclError(2)
            net.backward(loss)

        with pytest.raises(DeviceError, match=r"NCCL on cuda:.: NCCL_ERROR_2: NCCL_DEBUG=INFO tells more"):
            world.run(2, work)
        machine.fault = None


@pytest.mark.parametrize(
    "count, processes, devices, found",
    [
        (4, 2, None, [(0, 1), (2, 3)]),
        (3, 2, None, [(0,), (1,)]),
        (2, 3, None, [(0,), (1,), (0,)]),
        (4, 2, "1,0", [(1, 0), (3, 2)]),
        (2, 2, "0,0", [(0, 0), (1, 1)]),
    ],
)
def test_the_cards_of_a_machine_are_shared_out(monkeypatch, count, processes, devices, found):
    with fake_cupy.installed(cards=count, devices=devices):
        for number in range(processes):
            monkeypatch.setattr(cuda, "_share", (number, processes))
            assert cards() == found[number]
        with pytest.raises(DeviceError, match="for this process|of 2 device"):
            minigrad.device("cuda:7").xp  # noqa: B018
    with fake_cupy.installed(cards=2, devices="1"), pytest.raises(DeviceError, match="of which this process has 1"):
        monkeypatch.setattr(cuda, "_share", (0, 2))
        cards()


def test_an_unknown_backend(monkeypatch):
    monkeypatch.setenv("MINIGRAD_BACKEND", "gloo")
    with pytest.raises(ArgumentError, match="MINIGRAD_BACKEND='gloo': take mpi or nccl, or unset it"):
        distributed.init()


# ---------------------------------------------------------------- CuPy's own wrapper

LIBRARY = r"""
#include <stdio.h>
#include <string.h>
typedef struct { char internal[128]; } Id;
static int some;
#define CALL(name, ...) int name(__VA_ARGS__)
const char *ncclGetErrorString(int r) { return "as asked"; }
CALL(ncclGetVersion, int *v) { *v = 22700; return 0; }
CALL(ncclGetUniqueId, Id *id) { memset(id->internal, 7, 128); return 0; }
CALL(ncclCommInitRankConfig, void **comm, int n, Id id, int rank, void *config) {
    printf("init %d %d %d\n", n, id.internal[127], rank); *comm = &some; return 0; }
CALL(ncclGroupStart, void) { printf("start\n"); return 0; }
CALL(ncclGroupEnd, void) { printf("end\n"); return 0; }
CALL(ncclSend, void *b, size_t n, int type, int peer, void *comm, void *stream) {
    printf("send %zu %zu %d %d %zu\n", (size_t)b, n, type, peer, (size_t)stream); return 0; }
CALL(ncclRecv, void *b, size_t n, int type, int peer, void *comm, void *stream) {
    printf("recv %zu %zu %d %d %zu\n", (size_t)b, n, type, peer, (size_t)stream); return 0; }
CALL(ncclAllGather, void *a, void *b, size_t n, int type, void *comm, void *stream) {
    printf("gather %zu %zu %zu %d %zu\n", (size_t)a, (size_t)b, n, type, (size_t)stream);
    fflush(stdout); return type == 8 ? 2 : 0; }
CALL(ncclCommDestroy, void *c) { return 0; }
CALL(ncclCommAbort, void *c) { return 0; }
#define NEVER(name) int name(void) { return 4; }
NEVER(ncclAllReduce) NEVER(ncclBcast) NEVER(ncclBroadcast) NEVER(ncclCommCount) NEVER(ncclCommCuDevice)
NEVER(ncclCommGetAsyncError) NEVER(ncclCommInitAll) NEVER(ncclCommSplit) NEVER(ncclCommUserRank) NEVER(ncclReduce)
NEVER(ncclReduceScatter)
"""

PROGRAM = """
import sys
from cupy.cuda import nccl
import fake_cupy, numpy as np
import minigrad
from minigrad.distributed import Comm
from minigrad.distributed.nccl import Nccl
class Mpi:
    def Get_rank(self): return 1
    def Get_size(self): return 2
    def bcast(self, value, root): return nccl.get_unique_id()
with fake_cupy.installed():
    sys.modules["cupy.cuda.nccl"] = nccl
    device = minigrad.device("cuda:0")
    way = Nccl(Comm(Mpi()), device)
    flat, parts = device.upload(np.arange(6, dtype="f")), []
    empty = way.lane.empty
    way.lane.empty = lambda *args: parts.append(empty(*args)) or way.lane.fill(parts[-1], 1)
    way.add_up(flat)
    print("wanted", flat.data.ptr, parts[0].data.ptr, way.lane.runtime.stream.ptr)
    assert way.lane.runtime.stream is not device.runtime.stream
    try:
        way.add_up(device.upload(np.arange(6.0)))
    except minigrad.DeviceError as error:
        print(error)
    del flat, parts[:], empty, way
"""


def test_what_cupy_hands_to_nccl(tmp_path):
    """CuPy's own wrapper, on a library that says how it was called."""
    pytest.importorskip("cupy")
    (tmp_path / "nccl.c").write_text(LIBRARY)
    subprocess.run(
        ["g++", "-x", "c", "-shared", "-fPIC", "-o", tmp_path / "libnccl.so.2", tmp_path / "nccl.c"], check=True
    )
    here = Path(__file__).parent
    environment = {
        "LD_LIBRARY_PATH": str(tmp_path),
        "PYTHONPATH": f"{here.parent}:{here}",
        "CUPY_CACHE_DIR": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM], env={**fake_cupy.os.environ, **environment},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    wanted = next(line for line in lines if line.startswith("wanted")).split()[1:]
    flat, parts, stream = map(int, wanted)
    called = lines[: lines.index("start", 2)]
    assert called[0] == "init 2 7 1"
    assert [line for line in called if not line.startswith("wanted")][1:] == [
        "start",
        f"send {flat} 3 7 0 {stream}", f"recv {parts} 3 7 0 {stream}",
        f"send {flat + 12} 3 7 1 {stream}", f"recv {parts + 12} 3 7 1 {stream}",
        "end",
        f"gather {parts} {flat} 3 7 {stream}",
    ]  # fmt: skip
    assert "NCCL on cuda:0: NCCL_ERROR_SYSTEM_ERROR: as asked: NCCL_DEBUG=INFO tells more" in lines[-1]
