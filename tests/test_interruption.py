"""Signals: one way out from every moment of a program, and nothing that was promised is lost."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import minigrad.functional as F
from minigrad import Tensor, checkpoint, nn, optim
from minigrad.base.interrupts import hold

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "examples"))
import interruption  # noqa: E402
from interruption import Interrupted, interruptible, received  # noqa: E402
from progress import progress  # noqa: E402
from run_folder import Log  # noqa: E402
from training import train_epoch  # noqa: E402


@pytest.fixture(autouse=True)
def signals_as_at_a_terminal():
    """Whatever started the tests may have had Ctrl-C ignored, as a shell does for what runs in the background."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in interruption.SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


# ---------------------------------------------------------------- in this process


@pytest.mark.parametrize("number", interruption.SIGNALS)
def test_the_first_signal_raises_and_the_next_are_counted(number, capfd):
    after = []
    with pytest.raises(Interrupted) as stop, interruptible():
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(signal.SIGINT)
            after.append("kept")
            signal.raise_signal(number)
            after.append("told")
    assert stop.value.exit_code == 128 + number == 128 + received() and after == ["kept", "told"]
    assert capfd.readouterr().err.count("ending already") == 2
    assert signal.getsignal(number) is signal.default_int_handler, "put back"


def test_a_signal_waits_for_what_is_held():
    done = []
    with pytest.raises(Interrupted), interruptible():
        with hold(finish=True):
            with hold(finish=True):
                signal.raise_signal(signal.SIGTERM)
                done.append("inner")
            done.append("outer")
        done.append("too much")
    assert done == ["inner", "outer"]


def test_a_signal_that_del_swallows_comes_again(capfd):
    class Dying:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted), interruptible():
        Dying()
        end = time.monotonic() + 10
        while time.monotonic() < end:
            pass
    assert time.monotonic() < end and capfd.readouterr().err == ""


def test_what_is_ignored_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    try:
        with interruptible():
            signal.raise_signal(signal.SIGHUP)
    except Interrupted:
        pytest.fail("raised")
    assert received() == 0


class Linear(nn.Module):
    def __init__(self):
        self.layer = nn.Linear(3, 7)

    def forward(self, x):
        return self.layer(x.mean(axis=(2, 3)))


@pytest.mark.parametrize("moment", ["between the updates of weight and bias", "in the second forward"])
def test_weights_are_those_of_a_whole_step(moment, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    data = [
        SimpleNamespace(images=rng.standard_normal((6, 3, 4, 4), dtype="f"), labels=rng.integers(0, 7, 6))
        for _ in range(4)
    ]
    model, twin = Linear(), Linear()
    twin.load_state_dict(model.state_dict())
    optimizer, by_hand = (optim.SGD(m.parameters(), 0.1, momentum=0.9) for m in (model, twin))
    calls = []

    def second_time(real):
        def called(*args):
            calls.append(1)
            if len(calls) == 2:
                signal.raise_signal(signal.SIGINT)
            return real(*args)

        return called

    if "updates" in moment:
        monkeypatch.setattr(optimizer, "_step_one", second_time(optimizer._step_one))
    else:
        monkeypatch.setattr(model, "forward", second_time(model.forward))
    log = Log(tmp_path / "log.csv")
    with pytest.raises(Interrupted), interruptible(), progress(4, "epoch 1", "steps") as bar:
        train_epoch(model, data, optimizer, "cpu:0", epoch=1, first_step=0, log=log, bar=bar)
    assert log.steps() == 1
    F.cross_entropy(twin(Tensor(data[0].images)), data[0].labels).backward()
    by_hand.step()
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, twin.state_dict()[name])


# ---------------------------------------------------------------- whole programs

PROGRAM = """
import sys
sys.path.insert(0, {examples!r})
import interruption
interruption.begin()
{body}
interruption.finish(main)
"""

HANGS = """
import time
def main():
    from minigrad.base.interrupts import hold
    with interruption.interruptible(), hold(finish=True):
        print("begun", flush=True)
        while True:
            time.sleep(0.01)
"""

NARROW = """
import functools, importlib, os
job = importlib.import_module(os.environ["SCRIPT"])
if hasattr(job, "AlexNet"):
    import alexnet, trained
    job.AlexNet = trained.AlexNet = functools.partial(alexnet.AlexNet, widths=(6, 8, 12, 12, 8, 40, 40))
main = job.main
"""


def start(body, *arguments, folder, script="lenet_mnist", **options):
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "SCRIPT": script, "XDG_CACHE_HOME": str(folder / "cache"),
        "MPLCONFIGDIR": str(folder / "mpl"),
    }  # fmt: skip
    code = PROGRAM.format(examples=str(ROOT / "examples"), body=body)
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], env=environment, cwd=folder, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **options
    )  # fmt: skip


def until(process, text):
    """What the program says, up to a line with that text."""
    said = ""
    for line in process.stdout:
        said += line
        if text in line:
            break
    return said


def test_a_program_that_hangs_can_be_ended(tmp_path):
    process = start(HANGS, folder=tmp_path)
    until(process, "begun")
    for _ in range(4):
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)  # or two would count as one
    assert process.wait(30) == 130
    assert "ended at once" in process.stderr.read()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_program_is_imported_is_one_line(number, tmp_path):
    process = start(f"import signal; signal.raise_signal({int(number)}); main = print", folder=tmp_path)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert err.strip() == f"interrupted ({signal.Signals(number).name})"


