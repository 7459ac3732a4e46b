"""What lies in a tar or zip, found in one pass over the headers; nothing is unpacked, and pictures are read in place.

Archives come from anywhere.  One that holds a path that leads out of it, a link, a device or a pipe is refused, by the
name of that member; so is one that ends before its end, or whose headers are broken: pictures would be missing
silently.  Compressed tars are refused with the command that unpacks them, because to read one picture there means to
unpack all that come before it.
"""

from __future__ import annotations

import stat
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

from minigrad.errors import DataError, one_line, printable, some

from .decode import EXTENSIONS
from .folder import SYSTEM_FILES, is_system_folder

Read = Callable[[int, int], bytes]  # (offset, how many bytes) of a file

_MOST_HEADER = 1 << 20  # bytes of one header: names of a million letters are nobody's
_MOST_ZIPPED = 2_000_000  # members: zipfile holds half a kilobyte for each
_MAGIC = {  # the first bytes of what is compressed, and the command that unpacks it
    b"\x1f\x8b": "gunzip -k",
    b"BZh": "bunzip2 -k",
    b"\xfd7zXZ": "unxz -k",
    b"(\xb5/\xfd": "unzstd",
}


class Member(NamedTuple):
    """A regular file in an archive: its folder ("" for none) and name, and the numbers that TarListing or ZipListing
    want of it."""

    folder: str
    name: str
    numbers: tuple[int, ...]

    @property
    def path(self) -> str:
        return f"{self.folder}/{self.name}" if self.folder else self.name


def compression_of(begin: bytes) -> str:
    """The command that unpacks a file which begins so; "" where it is not compressed."""
    return next((command for magic, command in _MAGIC.items() if begin.startswith(magic)), "")


def tar_members(read: Read, start: int, size: int, where: str) -> Iterator[Member]:
    """The regular files of the tar that lies at start..start+size of a file, in its order; their numbers are (offset
    in the file, size).  DataError, which says `where`, for anything that cannot be trusted."""
    window = _Window(read, start, size)
    at = 0
    try:
        with tarfile.open(fileobj=window, mode="r:") as tar:  # type: ignore[call-overload]
            while (member := tar.next()) is not None:
                tar.members.clear()  # it would keep them all
                folder, name = _safe(member.name, where)
                if not (member.isreg() or member.isdir()) or member.issparse():
                    raise DataError(f"{where}: '{printable(member.name)}' is {_kind(member)}. {_REFUSED}")
                if member.size < 0:  # it would go round in a circle
                    raise tarfile.ReadError(f"'{printable(member.name)}' has {member.size:,} bytes")
                at = tar.offset
                if member.isreg():
                    yield Member(folder, name, (start + member.offset_data, member.size))
            at = tar.offset  # tarfile takes a header that it cannot read for the end
        if at >= size:
            raise tarfile.ReadError("the zeros that end a tar are missing")
        if any(window.at(at, _MOST_HEADER)):  # tar fills its last blocks with zeros
            raise tarfile.ReadError("what comes there is no header, and not its end")
    except OSError as error:
        raise DataError(f"{where}: cannot be read: {one_line(error)}. Check the disk.") from error
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{where}: no whole tar: {one_line(error)}, at or after byte {start + at:,} of {start + size:,}. It was "
            "cut off or damaged: fetch it again."
        ) from error


