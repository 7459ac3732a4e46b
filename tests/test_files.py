"""Files written whole or not at all; what killed writers leave, and who removes it."""

import contextlib
import errno
import os
import signal
import stat
import subprocess
import sys
import threading
import time

import pytest

from minigrad.base import files
from minigrad.errors import DataError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="locks, modes and signals of POSIX")


def write(path, content):
    with files.writing(path, DataError) as file:
        file.write(content)


@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o007, 0o660), (0o077, 0o600)])
def test_a_new_file_has_the_mode_that_the_umask_leaves(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write(tmp_path / "a", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode


@pytest.mark.parametrize("mode", [0o600, 0o664, 0o444])
def test_a_file_that_is_replaced_hands_its_mode_on(tmp_path, mode):
    write(tmp_path / "a", b"old")
    os.chmod(tmp_path / "a", mode)
    write(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new" and stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode


def test_a_link_stays_and_leads_to_the_new_file(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "a")
    for content in (b"first", b"second"):  # the first time it leads nowhere
        write(tmp_path / "link", content)
        assert (tmp_path / "link").is_symlink() and (tmp_path / "disk" / "a").read_bytes() == content


def test_what_is_no_file_is_left_alone(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, kind in (("folder", "a folder"), ("pipe", "something that is no file")):
        with pytest.raises(DataError, match=f"cannot write .*{name}: there is {kind} of that name"):
            write(tmp_path / name, b"x")
    assert (tmp_path / "folder").is_dir() and (tmp_path / "pipe").is_fifo() and len(os.listdir(tmp_path)) == 2


def test_names_and_reasons(tmp_path):
    for path, message in {
        tmp_path / "no\x1b[31m" / "a": r"no\\x1b\[31m/a: No such file or directory: make the folder first",
        tmp_path / "zero\0byte": r"zero\\x00byte: embedded null byte",
        tmp_path / ("long" * 100): "File name too long",
    }.items():
        with pytest.raises(DataError, match=message):
            write(path, b"x")
    assert "free space there" in files.reason(OSError(errno.ENOSPC, "No space left on device"))
    assert "may write to" in files.reason(PermissionError(errno.EACCES, "Permission denied"))
    assert files.reason(OSError("odd")) == "odd"


@pytest.mark.parametrize("where", ["os.fsync", "os.replace", "os.chmod", "with block"])
@pytest.mark.parametrize("what", [OSError(errno.ENOSPC, "disk full"), KeyboardInterrupt()])
def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, where, what):
    write(tmp_path / "a", b"old")

    def fail(*args, **kwargs):
        raise what

    if where != "with block":
        monkeypatch.setattr(where, fail)
    with pytest.raises((DataError, KeyboardInterrupt), match="disk full: free space|^$"):
        with files.writing(tmp_path / "a", DataError) as file:
            file.write(b"new")
            if where == "with block":
                fail()
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"old"


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_ctrl_c_at_any_instruction_leaves_nothing_half_made(tmp_path, kind):
    traced = {files.__file__, contextlib.__file__}

    def make():
        if kind == "file":
            write(tmp_path / "a", b"new")
        else:
            with files.scratch_folder(tmp_path / "a") as folder:
                (folder / "picture").write_text("half of")

    def ctrl_c_at(place):
        """Runs make() with Ctrl-C before instruction `place`; whether there is such an instruction."""
        count = 0

        def step(frame, event, argument):
            nonlocal count
            frame.f_trace_opcodes = frame.f_code.co_filename in traced
            if event == "opcode":
                count += 1
                if count == place:
                    signal.raise_signal(signal.SIGINT)
            return step

        sys.settrace(step)
        try:
            make()
        except KeyboardInterrupt:
            assert count >= place
        else:
            assert count < place, f"Ctrl-C at instruction {place} was lost"
        finally:
            sys.settrace(None)
        return count >= place

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        place = 1
        while ctrl_c_at(place):
            left = os.listdir(tmp_path)
            assert left in ([], ["a"]), (place, left)
            if left:
                assert (tmp_path / "a").read_bytes() == b"new"
                (tmp_path / "a").unlink()
            place += 1
    finally:
        signal.signal(signal.SIGINT, before)
    assert place > 300, "of all instructions"


WRITER = """
import sys, time
from pathlib import Path
from minigrad.base import files
with files.writing(sys.argv[1], OSError) as file, files.scratch_folder(Path(sys.argv[1] + "-set")) as folder:
    file.write(b"half of")
    file.flush()
    (folder / "picture").write_text("half of")
    print("writing", flush=True)
    sys.stdin.read()
    file.write(b" the file")
"""


def writer(path):
    """A process in the middle of writing a file, and a folder beside it."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "writing\n"
    return process


def test_the_next_writer_removes_what_the_dead_have_left_and_nothing_of_the_living(tmp_path):
    path = tmp_path / "a"
    living, dead = writer(path), writer(path)
    dead.send_signal(signal.SIGKILL)
    dead.communicate()
    foreign = ["a.backup.tmp", "b.0123456789ab.tmp", "a.0123456789ab.tmp.gz", "xa.0123456789ab.tmp"]
    for name in foreign:
        (tmp_path / name).write_text("x")
    (tmp_path / "a.0123456789ab.tmp").symlink_to(tmp_path / "b.0123456789ab.tmp")
    assert len(list(tmp_path.glob("a*"))) == 4 + 2 + 1
    write(path, b"mine")
    with files.scratch_folder(tmp_path / "a-set"):
        pass
    left = {p.name for p in tmp_path.iterdir()} - {*foreign, "a", "a.0123456789ab.tmp"}
    assert len(left) == 2 and all(p.startswith(("a.", "a-set.")) for p in left), "file and folder of the living"
    assert path.read_bytes() == b"mine"
    living.communicate("")  # goes on, and ends well
    assert living.returncode == 0 and path.read_bytes() == b"half of the file"
    assert {p.name for p in tmp_path.iterdir()} == {*foreign, "a", "a.0123456789ab.tmp"}


def test_writers_and_cleaners_of_one_place_do_not_hurt_each_other(tmp_path):
    failed, done = [], threading.Event()

    def writes(number):
        for _ in range(40):
            try:
                write(tmp_path / "a", bytes([number]) * 5000)
                with files.scratch_folder(tmp_path / "set") as folder:
                    (folder / "x").write_bytes(b"x")
            except BaseException as error:
                failed.append(error)

    def cleans():
        while not done.is_set():
            for name in ("a", "set"):
                files.remove_dead(tmp_path, files.leftovers(name))

    threads = [threading.Thread(target=writes, args=(n,)) for n in range(4)]
    cleaner = threading.Thread(target=cleans)
    for thread in (cleaner, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    cleaner.join()
    assert not failed and os.listdir(tmp_path) == ["a"]
    assert len(set((tmp_path / "a").read_bytes())) == 1, "of one writer"


def test_what_earlier_versions_left_without_a_lock_goes_after_a_day(tmp_path):
    for name, hours in (("old", 25), ("new", 23)):
        for path in (tmp_path / f"a.{name}", tmp_path / f"set-{name}"):
            path.mkdir() if "set" in path.name else path.write_text("x")
            os.utime(path, (time.time() - 3600 * hours,) * 2)
    files.remove_dead(tmp_path, files.leftovers("a"), r"a\.(old|new)|set-(old|new)")
    assert sorted(os.listdir(tmp_path)) == ["a.new", "set-new"]
    files.remove_dead(tmp_path, r"a\.new")
    assert os.listdir(tmp_path) == ["set-new"]


def test_a_scratch_folder_is_private_and_goes(tmp_path):
    with pytest.raises(ZeroDivisionError):
        with files.scratch_folder(tmp_path / "set") as folder:
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and folder.parent == tmp_path
            (folder / "below").mkdir()
            raise ZeroDivisionError
    assert os.listdir(tmp_path) == []


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "c"))
    assert files.cache_folder() == tmp_path / "c" / "minigrad"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.cache_folder() == tmp_path / ".cache" / "minigrad"

    def unknown(user):
        raise KeyError(user)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", unknown)  # a container, run as a user it does not know
    with pytest.raises(OSError, match="no home folder"):
        files.cache_folder()


# ---------------------------------------------------------------- second names, and locks


def test_a_link_is_another_name_and_replaces_what_was_there(tmp_path, monkeypatch):
    for name in "ab":
        (tmp_path / name).write_text(name)
    files.link(tmp_path / "a", tmp_path / "best")
    files.link(tmp_path / "a", tmp_path / "best")  # rename(2) does nothing for two names of one file
    assert os.path.samefile(tmp_path / "a", tmp_path / "best")
    files.link(tmp_path / "b", tmp_path / "best")
    assert (tmp_path / "best").read_text() == "b" and (tmp_path / "a").read_text() == "a"
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no hard links here")))
    files.link(tmp_path / "a", tmp_path / "best")
    assert (tmp_path / "best").read_text() == "a" and not os.path.samefile(tmp_path / "a", tmp_path / "best")
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "best"]


@pytest.mark.skipif(sys.platform == "win32", reason="no flock")
def test_a_lock_falls_with_its_holder(tmp_path):
    code = (
        "import sys, time\nfrom minigrad.base import files\n"
        "with files.holding(sys.argv[1], 'the first'):\n    print('held', flush=True)\n    time.sleep(60)"
    )
    path = tmp_path / "lock"
    holder = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(files.HeldError, match="held by the first") as error, files.holding(path, "the second"):
        pass
    assert error.value.holder == "the first" and path.read_text() == "the first"
    holder.kill()
    holder.communicate()
    assert path.exists()
    with files.holding(path, "the second"):
        assert path.read_text() == "the second"
    assert not path.exists()
    with pytest.raises(OSError):
        with files.holding(tmp_path / "nowhere" / "lock", "x"):
            pass
