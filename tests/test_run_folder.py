"""A run's folder under faults of the disk: the net is kept, and what could not be written is said."""

import argparse
import csv
import errno
import json
import os
import shutil
import signal
import sys
import tempfile
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
import figures  # noqa: E402
import interruption  # noqa: E402
import progress  # noqa: E402
import run_folder  # noqa: E402
from command_line import Enduring, run_job  # noqa: E402
from run_folder import IncompleteRunError, Log, Run, TrainingError, write_whole  # noqa: E402
from scoring import Scores  # noqa: E402

from minigrad.errors import CheckpointError, DataError  # noqa: E402

FULL = OSError(errno.ENOSPC, "No space left on device")


class Disk:
    """Fails whatever is written below `folder` while it is full."""

    def __init__(self, monkeypatch, folder):
        self.folder, self.is_full = str(folder), False
        for module, name in ((Path, "write_bytes"), (os, "open")):
            monkeypatch.setattr(module, name, self.refuse(getattr(module, name)))

    def refuse(self, real):
        def write(path, *args, **options):
            reading = args and isinstance(args[0], int) and not args[0] & os.O_WRONLY
            if self.is_full and str(path).startswith(self.folder) and not reading:
                raise FULL
            return real(path, *args, **options)

        return write


@pytest.fixture
def disk(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    return Disk(monkeypatch, tmp_path / "runs")


@pytest.fixture
def run(tmp_path):
    """A run whose net is the number of steps taken."""
    (tmp_path / "runs" / "r").mkdir(parents=True)
    run = Run(tmp_path / "runs" / "r")
    run.save, run.planned = lambda folder: write_whole(folder / "net", str(run.log.steps())), 9
    run.write("config.json", "{}")
    return run


def step(run, count=1):
    for _ in range(count):
        run.log.add(split="train", epoch=1, step=run.log.steps() + 1, images=4, lr=0.1, loss=1.5)


def rows(path):
    return [int(row["step"]) for row in csv.DictReader((path / "log.csv").open())]


# ---------------------------------------------------------------- the disk


def test_what_a_full_disk_refused_is_written_when_there_is_room_again(run, disk, capsys):
    step(run, 2)
    run.keep()
    disk.is_full = True
    step(run, 2)
    run.score("one_view", Scores(2.0, 0.5, 1.0, 8), views=1, epoch=2, step=4)
    run.keep()
    err = capsys.readouterr().err
    assert err.count("log.csv cannot be written (No space left on device)") == 1, "said once"
    assert "the net could not be saved (No space left on device): training goes on" in err
    assert (run.path / "net").read_text() == "2" and rows(run.path) == [1, 2]
    disk.is_full = False
    step(run)
    run.keep(last=True)
    assert (run.path / "net").read_text() == "5" and rows(run.path) == [1, 2, 3, 4, 5]
    told = json.loads((run.path / "metrics.json").read_text())["one_view"]
    facts = {"loss": 2.0, "top1": 0.5, "top5": 1.0, "images": 8, "views": 1, "epoch": 2, "step": 4}
    assert {name: told[name] for name in facts} == facts
    run.check()
    assert not list(run.path.glob("*.tmp"))


def test_a_net_that_cannot_be_written_goes_elsewhere_in_the_end(run, disk, tmp_path, capsys):
    step(run, 2)
    disk.is_full = True
    step(run)
    run.keep(last=True)
    (elsewhere,) = (tmp_path / "tmp").iterdir()
    assert run.path == elsewhere and str(elsewhere) in capsys.readouterr().err
    assert (elsewhere / "net").read_text() == "3" and rows(elsewhere) == [1, 2, 3]
    assert (elsewhere / "config.json").read_text() == "{}"
    run.keep(last=True)
    with pytest.raises(IncompleteRunError, match=f"No space left on device: the run is in {elsewhere}"):
        run.check()


def test_room_for_the_net_but_not_for_a_checkpoint(run, tmp_path, capsys):
    """A checkpoint takes more than the net: where it finds no room, the net is kept all the same, in its place."""
    refused = True

    def checkpoint():
        if refused:
            raise CheckpointError("checkpoint: cannot write x: No space left on device")

    run.checkpoint = checkpoint
    step(run, 2)
    run.keep()
    assert (run.path / "net").read_text() == "2"
    assert "no checkpoint could be written (checkpoint: cannot write x: No space left" in capsys.readouterr().err
    step(run)
    run.keep(last=True)
    assert (run.path / "net").read_text() == "3" and run.path == tmp_path / "runs" / "r"
    assert "those of before stay" in capsys.readouterr().err
    with pytest.raises(IncompleteRunError, match="checkpoints: checkpoint: cannot write x: No space"):
        run.check()
    refused = False
    run.keep(last=True)
    run.check()


def test_no_place_at_all_is_an_error_and_leaves_nothing(run, disk, tmp_path, capsys):
    disk.folder, disk.is_full = str(tmp_path), True
    with pytest.raises(IncompleteRunError, match="neither in .*/runs/r .No space left.* nor in .*tmp"):
        with run:
            step(run)
            run.keep(last=True)
    assert not list((tmp_path / "tmp").iterdir()) and "is in" not in capsys.readouterr().out


@pytest.mark.parametrize("in_its_place", ["nothing", "a file"])
def test_a_folder_that_is_removed_while_it_trains(run, disk, tmp_path, in_its_place):
    step(run, 2)
    run.keep()
    shutil.rmtree(run.path)
    if in_its_place == "a file":
        run.path.write_text("")
    step(run)
    run.keep(last=True)
    assert (run.path / "net").read_text() == "3" and rows(run.path) == [1, 2, 3]
    assert (run.path / "config.json").exists()
    assert (run.path.parent == tmp_path / "runs") == (in_its_place == "nothing")
    # after the last step, say while pictures are drawn
    shutil.rmtree(run.path)
    run.keep(last=True)
    assert (run.path / "net").read_text() == "3" and rows(run.path) == [1, 2, 3]


def test_a_log_that_is_removed_while_it_is_written(run, capsys):
    step(run, 2)
    (run.path / "log.csv").unlink()
    step(run, 2)
    run.keep()
    assert rows(run.path) == [1, 2, 3, 4] and "log.csv cannot be written (No such file" in capsys.readouterr().err


def test_half_a_row_is_not_left_standing(run, monkeypatch, capsys):
    step(run, 2)
    real = os.open

    def half(path, *args):
        if str(path).endswith("log.csv"):
            with Path(path).open("a") as file:
                file.write("train,1")
            raise FULL
        return real(path, *args)

    monkeypatch.setattr(os, "open", half)
    step(run)
    monkeypatch.undo()
    run.keep()
    assert rows(run.path) == [1, 2, 3]


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    write_whole(tmp_path / "file", "old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(FULL))
    with pytest.raises(OSError):
        write_whole(tmp_path / "file", "new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


# ---------------------------------------------------------------- ends


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, MemoryError, BrokenPipeError])
def test_however_a_run_ends_the_net_is_kept(run, error, capsys):
    with pytest.raises(error), run:
        step(run, 2)
        run.keep()
        step(run)
        raise error
    assert (run.path / "net").read_text() == "3"
    out = capsys.readouterr().out
    assert "Stopped after 3 of 9 steps: keeping the net" in out
    assert f"The net after 3 of 9 steps is in {run.path}." in out


def test_weights_without_a_number_are_not_written_over_good_ones(run, capsys):
    with pytest.raises(TrainingError), run:
        step(run, 2)
        run.keep()
        step(run)
        raise TrainingError("the loss is nan")
    assert (run.path / "net").read_text() == "2"
    assert "The net after 2 of 9 steps is in" in capsys.readouterr().out


def test_before_the_first_step_no_folder_stays(run, capsys):
    with pytest.raises(KeyboardInterrupt), run:
        raise KeyboardInterrupt
    assert not run.path.exists() and "there is no net to keep" in capsys.readouterr().out


@pytest.mark.parametrize("between_epochs", [True, False])
def test_signals_while_the_net_is_written_let_it_be_written(run, between_epochs, monkeypatch):
    monkeypatch.setattr(run_folder, "say", lambda text: "keeping" in text and signal.raise_signal(signal.SIGINT))
    before = {number: signal.signal(number, signal.default_int_handler) for number in interruption.SIGNALS}
    real, calls = run.save, []

    def save(folder):
        calls.append(folder)
        signal.raise_signal(signal.SIGINT)
        real(folder)
        signal.raise_signal(signal.SIGINT)

    run.save = save
    try:
        with pytest.raises(interruption.Interrupted), interruption.interruptible(), run:
            step(run)
            if between_epochs:
                run.keep()
            raise ZeroDivisionError
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert (run.path / "net").read_text() == "1" and rows(run.path) == [1] and len(calls) == 1


def test_scores_without_a_number_are_json(run):
    run.score("one_view", Scores(float("nan"), 0.1, 0.5, 8), views=1, epoch=1, step=3)
    assert json.loads((run.path / "metrics.json").read_text())["one_view"]["loss"] is None


# ---------------------------------------------------------------- pictures


def test_one_picture_that_fails_leaves_the_others(tmp_path, capsys):
    def bad(path):
        figures.pyplot().figure().suptitle("half")
        raise KeyError("no\nglyph")

    def good(path):
        figure = figures.pyplot().figure()
        figure.suptitle(r"$\foo$ and $a^{_")
        figures.save(figure, path)

    pytest.importorskip("matplotlib", reason="draws the pictures")
    drawn, failed = figures.draw_each(tmp_path, {"bad.png": bad, "good.png": good})
    assert drawn == ["good.png"] and list(failed) == ["bad.png"]
    assert capsys.readouterr().err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["good.png"]
    assert figures.short("a\x1b[31m", 30) == r"a\x1b[31m" and figures.short("abcdef", 4) == "abc…"
    figures.pyplot().close("all")


def test_a_signal_that_a_library_makes_an_error_of_its_own_ends_the_drawing(tmp_path):
    def draw(path):
        try:
            signal.raise_signal(signal.SIGTERM)
        except BaseException:
            raise ValueError("Invalid affine transformation matrix") from None

    with interruption.interruptible(), pytest.raises(interruption.Interrupted, match="SIGTERM"):
        figures.draw_each(tmp_path, {"a.png": draw, "b.png": pytest.fail})


# ---------------------------------------------------------------- progress in a log file


def test_a_log_file_gets_plain_lines_every_few_seconds(monkeypatch, capsys):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock.now)
    with progress.progress(10, "epoch 1", "steps", leave=True) as bar:
        for i in range(10):
            clock.now += 2.0
            bar.set_postfix_str(f"loss {i}", refresh=False)
            bar.update()
            if i == 4:
                progress.warn("skipped image 'x\x1b.jpg'")
    with progress.progress(None, "rendering", "pictures") as bar:
        bar.total = 3
        bar.update(3)
    out, err = capsys.readouterr()
    assert out == "" and "\r" not in err and "\x1b" not in err
    lines = err.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "epoch 1: 3 of 10 steps", r"warning: skipped image 'x\x1b.jpg'", "epoch 1: 6 of 10 steps",
        "epoch 1: 9 of 10 steps", "epoch 1: 10 of 10 steps",
    ]  # fmt: skip
    assert lines[0] == "epoch 1: 3 of 10 steps, 00:06, 00:14 left, loss 2"


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress.progress(2, "epoch 1", "steps", leave=True) as bar:
        bar.update(2)
    assert "\repoch 1 100%|" in capsys.readouterr().err


