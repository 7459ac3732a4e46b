"""What becomes of the hardware check where a part raises, hangs, crashes or is killed, and where it is itself."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import planted_parts
import pytest

import minigrad
from minigrad import device
from minigrad.cudasim.compiler import available
from minigrad.gpu.hardware_check import __main__ as command
from minigrad.gpu.hardware_check import machine, process
from minigrad.gpu.hardware_check.report import Part, cell

pytestmark = pytest.mark.cpu_only("brings its devices along")
emulated = pytest.mark.skipif(available() is not None, reason=str(available()))


def supervised(function, *arguments, seconds=60.0, title="Plants", **more):
    """What was told: lines, and failures."""
    told = []
    process.supervise(title, function, arguments, seconds, lambda kind, text: told.append((kind, text)), **more)
    return [text for kind, text in told if kind == "line"], [text for kind, text in told if kind == "failure"]


def test_whatever_goes_wrong_is_a_row_and_the_rest_goes_on():
    lines, failures = supervised(planted_parts.all_wrong)
    reasons = {
        "raises": "RuntimeError: CUBLAS_STATUS_INTERNAL_ERROR / \\x1b[31m and more",
        "speechless": "Speechless",
        "no row": "TypeError: Value after * must be an iterable, not int",
        "memory": "MemoryError",
        "leaves": "SystemExit: 3",
        "ends itself": "the process ended itself, with status 0",
        "dies": "DeathError: as it likes",
        "killed": "the process was killed by SIGKILL, as the system does where memory runs out",
        "crashes": "the process was killed by SIGSEGV",
        "aborts": "the process was killed by SIGABRT",
    }
    assert list(reasons) == list(planted_parts.WRONG)
    expected = ["| job | result |", "|---|---|"]  # once, whatever number of processes it took
    for name, reason in reasons.items():
        expected += [f"| before {name} | well |", *(["| killed | half |"] if name == "killed" else [])]
        expected += [f"| {name} | **failed**: {reason} |"]
    expected += ["| last | well |"]
    assert lines == expected
    assert [failure.split(": ")[1] for failure in failures] == list(reasons)
    assert all(failure.startswith("Plants: ") and "\n" not in failure for failure in failures)


def is_running(number):
    """Whether a process still runs; one that has ended and was not waited for does not."""
    stat = Path(f"/proc/{number}/stat")
    try:
        return stat.read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def ended(numbers, seconds=10.0):
    until, numbers = time.monotonic() + seconds, list(numbers)
    while any(map(is_running, numbers)) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(map(is_running, numbers))


def test_what_hangs_is_ended_with_all_that_it_started(tmp_path):
    for seconds in (1.5, 3, 6, 12, 24, 48):  # as long as it takes here to come to the endless one
        begin = time.monotonic()
        lines, failures = supervised(planted_parts.hangs, tmp_path / "numbers", seconds=seconds)
        assert seconds <= time.monotonic() - begin < seconds + 20
        if (tmp_path / "numbers").exists():
            break
    why = f"no end within {seconds} s (after half of it): what follows was not done"
    assert lines == ["| short | well |", f"| endless | **failed**: {why} |"] and failures == [f"Plants: endless: {why}"]
    assert ended(map(int, (tmp_path / "numbers").read_text().split()))


def test_a_part_that_cannot_begin_ends_with_that():
    why = "OSError: libcuda.so.1: cannot open shared object file"
    assert supervised(planted_parts.cannot_begin) == ([f"**failed**: {why}"], [f"Plants: {why}"])


def test_a_part_that_cannot_begin_again_ends_with_that():
    lines, failures = supervised(planted_parts.cannot_begin_again)
    assert lines[:2] == ["| well | well |", "| killed | half |"] and "killed by SIGKILL" in lines[2]
    why = "the process was killed by SIGABRT: what follows was not done"
    assert lines[3:] == [f"|  | **failed**: {why} |"] and failures[1:] == [f"Plants: {why}"]


def test_a_card_that_is_lost_to_one_process_is_used_by_the_next():
    lines, failures = supervised(planted_parts.card_lost)
    lost = "the device cannot be used by this process any more"
    assert lines == [
        "| first | well |",
        "| second | **failed**: ValueError: illegal |",
        f"|  | **failed**: {lost} |",
        "| third | well |",
    ]
    assert failures == ["Plants: second: ValueError: illegal", f"Plants: {lost}"]


def test_an_error_in_one_line():
    assert cell(minigrad.KernelError("\n relu: no\n\n  more ")) == "relu: no more"
    assert cell(minigrad.KernelError("")) == "KernelError" and cell(KeyError("x")) == "KeyError: 'x'"
    assert cell(ValueError("a|b\u202e")) == "ValueError: a/b\\u202e" and len(cell(ValueError("x" * 9999))) == 500


def test_without_a_listener_a_part_keeps_what_it_says():
    part = Part("Alone")
    part.work([("well", lambda: [(1, 2)]), ("ill", lambda: 1 / 0)])
    assert part.lines == ["| well | 1 | 2 |", "| ill | **failed**: ZeroDivisionError: division by zero |"]
    assert part.failures == ["Alone: ill: ZeroDivisionError: division by zero"]


# ---------------------------------------------------------------- little time


def test_no_job_is_begun_when_the_time_is_up():
    told, part = [], Part("Part", lambda kind, text: told.append((kind, text)), until=time.monotonic() + 0.2)
    part.work((f"job {n}", lambda: (time.sleep(0.15), [("well",)])[1]) for n in range(9))
    done = [line for line in part.lines if line.endswith("| well |")]
    assert 1 <= len(done) <= 2 and part.failures == []
    left = f"job {len(done)} and {8 - len(done)} more"
    assert part.lines[-1] == f"| {left} | not done: no time left |" and told[-1] == ("undone", f"Part: {left}")
    part = Part("Part", until=time.monotonic() - 1)
    part.work([("the only one", lambda: [("well",)])])
    assert part.lines == ["| the only one | not done: no time left |"]


def test_a_part_s_process_knows_its_time_and_its_environment():
    before = dict(os.environ)
    lines, failures = supervised(
        planted_parts.tells_time, until=time.monotonic() + 1000, environment={"MINIGRAD_CUDA": "3,3", "HOME": "/"}
    )
    (line,) = lines
    assert failures == [] and line.startswith("3,3 / ") and 900 < float(line.split()[2]) <= 1000
    assert dict(os.environ) == before


def quick(tmp_path, monkeypatch, takes):
    """The results of a quick check whose parts take so long, and (part, seconds it may take, seconds until no job)."""
    clock, asked = [1000.0], []

    def supervise(title, function, arguments, seconds, tell, until=None, environment=None):
        if function is machine.look_at:
            tell("machine", machine.Machine((device("cudasim:0"),), "EMULATED", []))
            clock[0] += takes["look"]
            return
        asked.append((title, seconds, until - clock[0]))
        clock[0] += min(takes[title], seconds)  # as it is ended then

    monkeypatch.setattr(command.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(command, "supervise", supervise)
    monkeypatch.setattr(command, "LOOKING", 5.0)
    monkeypatch.setattr(command, "GRACE", 4.0)
    monkeypatch.setattr(command, "QUICK_SECONDS", 40.0)
    monkeypatch.setattr(command, "QUICK", {"first": 6.0, "compare": 10.0, "steps": 5.0, "kernels": 8.0, "logical": 9.0})
    out = tmp_path / "results.md"
    assert command.main(["--quick", "--devices", "cudasim:0", "--out", str(out)]) == 0
    assert clock[0] <= 1040
    return out.read_text(), asked


def test_what_a_part_leaves_is_for_those_after_it(tmp_path, monkeypatch):
    titles = [command.PARTS[name][0] for name in command.QUICK]
    text, asked = quick(tmp_path, monkeypatch, dict.fromkeys(["look", *titles], 2.0))
    assert asked == [
        (titles[0], 13.0, 9.0),  # until 11 s, 2 of which are over
        (titles[1], 21.0, 17.0),
        (titles[2], 24.0, 20.0),
        (titles[3], 30.0, 26.0),
        (titles[4], 30.0, 26.0),  # never beyond the end, less what a job may take then
    ]
    assert text.endswith("## Verdict\n\nAll that was checked is right.\n")


def test_a_quick_check_ends_in_time_and_says_what_was_not_done(tmp_path, monkeypatch):
    titles = [command.PARTS[name][0] for name in command.QUICK]
    takes = dict(zip(["look", *titles], (7.0, 3.0, 99.0, 99.0, 99.0, 1.0)))
    text, asked = quick(tmp_path, monkeypatch, takes)
    assert asked == [
        (titles[0], 8.0, 4.0),
        (titles[1], 15.0, 11.0),  # and is ended at 25 s
        (titles[2], 5.0, 1.0),  # at 30 s
        (titles[3], 8.0, 4.0),  # at 38 s: after what is left for the last
    ]
    assert f"## {titles[4]}\n\nNot done: no time left.\n" in text
    assert text.endswith(f"Not done, as there was no time left:\n\n- {titles[4]}\n")


def test_jobs_for_which_there_was_no_time_are_in_the_verdict():
    results = command.Results(io.StringIO())
    part = Part("Part", results.hear, until=time.monotonic() - 1)
    part.work((name, list) for name in ("a", "b"))
    results.verdict()
    lines = results.file.getvalue().splitlines()
    assert lines[0] == "| a and 1 more | not done: no time left |"
    assert lines[-4:] == ["", "Not done, as there was no time left:", "", "- Part: a and 1 more"]


def test_what_a_quick_check_does():
    asked = command._arguments(["--quick"])
    assert asked.parts.split(",") == list(command.QUICK) and list(command.QUICK) == [
        part for part in command.PARTS if part in command.QUICK
    ]
    assert command.LOOKING + sum(command.QUICK.values()) + command.GRACE <= command.QUICK_SECONDS + command.GRACE
    assert set(command.TELLING) <= set(command.CASES)
    assert command._arguments([]).parts.split(",") == list(command.PARTS)
    assert command._arguments(["--parts", "first,speed"]).parts == "first,steps,kernels,logical"
    assert command._arguments(["--quick", "--parts", "compare"]).parts == "compare"


def test_one_card_becomes_two_for_the_columns(monkeypatch):
    monkeypatch.delenv("MINIGRAD_CUDA", raising=False)
    card = device("cuda:1")
    one = machine.Machine((card,), "A card", [])
    assert command.environment("logical", one) == {"MINIGRAD_CUDA": "1,1"} and command.environment("steps", one) == {}
    assert command.environment("logical", machine.Machine((device("cudasim:0"),), "EMULATED", [])) == {}
    monkeypatch.setenv("MINIGRAD_CUDA", "7, 3")
    assert command.environment("logical", one) == {"MINIGRAD_CUDA": "3,3"}


# ---------------------------------------------------------------- the command


@pytest.fixture
def plant(monkeypatch):
    """plant(function, *arguments) in the place of the comparison."""

    def put(function, *arguments):
        monkeypatch.setitem(command.PARTS, "compare", ("Comparison", function, 60))
        monkeypatch.setattr(command, "given", lambda *_: dict.fromkeys(command.PARTS, arguments))

    return put


@emulated
def test_the_other_parts_results_stay(tmp_path, plant):
    plant(planted_parts.card_lost)
    out = tmp_path / "results.md"
    status = command.main(["--devices", "cudasim:0", "--parts", "compare", "--out", str(out)])
    text = out.read_text()
    assert status == 1 and "| second | **failed**: ValueError: illegal |" in text and "| third | well |" in text
    assert "\n## Verdict\n\n**2 failures:**\n\n- Comparison: second: ValueError: illegal\n- Comparison: the " in text


COMMAND = """
import signal
import sys

