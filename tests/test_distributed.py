"""Several processes: parts of batches, masks of parts, sums that equal one process's, and what ends all of them.

What starts processes needs mpi4py and an MPI library in this environment, and is skipped without.
"""

import importlib.util
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import world

import minigrad
import minigrad.functional as F
from minigrad import ArgumentError, DataError, MissingDependencyError, Tensor, distributed
from minigrad.base.random import part_of_batch
from minigrad.data import ArrayDataset, CenterView, ImageArray, Loader, TrainViews, UnreadableImageError
from minigrad.distributed import Comm, DataParallel, traces
from minigrad.distributed import comm as comm_module
from minigrad.distributed import watch as watch_module
from minigrad.distributed.comm import LAUNCHERS
from minigrad.distributed.watch import NOWHERE, Judge, State, Watch, differ
from minigrad.tools.profiler import Profile
from minigrad.tools.tracing import Event

STEPS = Path(__file__).parent / "distributed_steps.py"
MPIEXEC = Path(sys.executable).parent / "mpiexec"
needs_mpi = pytest.mark.skipif(
    not (importlib.util.find_spec("mpi4py") and MPIEXEC.exists()), reason="no mpi4py and mpiexec in this environment"
)
# One thread each, for there are more processes than cores; Open MPI refuses that, and root, unless it is told.
ONE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(STEPS.parent.parent)}
OPEN_MPI = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
OPEN_MPI["PRTE_MCA_rmaps_default_mapping_policy"] = ":oversubscribe"


def launch(processes, *arguments):
    """The finished process of STEPS with these arguments; processes 0: without mpiexec."""
    program = start(processes, *arguments)
    try:
        out, err = program.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        os.killpg(program.pid, signal.SIGKILL)
        raise
    return subprocess.CompletedProcess(program.args, program.returncode, out, err)


def start(processes, *arguments):
    command = [MPIEXEC, "-n", processes] if processes else []
    command = [str(word) for word in (*command, sys.executable, STEPS, *arguments)]
    environment = {**os.environ, **ONE, **OPEN_MPI}
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


