"""Checkpoints: round trips, other tools' files, atomic saves, files that are not checkpoints."""

import os

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from minigrad import CheckpointError, Tensor, checkpoint, nn


def arrays():
    random = np.random.default_rng(0)
    return {
        "weight": random.standard_normal((3, 4)).astype(np.float32),
        "double": random.standard_normal(5),
        "count": np.array(7),
        "empty": np.zeros((0, 3), np.float32),
        "flags": np.array([True, False]),
        "bytes": np.arange(5, dtype=np.uint8),
    }


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype and a[name].shape == b[name].shape, name
        np.testing.assert_array_equal(a[name], b[name])


def test_round_trip(tmp_path):
    metadata = {
        "name": "tiny",
        "epoch": 3,
        "rates": [0.1, 1e-5],
        "nested": {"a": None, "b": True},
        "digits": "3",
    }
    checkpoint.save(tmp_path / "a.safetensors", arrays(), metadata)
    loaded, meta = checkpoint.load(tmp_path / "a.safetensors")
    same(loaded, arrays())
    assert meta == metadata
    checkpoint.save(str(tmp_path / "b"), arrays())
    loaded, meta = checkpoint.load(str(tmp_path / "b"))
    same(loaded, arrays())
    assert meta == {} and sorted(os.listdir(tmp_path)) == ["a.safetensors", "b"]


def test_tensors_and_odd_memory(tmp_path):
    x = np.arange(24.0).reshape(2, 3, 4)
    given = {
        "turned": x.T,
        "gaps": x[:, ::2],
        "backwards": x[::-1],
        "swapped": x.astype(">f8"),
        "tensor": Tensor(x),
    }
    checkpoint.save(tmp_path / "a", given)
    loaded, _ = checkpoint.load(tmp_path / "a")
    for name, value in given.items():
        np.testing.assert_array_equal(loaded[name], np.asarray(value), err_msg=name)
        loaded[name] += 1  # writable


def test_a_model_and_other_tools(tmp_path):
    model, other = (nn.Sequential(a=nn.Linear(3, 4), b=nn.Linear(4, 2)) for _ in range(2))
    checkpoint.save(tmp_path / "m", model.state_dict(), {"format": "pt"})
    same(load_file(tmp_path / "m"), model.state_dict())
    other.load_state_dict(checkpoint.load(tmp_path / "m")[0])
    same(other.state_dict(), model.state_dict())
    save_file(arrays(), tmp_path / "theirs", {"made": "elsewhere"})
    loaded, meta = checkpoint.load(tmp_path / "theirs")
    same(loaded, arrays())
    assert meta == {"made": "elsewhere"}


@pytest.mark.parametrize("where", ["save_file", "os.replace", "os.fsync"])
def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch, where):
    path = tmp_path / "a"
    checkpoint.save(path, arrays(), {"epoch": 1})

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(f"minigrad.checkpoint.{where}", fail)
    with pytest.raises(CheckpointError, match="checkpoint: cannot write .*a: disk full"):
        checkpoint.save(path, {"weight": np.zeros(3)}, {"epoch": 2})
    monkeypatch.undo()
    loaded, meta = checkpoint.load(path)
    same(loaded, arrays())
    assert meta == {"epoch": 1} and os.listdir(tmp_path) == ["a"]


def test_an_interrupted_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a"
    checkpoint.save(path, arrays())

    def interrupted(given, name, metadata):
        with open(name, "wb") as file:
            file.write(b"half of")
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(path, {})
    same(checkpoint.load(path)[0], arrays())
    assert os.listdir(tmp_path) == ["a"]


def test_nowhere_to_write(tmp_path):
    with pytest.raises(CheckpointError, match="cannot write .*missing"):
        checkpoint.save(tmp_path / "missing" / "a", arrays())


def test_refused_values(tmp_path):
    for value in (np.array(["text"]), np.array([1 + 2j]), np.array([None])):
        with pytest.raises(CheckpointError, match="'bad' must be an array of numbers, got"):
            checkpoint.save(tmp_path / "a", {"bad": value})
    with pytest.raises(CheckpointError, match="metadata must be what JSON can hold"):
        checkpoint.save(tmp_path / "a", {}, {"model": object()})
    with pytest.raises(CheckpointError, match="metadata keys must be strings"):
        checkpoint.save(tmp_path / "a", {}, {3: "x"})
    assert os.listdir(tmp_path) == []


def test_files_that_are_no_checkpoints(tmp_path):
    with pytest.raises(CheckpointError, match="there is no file .*nothing"):
        checkpoint.load(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="there is no file"):
        checkpoint.load(tmp_path)
    checkpoint.save(tmp_path / "good", arrays())
    whole = (tmp_path / "good").read_bytes()
    for name, content in {
        "cut": whole[:-5],
        "short": whole[:4],
        "empty": b"",
        "text": b"these are not the weights you are looking for" * 10,
        "header": whole[:20] + b"#" + whole[21:],
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=rf"{name} \({len(content)} bytes\) is no readable safetensors file"):
            checkpoint.load(tmp_path / name)
    save_file(arrays(), tmp_path / "foreign", {"minigrad.json": "{"})
    with pytest.raises(CheckpointError, match="is no readable safetensors file"):
        checkpoint.load(tmp_path / "foreign")
