"""Parts of the hardware check that go wrong, each in its own way; tests/test_hardware_process.py runs them."""

import ctypes
import os
import signal
import subprocess
import sys
import time


class Speechless(Exception):  # noqa: N818 (it is no error's name)
    def __str__(self):
        raise ValueError("an error without words")


class DeathError(BaseException):
    """Not one of those that `except Exception` catches."""


def raises(error):
    raise error


def stops():
    yield ("half",)
    os.kill(os.getpid(), signal.SIGKILL)


def eats():
    """All the memory that 300 MB more of addresses give."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (int(open("/proc/self/statm").read().split()[0]) * 4096 + 300_000_000,) * 2)
    kept = [bytearray(1 << 20) for _ in range(10_000)]
    return [[len(kept)]]


def noisy():
    os.write(1, b"\xff\x00 noise that no Python has printed\n")
    os.write(2, b"more\n")
    yield ("well",)


WRONG = {
    "raises": lambda: raises(RuntimeError("CUBLAS_STATUS_INTERNAL_ERROR | \x1b[31m\nand more")),
    "speechless": lambda: raises(Speechless()),
    "no row": lambda: [7],
    "memory": eats,
    "leaves": lambda: sys.exit(3),
    "ends itself": lambda: os._exit(0),
    "dies": lambda: raises(DeathError("as it likes")),
    "killed": stops,
    "crashes": lambda: ctypes.string_at(0),
    "aborts": os.abort,
}


def all_wrong(part):
    """Every way to go wrong, and work that goes well before, between and after."""
    part.head("| job | result |", "|---|---|")
    jobs = []
    for name, wrong in WRONG.items():
        jobs += [(f"before {name}", noisy), (name, wrong)]
    part.work([*jobs, ("last", noisy)])


def hangs(part, file):
    """A job that ends, and one that never does, nor what it has started, whose number is in the file."""

    def sleeper():
        started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        part.tell("at", "half of it")
        with open(file, "w") as out:
            out.write(f"{os.getpid()} {started.pid}")
        started.wait()
        yield ()

    part.work([("short", noisy), ("endless", sleeper), ("later", noisy)])


def cannot_begin(part):
    raise OSError("libcuda.so.1: cannot open shared object file")


def cannot_begin_again(part):
    """Only the first process can begin."""
    if part.first:
        os.abort()
    part.work([("well", noisy), ("killed", stops), ("later", noisy)])


def card_lost(part):
    """The second job leaves a card that no job can use, in that process."""
    state = []
    part.work(
        [
            ("first", noisy),
            ("second", lambda: (state.append(1), raises(ValueError("illegal"))) and ()),
            ("third", noisy),
        ],
        lambda: not state,
    )


def tells_time(part):
    part.line(f"{os.environ['MINIGRAD_CUDA']} {os.environ['HOME']} {part.until - time.monotonic()}")


def slow(part):
    """A row every tenth of a second."""
    part.work((f"job {n}", lambda: (time.sleep(0.1), [("well",)])[1]) for n in range(300))
