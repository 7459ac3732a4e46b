"""A CUDA file of somebody else's through g++'s preprocessor: its own headers read, those of CUDA and C++ left out.

What is included by a name that lies neither beside the file nor in the folders given is an empty file here.  A pragma
in it tells which of them were asked for: cuda_fp16.h and the like are supplied, by headers in cpp/ of our own.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..errors import KernelError, printable
from .source import without_comments

_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(?P<open>["<])(?P<name>[^">\n]+)[">]', re.MULTILINE)
_MISSING = re.compile(r"fatal error: (?P<name>.+): No such file or directory")
_MARK = "cudasim_included"
_CUDA = 12040  # the version of CUDA that files are told
_MOST_FILES = 2000  # headers that are searched for others


def preprocess(
    text: str, name: str, *, folder: Path | None, include: Sequence[Path], defines: Sequence[str], arch: int
) -> tuple[str, set[str]]:
    """The preprocessed text, with line markers, and the headers that were included and not found.

    name: what messages call the file.  folder: where its own headers lie; None: nowhere.  defines: "NAME" or
    "NAME=VALUE".  KernelError with the messages of g++ for a text that cannot be preprocessed.
    """
    folders = [*([folder] if folder else []), *include]
    with tempfile.TemporaryDirectory(prefix="minigrad-cudasim-") as temporary:
        stubs = Path(temporary, "s/s/s/s/s/s")  # deep, so that "../../common.h" stays inside
        Path(temporary, "file").mkdir()
        stubs.mkdir(parents=True)
        Path(temporary, "file/kernel.cu").write_bytes(
            f'#line 1 "{_quoted(name)}"\n{text}\n'.encode("utf-8", "surrogateescape")
        )
        for header in _not_found(text, folders):
            _stub(stubs, header)
        command = ["g++", "-E", "-x", "c++", "-std=gnu++20", "-w", "-nostdinc", "-nostdinc++"]
        command += [f"-D{define}" for define in defines]
        version = [f"__CUDA_ARCH__={arch}", "__CUDACC__=1", "__NVCC__=1", f"CUDART_VERSION={_CUDA}"]
        version += [f"CUDA_VERSION={_CUDA}", "__CUDACC_VER_MAJOR__=12", "__CUDACC_VER_MINOR__=4", "CUDASIM=1"]
        command += [f"-D{macro}" for macro in version]
        for path in folders:
            command += ["-I", os.path.abspath(path)]
        command += ["-isystem", "s/s/s/s/s/s", "file/kernel.cu"]
        while True:
            result = subprocess.run(command, cwd=temporary, capture_output=True)
            messages = result.stderr.decode(errors="replace")
            found = _MISSING.search(messages)
            if not result.returncode:
                break
            if found is None or not _stub(stubs, found["name"]):
                lines = [line for line in messages.splitlines() if "error:" in line] or messages.splitlines()
                raise KernelError(
                    "the file does not get through the preprocessor:\n"
                    + "\n".join(printable(line[:500]) for line in lines[:10])
                )
    output = result.stdout.decode("utf-8", "surrogateescape")
    missing = set(re.findall(rf"^#pragma {_MARK} (.+)$", output, re.MULTILINE))
    if folder:  # beside the file, headers are named as it is
        beside = os.path.abspath(folder)
        shown = os.path.dirname(name)
        output = output.replace(f'"{_quoted(beside)}/', f'"{_quoted(shown)}/' if shown else '"')
    return output, missing


def _quoted(name: str) -> str:
    """A file's name as a string of C, in bytes that every compiler leaves as they are."""
    code = os.fsencode(name)
    return "".join(chr(b) if 32 <= b < 127 and chr(b) not in '"\\?' else f"\\{b:03o}" for b in code)


def _not_found(text: str, folders: Sequence[Path]) -> set[str]:
    """What the text includes, itself or by headers that are there, and is not in these folders."""
    missing: set[str] = set()
    queue: list[tuple[str, list[Path]]] = [(text, [*folders])]
    seen: set[str] = set()
    while queue and len(seen) < _MOST_FILES:
        code, places = queue.pop()
        for match in _INCLUDE.finditer(without_comments(code)):
            for place in places:
                path = os.path.normpath(place / match["name"])
                if os.path.isfile(path):
                    if path not in seen:
                        seen.add(path)
                        with open(path, encoding="utf-8", errors="surrogateescape") as file:
                            queue.append((file.read(), [Path(path).parent, *folders]))
                    break
            else:
                missing.add(match["name"])
    return missing


def _stub(stubs: Path, name: str) -> bool:
    """An empty header of that name; False where there is one, or where it would lie outside."""
    path = os.path.normpath(stubs / name)
    if not path.startswith(str(stubs.parents[4]) + "/") or os.path.exists(path):
        return False
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Path(path).write_text(f"#pragma {_MARK} {name}\n", encoding="utf-8")
    return True
