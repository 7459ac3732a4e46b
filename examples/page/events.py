"""The curves of a run for TensorBoard, beside log.csv, wherever the package `tensorboard` is installed.

There is no option for it: who has installed TensorBoard wants to look at runs with it, who has not is asked nothing,
and the file is small (about 300 bytes a step).  It is TensorBoard's own writer that writes; PyTorch is not needed.
`tensorboard --logdir runs` shows all runs.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from progress import warn
from run_folder import cause

NAMES = {
    "train": {"loss": "loss/train", "top1": "top1/train", "lr": "lr", "images_per_s": "speed/images_per_s",
              "data_s": "speed/data_s", "compute_s": "speed/compute_s"},
    "val": {"loss": "loss/held_out", "top1": "top1/held_out", "top5": "top5/held_out"},
}  # fmt: skip
FILES = "events.out.tfevents.*"


class Events:
    """Rows of the log as events; their times are those of the training, without pauses between processes."""

    def __init__(self) -> None:
        self.writer: Any = None
        self.off = False
        self.origin: float | None = None
        self.seconds = 0.0

    def add(self, folder: Path, rows: list[Mapping[str, Any]], anew: bool) -> None:
        """Write rows; anew: they are all there are, and take the place of an earlier process's events.

        So a run that goes on from a checkpoint has each step once, also those that were done again.
        """
        if self.off or not rows:
            return
        try:
            if anew:
                self._open(folder)
            if self.off:
                return
            if self.origin is None:
                self.origin = time.time() - sum(_seconds(row) for row in rows)
            self._write(rows)
        except Exception as error:
            self.off = True
            warn(f"no more events for TensorBoard can be written ({type(error).__name__}: {cause(error)}): going on")

    def _open(self, folder: Path) -> None:
        try:
            from tensorboard.summary import Writer
        except ImportError:
            self.off = True
            return
        for old in folder.glob(FILES):
            old.unlink()
        self.writer = Writer(str(folder))

    def _write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        for row in rows:
            self.seconds += _seconds(row)
            for column, name in NAMES.get(row["split"], {}).items():
                if column in row:
                    self.writer.add_scalar(name, row[column], row["step"], wall_time=self.origin + self.seconds)
        self.writer.flush()

    def close(self) -> None:
        if self.writer is not None and not self.off:
            self.writer.close()
            self.off = True


def _seconds(row: Mapping[str, Any]) -> float:
    return float(row.get("data_s", 0.0)) + float(row.get("compute_s", 0.0))
