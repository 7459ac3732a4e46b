"""The counts before and after, of benchmarks/kernel_counts.py."""

import copy
import sys
from pathlib import Path

import pytest

from minigrad.cudasim.compiler import available

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
import kernel_counts as counts  # noqa: E402

pytestmark = pytest.mark.cpu_only("brings its device along")

NUMBERS = {"sm_80": [40, 0, 0, 0], "sm_90": [128, 1000, 0, 8]}
WORK = {"moved": 2_000_000, "least": 1_000_000, "sectors": [12, 10], "wavefronts": [0, 0], "launches": {"f": 2, "g": 1}}
BEFORE = {
    "commit": "a",
    "nvrtc": "13.5",
    "kernels": {"relu": {"f REAL=float": NUMBERS, "f REAL=double": NUMBERS, "g REAL=float, TF32=1": NUMBERS}},
    "blocks": {"f": [128, 24]},
    "work": {"relu forward": WORK | {"missed": 0}, "case: relu": WORK | {"missed": 3}},
}


def test_one_tree():
    assert counts.kernel_rows([BEFORE]) == [
        ("relu: f", "128", "40", "128", "1024", "8", "75%", "25%"),
        ("relu: g TF32=1", "256", "40", "128", "1000", "8", "75%", "25%"),
    ]
    dynamic = counts.kernel_rows([{**BEFORE, "blocks": {"f": [128, 40000]}}])[0]
    assert dynamic == ("relu: f", "128", "40", "128", "41000", "8", "25%", "25%")
    assert counts.work_rows([BEFORE], cases=False) == [("relu forward", "2", "2.00", "1.20", "-", "3")]
    assert counts.work_rows([BEFORE], cases=True) == [("relu", ">= 2", ">= 2.00", "1.20", "-", "3")]


def test_before_and_after():
    after = copy.deepcopy(BEFORE)
    after["kernels"]["relu"]["f REAL=float"]["sm_80"] = [16, 0, 0, 0]
    del after["kernels"]["relu"]["g REAL=float, TF32=1"]
    after["work"]["relu forward"]["moved"] = 1_000_000
    after["work"]["case: relu"]["least"] = 2_000_000
    after["work"]["new"] = {"failed": "KernelError: no"}
    f, g = counts.kernel_rows([BEFORE, after])
    assert f[2] == "40 → 16" and f[6] == "75% → 100%" and g[1] == "256 → -"
    relu, new = counts.work_rows([BEFORE, after], cases=False)
    assert relu == ("relu forward", "2 → 1", "2.00 → 1.00", "1.20", "-", "3") and new[1] == "- → failed"
    assert counts.work_rows([BEFORE, after], cases=True)[0][0] == "relu (other shapes before)"


@pytest.mark.skipif(available() is not None, reason=str(available()))
def test_what_is_counted_of_a_layer_and_of_a_case():
    works = {name: (prepare, least) for name, prepare, least in (*counts.layers(), *counts.cases())}
    assert {"conv1 forward", "conv1 dw", "conv2 dx", "fc6 db", "SGD, alexnet rule, 16 parameters"} <= set(works)
    assert "conv1 dx" not in works and works["conv2 dw"][1] == 4 * (256 * 729 + 96 * 729 + 256 * 48 * 25)
    blocks = {}
    for name, launches in (("softmax dx", {"softmax_backward": 1}), ("case: relu", {"relu_forward": 1})):
        prepare, least = works[name]
        found = counts.traffic(prepare, blocks)
        assert found["launches"].items() >= launches.items() and found["moved"] >= least and not found["missed"]
        assert found["sectors"][0] >= found["sectors"][1] > 0
        assert counts.traffic(prepare, blocks) == found
    assert blocks["relu_forward"] == [256, 0]