# ---------------------------------------------------------------- as one process


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process makes in so many steps."""
    made = {}

    def steps(number):
        if number not in made:
            out = tmp_path_factory.mktemp("alone") / "alone.npz"
            done = launch(0, out, number)
            assert done.returncode == 0, done.stderr
            made[number] = dict(np.load(out))
        return made[number]

    return steps


def as_alone(alone, processes, out, steps):
    alone = alone(steps)
    done = launch(processes, out, steps)
    assert done.returncode == 0, done.stderr
    found = dict(np.load(out))
    assert found["size"] == processes
    for name, value in alone.items():
        if name not in ("size", "checksum") and not name.endswith("/bytes"):
            np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-10, err_msg=name)
    parameters = sum(v.nbytes for k, v in alone.items() if k.startswith("one/") and k not in ("one/loss", "one/bytes"))
    # 36 f numbers an image, 40 + 40 twice hidden.
    convolutions = sum(v.size for k, v in alone.items() if k.startswith("one/conv"))
    pictures = sum((8, 2)[step % 2] for step in range(steps))
    each = 2 * alone["one/fc6.weight"].shape[1] + 2 * sum(len(alone[f"one/fc{k}.bias"]) for k in (6, 7)) + 5
    expected = (processes - 1) / processes * 8 * (pictures * each + steps * 2 * convolutions)
    for name, like in {"trick": "one", "trick in columns": "columns"}.items():
        for key, value in found.items():
            if key.startswith(f"{name}/") and not key.endswith("/bytes"):
                there = alone[key.replace(name, like, 1)]
                np.testing.assert_allclose(value, there, rtol=0, atol=1e-10, err_msg=key)
        sent = found[f"{name}/bytes"]
        assert abs(sent.mean() / expected - 1) < 0.002 and sent.max() < 1.05 * expected
    for name in ("one", "columns"):
        assert np.isfinite(found[f"{name}/loss"]).all() and np.ptp(found[f"{name}/loss"]) > 0.1
        # 2 (k-1)/k of the gradients, each step; a bucket is filled up to a multiple of k numbers
        sent, expected = found[f"{name}/bytes"], steps * 2 * (processes - 1) * parameters / processes
        assert len(sent) == processes and (sent >= expected).all() and (sent <= 1.002 * expected).all()
    return found


@needs_mpi
def test_three_processes_do_what_one_does(alone, tmp_path):
    """Some have no image in the last batch of an epoch, which has two."""
    as_alone(alone, 3, tmp_path / "three.npz", 3)


@needs_mpi
@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3, 4])
def test_so_do_ten_steps_of_two_three_and_four_with_the_same_bits_each_time(alone, tmp_path, processes):
    first, again = (as_alone(alone, processes, tmp_path / f"{i}.npz", 10) for i in range(2))
    assert first["checksum"] == again["checksum"]


# ---------------------------------------------------------------- what ends all of them


@needs_mpi
@pytest.mark.slow
@pytest.mark.parametrize("fault", ["none", "slow"])
def test_they_come_to_the_end(tmp_path, fault):
    """Slow: one computes, and then waits for a program that it has started, four times as long as it may do nothing."""
    done = launch(2, tmp_path, fault)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.iterdir())) == 2


@needs_mpi
@pytest.mark.slow
def test_a_pause_of_all_is_no_hang(tmp_path):
    """As of a machine that sleeps, or a cluster that stops a job: three times as long as one may do nothing."""
    program = start(2, tmp_path, "pause")
    for _ in range(600):
        if len(list(tmp_path.iterdir())) == 2:
            break
        time.sleep(0.05)
    pids = [int(path.name) for path in tmp_path.iterdir()]
    assert len(pids) == 2, program.communicate()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(3)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    _, err = program.communicate(timeout=60)
    assert program.returncode == 0, err
    assert len(list(tmp_path.iterdir())) == 4


@needs_mpi
@pytest.mark.parametrize(
    "fault, told",
    [
        pytest.param("raise", "ValueError: this rank has had enough", marks=pytest.mark.slow),
        ("hang", " in faulty"),
        pytest.param("kill", "", marks=pytest.mark.slow),
        pytest.param("stop", ") has said nothing for 1 seconds: it, or its machine, is stopped or gone",
                     marks=pytest.mark.slow),
        pytest.param("apart", ") has taken another way than rank 0: its call 20 is broadcast, not gather",
                     marks=pytest.mark.slow),
        pytest.param("seed", "the options must be the same everywhere (seed): rank 0 has 3, rank 1 has 4",
                     marks=pytest.mark.slow),
        pytest.param("drift", "the weights (their CRC-32) must be the same everywhere (second.bias)",
                     marks=pytest.mark.slow),
        pytest.param("unused", "takes no part in the loss, as 2 parameters do", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_what_ends_one_ends_all(tmp_path, fault, told):
    begin = time.monotonic()
    done = launch(2, tmp_path, fault)
    assert done.returncode != 0 and told in done.stderr, done.stderr
    assert list(tmp_path.iterdir()) == []
    assert time.monotonic() - begin < 55  # one that hangs sleeps for 60 seconds
    if fault == "hang":
        assert "rank 1 (process" in done.stderr and "rank 0 in a call, gather" in done.stderr


class Played:
    """Three processes and the judge of rank 0, beat by beat, without waiting."""

    def __init__(self):
        self.judge, self.now, self.at = Judge(3, 20), 0.0, [NOWHERE] * 3

    def beats(self, count, told=((False, True),) * 3):
        """told: of each, (whether it waits, whether it has worked); None: it says nothing."""
        for _ in range(count):
            self.now += 1
            for rank, state in enumerate(told):
                if state is not None:
                    self.judge.hear(rank, State(self.at[rank], self.at[rank].calls, *state), self.now)
            found = self.judge.verdict(self.now)
            if found is not None:
                return found
        return None

    def calls(self, *names):
        self.at = [at if name is None else at.into(name) for at, name in zip(self.at, names)]


WAITS, WORKS, IDLE = (True, True), (False, True), (False, False)


def test_who_hangs_and_who_does_not():
    play = Played()
    assert play.beats(100, (WORKS, WORKS, WORKS)) is None
    play.calls("gather", None, "gather")
    assert play.beats(1000, (WAITS, WORKS, WAITS)) is None  # however slowly, it works
    assert play.beats(20, (WAITS, IDLE, (True, False))) is None
    rank, why = play.beats(1, (WAITS, IDLE, (True, False)))
    assert rank == 1 and "has not used the processor for 20 seconds" in why and "rank 2 in a call, gather" in why
    assert play.beats(1, (WAITS, WORKS, WAITS)) is None

    play = Played()  # one sleeps, but another that has not come either is at work; and then it comes
    play.calls("gather", None, None)
    assert play.beats(100, (WAITS, IDLE, WORKS)) is None
    play.calls(None, None, "gather")
    rank, _ = play.beats(1, (WAITS, IDLE, WAITS))
    assert rank == 1

    play = Played()  # nobody waits for those who sleep; and those who are all in one call are not idle
    assert play.beats(1000, (IDLE, IDLE, IDLE)) is None
    play.calls("sum", "sum", "sum")
    assert play.beats(1000, ((True, False),) * 3) is None

    play = Played()  # a call of a moment is work, too
    play.calls("gather", None, "gather")
    for _ in range(30):
        play.calls("gather", "gather", "gather")
        assert play.beats(10, (WAITS, IDLE, WAITS)) is None

    for rank in range(3):
        play, told = Played(), [WORKS, WORKS, WORKS]
        assert play.beats(5, told) is None
        told[rank] = None
        assert play.beats(20, told) is None
        assert play.beats(1, told) == (
            rank, "has said nothing for 20 seconds: it, or its machine, is stopped or gone"
        )  # fmt: skip


def test_who_takes_another_way():
    play = Played()
    play.calls("gather", "gather", "gather")
    play.calls("gather", "gather", "broadcast")
    assert play.beats(1) == (2, "has taken another way than rank 0: its call 2 is broadcast, not gather")
    ahead = NOWHERE
    for name in ["gather", "broadcast", "exchange", "sum"] * 9:
        before, ahead = ahead, ahead.into(name)
        other = before.last % 4 + 1
        assert ahead.call == name and differ(before, ahead) == "" == differ(ahead, ahead)
        assert before == NOWHERE or differ(before, before._replace(last=before.last ^ before.last % 8 ^ other)) != ""
    here, there = NOWHERE.into("gather"), NOWHERE.into("sum")
    for name in ["broadcast"] * 5:
        here, there = here.into(name), there.into(name)
    assert differ(here, there) == differ(here, there.into(name)) == "its call 1 is sum, not gather"
    far = ahead
    for _ in range(30):
        far = far.into("gather")
    assert differ(ahead.into("sum"), far) == ""  # too long ago to be known


# ---------------------------------------------------------------- alone, and where MPI is not as it should be


def test_alone_it_is_the_model_itself(monkeypatch):
    for name in LAUNCHERS:
        monkeypatch.delenv(name, raising=False)
    comm = distributed.init()
    assert (comm.rank, comm.size, comm.gather(3), comm.broadcast(4)) == (0, 1, [3], 4)
    flat = np.arange(3.0)
    comm.add_up(flat)
    comm.agree("anything", {"a": 1})
    assert flat.tolist() == [0, 1, 2] and comm.bytes_sent == 0
    model = minigrad.nn.Linear(3, 2)
    x = Tensor(np.arange(6.0, dtype=np.float32).reshape(2, 3))
    net = DataParallel(model, comm)
    net.backward(net(x).mean())
    found = model.weight.grad.numpy().copy()
    model.zero_grad()
    model(x).mean().backward()
    np.testing.assert_array_equal(found, model.weight.grad.numpy())
    with pytest.raises(ArgumentError, match="reduction must be mean or sum, got 'all'"):
        net.backward(net(x).mean(), "all")
    comm.leave()


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launcher_without_mpi4py(monkeypatch, name):
    for other in LAUNCHERS:
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "4")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(MissingDependencyError, match="4 processes need MPI .*: pip install mpi4py mpich"):
        distributed.init()


@needs_mpi
@pytest.mark.slow
def test_a_launcher_of_another_mpi(tmp_path):
    """A process whose launcher says 4, and which MPI takes for the only one: four trainings would do the same."""
    names = {name: "" for name in LAUNCHERS}
    code = "import minigrad; from minigrad import distributed; distributed.init()"
    environment = {**os.environ, **names, **ONE, "SLURM_STEP_NUM_TASKS": "4"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "has started 4 processes, but MPI knows of 1: take the mpirun of the library" in done.stderr


# ---------------------------------------------------------------- profiles


@pytest.mark.parametrize("machines", [1, 2])
def test_the_profiles_of_all_in_one_file(monkeypatch, tmp_path, machines):
    """Rank 1 has begun 5 ms later; its clock, where it is on another machine, shows an hour more."""
    hour = 3600 * 10**9 if machines == 2 else 0
    here = threading.local()
    monkeypatch.setattr(traces.socket, "gethostname", lambda: f"host {here.rank % machines}")
    monkeypatch.setattr(traces, "perf_counter_ns", lambda: 90_000_000 + here.rank * hour)

    def work(mpi):
        here.rank, comm, profile = mpi.rank, Comm(mpi), Profile()
        profile.began = 50_000_000 + mpi.rank * (hour + 5_000_000)
        profile.events.append(Event("relu", "forward", "cpu:0", (), (1, "Main"), 1_000_000, 3_000_000, False, 0, 0))
        distributed.save_trace(comm, profile, tmp_path / "both.json")

    world.run(2, work)
    entries = json.loads((tmp_path / "both.json").read_text())["traceEvents"]
    shown = {e["pid"]: e["args"]["name"] for e in entries if e["name"] == "process_name"}
    assert list(shown.values()) == ["rank 0, cpu:0", "rank 1, cpu:0"]
    times = {shown[e["pid"]]: (e["ts"], e["dur"]) for e in entries if e["ph"] == "X"}
    assert times == {"rank 0, cpu:0": (1000, 2000), "rank 1, cpu:0": (6000, 2000)}
    assert len({(e["pid"], e["tid"]) for e in entries if e["ph"] == "X"}) == 2


# ---------------------------------------------------------------- masks


@pytest.mark.parametrize("p", [0.5, 0.3])
def test_the_masks_of_parts_are_those_of_the_batch(p):
    x = Tensor(np.ones((11, 7), np.float32))
    minigrad.manual_seed(5)
    whole = F.dropout(x, p).numpy()
    for bounds in ((0, 4, 8, 11), (0, 0, 11), (0, 1, 11, 11)):
        parts = []
        for i, j in zip(bounds, bounds[1:]):
            minigrad.manual_seed(5)
            with part_of_batch(i, j - i):
                parts.append(F.dropout(x[i:j], p).numpy())
        np.testing.assert_array_equal(np.concatenate(parts), whole)
    minigrad.manual_seed(5)
    with part_of_batch(3, 8):
        chunked = minigrad.in_chunks(lambda images: F.dropout(images, p), x[3:], size=2).numpy()
    np.testing.assert_array_equal(chunked, whole[3:])
    minigrad.manual_seed(5)
    np.testing.assert_array_equal(F.dropout(x, p).numpy(), whole)  # outside it is as before


# ---------------------------------------------------------------- parts of batches


class Broken(ImageArray):
    """Some of its files cannot be read."""

    broken = ()

    def image(self, index):
        if index in self.broken:
            raise UnreadableImageError(f"{index}.jpg", "broken")
        return super().image(index)


def pictures(n, broken=()):
    found = Broken(np.random.default_rng(1).integers(0, 256, (n, 12, 12, 3), dtype=np.uint8), np.arange(n) % 3)
    found.broken = broken
    return found


def beside(batches):
    """Parts of one batch put together."""
    return {name: np.concatenate([getattr(b, name) for b in batches]) for name in ("images", "labels", "indices")}


@pytest.mark.parametrize("as_pictures", [False, True])
@pytest.mark.parametrize("size", [2, 3, 5])
def test_parts_make_the_batches_of_one_loader(size, as_pictures):
    def loader(shard):
        return Loader(pictures(14), 4, TrainViews(8), shuffle=True, seed=2, pictures=as_pictures, shard=shard)

    whole, parts = loader((0, 1)), [loader((rank, size)) for rank in range(size)]
    for epoch, start in ((0, 0), (1, 2)):
        rows = zip(whole.epoch(epoch, start), *(part.epoch(epoch, start) for part in parts), strict=True)
        for one, *others in rows:
            found = beside(others)
            for name in found:
                np.testing.assert_array_equal(found[name], getattr(one, name))
            counts = [len(other.labels) for other in others]
            assert max(counts) - min(counts) <= 1
            if as_pictures:
                for name in ("windows", "colours"):
                    views = np.concatenate([getattr(other.views, name) for other in others])
                    np.testing.assert_array_equal(views, getattr(one.views, name))
    assert whole.state_dict() == parts[0].state_dict()  # so that others, or one, can go on


def test_broken_files_leave_as_many_batches_everywhere():
    """Numbers 0 and 1, a whole part, and 4 to 7, a whole batch."""
    broken = (0, 1, 4, 5, 6, 7, 9)
    with pytest.warns(UserWarning, match="skipped image"):
        whole = list(Loader(pictures(12, broken), 4, CenterView(8)))
        parts = [list(Loader(pictures(12, broken), 4, CenterView(8), shard=(rank, 2))) for rank in range(2)]
    assert len(whole) == len(parts[0]) == len(parts[1]) == 2
    assert parts[0][0].images.shape == (0, 3, 8, 8)
    for one, *others in zip(whole, *parts):
        np.testing.assert_array_equal(beside(others)["images"], one.images)


def test_what_a_part_can_be():
    items = ArrayDataset(np.arange(10), np.arange(10))
    for shard, told in (((2, 2), "rank in shard"), ((0, 0), "size in shard"), (3, "shard must be"), ([0, 1], "shard")):
        with pytest.raises(ArgumentError, match=told):
            Loader(items, 4, shard=shard)
    with pytest.raises(ArgumentError, match="a batch has 2 items, too few for 3 parts"):
        Loader(items, 4, shard=(0, 3))
    parts = [list(Loader(items, 4, shard=(rank, 3), drop_last=True)) for rank in range(3)]
    assert [np.concatenate([b[0] for b in row]).tolist() for row in zip(*parts)] == [[0, 1, 2, 3], [4, 5, 6, 7]]


class Lost(ArrayDataset):
    def __getitem__(self, index):
        if index in (2, 3):
            raise UnreadableImageError(f"{index}", "lost")
        return super().__getitem__(index)


def test_a_part_of_items_that_are_all_lost():
    with pytest.raises(DataError, match="no item of part 1 of 2 of a batch could be read"):
        list(Loader(Lost(np.arange(4), np.arange(4)), 4, shard=(1, 2)))


class Fake:
    """An MPI of two processes where the other has the same numbers: what `Comm` asks of it, and in which order."""

    def __init__(self):
        self.asked = []

    def Get_rank(self):  # noqa: N802
        return 1

    def Get_size(self):  # noqa: N802
        return 2

    def Alltoall(self, flat, parts):  # noqa: N802
        self.asked.append("Alltoall")
        parts.reshape(2, -1)[:] = flat.reshape(2, -1)[1]

    def Allgather(self, total, flat):  # noqa: N802
        self.asked.append("Allgather")
        flat.reshape(2, -1)[:] = total

    def allgather(self, value):
        return [value, value]


def test_a_call_that_takes_too_long(capfd, monkeypatch):
    """Where MPI lets in one thread at a time, this is all that is watched; and of all communicators.

    The main thread is told of however many others there are.
    """
    comm, ended = Comm(Fake()), threading.Event()
    crowd = [threading.Thread(target=ended.wait) for _ in range(110)]
    for thread in crowd:
        thread.start()
    monkeypatch.setattr(comm, "abort", lambda code: ended.set())
    comm.watch = Watch(comm, None, hung_after=0.05, timeout=0.2)
    try:
        comm.mpi.Dup = Fake
        other = comm.beside()
        with other.waiting("exchange"):
            state = comm.watch._state()
            assert (state.at.calls, state.at.call, state.calls, state.waits) == (1, "gather", 2, True)
            assert ended.wait(60)
        assert not comm.watch._state().waits
    finally:
        ended.set()
        comm.watch._stop()
        for thread in crowd:
            thread.join()
    told = capfd.readouterr().err
    assert "rank 1 (process " in told and "has been in a call (exchange) for 0.2 seconds" in told
    assert "where rank 1 is:" in told and "in test_a_call_that_takes_too_long" in told


class Silent:
    """The watch's own communicator, by which nothing comes."""

    def Isend(self, content, rank):  # noqa: N802
        return self

    def Test(self):  # noqa: N802
        return True

    def Iprobe(self, rank):  # noqa: N802
        return False


