"""The main job under mpirun: as one process does it, killed at any moment, and going on with more or fewer.

It needs mpi4py and an MPI library in this environment, and is skipped without; all are slow.
"""

import csv
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from narrow import coloured_classes
from test_distributed import MPIEXEC, ONE, OPEN_MPI, needs_mpi

from minigrad import checkpoint

PROGRAM = Path(__file__).parent / "narrow_program.py"
pytestmark = needs_mpi


def start(processes, *arguments):
    """A started program, of one process or of several."""
    command = [*((MPIEXEC, "-n", processes) if processes > 1 else ()), sys.executable, PROGRAM, "--no-figures"]
    return subprocess.Popen(
        [str(word) for word in (*command, *arguments)], env={**os.environ, **ONE, **OPEN_MPI}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def run(processes, *arguments):
    """(exit code, standard output, standard error) of a program that ended."""
    program = start(processes, *arguments)
    try:
        out, err = program.communicate(timeout=200)
    except subprocess.TimeoutExpired:
        os.killpg(program.pid, signal.SIGKILL)
        raise
    return program.returncode, out, err


def rows(folder):
    """The log's numbers that do not depend on the time it took."""
    with open(folder / "log.csv", newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    names = ("epoch", "step", "images", "lr", "loss", "top1", "top5")
    return [[row["split"], *(float(row[name] or "nan") for name in names)] for row in found]


def same(folder, other, tolerance):
    a, b = rows(folder), rows(other)
    assert [row[:4] for row in a] == [row[:4] for row in b]
    np.testing.assert_allclose(
        [row[4:] for row in a], [row[4:] for row in b], rtol=max(tolerance, 1e-9), atol=tolerance
    )
    a, b = (checkpoint.load(path / "weights.safetensors")[0] for path in (folder, other))
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=0, atol=tolerance, err_msg=name)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return coloured_classes(tmp_path_factory.mktemp("data"), 5, 2)


def options(data, out, name):
    return "--data", data, "--out", out, "--name", name, "--batch-size", 7, "--epochs", 4, "--workers", 1


@pytest.mark.slow
def test_two_processes_keep_what_one_keeps(data, tmp_path):
    arguments = (*options(data, tmp_path, "two"), "--steps", 2, "--accumulate", 2, "--batch-size", 3)
    code, out, err = run(2, *arguments)
    assert code == 0, err
    assert out.count("on cpu:0 and cpu:1, in each of 2 processes") == 1 and out.count("Ten views") == 1
    code, out, err = run(1, *(word if word != "two" else "one" for word in arguments))
    assert code == 0, err
    assert {p.name for p in (tmp_path / "two").iterdir()} == {p.name for p in (tmp_path / "one").iterdir()}
    same(tmp_path / "one", tmp_path / "two", 1e-4)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """What one, two and three processes make of the same options, undisturbed."""
    out, found = tmp_path_factory.mktemp("whole"), {}
    for processes in (1, 2, 3):
        code, _, err = run(processes, *options(data, out, f"of-{processes}"))
        assert code == 0, err
        found[processes] = out / f"of-{processes}"
        same(found[1], found[processes], 1e-4)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "before, after, how",
    [(2, 2, "KILL"), (2, 3, "KILL"), (3, 1, "KILL"), (1, 2, "KILL"), (2, 2, "STOP"), (3, 2, "STOP")],
)
def test_a_killed_rank_ends_all_and_the_run_goes_on(data, whole, tmp_path, before, after, how):
    """At a random moment of the first four of eight steps; with the same number of processes, to the same bits.  One
    that is stopped is found by the others."""
    step = random.randrange(1, 5)
    program = start(before, *options(data, tmp_path, "run"), "--checkpoint-minutes", 1e-5)
    for _ in range(6000):
        if (tmp_path / "run" / "checkpoints" / f"step-{step:08d}.safetensors").exists():
            break
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.05))
    assert program.poll() is None
    victims = [program.pid] if before == 1 else ranks(program.pid)
    assert len(victims) == before
    os.kill(random.choice(victims), getattr(signal, f"SIG{how}"))
    _, err = program.communicate(timeout=20 if how == "KILL" else 80)
    assert program.returncode != 0
    assert how == "KILL" or "has said nothing for 20 seconds" in err
    assert not [pid for pid in victims if Path(f"/proc/{pid}/cmdline").exists() and alive(pid)]
    code, out, err = run(after, "--resume", tmp_path / "run")
    assert code == 0, err
    assert "going on after step" in out
    same(whole[after], tmp_path / "run", 0 if before == after else 1e-4)


@pytest.mark.slow
def test_a_signal_keeps_the_net(data, tmp_path):
    program = start(2, *options(data, tmp_path, "run"))
    for _ in range(600):
        log = tmp_path / "run" / "log.csv"
        if log.exists() and len(log.read_text().splitlines()) > 2:
            break
        time.sleep(0.05)
    for pid in ranks(program.pid):  # a cluster sends it to all of them
        os.kill(pid, signal.SIGTERM)
    out, err = program.communicate(timeout=60)
    assert program.returncode != 0 and "interrupted (SIGTERM)" in err
    # "keeping the net as it is" comes before only where the signal did not come just after an epoch's net was kept.
    assert re.search(r"The net after \d of 8 steps is in ", out), out
    assert (tmp_path / "run" / "weights.safetensors").exists()
    code, out, err = run(1, "--resume", tmp_path / "run")
    assert code == 0 and "going on after step" in out, err


@pytest.mark.slow
def test_what_is_refused(data, tmp_path):
    code, _, err = run(2, "--resume", tmp_path / "nothing")
    assert code != 0 and "there is no such folder" in err
    code, _, err = run(2, "--evaluate", tmp_path / "nothing")
    assert code != 0 and "--evaluate: works in one process, and 2 were started" in err


def ranks(launcher):
    """The processes of the program below a launcher, from /proc."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_bytes().rsplit(b")", 1)[1].split()
            parents[int(folder.name)] = int(fields[1]), os.fsencode(PROGRAM) in (folder / "cmdline").read_bytes()
        except OSError:
            continue

    def below(pid):
        parent = parents.get(pid, (0, False))[0]
        return parent == launcher or (parent > 1 and below(parent))

    found = [pid for pid, (_, ours) in parents.items() if ours and below(pid)]
    return [pid for pid in found if not any(parents[other][0] == pid for other in found)]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rsplit(b")", 1)[1].split()[0] != b"Z"
    except OSError:
        return False
