"""profile(): what is counted, whose time it is, and that it costs nothing and changes nothing when off."""

import json
import sys
import threading
import time
from collections import defaultdict

import numpy as np
import pytest

import minigrad
import minigrad.functional as F
from minigrad import ArgumentError, Tensor, on_devices, optim, profile
from minigrad.engine import Function
from minigrad.processor.parallel import split
from minigrad.tensor import apply
from minigrad.tools import tracing
from minigrad.tools.profiler import Profile
from minigrad.tools.tracing import Event

LONG = 0.05  # seconds: far more than any op here takes by itself


class Nap(Function):
    """The identity, after a while."""

    def __init__(self, forward=0.0, backward=0.0):
        self.times = forward, backward

    def forward_cpu(self, x):
        time.sleep(self.times[0])
        return x.copy()

    def backward_cpu(self, dy):
        time.sleep(self.times[1])
        return dy


class Around(Function):
    """Runs another op inside its own forward and backward, as in_chunks does."""

    def forward_cpu(self, x):
        inner = Tensor(x, requires_grad=True)
        self.graph = inner, apply(Nap(LONG, LONG), inner)
        return self.graph[1].data

    def backward_cpu(self, dy):
        inner, y = self.graph
        y.backward(dy)
        return inner.grad.data


class Halves(Function):
    """Two pieces on two threads, of which the other thread's takes long; in pieces of its own, a nap each."""

    def forward_cpu(self, x):
        meet = threading.Barrier(2)

        def work(start, stop):
            meet.wait(timeout=20)
            if start:
                time.sleep(LONG)
                apply(Nap(LONG), Tensor(x[start:stop]))

        split(self.device, len(x), work)
        return x.copy()

    def backward_cpu(self, dy):
        return dy


class Caller(Function):
    """Notes which module calls forward and backward, by way of the device."""

    seen: list[str] = []

    def forward(self, *arrays):
        self.seen.append(sys._getframe(2).f_globals["__name__"])
        return arrays[0] * 2

    def backward(self, dy):
        self.seen.append(sys._getframe(2).f_globals["__name__"])
        return (dy * 2,)


class Broken(Function):
    def forward_cpu(self, x):
        raise ZeroDivisionError


def leaf(*shape, device="cpu:0"):
    return Tensor(np.random.default_rng(0).standard_normal(shape), requires_grad=True, device=device)


def rows(prof, **kwargs):
    return {(row.name, row.phase): row for row in prof.summary(**kwargs)}


def event(name, start, end, phase="forward", thread=(1, "main"), device="cpu:0", piece=False, flops=0, size=0):
    return Event(name, phase, device, ((2, 3),), thread, start, end, piece, flops, size)


# ---------------------------------------------------------------- what is recorded


def test_calls_are_counted_with_forward_and_backward_apart():
    x, y = leaf(3, 4), Tensor(np.ones((3, 4)))
    with profile() as prof:
        for _ in range(3):
            loss = (F.relu(x) + F.relu(y)).sum()
        loss.backward()
    calls = {key: row.calls for key, row in rows(prof).items()}
    assert calls == {
        ("relu", "forward"): 6,
        ("add", "forward"): 3,
        ("sum", "forward"): 3,
        ("relu", "backward"): 1,
        ("add", "backward"): 1,
        ("sum", "backward"): 1,
    }


