"""Pack pictures once, for the main job to train from: decoded, 256 x 256, in a few large files.

python examples/prepare_imagenet.py SRC DST          SRC: see below; DST: a new folder
python examples/prepare_imagenet.py SRC DST --jpeg   the same in a tenth of the room
python examples/prepare_imagenet.py DST --check      reads all of a store: is it as it was written?
python examples/alexnet_imagenet.py --data DST       trains from it

SRC is ImageNet's own files, Tiny ImageNet's, class folders, or a tar or zip of them.  The same command goes on where
one was stopped, in any way.
"""

from __future__ import annotations

import interruption

if __name__ == "__main__":  # before the imports that take a second
    interruption.begin()

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from command_line import OneLineParser, any_path, command, positive, quoted, run_job, word
from progress import progress, searched, warn

from minigrad.data import check_store, find_source, pack
from minigrad.data.shards import PackingError
from minigrad.errors import MinigradError, printable, some

JPEG_QUALITY = 90  # a tenth of the bytes of the pixels


class UnfinishedError(MinigradError):
    """Not all could be packed; what is whole is kept."""

    exit_code = 1


class DamagedError(MinigradError):
    """A store is not as it was written."""

    exit_code = 1


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    job = prepare if len(options.paths) == 2 else check
    return run_job("prepare_imagenet.py", job, options)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = OneLineParser(
        prog="prepare_imagenet.py",
        usage="%(prog)s SRC DST [options], or %(prog)s DST --check",
        description="Pack pictures into a store: decoded and brought to one size once, in a few large files that "
        "training reads without decoding. The same command goes on where one was stopped, in any way.",
        epilog="Pictures that cannot be read are left out, and named in DST/report.json. Exit codes: 0; 1: not all "
        "could be read or written, or --check found faults; 2: wrong arguments or data; 130, 143, 129: ended by "
        "Ctrl-C, SIGTERM, SIGHUP, with what is packed kept.",
    )
    whole = positive(int)
    parser.add_argument(
        "paths", type=any_path, nargs="+", metavar="PATH",
        help="SRC: where the pictures are (the official files of ILSVRC2012, Tiny ImageNet's or Imagenette's, any "
        "folders of classes, or a tar or zip of them); DST: the store, a new folder",
    )  # fmt: skip
    parser.add_argument(
        "--size", type=positive(int, most=65_500), default=256, metavar="N",
        help="side of the packed pictures; the main job takes the default (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--place-small", action="store_true",
        help="leave pictures smaller than that unscaled, in the centre, on ImageNet's mean colour (default: enlarge "
        "them, as the paper says)",
    )  # fmt: skip
    parser.add_argument(
        "--jpeg", type=positive(int, most=100), nargs="?", const=JPEG_QUALITY, metavar="QUALITY",
        help="keep the pictures as JPEG, of this quality, 1 to 100 (%(const)s): about a tenth of the room, and not "
        "quite the same pixels",
    )  # fmt: skip
    parser.add_argument("--workers", type=positive(int, most=1000), metavar="N", help="threads (default: all cores)")
    parser.add_argument("--limit", type=whole, metavar="N", help="at most N pictures of each class and split")
    parser.add_argument("--check", action="store_true", help="read the whole store, when it is packed, and name faults")
    options = parser.parse(arguments)
    if len(options.paths) != 2 and not (options.check and len(options.paths) == 1):
        parser.error(f"give SRC and DST, or DST and --check; got {len(options.paths)} paths")
    return options


def prepare(options: argparse.Namespace) -> None:
    """Pack SRC into DST; how to go on is said where that does not come to its end."""
    begin = time.perf_counter()
    with progress(100, "searching", "percent") as bar:
        source, folder = find_source(options.paths[0], progress=searched(bar)), options.paths[1]
    counts = " and ".join(f"{len(listing)} of {printable(split)}" for split, listing in source.splits.items())
    print(f"{printable(options.paths[0])}: {printable(source.kind)}, {counts}, {len(source.classes)} classes")
    for split, why in source.missing.items():
        warn(f"there is no {printable(split)}, and the main job needs train and val: {why}")
    try:
        with progress(None, "packing", "pictures", leave=True) as bar:
            report = pack(
                source, folder, size=options.size, fit="place" if options.place_small else "scale",
                jpeg_quality=options.jpeg, limit=options.limit, workers=options.workers, progress=shown(bar),
                tell=print,
            )  # fmt: skip
    except PackingError as error:
        raise UnfinishedError(f"{error}: {again(options)}") from error
    except KeyboardInterrupt:
        print(f"what is packed is kept; to go on: {again(options)}", file=sys.stderr, flush=True)
        raise
    numbers = " and ".join(f"{n} of {printable(split)}" for split, n in report["pictures"].items())
    print(f"In {printable(folder)}: {numbers}, after {time.perf_counter() - begin:.0f} s")
    if report["left_out"]:
        names = [f"{entry['picture']} ({entry['reason']})" for entry in report["left_out"]]
        print(f"{len(names)} pictures were left out, see {printable(folder / 'report.json')}: {some(names, 5)}")
    if options.check:
        verify(folder)
    if {"train", "val"} <= set(report["pictures"]):
        train = Path(sys.argv[0]).with_name("alexnet_imagenet.py")
        print(f"Try next:\n  {quoted(sys.orig_argv[0])} {quoted(str(train))} --data {quoted(word(folder))}")


def check(options: argparse.Namespace) -> None:
    verify(options.paths[0])


def verify(folder: Path) -> None:
    """DamagedError, after a line for each fault, where a store is not as it was written."""
    with progress(None, "checking", "MB") as bar:
        faults = check_store(folder, shown(bar, 10**6))
    for fault in faults:
        print(f"{printable(folder)}: {fault}")
    if faults:
        raise DamagedError(f"{printable(folder)}: {len(faults)} faults: move it away, and pack it anew")
    print(f"{printable(folder)}: all is as it was written")


def shown(bar: Any, unit: int = 1) -> Callable[[int, int], None]:
    """What moves a bar: called with what is done and all there is; what is done at the first call does not count."""
    before: list[int] = []
    begin = time.perf_counter()

    def move(done: int, total: int) -> None:
        if not before:
            before.append(done)
            bar.total = (total - done) // unit
        bar.set_postfix_str(
            f"{(done - before[0]) / unit / max(time.perf_counter() - begin, 1e-9):.0f}/s", refresh=False
        )
        bar.update((done - before[0]) // unit - bar.n)

    return move


def again(options: argparse.Namespace) -> str:
    """This command."""
    return command(options, *(word(path) for path in options.paths), drop=("paths",))


if __name__ == "__main__":
    interruption.finish(main)