@pytest.mark.parametrize("script", ["alexnet_imagenet.py", "lenet_mnist.py"])
def test_the_examples_begin_before_their_imports(script, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import signal, sys\n"
        "class Finder:\n"
        "    def find_spec(name, *rest):\n"
        "        if name == 'numpy':\n"
        "            signal.raise_signal(signal.SIGTERM)\n"
        "sys.meta_path.insert(0, Finder)\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, str(ROOT / "examples" / script)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (143, "", "interrupted (SIGTERM)")


def test_a_signal_after_all_is_done_changes_nothing(tmp_path):
    body = """
class Late:
    def __init__(self):
        self.send = __import__("os").kill
        self.to = __import__("os").getpid()
    def __del__(self):
        self.send(self.to, 15)
late = Late()
main = lambda: 0
"""
    process = start(body, folder=tmp_path)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")


def check_the_end(process, said, number, run, may_be_done=False):
    """One way out: the exit code, no traceback, and a net where one was promised; or all was done already."""
    out, err = process.communicate(timeout=120)
    out = said + out
    told = f"{signal.Signals(number).name}: {out}{err}"
    if may_be_done and process.returncode == 0:
        assert "Try next" in out and not err.count("interrupted"), told
        assert {"weights.safetensors", "metrics.json", "learning_curves.png"} < {path.name for path in run.iterdir()}
        return
    assert process.returncode == 128 + number, told
    assert "Traceback" not in err and "Exception ignored" not in err and "Error" not in err, told
    assert "interrupted" in err, told
    promised = " steps is in " in out or "keeping the net" in out
    if promised:
        state, _ = checkpoint.load(run / "weights.safetensors")
        assert all(np.isfinite(array).all() for array in state.values())
        assert "keeping the net" not in out or " steps is in " in out, told
    assert not list(run.parent.rglob("*.tmp")), told
    assert not run.exists() or list(run.iterdir()), "an empty folder is left"
    return promised


@pytest.mark.parametrize(
    "after, number, promised",
    [("60,850 parameters", signal.SIGTERM, None), ("epoch 1", signal.SIGINT, True), ("epoch 2", signal.SIGTERM, True)],
)
def test_lenet_can_be_interrupted(after, number, promised, tmp_path):
    pytest.importorskip("matplotlib", reason="draws the pictures")
    run = tmp_path / "runs" / "r"
    process = start(NARROW, "--tiny", "--name", "r", folder=tmp_path)
    said = until(process, after)
    for _ in range(3):
        process.send_signal(number)
        time.sleep(0.02)
    found = check_the_end(process, said, number, run)
    assert promised is None or found == promised


@pytest.mark.slow
@pytest.mark.skipif("MINIGRAD_ANY_MOMENT" not in os.environ, reason="on request: MINIGRAD_ANY_MOMENT=1")
@pytest.mark.parametrize("script", ["alexnet_imagenet", "lenet_mnist"])
def test_any_moment_will_do(script, tmp_path):
    """Signals at random moments of a whole run, from the imports to the last picture."""
    pytest.importorskip("matplotlib", reason="draws the pictures")
    process = start(NARROW, "--tiny", "--out", "whole", folder=tmp_path, script=script)
    begin = time.monotonic()
    process.communicate()
    whole, rng = time.monotonic() - begin, random.Random(0)
    for i in range(30):
        name, number = f"run-{i}", rng.choice([signal.SIGINT, signal.SIGTERM])
        process = start(NARROW, "--tiny", "--name", name, folder=tmp_path, script=script)
        time.sleep(0.3 + rng.random() * whole)  # by then Python itself has started
        if process.poll() is not None:
            assert process.returncode == 0, process.communicate()
            continue
        for _ in range(rng.choice([1, 1, 2, 3])):
            process.send_signal(number)
            time.sleep(rng.random() * 0.1)
        check_the_end(process, "", number, tmp_path / "runs" / name, may_be_done=True)


@pytest.mark.parametrize("where, message", [("/dev/full", "No space left"), (None, "Bad file descriptor")])
def test_a_standard_output_that_cannot_be_written_costs_no_net(where, message, tmp_path):
    if where and not os.path.exists(where):
        pytest.skip(f"no {where} here")
    redirect = f">{where}" if where else ">&-"
    command = f'exec "{sys.executable}" "{ROOT}/examples/lenet_mnist.py" --tiny --no-figures --name r {redirect}'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr.count("standard output cannot be written") == 1 and message in done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    left = {path.name: path.read_bytes() for path in (tmp_path / "runs" / "r").iterdir()}
    assert {"weights.safetensors", "log.csv", "metrics.json", "config.json"} == set(left)
    assert not any(b"parameters" in content for content in left.values()), "what is printed went into a file"


def test_a_reader_that_has_gone_ends_the_run_and_keeps_the_net(tmp_path):
    process = start(NARROW, "--tiny", "--no-figures", "--epochs", "50", "--name", "r", folder=tmp_path)
    until(process, "epoch 1")
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(60) == 1
    assert err.splitlines()[-1] == "lenet_mnist.py: Broken pipe: standard output" and "Traceback" not in err
    checkpoint.load(tmp_path / "runs" / "r" / "weights.safetensors")
