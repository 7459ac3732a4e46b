"""What the command lines of the examples share: one-line errors, checked numbers and devices, run folders."""

from __future__ import annotations

import argparse
import math
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from tqdm import tqdm

import minigrad
from minigrad import files
from minigrad.errors import ArgumentError, DataError, MinigradError

WRITTEN = ("config.json", "preparation.npz", "weights.safetensors")  # in the folder of a run, whole or not at all
EARLIER = r"\.tmp[0-9A-Za-z]{6}|(preparation\.npz|weights\.safetensors)\.[0-9]+\.tmp"  # of earlier versions


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong in one line, with exit code 2, instead of repeating the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (--help lists the options)\n")


def positive(kind: type, zero: bool = False) -> Any:
    """An argparse type: a number above 0 (or from 0 on)."""

    def convert(text: str) -> Any:
        value = kind(text)
        if not (value > 0 or (zero and value == 0)) or value == math.inf:
            raise argparse.ArgumentTypeError(f"must be {'at least 0' if zero else 'above 0'}, got {text}")
        return value

    convert.__name__ = "whole number" if kind is int else "number"  # for argparse's message
    return convert


def device_list(text: str) -> tuple[str, ...]:
    """An argparse type: one or two different devices that can be used here."""
    names = tuple(name.strip() for name in text.split(","))
    try:
        devices = [minigrad.device(name) for name in names]
        for device in devices:
            _ = device.is_cpu or device.runtime  # imports CuPy and asks the driver, where a graphics card is named
    except MinigradError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if len(devices) > 2 or len(set(devices)) < len(devices):
        raise argparse.ArgumentTypeError(f"give one device or two different ones, got {text}")
    return tuple(str(device) for device in devices)


def one_device(text: str) -> str:
    """An argparse type: a device that can be used here."""
    names = device_list(text)
    if len(names) > 1:
        raise argparse.ArgumentTypeError(f"give one device, got {text}")
    return names[0]


def run_job(program: str, job: Callable[[argparse.Namespace], None], options: argparse.Namespace) -> int:
    """The program's exit code: 0, or what went wrong in one line and 2 (1 where training itself failed)."""
    try:
        with warnings.catch_warnings():
            # One line per unreadable file, without the line of source that warns, and above the progress bar.
            warnings.showwarning = lambda message, *_: tqdm.write(f"warning: {message}", file=sys.stderr)
            job(options)
    except MinigradError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 2)
    return 0


def new_run(out: Path, name: str | None, numbered: str) -> Path:
    """A new folder out/<name>, or else out/<numbered>-001, -002, ...: earlier runs are never written over.

    What killed runs left half written in their folders there is removed.
    """
    for earlier in out.glob("*/"):
        files.remove_dead(earlier, "|".join(map(files.leftovers, WRITTEN)), EARLIER)
    if name:
        run = out / name
        if run.exists():
            raise ArgumentError(f"--name {name}: {run} exists; choose another, runs are never overwritten")
    else:
        number = 1
        while (run := out / f"{numbered}-{number:03d}").exists():
            number += 1
    try:
        run.mkdir(parents=True)
    except OSError as error:
        raise ArgumentError(f"--out {out}: cannot make the folder {run} ({error})") from None
    return run


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all; DataError where that cannot be done."""
    with files.writing(path, DataError) as file:
        file.write(text.encode())
