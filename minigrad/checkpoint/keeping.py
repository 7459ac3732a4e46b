"""The checkpoints of a training in one folder: the last few, and the best.

    kept = Checkpoints("runs/first", keep=3)
    step = kept.load(model=model, optimizer=optimizer)["step"] if kept.latest() else 0
    ...
    kept.save(step, score=top1, model=model, optimizer=optimizer)

step-00001200.safetensors is the training after 1,200 steps; best.safetensors the one with the highest score so far.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..base import files
from ..base.arguments import integer, number
from ..errors import CheckpointError, printable
from .training import Training, go_on_from, read_training, save_training, values_of
from .weights import PathLike

_STEP = re.compile(r"step-([0-9]{8,})\.safetensors")
BEST = "best.safetensors"


class Checkpoints:
    """The checkpoints in a folder, which `save` makes if it is not there.

    keep: how many of the last ones stay; the best stays beside them.  best: (score, step) of the best, or None.
    """

    def __init__(self, folder: PathLike, keep: int = 3):
        self.folder, self.keep = Path(folder), integer("Checkpoints", "keep", keep, 1)
        self.best: tuple[float, int] | None = None

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.safetensors"

    def all(self) -> list[Path]:
        """The checkpoints that are there, from the oldest to the newest; the best is one of them, or was."""
        found = []
        with suppress(FileNotFoundError, NotADirectoryError):
            for name in os.listdir(self.folder):
                match = _STEP.fullmatch(name)
                if match:
                    found.append((int(match[1]), self.folder / name))
        return [path for _, path in sorted(found)]

    def latest(self) -> Path | None:
        found = self.all()
        return found[-1] if found else None

    def save(self, step: int, /, *, score: float | None = None, **training: Any) -> Path:
        """Write the training after so many steps (see save_training), and remove what need not be kept.

        The step comes back as the value "step".  score: the higher, the better; None: not known, it cannot be the best.
        CheckpointError where it cannot be
        written: the earlier ones are as they were.
        """
        step = integer("Checkpoints.save", "step", step, 0)
        best = self.best
        if score is not None:
            score = number("Checkpoints.save", "score", score)
            best = (score, step) if best is None or score > best[0] else best
        path = self.path(step)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            files.remove_dead(self.folder, rf"(?:{_STEP.pattern}|{re.escape(BEST)})\.[0-9a-f]{{12}}\.tmp")
        except OSError as error:
            raise CheckpointError(
                f"checkpoint: cannot make the folder {printable(self.folder)}: {files.reason(error)}"
            ) from error
        save_training(path, **training, step=step, best=best)
        self.best = best
        self._name_best()
        self._clear(step)
        return path

    def load(self, path: PathLike | None = None, **objects: Any) -> dict[str, Any]:
        """Go on from a checkpoint, the latest if no path is given, as load_training does; the values by name.

        CheckpointError where it cannot be read; the message names the newest of those before it that can.
        """
        values = go_on_from(self._read(path), objects)
        best = values.pop("best", None)
        self.best = None if best is None else (float(best[0]), int(best[1]))
        self._name_best()  # the process that saved it may have ended before it could
        return values

    def values(self, path: PathLike | None = None) -> dict[str, Any]:
        """The values alone, as load returns them: say, those that tell which objects to make."""
        values = values_of(self._read(path))
        values.pop("best", None)
        return values

    def _read(self, path: PathLike | None) -> Training:
        chosen = Path(path) if path is not None else self.latest()
        if chosen is None:
            raise CheckpointError(f"Checkpoints: there is none in {printable(self.folder)}: save one first")
        try:
            return read_training(chosen)
        except CheckpointError as error:
            raise CheckpointError(f"{error}.  {self._instead_of(chosen)}") from error

    def _name_best(self) -> None:
        if self.best is not None and self.path(self.best[1]).exists():
            path = self.path(self.best[1])
            files.link(path, self.folder / BEST, lambda message: CheckpointError(f"checkpoint: {message}"))

    def _instead_of(self, chosen: Path) -> str:
        for path in reversed(self.all()):
            if path.name < chosen.name:
                with suppress(CheckpointError):
                    return f"The one before it can be read: {printable(read_training(path).where)}"
        return f"No other in {printable(self.folder)} can be read"

    def _clear(self, step: int) -> None:
        """Remove all but the last ones; those of later steps, from which the training did not go on, are set aside."""
        earlier = []
        for path in self.all():
            if path.name > self.path(step).name:
                with suppress(OSError):
                    path.replace(path.with_name(f"{path.stem}.left.safetensors"))
            else:
                earlier.append(path)
        for path in earlier[: -self.keep]:
            with suppress(OSError):
                path.unlink()