def test_flops_and_bytes_of_conv2d_and_linear():
    x, w, b = Tensor(np.ones((2, 4, 7, 6), "f")), leaf(6, 2, 3, 2).astype("float32").detach(), Tensor(np.ones(6, "f"))
    w.requires_grad_()
    b.requires_grad_()  # which costs no product
    v = Tensor(np.ones((5, 3), "f"), requires_grad=True)
    z = Tensor(np.ones((2, 4, 3), "f"), requires_grad=True)
    with profile() as prof:
        y = F.conv2d(x, w, b, stride=2, padding=1, groups=2)
        out = F.linear(z, v)
        y.sum().backward()
        out.sum().backward()
    found = rows(prof)
    assert y.shape == (2, 6, 4, 4)
    conv = 2 * (2 * 6 * 4 * 4) * (2 * 3 * 2)
    assert found["conv2d", "forward"].flops == conv
    assert found["conv2d", "backward"].flops == conv  # x needs no gradient
    assert found["conv2d", "forward"].bytes == 4 * (x.size + w.size + b.size + y.size)
    linear = 2 * (2 * 4) * 3 * 5
    assert found["linear", "forward"].flops == linear
    assert found["linear", "backward"].flops == 2 * linear
    assert found["linear", "forward"].bytes == 4 * (z.size + v.size + out.size)
    assert found["sum", "forward"].flops == 0


@pytest.mark.parametrize(
    "a, b, expected",
    [
        ((3, 4), (4, 5), 2 * 3 * 4 * 5),
        ((4,), (4, 5), 2 * 4 * 5),
        ((3, 4), (4,), 2 * 3 * 4),
        ((4,), (4,), 2 * 4),
        ((7, 1, 3, 4), (6, 4, 5), 2 * 7 * 6 * 3 * 4 * 5),
        ((7, 3, 4), (4, 5), 2 * 7 * 3 * 4 * 5),
    ],
)
def test_flops_of_matmul(a, b, expected):
    with profile() as prof:
        (leaf(*a) @ leaf(*b)).sum().backward()
    assert rows(prof)["matmul", "forward"].flops == expected
    assert rows(prof)["matmul", "backward"].flops == 2 * expected


def test_bytes_on_the_way_back_are_dy_the_gradients_and_what_was_saved():
    x, y = leaf(5, 6), leaf(5, 6)
    with profile() as prof:
        (x * y + x).sum().backward()
    assert rows(prof)["multiply", "backward"].bytes == 8 * 30 * 5
    assert rows(prof)["add", "backward"].bytes == 8 * 30  # dy itself is the gradient, and counts once


def test_backward_of_a_graph_made_before_the_block_has_time_but_no_flops():
    loss = F.linear(leaf(2, 3), leaf(4, 3)).sum()
    with profile() as prof:
        loss.backward()
    row = rows(prof)["linear", "backward"]
    assert (row.calls, row.flops) == (1, 0) and row.time > 0


def test_shapes_are_told_apart_on_demand():
    with profile() as prof:
        for n in (2, 3, 3):
            F.relu(leaf(n, 4))
    assert [(row.shapes, row.calls) for row in prof.summary("calls", by_shape=True)] == [
        (((3, 4),), 2),
        (((2, 4),), 1),
    ]
    assert [(row.shapes, row.calls) for row in prof.summary()] == [(None, 3)]
    assert prof.table(by_shape=True).splitlines()[1].endswith("4")


def test_a_step_of_an_optimiser_is_a_row():
    p = leaf(3)
    optimizer = optim.SGD([p], lr=0.1)
    p.sum().backward()
    with profile() as prof:
        optimizer.step()
    assert {key: row.calls for key, row in rows(prof).items()} == {("SGD step", "region"): 1}


def test_regions_contain_ops():
    with profile() as prof:
        with tracing.region("mine"):
            apply(Nap(LONG), leaf(2))
    region, nap = (next(e for e in prof.events if e.name == name) for name in ("mine", "nap"))
    assert (region.device, region.phase) == ("host", "region")
    assert rows(prof)["mine", "region"].time * 1e9 == pytest.approx(region.end - region.start - (nap.end - nap.start))


# ---------------------------------------------------------------- whose time it is


def test_self_time_is_what_the_ops_inside_leave():
    x = leaf(2)
    with profile() as prof:
        apply(Around(), x).sum().backward()
    found, length = rows(prof), {(e.name, e.phase): (e.end - e.start) / 1e9 for e in prof.events}
    for phase in ("forward", "backward"):
        assert found["nap", phase].time == pytest.approx(length["nap", phase])
        assert found["nap", phase].time >= LONG
        assert found["around", phase].time == pytest.approx(length["around", phase] - length["nap", phase])


