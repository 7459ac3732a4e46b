"""A network together with what it cannot be used without: class names, mean image, and how its inputs are scaled."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from reprlib import repr as brief
from typing import Any

import numpy as np
from alexnet import PRESETS, TORCHVISION, AlexNet
from progress import progress
from scoring import Answered, Scores, answered, log_probabilities, tally
from training import check_before_saving

import minigrad
from minigrad import checkpoint
from minigrad.data import (
    IMAGENET_MEAN_RGB,
    IMAGENET_PCA,
    CenterView,
    ImageStats,
    Loader,
    NamedImages,
    TenViews,
    TrainViews,
)
from minigrad.data.words import shown_names
from minigrad.distributed import Comm
from minigrad.errors import CheckpointError, DataError, printable, some

WEIGHTS, PREPARATION = "weights.safetensors", "preparation.npz"


@dataclass
class Trained:
    """AlexNet, its classes and words for them where there are any, and the statistics of what it was trained on.

    comm: the processes that test it together.
    """

    model: AlexNet
    preset: str
    classes: Sequence[str]
    stats: ImageStats
    words: Mapping[str, str] = field(default_factory=dict)
    comm: Comm = field(default_factory=Comm)

    @property
    def device(self) -> str:
        """Where images go in and logits come out."""
        return self.model.devices[0]

    @property
    def names(self) -> tuple[str, ...]:
        """What to call the classes in pictures and tables."""
        return shown_names(self.classes, self.words)

    # ---------------------------------------------------------------- how an image becomes an input

    def train_view(self, colour_noise: float) -> TrainViews:
        """Random crop, flip, colour noise of that standard deviation (section 4.1)."""
        scale = PRESETS[self.preset].pixel_scale
        return TrainViews(self.model.input_size, self.stats.mean_image, self.stats.pca, colour_noise, scale)

    def center_view(self) -> CenterView:
        return CenterView(self.model.input_size, self.stats.mean_image, PRESETS[self.preset].pixel_scale)

    def ten_view(self) -> TenViews:
        return TenViews(self.model.input_size, self.stats.mean_image, PRESETS[self.preset].pixel_scale)

    def loader(self, images: NamedImages, batch_size: int, view: Any, **options: Any) -> Loader:
        """Batches of views for the network (training.Inputs takes them).

        A card is sent the pictures as bytes, a third as many or less, by the threads that load, and makes the views
        (where one number scales all colours).
        """
        if not minigrad.device(self.device).on_host and isinstance(PRESETS[self.preset].pixel_scale, float):
            options |= {"pictures": True, "send": functools.partial(minigrad.Tensor, device=self.device)}
        return Loader(images, batch_size, view, **options)

    # ---------------------------------------------------------------- what it says of images

    def test(self, images: NamedImages, workers: int, report: Any, ten: bool, step: int | None = None) -> Scores:
        """Scores on a folder; see answers."""
        return tally(self.answers(images, workers, report, ten, step))

    def answers(
        self, images: NamedImages, workers: int, report: Any, ten: bool, step: int | None = None
    ) -> Iterator[Answered]:
        """What it says of a folder: with the paper's ten views (four corners, centre, mirrored), or the centre alone.

        Several processes answer for parts of each batch, and all have the answers of all, in the order of one.
        TrainingError where the net answers nan or inf; it names the files, and the `step` of training, where given.
        """
        view = self.ten_view() if ten else self.center_view()
        shard = (self.comm.rank, self.comm.size)
        loader = self.loader(images, 8 if ten else 64, view, workers=workers, report=report, cache_bytes=0, shard=shard)
        title = f"testing with {'ten views' if ten else 'one view'}"
        with progress(len(loader), title, "batches") as bar:
            for batch in loader:
                mine = answered(self.model, [batch] * bool(len(batch.labels)), self.device, bar, images.paths, step)
                for theirs in self.comm.gather(list(mine)):
                    yield from theirs

    def log_probabilities(self, image: np.ndarray, name: Any = "the image") -> np.ndarray:
        """Logarithm of the softmax, ten views averaged, float64 (classes,), of a prepared image uint8 (256, 256, 3).

        TrainingError, which names the image, where the net answers nan or inf.
        """
        views = self.ten_view()(image).transpose(0, 3, 1, 2)[None]
        return log_probabilities(self.model, views, self.device, [name])[0]

    def probabilities(self, images: Sequence[np.ndarray], ten: bool = True) -> np.ndarray:
        """Softmax over the classes (N, classes), ten views averaged or the centre alone, of prepared images."""
        if ten:
            return np.exp([self.log_probabilities(image) for image in images])
        view = self.center_view()
        views = np.stack([view(image) for image in images]).transpose(0, 3, 1, 2)
        return np.exp(log_probabilities(self.model, views, self.device))

    def features(self, images: Sequence[np.ndarray], batch: int = 64) -> np.ndarray:
        """The activations of the last hidden layer, fc7, float64 (N, 4096): the feature space of Figure 4."""
        view, parts = self.center_view(), []
        self.model.eval()
        with minigrad.no_grad():
            for i in range(0, len(images), batch):
                x = np.stack([view(image) for image in images[i : i + batch]]).transpose(0, 3, 1, 2)
                halves = self.model.features(minigrad.Tensor(x, device=self.device))
                parts.append(np.concatenate([half.numpy() for half in halves], axis=1))
        return np.concatenate(parts).astype(np.float64)  # the squares of distances could overflow in float32

    # ---------------------------------------------------------------- on disk

    def save(self, run: Path) -> None:
        """Weights (one-device form, with classes and preset) and preparation, into the folder of a run.

        TrainingError where the net has diverged: nothing is written then, and what was saved before is kept.
        """
        facts = {
            "classes": json.dumps(list(self.classes)),
            "preset": self.preset,
            "mean_rgb": json.dumps([float(value) for value in self.stats.mean_rgb]),
        }
        if self.model.input_size != 224:
            facts["input_size"] = json.dumps(self.model.input_size)
        if self.words:
            facts["words"] = json.dumps(dict(self.words))
        state = self.model.state_dict()
        noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
        check_before_saving(self.model, state, self.center_view()(noise).transpose(2, 0, 1), self.device)
        self.stats.save(run / PREPARATION)
        checkpoint.save(run / WEIGHTS, state, facts)

    @classmethod
    def restore(cls, path: Path, preset: str, devices: Sequence[str], tell: Callable[[str], Any] = print) -> Trained:
        """What a weights file holds; `preset` counts where the file does not name one (weights from elsewhere), nor has
        torchvision's names.  A net of one column takes the first of the devices.

        What it does without is told.  CheckpointError, or DataError for the preparation beside it, where something in
        them cannot be used.
        """
        state, facts = checkpoint.load(path)
        where = printable(path)
        last = "fc8.weight"
        if {f"{layer}.weight" for layer in TORCHVISION.values()} <= state.keys():
            last, preset = f"{TORCHVISION['fc8']}.weight", "torchvision"
        if last not in state:
            raise CheckpointError(
                f"{where}: no AlexNet weights: there is no fc8.weight among {some(sorted(state), 4) or 'no arrays'}: "
                f"give the {WEIGHTS} of a run"
            )
        if state[last].ndim != 2 or not state[last].size:
            raise CheckpointError(
                f"{where}: {last} must be (classes, 4096), it is {state[last].shape}: give the {WEIGHTS} of a run"
            )
        names, preset, mean, words = _facts(where, facts, state[last], last, preset)
        bad = [name for name, array in state.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]
        if bad:
            raise CheckpointError(
                f"{where}: {printable(bad[0])} holds NaN or infinity, as {len(bad)} of {len(state)} arrays do: the "
                "training that made them had failed, take the weights of another run"
            )
        model = AlexNet(len(names), preset, devices[: PRESETS[preset].columns], input_size_of(where, facts))
        try:
            model.load_state_dict(state)
        except CheckpointError as error:
            raise CheckpointError(f"{where}: {error}") from None
        if (path.parent / PREPARATION).exists():
            stats = ImageStats.load(path.parent / PREPARATION)
            if stats.mean_image.shape not in ((256, 256, 3), (3,)):
                raise DataError(
                    f"{printable(path.parent / PREPARATION)}: the mean image must be (256, 256, 3), as the images are, "
                    f"it is {stats.mean_image.shape}: give the file that the weights' run made, or move this one away"
                )
        elif PRESETS[preset].mean_rgb is not None:
            stats = with_mean(ImageStats(mean, mean, IMAGENET_PCA, 0, 0, 0), preset)
        else:
            tell(
                f"no {PREPARATION} beside the weights: subtracting the mean colour {mean.round(1)}, not the mean image"
            )
            stats = ImageStats(mean, mean, IMAGENET_PCA, 0, 0, 0)
        return cls(model, preset, names, stats, words)


def input_size_of(where: str, facts: Mapping[str, Any]) -> int:
    """The side of the images that weights were trained on, of a file's metadata: 224 where it does not say."""
    size = facts.get("input_size", "224")
    if str(size) not in ("224", "227"):
        raise CheckpointError(
            f"{where}: input_size in its metadata must be 224 or 227, got {brief(size)}: mend or drop it"
        )
    return int(size)


