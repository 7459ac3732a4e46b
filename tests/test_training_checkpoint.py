"""Trainings on disk: they go on bit for bit, whole or not at all, and what cannot be used is refused with a reason."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import minigrad
import minigrad.functional as F
from minigrad import ArgumentError, CheckpointError, Tensor, checkpoint, nn, optim
from minigrad.checkpoint import Checkpoints
from minigrad.checkpoint import training as of_training

pytest.importorskip("safetensors", reason="safetensors: pip install safetensors")


class Net(nn.Module):
    def __init__(self):
        self.first, self.drop, self.last = nn.Linear(7, 11), nn.Dropout(0.5), nn.Linear(11, 3)

    def forward(self, x):
        return self.last(self.drop(F.relu(self.first(x))))


class Everything:
    """A training in small: dropout, momentum, a schedule, numbers of the program's own."""

    def __init__(self, seed=5, rule=optim.SGD, **settings):
        minigrad.manual_seed(seed)
        self.model = Net()
        self.optimizer = rule(self.model.parameters(), lr=0.1, **settings)
        self.schedule = optim.WarmupCosine(self.optimizer, 3, 20)
        self.random = np.random.default_rng(seed)

    def run(self, steps):
        losses = []
        for _ in range(steps):
            x = Tensor(self.random.standard_normal((4, 7)).astype("f"))
            self.optimizer.zero_grad()
            loss = F.cross_entropy(self.model(x), self.random.integers(0, 3, 4))
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            losses.append(loss.item())
        return losses

    @property
    def objects(self):
        return {"model": self.model, "optimizer": self.optimizer, "schedule": self.schedule, "random": self.random}

    def bits(self):
        state = self.model.state_dict() | self.optimizer.state_dict()["arrays"]
        return {name: array.tobytes() for name, array in state.items()}, minigrad.get_rng_state()


@pytest.mark.parametrize("rule, settings", [(optim.SGD, {"momentum": 0.9, "weight_decay": 0.1}), (optim.Adam, {})])
def test_a_training_goes_on_bit_for_bit(tmp_path, rule, settings):
    one = Everything(rule=rule, **settings)
    one.run(4)
    checkpoint.save_training(tmp_path / "t", **one.objects, step=4, seen=[0.1, None, "x"], table={"a": np.arange(3)})
    assert json.dumps(minigrad.get_rng_state()) and one.schedule is not None
    expected, end = one.run(6), one.bits()

    other = Everything(seed=8, rule=rule, **settings)  # other weights, other numbers, another step
    other.run(1)
    values = checkpoint.load_training(tmp_path / "t", **other.objects)
    assert values["step"] == 4 and values["seen"] == [0.1, None, "x"] and values["table"]["a"].tolist() == [0, 1, 2]
    assert minigrad.initial_seed() == 5
    assert other.run(6) == expected and other.bits() == end


def test_generators_of_devices_that_are_made_later(tmp_path):
    code = (
        "import minigrad as m, json, sys; m.manual_seed(3); {}"
        "print([m.device(d).generator.random() for d in ('cpu:0', 'cpu:3', 'textbook:0')])"
    )
    save = "[m.device(d).generator.random() for d in ('cpu:0', 'cpu:3')]; "
    save += "json.dump(m.get_rng_state(), open(sys.argv[1], 'w')); "
    load = "m.manual_seed(9); m.device('cpu:0'); m.set_rng_state(json.load(open(sys.argv[1]))); "
    told = [
        subprocess.run([sys.executable, "-c", code.format(what), str(tmp_path / "s")], capture_output=True, text=True)
        for what in (save, load)
    ]
    assert told[0].stdout == told[1].stdout and told[0].stdout.count(",") == 2, told


def test_the_state_of_generators_is_checked():
    before = minigrad.get_rng_state()
    other = {"bit_generator": "PCG64", "state": {}}
    for bad in (
        {},
        None,
        {"seed": -1, "devices": {}},
        {"seed": True, "devices": {}},
        {"seed": 3, "devices": {"cpu:0": 4}},
        {"seed": 3, "devices": {"cpu:0": other}},
    ):
        with pytest.raises(ArgumentError, match="set_rng_state: expected what get_rng_state"):
            minigrad.set_rng_state(bad)
        assert minigrad.get_rng_state() == before
    minigrad.set_rng_state(before)