def test_tables_of_given_events():
    other = (2, "helper")
    prof = Profile()
    prof.wall = 2e-6
    prof.events = [  # recorded when they end: what is inside comes first
        event("in", 10, 30),
        event("in", 30, 60, flops=50, size=90),
        event("inmost", 70, 75, "backward"),
        event("other threads", 70, 90, "waiting"),
        event("out", 0, 100),
        event("out", 20, 70, thread=other, piece=True),
        event("next", 100, 150, "region", device="host"),
    ]
    assert [(r.name, r.phase, r.calls, round(r.time * 1e9), r.flops, r.bytes) for r in prof.summary()] == [
        ("out", "forward", 1, 30 + 50, 0, 0),
        ("in", "forward", 2, 50, 50, 90),
        ("next", "region", 1, 50, 0, 0),
        ("inmost", "backward", 1, 5, 0, 0),
    ]
    assert sum(row.share for row in prof.summary()) == pytest.approx(1)
    assert prof.summary()[0].share == pytest.approx(80 / 185)
    assert [(t.device, t.thread, round(t.busy * 1e9), round(t.waiting * 1e9)) for t in prof.threads()] == [
        ("cpu:0", "helper", 50, 0),
        ("cpu:0", "main", 85, 15),
        ("host", "main", 50, 0),
    ]
    assert [row.name for row in prof.summary("name")] == ["in", "inmost", "next", "out"]
    assert [row.name for row in prof.summary("flops")][0] == [row.name for row in prof.summary("bytes")][0] == "in"
    ops, threads, total = (block.splitlines() for block in str(prof).split("\n\n"))
    assert ops[0].split() == "op phase calls time ms share GFLOP/s MB GB/s".split()
    assert ops[1].split() == "out forward 1 0.00 43.2%".split()
    assert ops[2].split() == "in forward 2 0.00 27.0% 1.0 0.0 1.8".split()
    assert threads[2].split() == "cpu:0 main 0.00 4.2% 0.00 0.8%".split()
    assert total == ["from beginning to end 0.00 ms"]
    with pytest.raises(ArgumentError, match="sort must be time, calls, flops, bytes or name, got 'size'"):
        prof.table("size")


def test_pieces_of_split_are_the_op_on_another_thread():
    minigrad.set_num_threads(2, "cpu:0")
    x = leaf(4)
    with profile() as prof:
        apply(Halves(), x)
    mine, piece = sorted((e for e in prof.events if e.name == "halves"), key=lambda e: e.piece)
    nap = next(e for e in prof.events if e.name == "nap")
    wait = next(e for e in prof.events if e.phase == "waiting")
    assert (mine.piece, piece.piece) == (False, True)
    assert mine.thread[0] == wait.thread[0] == threading.get_ident()
    assert piece.thread == nap.thread != mine.thread
    assert (wait.name, wait.device) == ("other threads", "cpu:0")
    assert wait.end - wait.start > LONG * 1e9
    row = rows(prof)["halves", "forward"]
    assert row.calls == 1
    length = {e: e.end - e.start for e in (mine, piece, nap, wait)}
    assert row.time * 1e9 == pytest.approx(length[mine] - length[wait] + length[piece] - length[nap])
    busy = {t.thread: t.busy for t in prof.threads()}
    assert busy[piece.thread[1]] * 1e9 == pytest.approx(length[piece])  # with the nap inside
    assert busy[mine.thread[1]] * 1e9 == pytest.approx(length[mine] - length[wait])