def with_mean(stats: ImageStats, preset: str) -> ImageStats:
    """The statistics, with the preset's mean colour in place of the mean image where it has one."""
    mean = PRESETS[preset].mean_rgb
    return stats if mean is None else replace(stats, mean_image=np.array(mean, np.float32))


def _facts(
    where: str, facts: dict[str, Any], fc8: np.ndarray, last: str, preset: str
) -> tuple[list[str], str, np.ndarray, dict[str, str]]:
    """(class names, preset, mean colour, words) of a file's metadata, or defaults; CheckpointError for bad ones."""

    def fact(name: str, default: Any, fits: Callable[[Any], bool], what: str) -> Any:
        value = facts.get(name, default)
        if isinstance(value, str) and name != "preset":  # `save` writes lists as JSON text, which any tool can show
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                pass  # no JSON: left as text, which is refused below
        if not fits(value):
            raise CheckpointError(
                f"{where}: {name} in its metadata must be {what}, got {brief(value)}: mend or drop it"
            )
        return value

    def is_names(value: Any) -> bool:
        return isinstance(value, list) and len(value) == num_classes and all(isinstance(name, str) for name in value)

    def is_colour(value: Any) -> bool:
        numbers = isinstance(value, list) and all(type(v) in (int, float) and abs(v) < 1e6 for v in value)
        return numbers and len(value) == 3

    def is_words(value: Any) -> bool:
        return isinstance(value, dict) and all(isinstance(words, str) for words in value.values())

    num_classes = len(fc8)
    names = [f"class {k}" for k in range(num_classes)]
    return (
        fact("classes", names, is_names, f"a list of {num_classes} names, as {last} has {num_classes} rows"),
        fact("preset", preset, lambda value: value in tuple(PRESETS), f"one of {', '.join(PRESETS)}"),
        np.array(fact("mean_rgb", IMAGENET_MEAN_RGB.tolist(), is_colour, "three numbers"), np.float32),
        fact("words", {}, is_words, "the words of classes, by name"),
    )


def class_names(facts: Mapping[str, Any]) -> Any:
    """The class names in a weights file's metadata, where they can be read."""
    names = facts.get("classes")
    try:
        return json.loads(names) if isinstance(names, str) else names
    except (ValueError, RecursionError):
        return None


def readable(images: NamedImages, order: Sequence[int], count: int) -> list[tuple[int, np.ndarray]]:
    """The first `count` (index, image) in that order whose files can be read.

    Images are copies: a view would keep a store's shard open, and hundreds of them more files than a process may have.
    """
    found: list[tuple[int, np.ndarray]] = []
    for i in order:
        try:
            found.append((int(i), np.array(images.image(int(i)))))
        except DataError:
            continue  # reported during training
        if len(found) == count:
            break
    return found