import planted_parts
from minigrad.gpu.hardware_check import __main__ as command

if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGHUP):  # which a shell may have told what it runs to ignore
        signal.signal(number, signal.SIG_DFL)
    function = getattr(planted_parts, sys.argv[1])
    command.PARTS["compare"] = ("Comparison", function, 60)
    command.given = lambda *_: dict.fromkeys(command.PARTS, tuple(sys.argv[2:-1]))
    sys.exit(command.main(["--devices", "cudasim:0", "--parts", "compare", "--out", sys.argv[-1]]))
"""


@contextlib.contextmanager
def checking(tmp_path, *arguments):
    """The command with a planted part, as a process; and its results file."""
    (tmp_path / "check.py").write_text(COMMAND)
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(here.parent), str(here)])}
    out = tmp_path / "results.md"
    call = [sys.executable, str(tmp_path / "check.py"), *arguments, str(out)]
    with subprocess.Popen(call, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            yield running, out
        finally:
            running.kill()


def text_with(out, part, seconds=60.0):
    """What is in the file, once this is."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        text = out.read_text() if out.exists() else ""
        if part in text:
            return text
        time.sleep(0.02)
    raise AssertionError(f"{part!r} is not in {text!r}")


@emulated
def test_results_are_in_the_file_as_they_come_and_outlive_the_check(tmp_path):
    with checking(tmp_path, "slow") as (running, out):
        text = text_with(out, "| job 3 | well |")
        assert "Verdict\n" not in text and running.poll() is None
        running.kill()  # as a machine that is taken away
        running.wait()
        assert out.read_text().startswith(text)


