"""A CUDA file and its kernels: those that could also lie in kernels/, and few others."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import KernelError, printable
from .module import RawModule
from .source import position, without_comments

_KERNEL = re.compile(r'(?:extern\s+"C"\s+)?__global__\s+void\s+(?P<name>\w+)\s*\((?P<parameters>[^)]*)\)\s*\{')


@dataclass(frozen=True)
class Kernel:
    name: str
    template_parameters: tuple[str, ...]
    parameters: tuple[tuple[str, str], ...]
    file: str
    line: int


class CudaFile:
    def __init__(self, text: str, name: str = "kernel.cu", *, defines: Sequence[str] = (), arch: int = 800):
        text = re.sub(r'(?<!extern "C" )__global__', 'extern "C" __global__', text)
        self.name, self.text, self.defines = name, f'#line 1 "{name}"\n{text}', tuple(defines)
        self.kernels = []
        code = without_comments(self.text)
        for match in _KERNEL.finditer(code):
            parameters = []
            for declared in filter(None, (" ".join(part.split()) for part in match["parameters"].split(","))):
                type_, name = re.fullmatch(r"(.*?)(\w+)", declared).groups()  # type: ignore[union-attr]
                parameters.append((re.sub(r"\s*\b__restrict__", "", type_).replace(" *", "*").strip(), name))
            self.kernels.append(Kernel(match["name"], (), tuple(parameters), *position(self.text, match.start())))

    @classmethod
    def read(cls, path: str | os.PathLike[str], **options: object) -> CudaFile:
        return cls(Path(path).read_text(encoding="utf-8", errors="replace"), os.fspath(path), **options)  # type: ignore[arg-type]

    def module(
        self,
        kernel: str,
        templates: Sequence[str] = (),
        mode: str = "check",
        copy: int = 0,
        arguments: Sequence[object] | None = None,
    ) -> RawModule:
        if kernel not in [k.name for k in self.kernels]:
            known = ", ".join(k.name for k in self.kernels)
            raise KernelError(f"{printable(self.name)}: there is no kernel '{kernel}'; there are {known or 'none'}")
        return RawModule(self.text, [f"-D{define}" for define in self.defines], mode, copy)
