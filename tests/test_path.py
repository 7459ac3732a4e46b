"""docs/path.md: what it tells to read is there, and each exercise turns the tests red that its answer names."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "path.md").read_text(encoding="utf-8")


class Stop(NamedTuple):
    title: str
    text: str
    file: str  # that is changed
    old: str
    new: str
    command: str
    answer: str


def stops(page):
    found = []
    for title, text in re.findall(r"^## (\d+\. [^\n]*)\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.M):
        ((file, change),) = re.findall(r"^```diff\n--- (\S+)\n(.*?)^```$", text, re.DOTALL | re.M)
        ((command),) = re.findall(r"^```sh\n(.*?)\n```$", text, re.DOTALL | re.M)
        ((answer),) = re.findall(r"<details><summary>Answer</summary>\n(.*?)</details>", text, re.DOTALL)
        old, new = ("".join(line[1:] for line in change.splitlines(True) if line[0] == sign) for sign in "-+")
        found.append(Stop(title, text, file, old, new, command, answer))
    return found


STOPS = stops(PAGE)
every_stop = pytest.mark.parametrize("stop", STOPS, ids=lambda stop: stop.title)


def defined(path):
    """The names that a file defines: functions and classes of Python, with their methods; functions of CUDA."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return set(re.findall(r"\b(?:void|int|REAL|[A-Z]\w*) (\w+)\(", text))
    names = set()
    for node in ast.parse(text).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
            names |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)
                      and isinstance(node, ast.ClassDef)}  # fmt: skip
    return names


def named_tests(text):
    return re.findall(r"`(tests/test_\w+\.py)::(\w+)`", text)


def missing(text):
    """The files and names that a stop speaks of, and that are not there."""
    wrong = []
    for path, names in re.findall(r"^- `([\w/.]+)`(?:: ([^\n]*))?$", text, re.M):
        known = defined(ROOT / path) if (ROOT / path).is_file() else set()
        wrong += [f"{path}: {name}" for name in re.findall(r"`([\w.]+)`", names) if name not in known]
    for path in re.findall(r"`((?:minigrad|tests|kernels|examples|docs)/[\w/.]+)`", text):
        wrong += [] if (ROOT / path).exists() else [path]
    for path, name in named_tests(text):
        wrong += [] if (ROOT / path).is_file() and name in defined(ROOT / path) else [f"{path}::{name}"]
    for path in re.findall(r"[\w/]+/[\w.]+\.(?:py|cu)\b", text):
        wrong += [] if (ROOT / path).is_file() else [path]
    return wrong


def test_ten_stops_each_with_a_place_in_the_table():
    assert [stop.title.split(".")[0] for stop in STOPS] == [str(number) for number in range(1, 11)]
    assert re.findall(r"^\| \[(\d+)\]", PAGE, re.M) == [str(number) for number in range(1, 11)]
    links = re.findall(r"[^!]\[[^\]]*\]\(([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert links[0] == "docs/path.md"  # for readers, before all others


@every_stop
def test_what_a_stop_speaks_of_is_there(stop):
    assert missing(stop.text) == []
    assert (ROOT / stop.file).read_text(encoding="utf-8").count(stop.old) == 1 and stop.new.strip() != stop.old.strip()
    assert named_tests(stop.answer)


def test_what_is_missing_is_seen():
    text = (
        "- `minigrad/ops/relu.py`: `relu`, `ReLU.sideways`\n- `kernels/relu.cu`: `relu_forward`, `relu_sideways`\n"
        "`tests/test_relu.py::test_nothing` and `kernels/none.cu`\npython -m pytest tests/test_none.py\n"
    )
    expected = ["minigrad/ops/relu.py: ReLU.sideways", "kernels/relu.cu: relu_sideways", "kernels/none.cu"]
    expected += ["tests/test_relu.py::test_nothing", "kernels/none.cu", "tests/test_none.py"]
    assert missing(text) == expected


@every_stop
@pytest.mark.slow  # runs the tests of ten ops twice
def test_an_exercise_turns_red_what_its_answer_names(stop, tmp_path):
    if "cudasim" in stop.command and shutil.which("g++") is None:
        pytest.skip("the emulator needs g++")
    ignored = shutil.ignore_patterns(".*", "__pycache__", "runs", "site", "build", "*.egg-info")
    copy = shutil.copytree(ROOT, tmp_path / "copy", ignore=ignored)
    command = stop.command.replace("-m pytest", "-m pytest --tb=line -p no:cacheprovider")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

    def run():
        variables = {**os.environ, "PATH": path, "PYTHONPATH": str(copy)}
        return subprocess.run(command, shell=True, cwd=copy, env=variables, capture_output=True, text=True, timeout=900)

    before = run()
    assert before.returncode == 0, before.stdout + before.stderr
    file = copy / stop.file
    file.write_text(file.read_text(encoding="utf-8").replace(stop.old, stop.new), encoding="utf-8")
    after = run()
    assert after.returncode == 1, after.stdout + after.stderr
    if "cudasim" in stop.command:
        assert "RACE" in after.stdout and "`RACE`" in stop.answer
        return
    failed = set(re.findall(r"^FAILED (\S+?::\w+)", after.stdout, re.M))
    for sentence in re.split(r"\. ", " ".join(stop.answer.split())):
        for file_name, name in named_tests(sentence):
            assert (f"{file_name}::{name}" in failed) == ("stays green" not in sentence), (name, sorted(failed))
