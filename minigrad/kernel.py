"""The CUDA sources: where they lie.

They are the files of the top-level folder kernels/, named after the ops.  A checkout, and an editable install of one,
reads them there; a wheel carries a copy inside the package.
"""

from __future__ import annotations

from pathlib import Path

from .errors import DeviceError

_PACKAGE = Path(__file__).resolve().parent


def kernel_folder() -> Path:
    """The folder with the .cu files; DeviceError where an installation has lost it."""
    for folder in (_PACKAGE / "_kernels", _PACKAGE.parent / "kernels"):
        if (folder / "README.md").is_file():
            return folder
    raise DeviceError(f"kernels: no folder with CUDA sources beside or inside {_PACKAGE}: install minigrad again")


def kernel_source(name: str) -> str:
    """The text of kernels/<name>.cu; DeviceError names the kernels there are."""
    path = kernel_folder() / f"{name}.cu"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in kernel_folder().glob("*.cu"))) or "none yet"
        raise DeviceError(f"kernels: there is no {name}.cu in {kernel_folder()}; there are: {known}")
    return path.read_text(encoding="utf-8")