def test_trees_come_back(tmp_path):
    values = {
        "array": np.float32([1, 2]), "text": "h\u00e9", "none": None, "number": np.int64(2**40), "flag": np.bool_(True),
        "far": [float("inf"), -0.0], "looks": {"array": "like one"}, "tree": {"tree": {"array": 3}},
        "slash": {"a": {"b": np.zeros(1)}, "a/b": np.ones(2)}, "empty": {}, "tensor": Tensor([3.0]), "pair": (1, (2,)),
    }  # fmt: skip
    checkpoint.save_training(tmp_path / "t", **values)
    back = checkpoint.training_values(tmp_path / "t")
    assert back.keys() == values.keys()
    assert back["looks"] == values["looks"] and back["tree"] == values["tree"] and back["pair"] == [1, [2]]
    assert back["far"] == values["far"] and str(back["far"][1]) == "-0.0" and back["flag"] is True
    assert back["number"] == 2**40 and back["text"] == "h\u00e9" and back["empty"] == {} and back["none"] is None
    assert back["array"].tolist() == [1, 2] and back["tensor"].tolist() == [3]
    assert back["slash"]["a"]["b"].tolist() == [0] and back["slash"]["a/b"].tolist() == [1, 1]
    for bad in ({1: 2}, object(), {"deep": [object()]}, b"bytes", 1j):
        with pytest.raises(CheckpointError, match="save_training: bad"):
            checkpoint.save_training(tmp_path / "t", bad=bad)
    assert checkpoint.training_values(tmp_path / "t").keys() == values.keys()


def test_objects_that_do_not_fit_leave_all_as_it_was(tmp_path):
    one = Everything(momentum=0.9)
    one.run(2)
    checkpoint.save_training(tmp_path / "t", **one.objects)

    class Refuses:
        def state_dict(self):
            return {"n": self.n}

        def load_state_dict(self, state):
            if state["n"] != self.n:
                raise KeyError("no such thing")

        n = 2

    checkpoint.save_training(tmp_path / "u", **one.objects, last=Refuses())
    other, smaller = Everything(seed=2, momentum=0.9), nn.Linear(7, 11)
    other.run(3)
    before = other.bits()

    def refused(match, path="t", **objects):
        with pytest.raises(CheckpointError, match=match):
            checkpoint.load_training(tmp_path / path, **objects)
        assert other.bits() == before

    objects = other.objects
    refused("not given: optimizer", **{k: v for k, v in objects.items() if k != "optimizer"})
    refused("given, but not in it: more", **objects, more=other.random)
    refused("step must be an object", **objects, step=3)
    refused("schedule: ", **objects | {"schedule": optim.ReduceOnPlateau(other.optimizer)})
    refused("model: ", **objects | {"model": smaller})
    refused("random: .*PCG64 was expected|random: ", **objects | {"random": np.random.Generator(np.random.SFC64(1))})
    last = Refuses()
    last.n = 3  # the last object fails, when all the others have been loaded already
    refused("last: 'no such thing'", "u", **objects, last=last)


def test_files_that_are_no_training(tmp_path):
    checkpoint.save(tmp_path / "weights", {"w": np.ones(3)}, {"training": "hard"})
    with pytest.raises(CheckpointError, match="is no checkpoint of a training: .* 1 arrays.*checkpoint.load"):
        checkpoint.load_training(tmp_path / "weights")
    checkpoint.save_training(tmp_path / "t", epoch=1)
    arrays, metadata = checkpoint.load(tmp_path / "t")
    metadata["training"] |= {"format": of_training.FORMAT + 1, "minigrad": "9.0"}
    checkpoint.save(tmp_path / "newer", arrays, metadata)
    with pytest.raises(CheckpointError, match="was written by minigrad 9.0, in format 2; .*up to 1: install a newer"):
        checkpoint.load_training(tmp_path / "newer")
    whole = (tmp_path / "t").read_bytes()
    (tmp_path / "cut").write_bytes(whole[:-7])
    with pytest.raises(CheckpointError, match="cut"):
        checkpoint.load_training(tmp_path / "cut")
    metadata["training"] = {"format": 1}
    checkpoint.save(tmp_path / "poor", arrays, metadata)
    with pytest.raises(CheckpointError, match="objects, values or rng are missing"):
        checkpoint.load_training(tmp_path / "poor")


@pytest.mark.parametrize("number", range(1, of_training.FORMAT + 1))
def test_every_format_that_was_ever_written_is_read(number):
    """tests/formats has a small file of each; one of a new format is made by this file, run as a program."""
    path = Path(__file__).parent / "formats" / f"training-{number}.safetensors"
    one = Everything(seed=1, momentum=0.9)
    assert checkpoint.load_training(path, **one.objects) == {"step": 2, "note": "two steps", "rows": [[1, 2.5]]}
    assert minigrad.initial_seed() == 5
    assert sum(float(np.abs(a).sum()) for a in one.model.state_dict().values()) == pytest.approx(FORMATS[number], 1e-6)
    assert one.schedule.state_dict()["count"] == 2


def write_format(path):
    one = Everything(seed=5, momentum=0.9)
    one.run(2)
    checkpoint.save_training(path, **one.objects, step=2, note="two steps", rows=[(1, 2.5)])
    print(sum(float(np.abs(a).sum()) for a in one.model.state_dict().values()))


# ---------------------------------------------------------------- the last few, and the best


