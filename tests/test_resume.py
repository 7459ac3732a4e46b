"""Runs of the main job that are stopped, at any moment and in any way, and go on bit for bit."""

import errno
import functools
import hashlib
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from narrow import NARROW, coloured_classes, main, make_narrow, narrow_net  # noqa: F401

from minigrad import CheckpointError, checkpoint
from minigrad.base import files as files_module

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "examples"))
import alexnet_imagenet  # noqa: E402
import interruption  # noqa: E402
import run_folder  # noqa: E402

RUN = ["--no-figures", "--batch-size", "2", "--epochs", "3", "--lr", "0.001"]  # 4 steps an epoch

# The program with a narrow net; a checkpoint after every step, where asked for. Each forward pass and each save lasts
# some milliseconds longer than it must: who watches from outside, to stop it there, finds the moment on any machine.
PROGRAM = f"""
import sys
sys.path.insert(0, {str(ROOT / "examples")!r})
import interruption
interruption.begin()
import functools, os, time, alexnet_imagenet, trained, going_on
from alexnet import AlexNet
def later(function, seconds):
    return lambda *given: (time.sleep(seconds), function(*given))[1]
AlexNet.forward, os.fsync = later(AlexNet.forward, 0.03), later(os.fsync, 0.003)
for module in (alexnet_imagenet, trained):
    module.AlexNet = functools.partial(AlexNet, widths={NARROW})
interruption.finish(alexnet_imagenet.main)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three classes told apart by colour, and a file that cannot be read."""
    root = coloured_classes(tmp_path_factory.mktemp("images"), 3, 1, size=lambda i: (260, 258))
    (root / "train" / "bee" / "2.png").write_bytes(b"no picture")
    return root


def digests(arrays):
    """Of the arrays' bits: where they differ, pytest would compare megabytes byte by byte to tell it."""
    return {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in arrays.items()}


def end_of(run):
    """What must be equal at the end: weights, velocities, generators, scores, and the log but for its times."""
    last = checkpoint.Checkpoints(run / "checkpoints").latest()
    arrays, metadata = checkpoint.load(last)
    training = metadata["training"]
    weights, _ = checkpoint.load(run / "weights.safetensors")
    lines = (run / "log.csv").read_text().splitlines()
    return {
        "arrays": digests(arrays),
        "weights": digests(weights),
        "rng": {name: training["rng"]["devices"][name] for name in training["values"]["config"]["devices"]},
        "objects": training["objects"],
        "scores": {k: v for k, v in json.loads((run / "metrics.json").read_text()).items() if k != "training"},
        "log": [line.split(",")[:8] for line in lines],
        "best": training["values"]["best"],
    }


@functools.cache
def undisturbed(folder, devices, *more):
    """The end of a run that nobody stopped."""
    out = folder.parent / f"out-{devices.replace(',', '-').replace(':', '')}-{'-'.join(more)}"
    code = alexnet_imagenet.main(
        [*RUN, "--data", str(folder), "--devices", devices, "--out", str(out), "--name", "r", *more]
    )
    assert code == 0
    return end_of(out / "r")


def process(*arguments, **more):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **more,
    )


@pytest.mark.parametrize("steps, devices", [(1, "cpu:0,cpu:1"), (5, "cpu:0"), (7, "cpu:0,cpu:1")])
def test_a_run_that_is_interrupted_goes_on_bit_for_bit(folder, tmp_path, capsys, monkeypatch, steps, devices):
    """Ctrl-C in the middle of a step, when dropout has drawn its numbers."""
    real, count = alexnet_imagenet.train_epoch, []

    def interrupted(model, batches, *args, **kwargs):
        forward = type(model).forward

        def and_then(self, x):
            y = forward(self, x)
            count.append(1)
            if len(count) == steps + 1:
                signal.raise_signal(signal.SIGINT)
            return y

        with monkeypatch.context() as patch:
            patch.setattr(type(model), "forward", and_then)
            return real(model, batches, *args, **kwargs)

    run = tmp_path / "r"
    with monkeypatch.context() as patch:
        patch.setattr(alexnet_imagenet, "train_epoch", interrupted)
        code, out, err = main(capsys, *RUN, "--data", folder, "--devices", devices, "--out", tmp_path, "--name", "r")
    assert code == 130 and f"after {steps} of 12 steps" in out, out + err
    code, out, err = main(capsys, "--resume", run, "--workers", 3)
    assert code == 0, err
    assert f"going on after step {steps} of 12, in epoch {(steps - 1) // 4 + 1 if steps % 4 else steps // 4}" in out
    assert "changed: --workers 3, it was 2" in out
    assert end_of(run) == undisturbed(folder, devices)
    assert not (run / "lock").exists()


