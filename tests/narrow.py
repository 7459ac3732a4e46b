"""The main job with a net so narrow that it trains in a second, and pictures for it, for the tests of the program."""

import functools
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "examples"))
import alexnet_imagenet  # noqa: E402
import trained  # noqa: E402
from alexnet import AlexNet  # noqa: E402

NARROW = (6, 8, 12, 12, 8, 40, 40)


def make_narrow(patch):
    """Give the program the narrow net, by a MonkeyPatch."""
    for module in (alexnet_imagenet, trained):
        patch.setattr(module, "AlexNet", functools.partial(AlexNet, widths=NARROW))


@pytest.fixture(autouse=True)
def narrow_net(monkeypatch, tmp_path):
    """The program of every test in a module that imports this: with the narrow net, and a cache of its own."""
    make_narrow(monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def left_in(run):
    """The names of what a run has left, but for TensorBoard's events, which depend on what is installed."""
    return {path.name for path in run.iterdir() if not path.name.startswith("events.")}


def main(capsys, *arguments):
    """(exit code, standard output, standard error) of the program."""
    code = alexnet_imagenet.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def as_png(image, folder, i):
    image.save(folder / f"{i}.png", compress_level=1)  # it is noise: more takes longer, and saves nothing


def coloured_classes(root, train, val, classes=("ape", "bee", "cat"), size=lambda i: (256, 256), save=as_png):
    """root/<split>/<class>: so many pictures of each class to train on, and held out; classes differ by colour.

    size(i): (height, width) of picture number i of a class; save(image, folder, i) writes it.  Returns root.
    """
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for k, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 80, (*size(i), 3))
                pixels[..., k % 3] += 150
                save(Image.fromarray(pixels.astype("uint8")), folder, i)
    return root