def test_the_last_few_and_the_best_are_kept(tmp_path):
    one, kept = Everything(momentum=0.9), Checkpoints(tmp_path / "kept", keep=2)
    assert kept.latest() is None
    with pytest.raises(CheckpointError, match="there is none in"):
        kept.load(**one.objects)
    bits = {}
    for step, score in [(1, 0.5), (2, None), (3, 0.8), (4, 0.8), (5, 0.1), (6, None)]:
        one.run(1)
        bits[step] = one.bits()
        path = kept.save(step, score=score, **one.objects)
        assert path == kept.latest()
    assert sorted(os.listdir(kept.folder)) == [
        "best.safetensors",
        "step-00000005.safetensors",
        "step-00000006.safetensors",
    ]
    assert kept.best == (0.8, 3)  # of equals, the first
    other, again = Everything(seed=4, momentum=0.9), Checkpoints(tmp_path / "kept", keep=2)
    assert again.load(kept.folder / "best.safetensors", **other.objects) == {"step": 3} and other.bits() == bits[3]
    assert again.load(**other.objects) == {"step": 6} and other.bits() == bits[6] and again.best == (0.8, 3)
    again.save(7, score=0.7, **other.objects)
    assert again.best == (0.8, 3)


def test_a_damaged_checkpoint_is_refused_and_the_one_before_it_offered(tmp_path):
    one, kept = Everything(momentum=0.9), Checkpoints(tmp_path)
    for step in (1, 2, 3):
        kept.save(step, **one.objects)
    whole = kept.path(3).read_bytes()
    for damaged in (whole[:100], whole[:-1], b"", b"not at all", whole[:-40] + b"!" + whole[-39:]):
        kept.path(3).write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"step-00000003.*The one before it can be read: .*step-00000002"):
            Checkpoints(tmp_path).load(**one.objects)
    kept.path(2).write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"The one before it can be read: .*step-00000001"):
        kept.load(**one.objects)
    kept.load(kept.path(1), **one.objects)
    kept.save(2, **one.objects)
    assert kept.latest() == kept.path(2)  # what was left behind is set aside, not removed
    assert kept.path(3).with_name("step-00000003.left.safetensors").read_bytes() == damaged
    for path in kept.all():
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"No other in .* can be read"):
        kept.load(**one.objects)


def test_a_best_that_was_not_named_in_time_is_named_by_who_goes_on(tmp_path):
    one, kept = Everything(momentum=0.9), Checkpoints(tmp_path)
    kept.save(1, score=0.1, **one.objects, n=1)
    first = (tmp_path / "best.safetensors").read_bytes()
    kept.save(2, score=0.2, **one.objects, n=2)
    (tmp_path / "best.safetensors").unlink()
    (tmp_path / "best.safetensors").write_bytes(first)  # as if the process had ended in between
    Checkpoints(tmp_path).load(**one.objects)
    assert checkpoint.training_values(tmp_path / "best.safetensors")["n"] == 2


def test_where_there_are_no_hard_links_the_best_is_a_copy(tmp_path, monkeypatch):
    def no(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", no)
    one, kept = Everything(), Checkpoints(tmp_path, keep=1)
    kept.save(1, score=1.0, **one.objects, n=1)
    kept.save(2, score=0.5, **one.objects, n=2)
    assert checkpoint.training_values(tmp_path / "best.safetensors")["n"] == 1
    assert not list(tmp_path.glob("*.tmp"))


def test_a_place_that_cannot_be_written(tmp_path):
    one = Everything()
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot make the folder .*file.*: a file lies where a folder is needed"):
        Checkpoints(tmp_path / "file").save(1, **one.objects)


KILLED = """
import sys
sys.path[:0] = [{tests!r}]
from test_training_checkpoint import Everything, Checkpoints
one, kept = Everything(momentum=0.9), Checkpoints({folder!r}, keep=2)
step = kept.load(**one.objects)["step"] if kept.latest() else 0
while step < 400:
    one.run(1)
    step += 1
    kept.save(step, score=step % 7, **one.objects)
"""


def test_kill_minus_9_loses_at_most_the_step_under_way(tmp_path):
    one = Everything(momentum=0.9)
    one.run(400)
    end, random, killed = one.bits(), np.random.default_rng(1), 0
    code = KILLED.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    for _ in range(60):
        process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
        begun = time.monotonic()
        while (
            killed < 6 and not list(tmp_path.glob("*.tmp")) and process.poll() is None and time.monotonic() - begun < 20
        ):
            pass  # until it is writing
        if killed < 6:
            time.sleep(random.uniform(0, 0.02))
            process.send_signal(signal.SIGKILL)
            killed += process.wait() == -signal.SIGKILL
        else:
            assert process.wait(60) == 0, process.stderr.read().decode()
            break
    assert killed == 6
    last = Everything(seed=1, momentum=0.9)
    assert Checkpoints(tmp_path).load(**last.objects)["step"] == 400 and last.bits() == end
    assert len(list(tmp_path.glob("*"))) == 3, "no leftovers"


FORMATS = {1: 40.30567392706871}  # the sum of the weights' sizes, as the program prints it

if __name__ == "__main__":
    write_format(sys.argv[1])