def test_two_devices_are_two_processes_and_waiting_shows(tmp_path):
    x = [leaf(3, device=name) for name in ("cpu:0", "cpu:1")]
    with profile(trace=tmp_path / "trace.json") as prof:
        y, z = on_devices(["cpu:0", "cpu:1"], lambda t: apply(Nap(LONG, 0), t), x)
        late = apply(Nap(0, LONG), y.to("cpu:1"))  # on the way back, y's device has to wait for it
        (late + z).sum().backward()
    waits = defaultdict(float)
    for e in prof.events:
        if e.phase == "waiting":
            waits[e.name, e.device] += (e.end - e.start) / 1e9
    assert waits["gradient of another device", "cpu:0"] > LONG / 4
    assert waits["devices", "host"] > LONG
    threads = {t.device: t for t in prof.threads() if t.device == "host" or t.thread != "MainThread"}
    assert threads["host"].busy == 0
    assert threads["host"].waiting == pytest.approx(waits["devices", "host"])
    assert threads["cpu:0"].waiting == pytest.approx(waits["gradient of another device", "cpu:0"])
    assert threads["cpu:0"].wall == prof.wall > 2 * LONG
    assert threads["cpu:0"].busy >= LONG and threads["cpu:1"].busy >= 2 * LONG
    entries = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    processes = {e["pid"]: e["args"]["name"] for e in entries if e["name"] == "process_name"}
    assert sorted(processes.values()) == ["cpu:0", "cpu:1", "host"]
    naps = {(processes[e["pid"]], e["tid"]) for e in entries if e["name"] == "nap" and e["cat"] == "backward"}
    assert len({tid for _, tid in naps}) == 2 and {name for name, _ in naps} == {"cpu:0", "cpu:1"}


# ---------------------------------------------------------------- the trace


def test_trace_is_json_whose_events_nest(tmp_path):
    minigrad.set_num_threads(2, "cpu:0")
    x = leaf(4)
    with profile() as prof:
        apply(Around(), apply(Halves(), x)).sum().backward()
    prof.save_trace(str(tmp_path / "trace.json"))
    content = json.loads((tmp_path / "trace.json").read_text())
    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in content["traceEvents"] if e["name"] == "thread_name"}
    assert threading.current_thread().name in names.values()
    lanes = defaultdict(list)
    for e in content["traceEvents"]:
        if e["ph"] == "X":
            start = round(e["ts"] * 1e3)
            lanes[e["pid"], e["tid"]].append((start, start + round(e["dur"] * 1e3)))
            assert e["cat"] in ("forward", "backward", "piece", "waiting", "region")
    assert set(lanes) == set(names) and len(lanes) == 2
    for stretches in lanes.values():
        open_ = []
        for start, end in sorted(stretches, key=lambda s: (s[0], -s[1])):
            while open_ and open_[-1] <= start:
                open_.pop()
            assert not open_ or end <= open_[-1]
            open_.append(end)
    total = sum(len(stretches) for stretches in lanes.values())
    assert total == len(prof.events) == sum(e["ph"] == "X" for e in content["traceEvents"])
    around = next(e for e in content["traceEvents"] if e["name"] == "around" and e["cat"] == "forward")
    assert around["args"] == {"phase": "forward", "shapes": [[4]], "flops": 0, "bytes": 64}
    assert [e["name"] for e in content["traceEvents"] if e.get("cat") == "piece"] == ["halves"]
    source = next(e for e in prof.events if e.name == "around" and e.phase == "forward")
    assert (around["ts"], around["dur"]) == (source.start / 1000, (source.end - source.start) / 1000)
    assert 0 <= source.start < source.end <= prof.wall * 1e9


# ---------------------------------------------------------------- on and off


def test_off_ops_are_called_by_the_engine_itself():
    assert tracing.recorder is None
    Caller.seen.clear()
    apply(Caller(), leaf(2)).sum().backward()
    assert Caller.seen == ["minigrad.tensor", "minigrad.engine"]
    with profile():
        apply(Caller(), leaf(2)).sum().backward()
    assert Caller.seen[2:] == ["minigrad.tools.tracing", "minigrad.tools.tracing"]
    assert tracing.region("a") is tracing.region("b", "cpu:0") is tracing.waited("c")
    assert tracing.pieces(len, "cpu:0") is len