def moment(kind, run, random):
    """A function that tells whether it is time to kill a process that trains in `run`: see KINDS."""
    begin, pause, log = time.monotonic(), random.uniform(0, 1.5), run / "log.csv"

    def rows(split):
        return log.read_text().count(f"\n{split},") if log.exists() else 0

    before = {split: rows(split) for split in ("train", "val")}
    if kind == "saving":
        return lambda: any((run / "checkpoints").glob("*.tmp"))
    if kind == "a step later":
        return lambda: rows("train") != before["train"]
    if kind == "testing":  # an epoch is at its end, and the row of its test is not yet there
        return lambda: rows("train") > before["train"] and rows("train") % 4 == 0
    # Importing, reading data, or in the first steps: not after many, or a fast machine comes to the end too soon.
    return lambda: time.monotonic() - begin > pause or rows("train") > before["train"] + 5


KINDS = "saving", "a step later", "testing", "at any time"


def watch(child, there):
    """Until it is time, or the child has ended."""
    while child.poll() is None and not there():
        time.sleep(0.001)


def killed_and_resumed(run, first, kills, random):
    """Start a run and kill -9 it that many times, at moments of all kinds; it goes on each time."""
    for number in range(kills):
        begun = (run / "config.json").exists()
        child = process(*(["--resume", run] if begun else first), "--checkpoint-minutes", 0.001)
        watch(child, moment(KINDS[number % len(KINDS)], run, random))
        time.sleep(random.uniform(0, 0.02))
        child.kill()
        said = child.communicate()[0]
        assert child.returncode == -signal.SIGKILL, f"{said}\nkill {number} came too late"


@pytest.mark.parametrize(
    "kills, devices",
    [
        (len(KINDS), "cpu:0,cpu:1"),
        pytest.param(50, "cpu:0,cpu:1", marks=pytest.mark.slow),
        pytest.param(50, "cpu:0", marks=pytest.mark.slow),
    ],
)
def test_kill_minus_9(folder, tmp_path, capsys, kills, devices):
    run, long = tmp_path / "r", ["--epochs", str(5 + kills), "--lr", "0.0003"]  # with a higher one, it diverges
    first = [*RUN, *long, "--data", folder, "--devices", devices, "--out", tmp_path, "--name", "r"]
    killed_and_resumed(run, first, kills, np.random.default_rng(kills))
    code, _, err = main(capsys, "--resume", run)
    assert code == 0, err
    assert end_of(run) == undisturbed(folder, devices, *long)
    assert not [path.name for path in run.rglob("*") if "tmp" in path.name or path.name == "lock"]


def test_a_run_that_accumulates_goes_on_in_the_middle_of_an_epoch(folder, tmp_path, capsys, monkeypatch):
    """Two batches a step: the first of the fourth step's is done again."""
    real, count = alexnet_imagenet.train_epoch, []

    def interrupted(model, batches, *args, **kwargs):
        def until_ctrl_c():
            for batch in batches:
                count.append(1)
                if len(count) == 4 + 4:
                    signal.raise_signal(signal.SIGINT)
                yield batch

        return real(model, until_ctrl_c(), *args, **kwargs)

    more = ["--accumulate", "2"]
    with monkeypatch.context() as patch:
        patch.setattr(alexnet_imagenet, "train_epoch", interrupted)
        where = ["--data", folder, "--devices", "cpu:0", "--out", tmp_path, "--name", "r"]
        code, out, err = main(capsys, *RUN, *more, *where)
    assert code == 130 and "Stopped after 3 of 6 steps" in out, out + err
    code, out, err = main(capsys, "--resume", tmp_path / "r")
    assert code == 0 and "going on after step 3 of 6" in out, err
    assert end_of(tmp_path / "r") == undisturbed(folder, "cpu:0", *more)


