"""Kernels in the style of the textbooks, tests/textbook/*.cu: files as people write them, each run by the command in
its first line, and once more with each of the mistakes that are listed at its end.

    // Mistakes, and what is found of them:
    //   RACE     __syncthreads();  // used  ->               the text, which stands there once, and what it becomes
    //   nothing  if (lane == 0) y[i]  ->  y[i]  : reason     nothing is found, and why

What is found: a kind of reports.KINDS or NOTES; WRONG where the result alone gives it away.
"""

import json
import re
import shlex
from pathlib import Path

import pytest

from minigrad.cudasim import compiler
from minigrad.cudasim.__main__ import main
from minigrad.cudasim.reports import KINDS, NOTES

pytestmark = pytest.mark.skipif(compiler.available() is not None, reason=str(compiler.available()))

FOLDER = Path(__file__).parent / "textbook"
TEXTS = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.cu"))}
QUICK = ("softmax",)  # of the others, all is slow: each mistake is compiled by itself
HOST = """
#include <cstdio>
#include <vector>
#define CHECK(call)                                                              \\
    do {                                                                         \\
        cudaError_t error = call;                                                \\
        if (error != cudaSuccess) fprintf(stderr, "%s\\n", cudaGetErrorString(error)); \\
    } while (0)

int main(int argc, char** argv) {
    std::vector<float> host(1 << 20, 1.0f);
    float* device = nullptr;
    CHECK(cudaMalloc(&device, host.size() * sizeof(float)));
    CHECK(cudaMemcpy(device, host.data(), host.size() * sizeof(float), cudaMemcpyHostToDevice));
    launch<<<dim3(16, 16), 256>>>(device, [&](auto x) { return x + 1; });
    CHECK(cudaDeviceSynchronize());
}
"""


def code_of(kernel):
    return TEXTS[kernel].split("\n// Mistakes", 1)[0] + "\n"


def mistakes(kernel):
    """(kind, text, what it becomes) of each."""
    for line in TEXTS[kernel].split("\n// Mistakes, and what is found of them:\n", 1)[1].splitlines():
        kind, old, new = re.fullmatch(r"//   (\S+)\s+(.*?)  ->(.*?)(?:  : .*)?", line).groups()
        yield kind, old.replace("\\n", "\n"), new.strip().replace("\\n", "\n")


ALL = [(kernel, *mistake) for kernel in TEXTS for mistake in mistakes(kernel)]


def slow_unless(quick):
    return () if quick else pytest.mark.slow


def found(kernel, code, tmp_path, capsys):
    """The kinds of what the command finds in that text."""
    (tmp_path / f"{kernel}.cu").write_text(code + HOST)
    words = shlex.split(TEXTS[kernel].splitlines()[0].removeprefix("// python -m minigrad.cudasim "))
    assert words[0] == f"{kernel}.cu"
    words = [word.replace("reference.py", str(FOLDER / "reference.py")) for word in words[1:]]
    status = main([str(tmp_path / f"{kernel}.cu"), "--kernel", kernel, *words, "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert status < 2, answer["error"]
    kinds = {report["kind"] for report in answer["reports"]}
    kinds |= {kind for kind in NOTES if any(f": {kind}: " in note for note in answer.get("notes", []))}
    return kinds | ({"WRONG"} if answer.get("differences") else set())


def test_there_are_enough():
    assert len(TEXTS) >= 20 and len(ALL) >= 120
    for kernel, kind, old, new in ALL:
        assert kind in {*KINDS, *NOTES, "WRONG", "nothing"}, (kernel, kind)
        assert code_of(kernel).count(old) == 1 and old != new, (kernel, old)
    silent = [one for one in ALL if one[1] == "nothing"]
    assert len(silent) <= 10


@pytest.mark.parametrize("kernel", [pytest.param(k, marks=slow_unless(k in QUICK)) for k in TEXTS])
def test_what_is_right_is_not_reported(kernel, tmp_path, capsys):
    assert found(kernel, code_of(kernel), tmp_path, capsys) == set()


@pytest.mark.parametrize(
    "kernel, kind, old, new",
    [
        pytest.param(*one, marks=slow_unless(one[0] in QUICK and one == next(o for o in ALL if o[0] == one[0])))
        for one in ALL
    ],
    ids=[f"{kernel}-{i}" for i, (kernel, *_) in enumerate(ALL)],
)
def test_mistakes_are_found(kernel, kind, old, new, tmp_path, capsys):
    kinds = found(kernel, code_of(kernel).replace(old, new), tmp_path, capsys)
    assert kind in kinds if kind != "nothing" else not kinds, (old, new, kinds)
