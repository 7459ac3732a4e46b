"""A network together with what it cannot be used without: class names, mean image, and how its inputs are scaled."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from alexnet import PRESETS, AlexNet, together
from progress import progress
from training import Scores, evaluate, probabilities

import minigrad
from minigrad import checkpoint
from minigrad.data import IMAGENET_PCA, CenterView, ImageFolder, ImageStats, Loader, TenViews, TrainViews
from minigrad.errors import CheckpointError, DataError

WEIGHTS, PREPARATION = "weights.safetensors", "preparation.npz"


@dataclass
class Trained:
    """AlexNet, the names of its classes, and the statistics of the images it was trained on."""

    model: AlexNet
    preset: str
    classes: Sequence[str]
    stats: ImageStats

    @property
    def device(self) -> str:
        """Where images go in and logits come out."""
        return self.model.devices[0]

    # ---------------------------------------------------------------- how an image becomes an input

    def train_view(self, colour_noise: float) -> TrainViews:
        """Random crop, flip, colour noise of that standard deviation (section 4.1)."""
        scale = PRESETS[self.preset].pixel_scale
        return TrainViews(self.model.input_size, self.stats.mean_image, self.stats.pca, colour_noise, scale)

    def center_view(self) -> CenterView:
        return CenterView(self.model.input_size, self.stats.mean_image, PRESETS[self.preset].pixel_scale)

    def ten_view(self) -> TenViews:
        return TenViews(self.model.input_size, self.stats.mean_image, PRESETS[self.preset].pixel_scale)

    # ---------------------------------------------------------------- what it says of images

    def test(self, images: ImageFolder, workers: int, report: Any, ten: bool) -> Scores:
        """Scores on a folder: with the paper's ten views (four corners, centre, mirrored), or the centre alone."""
        view = self.ten_view() if ten else self.center_view()
        loader = Loader(images, 8 if ten else 64, view, workers=workers, report=report, cache_bytes=0)
        title = f"testing with {'ten views' if ten else 'one view'}"
        with progress(len(loader), title, "batches") as bar:
            return evaluate(self.model, loader, self.device, bar)

    def probabilities(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Softmax over the classes (N, classes), ten views averaged, of prepared images uint8 (256, 256, 3)."""
        view = self.ten_view()
        return np.concatenate(
            [probabilities(self.model, view(image).transpose(0, 3, 1, 2)[None], self.device) for image in images]
        )

    def features(self, images: Sequence[np.ndarray], batch: int = 64) -> np.ndarray:
        """The activations of the last hidden layer, fc7, (N, 4096): the feature space of Figure 4."""
        view, parts = self.center_view(), []
        self.model.eval()
        with minigrad.no_grad():
            for i in range(0, len(images), batch):
                x = np.stack([view(image) for image in images[i : i + batch]]).transpose(0, 3, 1, 2)
                halves = self.model.features(minigrad.Tensor(x, device=self.device))
                parts.append(together(halves, self.device).numpy())
        return np.concatenate(parts)

    # ---------------------------------------------------------------- on disk

    def save(self, run: Path) -> None:
        """Weights (one-device form, with classes and preset) and preparation, into the folder of a run."""
        facts = {
            "classes": json.dumps(list(self.classes)),
            "preset": self.preset,
            "mean_rgb": json.dumps([float(value) for value in self.stats.mean_rgb]),
        }
        self.stats.save(run / PREPARATION)
        checkpoint.save(run / WEIGHTS, self.model.state_dict(), facts)

    @classmethod
    def restore(cls, path: Path, preset: str, devices: Sequence[str]) -> Trained:
        """What a weights file holds; `preset` counts where the file does not name one (weights from elsewhere)."""
        state, facts = checkpoint.load(path)
        if "fc8.weight" not in state:
            raise CheckpointError(f"{path}: no AlexNet weights: there is no fc8.weight among {sorted(state)[:4]} ...")
        num_classes = len(state["fc8.weight"])
        names = json.loads(facts.get("classes", "[]")) or [f"class {k}" for k in range(num_classes)]
        preset = facts.get("preset", preset)
        model = AlexNet(num_classes, preset, devices)
        model.load_state_dict(state)
        if (path.parent / PREPARATION).is_file():
            stats = ImageStats.load(path.parent / PREPARATION)
        else:
            mean = np.array(json.loads(facts.get("mean_rgb", "[127.305, 119.715, 104.913]")), dtype=np.float32)
            print(
                f"no {PREPARATION} beside the weights: subtracting the mean colour {mean.round(1)}, not the mean image"
            )
            stats = ImageStats(mean, mean, IMAGENET_PCA, 0, 0, 0)
        return cls(model, preset, names, stats)


def readable(images: ImageFolder, order: Sequence[int], count: int) -> list[tuple[int, np.ndarray]]:
    """The first `count` (index, image) in that order whose files can be read."""
    found: list[tuple[int, np.ndarray]] = []
    for i in order:
        try:
            found.append((int(i), images.image(int(i))))
        except DataError:
            continue  # reported during training
        if len(found) == count:
            break
    return found