@emulated
def test_a_signal_ends_the_check_and_keeps_the_file(tmp_path):
    with contextlib.ExitStack() as stack:
        checks = {}
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            folder = tmp_path / number.name
            folder.mkdir()
            checks[number] = folder, *stack.enter_context(checking(folder, "hangs", str(folder / "numbers")))
        for number, (folder, running, out) in checks.items():
            numbers = [int(n) for n in text_with(folder / "numbers", " ").split()]
            running.send_signal(number)
            assert running.wait(20) == 128 + number
            text = out.read_text()
            assert "| short | well |" in text
            assert f"\n**1 failure:**\n\n- ended by {number.name}, at endless: what follows was not checked" in text
            assert ended(numbers)


@emulated
def test_a_check_that_was_killed_leaves_no_process_behind(tmp_path):
    with checking(tmp_path, "hangs", str(tmp_path / "numbers")) as (running, out):
        text_with(out, "| short | well |")
        text_with(tmp_path / "numbers", " ")
        running.kill()
        running.wait()
        assert ended(int(n) for n in (tmp_path / "numbers").read_text().split())
        assert "| short | well |" in out.read_text()


@emulated
def test_a_screen_that_has_gone_is_no_reason_to_stop(tmp_path):
    with checking(tmp_path, "cannot_begin") as (running, out):
        running.stdout.close()
        assert "All" not in text_with(out, "- Comparison: OSError: libcuda")
        running.stderr.read()
        assert running.wait(20) == 1


@emulated
def test_the_results_of_the_last_check_are_kept(tmp_path, plant, capsys):
    plant(planted_parts.cannot_begin)
    out = tmp_path / "results.md"
    out.write_text("hours of work\n")
    assert command.main(["--devices", "cudasim:0", "--parts", "compare", "--out", str(out)]) == 1
    assert (tmp_path / "results.old.md").read_text() == "hours of work\n" and "libcuda" in out.read_text()
    wrong = out / "results.md"  # in a folder that is a file
    assert command.main(["--devices", "cudasim:0", "--parts", "compare", "--out", str(wrong)]) == 2
    assert "The results cannot be written: " in capsys.readouterr().err


@emulated
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_said(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(Path, "exists", lambda self: False)
    assert command.main(["--devices", "cudasim:0", "--parts", "compare", "--out", "/dev/full"]) == 1
    assert "The results cannot be written: " in capsys.readouterr().err