def zip_members(file: BinaryIO, where: str) -> Iterator[Member]:
    """The regular files of a zip; their numbers are (offset of the header, packed size, size, CRC-32).

    Raises DataError as tar_members does.
    """
    try:
        with zipfile.ZipFile(file) as content:
            if len(content.filelist) > _MOST_ZIPPED:
                raise DataError(
                    f"{where}: {len(content.filelist):,} members are more than the {_MOST_ZIPPED:,} whose index is "
                    "held in memory. Unpack it, and give the folder."
                )
            for member in content.infolist():
                folder, name = _safe(member.filename, where)
                mode = member.external_attr >> 16
                kind = stat.S_IFMT(mode)
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise DataError(f"{where}: '{printable(member.filename)}' is {stat.filemode(mode)}. {_REFUSED}")
                if member.is_dir():
                    continue
                if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    what = "encrypted" if member.flag_bits & 1 else f"packed by method {member.compress_type}"
                    raise DataError(
                        f"{where}: '{printable(member.filename)}' is {what}; only stored and deflated members are "
                        "read. Unpack it, and give the folder."
                    )
                numbers = (member.header_offset, member.compress_size, member.file_size, member.CRC)
                yield Member(folder, name, numbers)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{where}: no whole zip: {one_line(error)}. It was cut off or damaged: fetch it again."
        ) from error


class Passed:
    """What is no picture to be counted, by ImageFolder's rule, and a warning that says so."""

    def __init__(self, where: str, known: tuple[str, ...] = ()) -> None:
        """known: names of files that are no pictures and need no mention."""
        self._where, self._known = where, known
        self._kinds: dict[str, tuple[int, list[str]]] = {}

    def picture(self, member: Member) -> bool:
        """Whether it is a picture; if not, it is noted."""
        lower = member.name.lower()
        picture = lower.endswith(EXTENSIONS)
        hidden = member.name.startswith(".") or any(
            part.startswith(".") or is_system_folder(part) for part in member.folder.split("/")
        )
        if picture and not hidden:
            return True
        if picture:
            self.add("for their names, hidden or a system's", member.path)
        elif not hidden and lower not in SYSTEM_FILES and member.name not in self._known:
            self.add("for their endings", member.path)
        return False

    def add(self, why: str, path: str) -> None:
        count, names = self._kinds.get(why, (0, []))
        self._kinds[why] = (count + 1, [*names, path] if count < 5 else names)

    def tell(self) -> None:
        for why, (count, names) in self._kinds.items():
            warnings.warn(f"{self._where}: {count} files passed over {why}: {some(names, 5, count)}", stacklevel=2)


def reader(file: BinaryIO) -> Read:
    """read(offset, count) of an open file."""

    def read(offset: int, count: int) -> bytes:
        file.seek(offset)
        return file.read(count)

    return read


def clipped(numbers: tuple[int, ...]) -> tuple[int, ...]:
    """Numbers of a member as Found holds them; sizes beyond 32 bits are those of nothing that is read."""
    return *numbers[:1], *(min(number, 2**32 - 1) for number in numbers[1:])


_REFUSED = "Only files and folders are taken from an archive: unpack it where you trust it, and give the folder."


def _safe(path: str, where: str) -> tuple[str, str]:
    """(folder, name) of a member's path; DataError where it leads out of the archive."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or ".." in parts or "\0" in path or (parts and parts[0][1:2] == ":"):
        raise DataError(
            f"{where}: the path '{printable(path)}' leads out of the archive. Nothing of it is taken: look at who made "
            "it, or unpack it with care and give the folder."
        )
    return "/".join(parts[:-1]), parts[-1] if parts else ""


def _kind(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return f"a link to '{printable(member.linkname)}'"
    return "a pipe" if member.isfifo() else "a device" if member.isdev() else "a sparse or unknown kind of file"


class _Window:
    """A part of a file, as tarfile wants to see it.  It gives little at a time: a header may lie about its length."""

    def __init__(self, read: Read, start: int, size: int) -> None:
        self._read, self._start, self._size, self._at = read, start, size, 0

    def tell(self) -> int:
        return self._at

    def seek(self, position: int) -> None:
        self._at = position

    def read(self, count: int) -> bytes:
        content = self.at(self._at, count)
        self._at += len(content)
        return content

    def at(self, position: int, count: int) -> bytes:
        if not 0 <= count <= _MOST_HEADER or position < 0:
            raise tarfile.ReadError(f"a header of {count:,} bytes")
        return self._read(self._start + position, max(0, min(count, self._size - position)))