def test_signals_keep_the_training(folder, tmp_path, capsys):
    run = tmp_path / "r"
    arguments = [*RUN, "--data", folder, "--devices", "cpu:0", "--out", tmp_path, "--name", "r"]
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        child = process(*arguments)
        watch(child, moment("a step later", run, np.random.default_rng(0)))
        child.send_signal(number)
        said = child.communicate()[0]
        assert child.returncode == code and "of 12 steps: keeping" in said, said
        arguments = ["--resume", run]
    code, _, err = main(capsys, "--resume", run)
    assert code == 0, err
    assert end_of(run) == undisturbed(folder, "cpu:0")


def test_sigusr1_writes_a_checkpoint_and_training_goes_on(folder, tmp_path, capsys, monkeypatch):
    interruption.begin()
    saved, real = [], checkpoint.Checkpoints.save

    def save(kept, step, **training):
        saved.append(step)
        return real(kept, step, **training)

    def add(log, **row):
        added(log, **row)
        if row["split"] == "train" and row["step"] in (2, 6):
            signal.raise_signal(signal.SIGUSR1)

    added = run_folder.Log.add
    monkeypatch.setattr(checkpoint.Checkpoints, "save", save)
    monkeypatch.setattr(run_folder.Log, "add", add)
    assert main(capsys, *RUN, "--data", folder, "--devices", "cpu:0", "--out", tmp_path, "--name", "r")[0] == 0
    assert saved == [0, 2, 4, 6, 8, 12]
    assert end_of(tmp_path / "r") == undisturbed(folder, "cpu:0")


def test_a_second_process_is_told_who_trains_there(folder, tmp_path, capsys):
    run = tmp_path / "r"
    child = process(*RUN, "--data", folder, "--devices", "cpu:0", "--out", tmp_path, "--name", "r", "--epochs", 50)
    watch(child, moment("a step later", run, np.random.default_rng(0)))
    child.send_signal(signal.SIGSTOP)  # or a busy machine may let it train on for more than the 3 epochs below
    try:
        before = (run / "config.json").read_bytes()
        code, out, err = main(capsys, "--resume", run)
        assert code == 2 and f"is in use: process {child.pid} on " in err and "trains there" in err and not out
        assert (run / "config.json").read_bytes() == before
    finally:
        child.kill()
        child.communicate()
    assert (run / "lock").exists()  # and nobody holds it
    code, out, err = main(capsys, "--resume", run, "--epochs", 3)
    assert code == 0 and "changed: --epochs 3, it was 50" in out, err


def stop_after(patch, step, save=False):
    """Let Ctrl-C come after that step, once a checkpoint of it is written, if asked for."""
    real = alexnet_imagenet.Course.after_step

    def after_step(course, now):
        real(course, now)
        if now == step:
            if save:
                course.save()
            raise KeyboardInterrupt

    patch.setattr(alexnet_imagenet.Course, "after_step", after_step)


@pytest.fixture(scope="module")
def stopped_once(folder, tmp_path_factory):
    """See stopped."""
    out = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as patch:
        make_narrow(patch)
        stop_after(patch, 6, save=True)
        where = ["--data", str(folder), "--devices", "cpu:0", "--out", str(out), "--name", "r"]
        assert alexnet_imagenet.main([*RUN, *where]) == 130
    names = sorted(path.name for path in (out / "r" / "checkpoints").iterdir())
    assert names == ["best.safetensors", "step-00000004.safetensors", "step-00000006.safetensors"]
    return out / "r"


@pytest.fixture
def stopped(stopped_once, tmp_path):
    """A run that was stopped in its second epoch, and has two checkpoints."""
    return shutil.copytree(stopped_once, tmp_path / "r")


