"""A thread of the loader that fails or hangs: the main job ends and says what happened, and the net is kept."""

import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from narrow import NARROW, main, narrow_net  # noqa: F401
from PIL import Image

from minigrad.data import ImageArray, Loader, TrainViews, compute_stats, threads

ROOT = Path(__file__).parent.parent
RUN = ["--no-figures", "--batch-size", "4", "--steps", "6", "--devices", "cpu:0", "--lr", "0.003"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 1)):
        for label, name in enumerate(("ape", "bee")):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 80, (256, 256, 3))
                pixels[..., label] += 150
                Image.fromarray(pixels.astype("uint8")).save(root / split / name / f"{i}.jpg")
    return root


def loader_threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("minigrad-")]


def in_the_second_epoch(patch, error):
    """Let the transform raise an error in a thread of the loader: the first weights are fitted to 12 views, too."""
    real, calls = TrainViews.__call__, itertools.count(1)

    def failing(self, *given):
        if next(calls) == 12 + 12 + 7:
            assert threading.current_thread().name.startswith("minigrad-loader")
            raise error
        return real(self, *given)

    patch.setattr(TrainViews, "__call__", failing)


def test_a_thread_without_memory_ends_the_run_which_goes_on_later(folder, tmp_path, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        in_the_second_epoch(patch, MemoryError("no room for a view"))
        code, out, err = main(capsys, *RUN, "--data", folder, "--out", tmp_path, "--name", "r")
    assert code == 1 and "out of memory" in err and "no room for a view" in err, err
    kept = re.search("after ([345]) of 6 steps", out)  # two threads: the seventh view is one of several
    assert kept and (tmp_path / "r" / "weights.safetensors").exists()
    assert not loader_threads() and not (tmp_path / "r" / "lock").exists()
    code, out, err = main(capsys, "--resume", tmp_path / "r")
    assert code == 0 and f"going on after step {kept[1]} of 6" in out, err


def test_an_error_in_a_transform_ends_the_run_with_its_traceback(folder, tmp_path, capsys, monkeypatch):
    in_the_second_epoch(monkeypatch, ZeroDivisionError("a fault of the view"))
    with pytest.raises(ZeroDivisionError, match="a fault of the view") as caught:
        main(capsys, *RUN, "--data", folder, "--out", tmp_path, "--name", "r")
    assert caught.traceback[-1].name == "failing"  # where it happened, and not where it was waited for
    assert not loader_threads() and not (tmp_path / "r" / "lock").exists()
    assert (tmp_path / "r" / "weights.safetensors").exists()


# ---------------------------------------------------------------- a picture that does not come


class Blocked(ImageArray):
    """Pictures of which number 5 is not to be had until `come` is set."""

    def __init__(self):
        super().__init__(np.zeros((40, 8, 8, 3), np.uint8), np.zeros(40, int))
        self.asked, self.come = threading.Event(), threading.Event()

    def image(self, index):
        if index == 5:
            self.asked.set()
            assert self.come.wait(300)
        return super().image(index)


def test_ctrl_c_does_not_wait_for_a_picture(monkeypatch):
    """In the library itself, with a handler that raises KeyboardInterrupt."""
    monkeypatch.setattr(threads, "AFTER_CTRL_C", 0.01)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for job in lambda images: list(Loader(images, 2, workers=2)), lambda images: compute_stats(images, workers=2):
            images = Blocked()

            def ctrl_c(images=images):
                images.asked.wait(300)
                time.sleep(0.05)  # and the caller waits by now, or will soon
                os.kill(os.getpid(), signal.SIGINT)

            sender = threading.Thread(target=ctrl_c)
            sender.start()
            with pytest.raises(KeyboardInterrupt):
                job(images)
            assert not images.come.is_set() and loader_threads()
            images.come.set()
            sender.join()
            while loader_threads():  # the one that was left behind ends with its picture
                time.sleep(0.001)
    finally:
        signal.signal(signal.SIGINT, before)


def test_break_does_not_wait_for_a_picture_for_ever(monkeypatch):
    monkeypatch.setattr(threads, "PATIENCE", 0.01)
    images = Blocked()
    for _ in Loader(images, 2, workers=2):
        images.asked.wait(300)
        break
    assert loader_threads() and not images.come.is_set()
    images.come.set()
    while loader_threads():
        time.sleep(0.001)


# The program, with the narrow net; of pictures of the training or of the test (12 and 2), the Nth does not come.
PROGRAM = f"""
import sys
sys.path.insert(0, {str(ROOT / "examples")!r})
import interruption
interruption.begin()
import functools, itertools, time, alexnet_imagenet, trained
from alexnet import AlexNet
from minigrad.data import ImageFolder
real, calls = ImageFolder.image, itertools.count(1)
of, last = int(sys.argv.pop(1)), int(sys.argv.pop(1))
def image(images, index):
    if len(images) == of and next(calls) == last:
        print("waiting", flush=True)
        time.sleep(600)
    return real(images, index)
ImageFolder.image = image
for module in (alexnet_imagenet, trained):
    module.AlexNet = functools.partial(AlexNet, widths={NARROW})
interruption.finish(alexnet_imagenet.main)
"""


@pytest.mark.parametrize(
    "of, picture, told",
    [
        pytest.param(12, 3, "Stopped before the first step", id="statistics"),
        pytest.param(2, 1, "The net after 3 of 6 steps is in", id="loader"),  # the test after the first epoch
    ],
)
def test_ctrl_c_ends_a_process_that_waits_for_a_picture(folder, tmp_path, of, picture, told):
    program = [sys.executable, "-c", PROGRAM, str(of), str(picture)]
    child = subprocess.Popen(
        [*program, *RUN, "--data", str(folder), "--out", str(tmp_path)], env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    said = ""
    while "waiting\n" not in said and (line := child.stdout.readline()):
        said += line
    child.send_signal(signal.SIGINT)
    said += child.communicate(timeout=100)[0]  # the picture takes 600 s
    assert child.returncode == 130 and told in said, said