def test_time_in_which_it_did_not_run_itself_does_not_count(monkeypatch, capfd):
    """Each beat of a tenth of a second takes 1,000 by the clock, as if the machine had slept."""
    clock, ended = itertools.count(0, 1000), threading.Event()
    times = {name: getattr(time, name) for name in ("thread_time", "process_time")}
    monkeypatch.setattr(
        watch_module, "time", SimpleNamespace(monotonic=lambda: next(clock), sleep=lambda _: None, **times)
    )
    comm = Comm(Fake())
    monkeypatch.setattr(comm, "abort", lambda code: ended.set())
    watch = Watch(comm, Silent(), hung_after=0.5, timeout=1e9)
    try:
        assert ended.wait(60)
        assert 0.5 < watch.now < 10  # two beats each at the most
    finally:
        watch._stop()
    assert "rank 0 (process" in capfd.readouterr().err


class BatchNorm2d(minigrad.nn.Linear):
    """What has this name, or derives from it, looks at all images of a batch."""


class Mine(BatchNorm2d):
    pass


class Running(minigrad.nn.Linear):
    running_mean = None


@pytest.mark.parametrize("kind", [BatchNorm2d, Mine, Running])
def test_batch_normalisation_is_refused(kind):
    model = minigrad.nn.Sequential(minigrad.nn.Linear(2, 2), kind(2, 2))
    with pytest.raises(ArgumentError, match=rf"1 \({kind.__name__}\) looks at all images of a batch"):
        DataParallel(model, Comm(Fake()))
    DataParallel(model, Comm())  # one process has the whole batch


def test_a_sum_is_made_of_pieces_and_counted():
    comm = Comm(Fake())
    flat = np.arange(6, dtype=np.float32)
    comm.add_up(flat)
    assert flat.tolist() == [6, 8, 10, 6, 8, 10] and comm.mpi.asked == ["Alltoall", "Allgather"]
    assert comm.bytes_sent == 2 * 12  # half of 24 bytes, twice


@pytest.mark.parametrize("size, dtype", [(2, "float32"), (3, "float64")])
def test_a_long_sum_is_made_bit_by_bit(monkeypatch, size, dtype):
    monkeypatch.setattr(comm_module, "AT_ONCE", 1000)  # so that it is 64 KB of float32 to each process
    length = 40_000 * size
    values = np.random.default_rng(0).standard_normal((size, length)).astype(dtype)

    def work(mpi):
        comm, flat = Comm(mpi), values[mpi.rank].copy()
        comm.add_up(flat)
        return flat, comm.bytes_sent

    expected = values[0].copy()
    for row in values[1:]:
        expected += row
    for flat, sent in world.run(size, work):
        np.testing.assert_array_equal(flat, expected)
        assert sent == 2 * (size - 1) * length // size * flat.itemsize