def test_a_damaged_checkpoint_is_refused_and_the_one_before_it_offered(stopped, folder, capsys):
    latest = stopped / "checkpoints" / "step-00000006.safetensors"
    content = latest.read_bytes()
    for damaged in (content[:-1], content[: len(content) // 2], b"", content[:-9] + b"?" + content[-8:]):
        latest.write_bytes(damaged)
        code, out, err = main(capsys, "--resume", stopped)
        assert code == 2 and err.count("\n") == 1, err
        assert "step-00000006.safetensors" in err and "The one before it can be read: " in err
        offered = err.split("can be read: ")[1].strip()
        assert latest.read_bytes() == damaged and not out
    code, out, err = main(capsys, "--resume", offered)
    assert code == 0 and "going on after step 4 of 12, in epoch 2" in out, err
    assert end_of(stopped) == undisturbed(folder, "cpu:0")
    assert list((stopped / "checkpoints").glob("*.left.safetensors")) == []  # step 6 was written anew


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--batch-size", "8"], "--resume: --batch-size cannot be changed, the run has 2: what can is --data, "),
        (["--preset", "paper"], "--resume: --preset cannot be changed, the run has trainable"),
        (["--seed", "3"], "--resume: --seed cannot be changed, the run has 0"),
        (["--devices", "cpu:0,cpu:1"], "--resume: --devices: the run has one column, and cannot go on with 2"),
        (["--evaluate", "x"], "not allowed with argument"),
    ],
)
def test_what_would_make_another_run_is_refused(stopped, capsys, arguments, message):
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    try:
        code, out, err = main(capsys, "--resume", stopped, *arguments)
    except SystemExit as stop:
        code, err = stop.code, capsys.readouterr().err
    assert code == 2 and message in err
    assert {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()} == before


def test_what_is_no_run(tmp_path, capsys, folder):
    for path, message in (
        (tmp_path / "nothing", "there is no such folder"),
        (tmp_path, "neither a checkpoint in it nor a config.json that says how it was begun"),
        (folder / "train" / "ape" / "0.png", "give the folder of a run, or a file in its folder checkpoints"),
    ):
        code, _, err = main(capsys, "--resume", path)
        assert code == 2 and message in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())
    (tmp_path / "checkpoints").mkdir()
    checkpoint.save_training(tmp_path / "checkpoints" / "step-00000001.safetensors", epoch=1)
    code, _, err = main(capsys, "--resume", tmp_path)
    assert code == 2 and "no checkpoint of this program" in err
    checkpoint.save(tmp_path / "checkpoints" / "step-00000001.safetensors", {"w": np.ones(2)})
    code, _, err = main(capsys, "--resume", tmp_path)
    assert code == 2 and "is no checkpoint of a training" in err


def test_other_pictures_are_refused(stopped, folder, tmp_path, capsys):
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    (moved / "train" / "ape" / "0.png").rename(moved / "train" / "ape" / "9.png")
    code, _, err = main(capsys, "--resume", stopped, "--data", moved)
    assert code == 2 and "are not those that the run was begun with (train_files: " in err
    (moved / "train" / "ape" / "9.png").rename(moved / "train" / "ape" / "0.png")
    code, out, err = main(capsys, "--resume", stopped, "--data", moved)
    assert code == 0 and f"changed: --data {moved}, it was {folder}" in out, err
    assert end_of(stopped) == undisturbed(folder, "cpu:0")


def test_epochs_rate_and_devices_may_be_changed_and_it_is_said(stopped, capsys):
    code, out, err = main(
        capsys, "--resume", stopped, "--epochs", 4, "--lr", 0.0005, "--devices", "cpu:1", "--keep-checkpoints", 1
    )
    assert code == 0, err
    for line in (
        "changed: --epochs 4, it was 3",
        "changed: --lr 0.0005, it was 0.001",
        "changed: --devices cpu:1, it was cpu:0",
        "going on after step 6 of 16, in epoch 2",
    ):
        assert line in out, out
    config = json.loads((stopped / "config.json").read_text())
    assert config["recipe"]["epochs"] == 4 and config["recipe"]["lr"] == 0.0005 and len(config["resumed"]) == 1
    assert (stopped / "log.csv").read_text().count("\ntrain,") == 16
    assert len(list((stopped / "checkpoints").glob("step-*"))) == 1
    code, out, err = main(capsys, "--resume", stopped)  # it has come to its end
    assert code == 0 and "the run is complete: it has done its 16 steps" in out and "--epochs" in out, err


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew(stopped, folder, capsys):
    shutil.rmtree(stopped / "checkpoints")
    code, out, err = main(capsys, "--resume", stopped)
    assert code == 0 and "no checkpoint yet: the run begins anew" in out, err
    assert end_of(stopped) == undisturbed(folder, "cpu:0")