# ---------------------------------------------------------------- exit codes


def failing(error):
    def job(options):
        raise error

    return job


@pytest.mark.parametrize(
    "error, code, line",
    [
        (DataError("no such folder"), 2, "no such folder"),
        (TrainingError("the loss is nan"), 1, "the loss is nan"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "a\x1b"), 1, r"File name too long: a\x1b"),
        (MemoryError("Unable to allocate 2 GiB"), 1, "out of memory: Unable to allocate 2 GiB"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_an_exit_code_and_one_line(error, code, line, capsys):
    assert run_job("program", failing(error), argparse.Namespace()) == code
    assert capsys.readouterr().err == f"program: {line}\n"


def test_a_fault_of_the_program_has_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_job("program", failing(ZeroDivisionError()), argparse.Namespace())


def test_warnings_are_one_line_each(capsys):
    def job(options):
        warnings.warn("skipped 'a\nb'", stacklevel=2)

    assert run_job("program", job, argparse.Namespace()) == 0
    assert capsys.readouterr().err == "warning: skipped 'a\\nb'\n"


def test_standard_output_that_fails_is_said_once_and_a_pipe_ends_the_program(monkeypatch, capsys):
    def refusing(error):
        def write(text):
            raise error

        return SimpleNamespace(write=write, flush=lambda: None)

    def job(options):
        print("one")
        print("two")
        sys.stderr.write("done\n")

    monkeypatch.setattr(sys, "stdout", refusing(FULL))
    assert run_job("program", job, argparse.Namespace()) == 1
    monkeypatch.setattr(sys, "stdout", refusing(BrokenPipeError(errno.EPIPE, "Broken pipe")))
    assert run_job("program", job, argparse.Namespace()) == 1
    assert capsys.readouterr().err.splitlines() == [
        "warning: standard output cannot be written (No space left on device): going on without it", "done",
        "program: Broken pipe: standard output",
    ]  # fmt: skip
    out = Enduring(refusing(BrokenPipeError(errno.EPIPE, "Broken pipe")), "standard output")
    with pytest.raises(BrokenPipeError):
        out.write("one")
    out.write("the net is in runs/r")  # what is said while a run is ended must not end that


def test_a_log_of_many_rows_reads_back(tmp_path):
    log = Log(tmp_path / "log.csv")
    values = np.random.default_rng(0).random(50)
    for i, value in enumerate(values):
        log.add(split="train", epoch=1, step=i + 1, images=2, lr=0.5, loss=float(value))
    read = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [float(row["loss"]) for row in read] == pytest.approx(values, rel=1e-5) and len(read) == log.steps()
    assert log.column("train", "loss") == pytest.approx(values)
    assert (tmp_path / "log.csv").read_bytes().decode() == log.text() and run_folder.Log.COLUMNS[0] == "split"


def test_a_run_that_is_stopped_before_its_files_are_written_leaves_no_folder(run, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_folder, "write_whole", stopped)
    with pytest.raises(KeyboardInterrupt), run:
        run.write("metrics.json", "{}")
    assert not run.path.exists()
