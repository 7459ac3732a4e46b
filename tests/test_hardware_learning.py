"""The hardware check's training run: what it reads of ours, and that PyTorch's is the same training."""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from minigrad import device
from minigrad.cudasim.compiler import available
from minigrad.distributed import Comm
from minigrad.gpu.hardware_check import learning, steps
from minigrad.gpu.hardware_check.learning import Ran
from minigrad.gpu.hardware_check.report import Part

sys.path[:0] = [str(Path(__file__).parent.parent / folder) for folder in ("examples", "benchmarks")]

pytestmark = [
    pytest.mark.skipif(available() is not None, reason=str(available())),
    pytest.mark.cpu_only("brings its devices along"),
]

LOG = """split,epoch,step,images,lr,loss,top1,top5,images_per_s,data_s,compute_s\r
train,1,1,32,0.1,4,0,,1,1,5\r
train,1,2,32,0.1,3,0,,1,1,3\r
val,1,2,9,,7,0.5,0.6,,,\r
train,2,3,16,0.1,2,0,,1,1,3\r
"""


def test_what_a_run_s_folder_tells(tmp_path):
    (tmp_path / "log.csv").write_text(LOG, newline="")
    (tmp_path / "metrics.json").write_text('{"one_view": {"top1": 0.625}, "ten_views": {"top1": 0.75}}')
    ran = learning.read_run(tmp_path)
    assert ran == Ran([4.0, 3.0, 2.0], [1.0] * 3, [5.0, 3.0, 3.0], [32, 32, 16], 0.625)
    assert ran.cells() == ("4 3 2", "62.5%", "6", "25%")  # without the first step: 48 images in 8 s, 2 of them waiting
    many = Ran([1.0] * 8 + [3.0] * 8, [0.0] * 16, [1.0] * 16, [1] * 16, 1.0)
    assert many.cells()[0] == "1 1 1 1 3 3 3 3"


def test_a_run_that_fails_is_a_row_and_the_other_s_follows(monkeypatch, tmp_path):
    monkeypatch.setattr(learning, "_torch", lambda *_: iter([("theirs", "", "", "")]))
    part = Part("Part")
    learning.learn(part, [device("cudasim:0")], tmp_path / "nothing here", 1)
    assert part.lines[-2].startswith("| minigrad | **failed**: examples/alexnet_imagenet.py ended with 2: ")
    assert "nothing here" in part.lines[-2] and part.lines[-1].startswith("| PyTorch eager | theirs |")
    assert len(part.failures) == 1


def test_on_the_emulator_it_is_a_few_pictures(monkeypatch):
    seen = []
    monkeypatch.setattr(learning, "_main_job", lambda root, command: seen.append(list(command)) or [])
    monkeypatch.setattr(learning, "_torch", lambda where, command: seen.append(where) or [])
    part = Part("Part")
    learning.learn(part, [device("cudasim:0"), device("cudasim:1")], None, 3)
    assert part.failures == [] and seen[1] == "cpu" and "EMULATED" in part.lines[0]
    assert seen[0][:2] == ["--devices", "cudasim:0,cudasim:1"] and "--steps" in seen[0]
    assert "--data DIR`" in " ".join(part.lines) and seen[0][-1] not in " ".join(part.lines)


def test_an_installation_without_examples_says_so(monkeypatch):
    monkeypatch.setattr(steps, "checkout", lambda: None)
    part = Part("Part")
    learning.learn(part, [device("cudasim:0")], None, 1)
    assert part.lines == [steps.NO_CLONE]


def test_pytorch_s_run_is_ours(monkeypatch, tmp_path):
    """The same losses, step by step, where nothing is dropped; and the same answers at the end."""
    pytest.importorskip("torch")
    import alexnet
    import alexnet_imagenet
    import alexnet_options

    narrow = partial(alexnet.AlexNet, widths=(2, 4, 4, 4, 2, 8, 8))
    monkeypatch.setattr(alexnet, "AlexNet", narrow)
    monkeypatch.setattr(alexnet_imagenet, "AlexNet", narrow)
    recipe = replace(alexnet_options.RECIPES["trainable"], dropout=0.0, lr=0.01, weight_decay=0.3)
    monkeypatch.setitem(alexnet_options.RECIPES, "trainable", recipe)
    data = learning.few_pictures(tmp_path / "data")
    command = ["--data", str(data), "--devices", "cpu:0", "--batch-size", "4", "--epochs", "2", "--no-figures"]
    options = alexnet_options.parse([*command, "--out", str(tmp_path), "--name", "run"])
    alexnet_imagenet.minigrad.manual_seed(options.seed)
    alexnet_imagenet.train(options, Comm())
    ours = learning.read_run(tmp_path / "run")
    theirs = learning.torch_run(alexnet_options.parse(command), "cpu")
    assert len(set(ours.losses)) == 6 and ours.images == theirs.images == [4] * 6
    np.testing.assert_allclose(theirs.losses, ours.losses, rtol=2e-3)
    assert theirs.top1 == ours.top1


@pytest.mark.slow
def test_both_runs_on_the_emulator():
    part = Part("Part")
    learning.learn(part, [device("cudasim:0")], None, 1)
    assert part.failures == [] and len([line for line in part.lines if line.endswith("% |")]) == 2