def test_a_full_disk_costs_a_checkpoint_and_the_next_one_is_tried(folder, tmp_path, capsys, monkeypatch):
    real, refused = files_module.writing, []

    def writing(path, *args):
        if "step-00000002" in str(path) or "step-00000004" in str(path):
            refused.append(Path(path).name)
            raise CheckpointError("checkpoint: cannot write x: No space left on device: free space there")
        return real(path, *args)

    monkeypatch.setattr(files_module, "writing", writing)
    where = ["--data", folder, "--devices", "cpu:0", "--out", tmp_path, "--name", "r", "--checkpoint-minutes", 1e-5]
    code, out, err = main(capsys, *RUN, *where)
    assert code == 0 and len(refused) >= 2, err
    assert err.count("No space left on device") >= 2 and "training goes on" in err
    ours, whole = end_of(tmp_path / "r"), undisturbed(folder, "cpu:0")
    assert ours.pop("best")[0] == whole["best"][0]  # the score of the first epoch, which may be the best, is kept later
    assert ours == {name: value for name, value in whole.items() if name != "best"}


@pytest.mark.parametrize("room", ["for the net", "none"])
def test_a_disk_that_stays_full_costs_checkpoints_and_not_the_net(folder, tmp_path, capsys, monkeypatch, room):
    """Once it trains: what can be kept in the run's folder is kept there, or else all of it elsewhere."""
    real, elsewhere, run = files_module.writing, tmp_path / "elsewhere", tmp_path / "r"

    def writing(path, *args):
        begun = (run / "checkpoints" / "step-00000000.safetensors").exists()
        if begun and Path(path).is_relative_to(run) and (room == "none" or Path(path).parent != run):
            said = "No space left on device"
            raise args[0](f"cannot write x: {said}") if args else OSError(errno.ENOSPC, said)
        return real(path, *args)

    elsewhere.mkdir()
    monkeypatch.setattr(files_module, "writing", writing)
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    where = ["--data", folder, "--devices", "cpu:0", "--out", tmp_path, "--name", "r"]
    code, out, err = main(capsys, *RUN, *where)
    assert code == 1 and "not all of the run could be written" in err, err
    run = run if room == "for the net" else next(elsewhere.iterdir())
    weights, _ = checkpoint.load(run / "weights.safetensors")
    assert digests(weights) == undisturbed(folder, "cpu:0")["weights"]
    monkeypatch.setattr(files_module, "writing", real)
    if room == "none":  # all of it is elsewhere, the training, too
        assert end_of(run)["arrays"] == undisturbed(folder, "cpu:0")["arrays"]
    code, out, err = main(capsys, "--resume", run)  # does again what there is no checkpoint of
    assert code == 0, err
    if room == "for the net":
        assert "going on after step 0 of 12" in out and end_of(run) == undisturbed(folder, "cpu:0")


def test_a_run_that_was_stopped_before_an_epochs_test_and_again_later(folder, tmp_path, capsys, monkeypatch):
    """All of the first epoch's steps are done, and its test is not; then a kill in the second."""
    where = ["--data", folder, "--devices", "cpu:0", "--out", tmp_path, "--name", "r", "--checkpoint-minutes", 1e-5]
    real, stops = alexnet_imagenet.Course.after_step, [4, 6]

    def after_step(course, step):
        real(course, step)
        if step in stops:
            stops.remove(step)
            course.save()
            raise KeyboardInterrupt

    monkeypatch.setattr(alexnet_imagenet.Course, "after_step", after_step)
    assert main(capsys, *RUN, *where)[0] == 130
    code, out, err = main(capsys, "--resume", tmp_path / "r")
    assert code == 130 and "going on after step 4 of 12, in epoch 1" in out, err
    code, out, err = main(capsys, "--resume", tmp_path / "r")
    assert code == 0 and "going on after step 6 of 12, in epoch 2" in out, err
    assert end_of(tmp_path / "r") == undisturbed(folder, "cpu:0")


PAPER = ["--schedule", "paper", *RUN, "--devices", "cpu:0"]


