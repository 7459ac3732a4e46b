"""The main job with a net so narrow that it trains in a second, for the tests of the program."""

import functools
import sys
from pathlib import Path

import pytest

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
