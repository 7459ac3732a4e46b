"""How long it takes, and how much memory, to search a tar of a tar for each class, as large as all of ImageNet.

python benchmarks/scan_imagenet.py [--classes 22000] [--pictures 15000000] [--save]

The tar is made up, its headers when they are read: 15 million pictures of 110 KB would be 1.7 TB.  What is timed is the
search itself, in seconds of the processor, with the making of headers taken off; a disk comes on top.  Then labels, and
names of the listing, are compared with what was made up.
"""

import argparse
import resource
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from peers import Save, environment, report

from minigrad.data import ilsvrc
from minigrad.data.listing import Archive

BLOCK = tarfile.BLOCKSIZE
PICTURE = 110_000  # bytes


class MadeUp:
    """A tar of `classes` tars of `each` pictures, as the file that a search reads from."""

    def __init__(self, classes: int, each: int) -> None:
        self.classes, self.each = classes, each
        self.step = BLOCK + -(-PICTURE // BLOCK) * BLOCK
        self.inner = each * self.step + 2 * BLOCK
        self.outer = BLOCK + self.inner
        self.size = classes * self.outer + 2 * BLOCK
        self._headers = [
            self._template("n00000000.tar", self.inner),
            self._template("n00000000_00000000.JPEG", PICTURE),
        ]
        self._at, self.seconds = 0, 0.0

    @staticmethod
    def _template(name: str, size: int) -> bytearray:
        member = tarfile.TarInfo(name)
        member.size = size
        return bytearray(member.tobuf(tarfile.GNU_FORMAT))

    def wnid(self, k: int) -> int:
        return (k * 7919) % self.classes  # the tars lie in no order

    def seek(self, position: int) -> None:
        self._at = position

    def read(self, count: int) -> bytes:
        begin = time.process_time()
        content = self._read(self._at, count)
        self._at += len(content)
        self.seconds += time.process_time() - begin
        return content

    def _read(self, position: int, count: int) -> bytes:
        k, within = divmod(position, self.outer)
        if count > BLOCK or position % BLOCK or k >= self.classes:
            return bytes(max(0, min(count, self.size - position)))  # ends of tars, and blocks that are only skipped
        if within == 0:
            return self._header(0, b"n%08d.tar" % self.wnid(k))
        i, rest = divmod(within - BLOCK, self.step)
        if rest or i >= self.each:
            return bytes(count)
        return self._header(1, b"n%08d_%08d.JPEG" % (self.wnid(k), i))

    def _header(self, kind: int, name: bytes) -> bytes:
        header = self._headers[kind][:]
        header[: len(name)] = name
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        return bytes(header)

    def fileno(self) -> int:
        raise OSError("no file")

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        pass


class MadeUpArchive(Archive):
    def __init__(self, content: MadeUp) -> None:
        self.path, self.content, self.size = Path("made-up.tar"), content, content.size

    def open(self):
        return self.content


def memory() -> int:
    """The most that this process has taken, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=22_000)
    parser.add_argument("--pictures", type=int, default=15_000_000)
    parser.add_argument("--save", action=Save, help="write what is printed to benchmarks/results/")
    options = parser.parse_args(arguments)
    each = options.pictures // options.classes
    content = MadeUp(options.classes, each)
    before = memory()
    begin = time.process_time()
    train = ilsvrc.TarOfTars(MadeUpArchive(content))
    listing = train.listing(lambda what, done, total: None)
    seconds, after = time.process_time() - begin, memory()
    assert len(listing) == options.classes * each and len(train.classes) == options.classes
    assert np.array_equal(listing.labels, np.repeat(np.arange(options.classes), each))
    for i in np.random.default_rng(0).integers(0, len(listing), 10_000).tolist():
        assert listing.name(i) == "train/n{0:08}/n{0:08}_{1:08}.JPEG".format(*divmod(i, each)), listing.name(i)
    count = f"{options.classes:,} classes, {len(listing):,} pictures, {content.size / 1e12:.2f} TB"
    lines = [
        "# What searching a tar of all of ImageNet takes",
        "",
        environment("numpy"),
        "",
        f"`python benchmarks/scan_imagenet.py --classes {options.classes} --pictures {options.pictures}`: "
        "a tar, made up,",
        f"of a tar for each class: {count}. All labels and 10,000 names are right.",
        "",
        f"- the processor: {seconds:.0f} s, {content.seconds:.0f} s of them to make headers up; "
        f"{(seconds - content.seconds) / len(listing) * 1e6:.1f} us a picture without these. A disk comes on top.",
        f"- memory: {after} MiB at the most, {before} MiB before; "
        f"{((after - before) << 20) / len(listing):.0f} bytes a picture more.",
    ]
    report("scan_imagenet", lines, options.save)


if __name__ == "__main__":
    main()