@pytest.fixture(scope="module")
def two_steps(folder, tmp_path_factory):
    """A run that was to have two steps, and has had them."""
    out = tmp_path_factory.mktemp("two-steps")
    with pytest.MonkeyPatch.context() as patch:
        make_narrow(patch)
        where = ["--data", str(folder), "--out", str(out), "--name", "r", "--steps", "2"]
        assert alexnet_imagenet.main([*PAPER, *where]) == 0
    return out / "r"


@pytest.mark.parametrize("more", [["--steps", 3], ["--steps", 7], ["--epochs", 2]])
def test_more_steps_than_before_begin_with_the_rest_of_the_epoch(
    folder, two_steps, tmp_path, capsys, monkeypatch, more
):
    shutil.copytree(two_steps, tmp_path / "r")
    code, out, _ = main(capsys, "--resume", tmp_path / "r")
    assert code == 0 and "the run is complete: it has done its 2 steps" in out
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        code, out, err = main(capsys, "--resume", tmp_path / "r", *more)
    assert code == 130 and "going on after step 2 of " in out and ", in epoch 1" in out, err
    assert main(capsys, "--resume", tmp_path / "r")[0] == 0
    assert main(capsys, *PAPER, "--data", folder, "--out", tmp_path, "--name", "whole", *more)[0] == 0
    runs = [end_of(tmp_path / name) for name in ("r", "whole")]
    assert runs[0]["weights"] == runs[1]["weights"]
    trained = [[line for line in run["log"] if line[0] == "train"] for run in runs]
    assert trained[0] == trained[1]


def test_a_folder_that_is_removed_is_made_again(folder, tmp_path, capsys, monkeypatch):
    real = alexnet_imagenet.Course.after_step

    def after_step(course, step):
        real(course, step)
        if step == 6:
            shutil.rmtree(tmp_path / "r")

    monkeypatch.setattr(alexnet_imagenet.Course, "after_step", after_step)
    where = ["--data", folder, "--devices", "cpu:0", "--out", tmp_path, "--name", "r", "--checkpoint-minutes", 1e-5]
    code, out, err = main(capsys, *RUN, *where)
    assert code == 0, err
    assert end_of(tmp_path / "r") == undisturbed(folder, "cpu:0")


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_a_net_that_diverges_is_traced_to_its_layer_and_its_pictures(folder, tmp_path, capsys, monkeypatch):
    """A picture is spoilt in step 7; the last checkpoint is after step 4."""

    def train_epoch(model, batches, *args, real=alexnet_imagenet.train_epoch, **options):
        def spoilt():
            for i, batch in enumerate(batches):
                if options["epoch"] == 2 and i == 2:
                    batch.images[0, 2, 100, 100] = np.inf
                yield batch

        return real(model, spoilt(), *args, **options)

    monkeypatch.setattr(alexnet_imagenet, "train_epoch", train_epoch)
    where = ["--data", folder, "--devices", "cpu:0,cpu:1", "--out", tmp_path, "--name", "r"]
    code, out, err = main(capsys, *RUN, *where)
    assert code == 1 and "the loss is nan at step 7: start again with a lower --lr" in err
    assert "looking for the cause: the steps after 4 are done again" in err
    assert "Done again, its steps gave finite numbers" in err  # the loader's pictures were in order
    assert "The net after 4 of 12 steps is in" in out

    monkeypatch.undo()
    make_narrow(monkeypatch)
    code, out, err = main(capsys, *RUN, *where[:-1], "s", "--lr", "1e20")
    assert code == 1
    found = err.split("It began in step ")[1]
    assert ".png" in found and "conv2d at alexnet.py:" in found and "self.conv" in found and "nan or inf" in found, err


def test_a_plateau_is_said_while_it_lasts(capsys):
    log = run_folder.Log(Path("nowhere"))
    log.whole = False
    plateau, told = alexnet_imagenet.Plateau(log, 3), []
    for step in range(1, 901):
        log.add(split="train", step=step, loss=1.1 if step < 500 else 0.3)
        plateau.look(step)
        if "that of guessing (ln 3 = 1.099)" in capsys.readouterr().err:
            told.append(step)
    assert told == [100, 200, 400]
