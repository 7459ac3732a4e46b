"""A net that is saved comes back; files that do not fit are refused, with their names and what is wrong."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minigrad import CheckpointError, DataError, checkpoint
from minigrad.data import IMAGENET_PCA, ImageStats

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "examples"))
import command_line  # noqa: E402
import trained  # noqa: E402
from alexnet import AlexNet  # noqa: E402
from trained import PREPARATION, WEIGHTS, Trained  # noqa: E402

Narrow = functools.partial(AlexNet, widths=(6, 8, 12, 12, 8, 40, 40))
NAMES = ["ape", "bee", "Käfer"]


@pytest.fixture(autouse=True)
def narrow_net(monkeypatch):
    monkeypatch.setattr(trained, "AlexNet", Narrow)


@pytest.fixture(scope="module")
def net():
    random = np.random.default_rng(0)
    image = random.uniform(0, 255, (256, 256, 3)).astype(np.float32)
    stats = ImageStats(image, image.mean((0, 1)), IMAGENET_PCA, 5, 7, 3)
    return Trained(Narrow(3, "paper", ["cpu:0", "cpu:1"]), "paper", NAMES, stats)


@pytest.fixture
def run(net, tmp_path):
    net.save(tmp_path)
    return tmp_path


def restored(folder, preset="trainable"):
    return Trained.restore(folder / WEIGHTS, preset, ["cpu:0"])


def rewrite(run, facts=None, **arrays):
    state, metadata = checkpoint.load(run / WEIGHTS)
    checkpoint.save(run / WEIGHTS, {**state, **arrays}, {**metadata, **(facts or {})})


def test_a_net_comes_back(net, run):
    assert sorted(os.listdir(run)) == [PREPARATION, WEIGHTS]
    back = restored(run)
    assert back.classes == NAMES and back.preset == "paper" and back.device == "cpu:0"
    assert np.array_equal(back.stats.mean_image, net.stats.mean_image)
    for name, array in net.model.state_dict().items():
        assert np.array_equal(back.model.state_dict()[name], array), name


def test_weights_alone_will_do(net, run, capsys):
    (run / PREPARATION).unlink()
    assert np.array_equal(restored(run).stats.mean_image, net.stats.mean_rgb)
    assert "no preparation.npz beside the weights" in capsys.readouterr().out
    checkpoint.save(run / WEIGHTS, net.model.state_dict())  # from elsewhere: no metadata at all
    back = restored(run)
    assert back.classes == ["class 0", "class 1", "class 2"] and back.preset == "trainable"
    assert back.stats.mean_image == pytest.approx([127.305, 119.715, 104.913])


def test_metadata_in_either_form_and_more_of_it(net, run):
    facts = {"classes": ["a", "b", "c"], "mean_rgb": [1, 2.5, 3], "made": {"by": "somebody"}}
    checkpoint.save(run / WEIGHTS, net.model.state_dict(), facts)
    (run / PREPARATION).unlink()
    back = restored(run)
    assert back.classes == ["a", "b", "c"] and back.stats.mean_rgb.tolist() == [1, 2.5, 3]


@pytest.mark.parametrize(
    "facts, message",
    [
        ({"classes": "dog"}, "classes in its metadata must be a list of 3 names, as fc8.weight has 3 rows, got 'dog'"),
        ({"classes": '["a", "b"]'}, "must be a list of 3 names"),
        ({"classes": '["a", "b", 3]'}, "must be a list of 3 names"),
        ({"classes": '{"a": 1, "b": 2, "c": 3}'}, "must be a list of 3 names"),
        ({"classes": {"a": 1, "b": 2, "c": 3}}, "must be a list of 3 names"),
        ({"classes": "[]"}, "must be a list of 3 names"),
        ({"classes": 3}, "must be a list of 3 names"),
        ({"classes": "[" * 100_000}, "must be a list of 3 names"),
        ({"classes": ["long name"] * 100_000}, "must be a list of 3 names"),
        (
            {"preset": "best"},
            "preset in its metadata must be one of paper, original, trainable, torchvision, got 'best'",
        ),
        ({"preset": ["paper"]}, "preset in its metadata must be"),
        ({"mean_rgb": "[1, 2]"}, "mean_rgb in its metadata must be three numbers"),
        ({"mean_rgb": "[1, 2, NaN]"}, "must be three numbers"),
        ({"mean_rgb": "[1, 2, 1e999]"}, "must be three numbers"),
        ({"mean_rgb": '[1, 2, "3"]'}, "must be three numbers"),
        ({"mean_rgb": "[1, 2, true]"}, "must be three numbers"),
        ({"mean_rgb": "1"}, "must be three numbers"),
        ({"mean_rgb": "grey"}, "must be three numbers"),
    ],
)
def test_metadata_that_does_not_fit(run, facts, message):
    rewrite(run, facts)
    with pytest.raises(CheckpointError, match=f"^{run / WEIGHTS}: .*{message}") as caught:
        restored(run)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"fc8.weight": np.ones((3, 7), np.float32)}, r"wrong shape: fc8.weight is \(3, 7\), the model has \(3, 80\)"),
        ({"fc8.weight": np.ones(3, np.float32)}, r"fc8.weight must be \(classes, 4096\), it is \(3,\)"),
        ({"fc8.weight": np.float32(3)}, r"fc8.weight must be \(classes, 4096\), it is \(\)"),
        ({"fc8.weight": np.ones((1 << 16, 0), np.float32)}, r"fc8.weight must be \(classes, 4096\)"),
        ({"conv1.bias": np.ones(12, np.int64)}, "wrong type: conv1.bias is int64, the model has float32"),
        ({"conv1.bias": np.full(12, np.nan, np.float32)}, "conv1.bias holds NaN or infinity, as 1 of 16 arrays do"),
        ({"more\x1b[31m": np.ones(3)}, r"unexpected: more\\x1b\[31m \(3,\)"),
    ],
)
def test_weights_that_do_not_fit(run, arrays, message):
    rewrite(run, {"classes": NAMES}, **arrays)
    with pytest.raises(CheckpointError, match=rf"^{run / WEIGHTS}: (.|\n)*{message}"):
        restored(run)


def test_other_weights_are_no_alexnet(tmp_path):
    checkpoint.save(tmp_path / WEIGHTS, {"classifier.6.weight": np.ones((3, 4))})
    with pytest.raises(CheckpointError, match="no AlexNet weights: there is no fc8.weight among"):
        restored(tmp_path)


def test_a_preparation_that_does_not_fit(net, run):
    ImageStats(net.stats.mean_image[1:], net.stats.mean_rgb, IMAGENET_PCA, 5, 7, 3).save(run / PREPARATION)
    with pytest.raises(
        DataError, match=rf"{PREPARATION}: the mean image must be \(256, 256, 3\).* it is \(255, 256, 3"
    ):
        restored(run)
    (run / PREPARATION).write_bytes(b"garbage")
    with pytest.raises(DataError, match=f"{PREPARATION}' is damaged"):
        restored(run)
    (run / PREPARATION).unlink()
    (run / PREPARATION).mkdir()
    with pytest.raises(DataError, match=f"there is no file .*{PREPARATION}"):
        restored(run)


def test_the_next_run_removes_what_killed_runs_have_left(tmp_path):
    earlier = tmp_path / "demo-001"
    earlier.mkdir()
    keep = {"weights.safetensors", "log.csv", "notes.0123456789ab.tmp"}
    for name in (*keep, *(f"{name}.0123456789ab.tmp" for name in command_line.FILES)):
        (earlier / name).write_text("x")
    for name in (".tmpAb3dEf", f"{WEIGHTS}.4711.tmp"):  # as earlier versions named them
        (earlier / name).write_text("x")
        os.utime(earlier / name, (0, 0))
    assert command_line.new_folder(tmp_path, None, "demo") == tmp_path / "demo-002"
    assert {path.name for path in earlier.iterdir()} == keep


def main(arguments, **environment):
    """The main job in a process of its own."""
    return subprocess.run(
        [sys.executable, ROOT / "examples" / "alexnet_imagenet.py", "--no-figures", "--tiny", *arguments],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("no folder")
    done = main(["--out", str(tmp_path / "runs")], XDG_CACHE_HOME=str(tmp_path / "file"))
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "demo-tiny: Not a directory: a file lies where a folder is needed" in done.stderr
    assert "set XDG_CACHE_HOME to a folder that can be written to, or give pictures of your own" in done.stderr


def test_saved_metadata_is_text_for_any_tool(run):
    facts = checkpoint.load(run / WEIGHTS)[1]
    assert set(facts) == {"classes", "preset", "mean_rgb"} and json.loads(facts["classes"]) == NAMES