def test_nothing_is_recorded_outside_the_block():
    F.relu(leaf(2))
    with profile() as prof:
        F.relu(leaf(2))
        assert tracing.recorder is not None
    F.relu(leaf(2)).sum().backward()
    assert tracing.recorder is None
    assert [e.name for e in prof.events] == ["relu"]


def test_an_error_ends_the_recording_and_leaves_what_was_recorded(tmp_path):
    with pytest.raises(ZeroDivisionError):
        with profile(trace=tmp_path / "trace.json") as prof:
            F.relu(leaf(2))
            with tracing.region("begun"):
                apply(Broken(), leaf(2))
    assert tracing.recorder is None
    assert set(rows(prof)) == {("relu", "forward"), ("begun", "region")}
    assert prof.wall > 0 and "relu" in str(prof)
    assert len(json.loads((tmp_path / "trace.json").read_text())["traceEvents"]) == 2 + 2 + 2  # two processes
    with profile() as again:
        F.tanh(leaf(2))
    assert [e.name for e in again.events] == ["tanh"]


def test_work_after_an_op_or_region_is_not_charged_to_it():
    with profile() as prof:
        with tracing.region("over"):
            pass
        with pytest.raises(ZeroDivisionError):
            apply(Broken(), leaf(2))
        minigrad.set_num_threads(2, "cpu:0")
        split(minigrad.device("cpu:0"), 2, lambda start, stop: None)
    found = {(e.name, e.phase, e.piece) for e in prof.events if e.phase != "waiting"}
    assert found == {("over", "region", False), ("split", "region", True)}


def test_waits_too_short_to_matter_are_left_out(monkeypatch):
    monkeypatch.setattr(tracing, "SHORTEST_WAIT", LONG * 1e9 / 2)
    with profile() as prof:
        with tracing.waited("a free lock"):
            pass
        with tracing.waited("a nap"):
            time.sleep(LONG)
    assert [e.name for e in prof.events] == ["a nap"]


def test_profiles_do_not_nest():
    with profile() as prof:
        with pytest.raises(ArgumentError, match="profile: a profile is being recorded already.*end the outer first"):
            with profile():
                pass
        F.relu(leaf(2))
    assert [e.name for e in prof.events] == ["relu"]


def test_a_trace_needs_a_folder(tmp_path):
    with pytest.raises(ArgumentError, match="profile: .*there is no folder .*missing: make it first"):
        with profile(trace=tmp_path / "missing" / "trace.json"):
            raise AssertionError("never gets here")
    assert tracing.recorder is None


def test_a_profile_can_be_read_at_any_time():
    assert str(Profile()).startswith("op ")
    with profile() as prof:
        assert prof.summary() == []
        F.relu(leaf(2))
        assert "relu" in str(prof)


def test_gradients_have_the_same_bits_with_and_without():
    def gradients():
        minigrad.manual_seed(1)
        x, w, v = leaf(6, 2, 9, 9), leaf(3, 2, 3, 3), leaf(4, 3 * 49)
        y = F.dropout(F.relu(F.conv2d(x, w)), 0.5, training=True)
        F.cross_entropy(F.linear(y.flatten(1), v), [0, 1, 2, 3, 0, 1]).backward()
        return [t.grad.numpy().tobytes() for t in (x, w, v)]

    plain = gradients()
    with profile():
        assert gradients() == plain


def test_no_event_holds_an_array():
    with profile() as prof:
        F.linear(leaf(2, 3), leaf(4, 3)).sum().backward()

    def kinds(value):
        return set().union(*map(kinds, value)) if isinstance(value, tuple) else {type(value)}

    assert set().union(*map(kinds, prof.events)) == {str, int, bool}
