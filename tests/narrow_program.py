"""The main job with the narrow net, as a program of its own: for tests that start several processes of it."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "examples")]
import interruption  # noqa: E402

if __name__ == "__main__":
    interruption.begin()

import alexnet_imagenet  # noqa: E402
import pytest  # noqa: E402
from narrow import make_narrow  # noqa: E402

if __name__ == "__main__":
    make_narrow(pytest.MonkeyPatch())
    interruption.finish(alexnet_imagenet.main)
