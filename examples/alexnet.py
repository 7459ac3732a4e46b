"""AlexNet in two columns, one per device, as in Figure 2 of Krizhevsky, Sutskever, Hinton 2012.

    image ──┬── conv1 ─ conv2 ──┬── conv3 ─ conv4 ─ conv5 ──┬── fc6 ──┬── fc7 ──┬── fc8
            │                   ╳                           ╳         ╳         │
            └── conv1 ─ conv2 ──┴── conv3 ─ conv4 ─ conv5 ──┴── fc6 ──┴── fc7 ──┘

Each device holds half of every layer.  The columns talk only where the picture has a cross: conv3 and the fully
connected layers read both halves of the layer before; everything else, response normalisation included, reads its own.
On one device the same net is grouped: two columns side by side in one tensor, the same numbers.  torchvision's AlexNet
(Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks") is one column, on one device.

docs/alexnet.md tells the presets apart, difference by difference, with sources.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, wraps
from typing import Any

import numpy as np

import minigrad
import minigrad.functional as F
from minigrad import Tensor, init, nn
from minigrad.errors import ArgumentError

# The kernels of conv1 .. conv5 and the neurons of fc6, fc7 in one column (section 3.5).
WIDTHS = (48, 128, 192, 192, 128, 2048, 2048)
LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
# What torchvision calls them: places in its two nn.Sequential, of which ReLU, pools and dropout take the others.
TORCHVISION = dict(zip(LAYERS, [*(f"features.{i}" for i in (0, 3, 6, 8, 10)), *(f"classifier.{i}" for i in (1, 4, 6))]))


@dataclass(frozen=True)
class Preset:
    """What the paper, the code behind the paper, and a net that starts learning at once do differently."""

    columns: int = 2  # of one, there is nothing to split
    widths: tuple[int, ...] = WIDTHS  # of each column
    conv1: tuple[int, int] = (11, 4)  # side of its windows, and stride
    padding: int = 0  # of conv1, in place of the overhang
    pool: tuple[int, int] = (3, 2)  # side of the windows of all pools, and stride: they overlap (section 3.4)
    # What follows the convolutions of layers 1, 2 and 5, in order.
    layer1: tuple[str, ...] = ("relu", "lrn", "pool")
    layer2: tuple[str, ...] = ("relu", "lrn", "pool")
    layer5: tuple[str, ...] = ("relu", "pool")
    lrn_alpha: float = 1e-4  # in the paper's formula, where it is not divided by n
    # Weights are drawn from N(0, std), by layer; None: He, std = sqrt(2 / fan-in).
    std: Mapping[str, float] | None = None
    ones: tuple[str, ...] = ("conv2", "conv4", "conv5", "fc6", "fc7")  # layers whose biases start at `bias`
    bias: float = 1.0  # the others start at 0
    dropout: str = "paper"  # mask in training and half the output in testing; "inverted": doubled in training
    dropped: tuple[str, ...] = ("fc6", "fc7")  # whose outputs
    bias_lr: float = 1.0  # learning rate of the biases, relative to the weights'
    bias_decay: bool = True  # whether weight decay applies to biases
    pixel_scale: float | tuple[float, ...] = 1.0  # the network sees (pixel - mean) * pixel_scale, pixels from 0 to 255
    mean_rgb: tuple[float, ...] | None = None  # the mean, where it is not that of the training set
    # Of what varies in its windows conv1's first weights see this much: main_directions.
    conv1_share: float = 1.0
    names: Mapping[str, str] = field(default_factory=dict)  # of layers in weights that are saved, where they differ

    def around(self, input_size: int) -> Any:
        """conv1's padding: its last windows overhang the image and read zeros, right and bottom only; 3 of 224."""
        return self.padding or ((0, (self.conv1[0] - input_size) % self.conv1[1]),) * 2

    def side(self, input_size: int) -> int:
        """Of the maps that fc6 reads; 0: the images are too small."""
        zeros = int(np.broadcast_to(self.around(input_size), (2, 2))[0].sum())
        side = (input_size + zeros - self.conv1[0]) // self.conv1[1] + 1
        for layer in (self.layer1, self.layer2, self.layer5):
            side = (side - self.pool[0]) // self.pool[1] + 1 if "pool" in layer else side
        return max(0, side)


PRESETS = {
    "paper": Preset(std=dict.fromkeys(LAYERS, 0.01)),
    "original": Preset(
        layer1=("lrn", "pool", "relu"),
        layer2=("relu", "lrn", "lrn_within_map", "pool"),
        layer5=("pool", "relu"),
        lrn_alpha=1e-4 / 5,
        std={**dict.fromkeys(LAYERS, 0.01), "conv3": 0.03, "conv4": 0.03, "conv5": 0.03},
        bias_lr=2.0,
        bias_decay=False,
        pixel_scale=1 / 1.1,
    ),
    "trainable": Preset(bias=0.1, dropout="inverted", pixel_scale=1 / 58, conv1_share=0.98),
    "torchvision": Preset(
        columns=1,
        widths=(64, 192, 384, 256, 256, 4096, 4096),
        padding=2,
        layer1=("relu", "pool"),
        layer2=("relu", "pool"),
        bias=0.0,
        dropout="inverted",
        dropped=("pool5", "fc6"),
        pixel_scale=(1 / (255 * 0.229), 1 / (255 * 0.224), 1 / (255 * 0.225)),
        mean_rgb=(255 * 0.485, 255 * 0.456, 255 * 0.406),
        names=TORCHVISION,
    ),
}


def by_chunks(layers: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """These layers, a few images at a time on all threads of the device (docs/speed.md measures what it gains).

    Not for the fully connected layers: their 230 MB of weights are read once for the whole batch.
    """

    @wraps(layers)
    def in_chunks(column: Column, *reads: Tensor) -> Tensor:
        return minigrad.in_chunks(partial(layers, column), *reads)

    return in_chunks


class Column(nn.Module):
    """The layers on one device.  `g` columns of the paper are held side by side: 1 on two devices, 2 on one.

    Where a method takes `halves`, it reads both columns: one tensor from each device.
    """

    def __init__(
        self,
        device: str,
        g: int,
        preset: Preset,
        num_classes: int | None,
        input_size: int,
        widths: Sequence[int],
        dropout: float,
        dtype: str,
    ):
        self.preset, self.g, self.p = preset, g, dropout
        n1, n2, n3, n4, n5, n6, n7 = widths
        c = preset.columns
        here: dict[str, Any] = {"device": device, "dtype": dtype}
        self.conv1 = nn.Conv2d(3, n1 * g, *preset.conv1, preset.around(input_size), **here)
        self.conv2 = nn.Conv2d(n1 * g, n2 * g, 5, padding=2, groups=g, **here)
        self.conv3 = nn.Conv2d(n2 * c, n3 * g, 3, padding=1, **here)  # reads both columns
        self.conv4 = nn.Conv2d(n3 * g, n4 * g, 3, padding=1, groups=g, **here)
        self.conv5 = nn.Conv2d(n4 * g, n5 * g, 3, padding=1, groups=g, **here)
        self.fc6 = nn.Linear(n5 * c * preset.side(input_size) ** 2, n6 * g, **here)  # reads both, as do fc7 and fc8
        self.fc7 = nn.Linear(n6 * c, n7 * g, **here)
        if num_classes is not None:  # the last layer is not split: it lives on the first device
            self.fc8 = nn.Linear(n7 * c, num_classes, **here)

    @by_chunks
    def conv1_to_2(self, image: Tensor) -> Tensor:
        x = self.steps(self.preset.layer1, self.conv1(image))
        return self.steps(self.preset.layer2, self.conv2(x))

    @by_chunks
    def conv3_to_5(self, *halves: Tensor) -> Tensor:
        x = F.relu(self.conv3(beside(halves)))
        x = F.relu(self.conv4(x))
        return self.steps(self.preset.layer5, self.conv5(x))

    def hidden6(self, *halves: Tensor) -> Tensor:
        x = self.dropout("pool5", beside(halves).flatten(1))
        return self.dropout("fc6", F.relu(self.fc6(x)))

    def hidden7(self, *halves: Tensor) -> Tensor:
        return self.dropout("fc7", F.relu(self.fc7(beside(halves))))

    def steps(self, names: Sequence[str], x: Tensor) -> Tensor:
        """What follows a convolution, in the preset's order."""
        for name in names:
            if name == "relu":
                x = F.relu(x)
            elif name == "lrn":
                x = F.lrn(x, n=5, k=2.0, alpha=self.preset.lrn_alpha, beta=0.75, groups=self.g)
            elif name == "lrn_within_map":
                x = F.lrn_within_map(x, n=5, k=1.0, alpha=0.001 / 25, beta=0.75)
            else:
                x = F.max_pool2d(x, *self.preset.pool)
        return x

    def dropout(self, layer: str, x: Tensor) -> Tensor:
        return F.dropout(x, self.p, self.training, form=self.preset.dropout) if layer in self.preset.dropped else x


class AlexNet(nn.Module):
    """The network of the paper, split over one or two devices.

    num_classes: outputs of fc8.  preset: "paper", "original", "trainable", "torchvision" (docs/alexnet.md) or your own.
    devices: one or two device names, at most as many as the preset has columns; cpu:0 (and cpu:1) when left out.
    input_size: 224 (the paper; zeros are added right and bottom) or 227 (Caffe).
    widths: kernels and neurons per column, layer by layer; smaller ones are for tests.  dropout: p of fc6 and fc7.
    Forward: images (N, 3, input_size, input_size), on any device, to logits (N, num_classes) on the first device.

    `state_dict` and `load_state_dict` speak the one-device form (conv2.weight (256, 48, 5, 5), ...) whatever the
    devices, so that weights move freely between one device, two devices and other frameworks; those of the preset
    "torchvision" have torchvision's names (features.3.weight (192, 64, 5, 5), ...).
    Raises ArgumentError for an unknown preset, number of devices or input size.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        preset: str | Preset = "paper",
        devices: Sequence[str] | None = None,
        input_size: int = 224,
        widths: Sequence[int] | None = None,
        dropout: float = 0.5,
        dtype: str = "float32",
    ):
        if not isinstance(preset, Preset) and preset not in PRESETS:
            raise ArgumentError(f"AlexNet: preset must be one of {', '.join(PRESETS)}, got {preset!r}")
        self.preset, name = (preset, "yours") if isinstance(preset, Preset) else (PRESETS[preset], preset)
        columns = self.preset.columns
        devices = ("cpu:0", "cpu:1")[:columns] if devices is None else devices
        if isinstance(devices, str) or len(devices) not in (1, 2) or len(set(map(str, devices))) != len(devices):
            raise ArgumentError(f"AlexNet: give one device or two different ones, got {devices!r}")
        if len(devices) > columns:
            raise ArgumentError(f"AlexNet: preset {name} is one column, for one device, got {devices!r}")
        if name in PRESETS and input_size not in (224, 227):
            raise ArgumentError(f"AlexNet: input_size must be 224 (the paper) or 227 (Caffe), got {input_size!r}")
        self.devices, self.input_size = tuple(devices), input_size
        widths, g = widths or self.preset.widths, columns // len(self.devices)
        self.columns = nn.Sequential(
            *(
                Column(device, g, self.preset, None if i else num_classes, input_size, widths, dropout, dtype)
                for i, device in enumerate(self.devices)
            )
        )
        self.initialize()

    def initialize(self) -> None:
        """Draw the weights anew, as the preset says."""
        for name, parameter in self.named_parameters():
            layer, kind = name.split(".")[-2:]
            if kind == "bias":
                init.constant_(parameter, self.preset.bias if layer in self.preset.ones else 0.0)
            elif self.preset.std is None:
                init.he_normal_(parameter)
            else:
                init.normal_(parameter, std=self.preset.std[layer])

    def fit_to(self, images: Tensor, layers: Collection[str] = LAYERS) -> None:
        """Rescale layers, "conv1" to "fc8", so that these images (100 training views will do) give each unit a typical
        input.  Before that, the kernels of conv1 are freed from what these images next to never show."""
        if "conv1" in layers and self.preset.conv1_share < 1:
            shown = main_directions(images.numpy(), *self.preset.conv1, self.preset.conv1_share)
            for column in self.columns:
                kernels = column.conv1.weight.numpy().reshape(-1, shown.shape[1])
                with minigrad.no_grad():
                    column.conv1.weight[...] = (kernels @ shown.T @ shown).reshape(column.conv1.weight.shape)
        chosen = [module for name, module in self.named_modules() if name.split(".")[-1] in layers]
        # small logits: no class is favoured at first
        nn.standardize_outputs(self, images, {self.columns[0].fc8: 0.1}, chosen)

    def forward(self, images: Tensor) -> Tensor:
        return self.classify(self.features(images))

    def features(self, images: Tensor) -> list[Tensor]:
        """The activations of fc7, one half per device: the feature space of Figure 4."""
        x = self.each(Column.conv1_to_2, reads=same(images))
        x = self.each(Column.conv3_to_5, reads=both(x))
        x = self.each(Column.hidden6, reads=both(x))
        return self.each(Column.hidden7, reads=both(x))

    def classify(self, x: list[Tensor]) -> Tensor:
        """fc8, which reads both halves of fc7, on the first device."""
        halves = both(x)(self.devices[0])
        return self.columns[0].fc8(beside(halves))

    def each(self, layers: Callable[..., Tensor], reads: Reads) -> list[Tensor]:
        """The same layers of each column, at the same time, each on its device: one output per device."""

        def run(column: Column, device: str) -> Tensor:
            return layers(column, *reads(device))

        return minigrad.on_devices(self.devices, run, list(self.columns), self.devices)

    # ---------------------------------------------------------------- weights in the one-device form

    def state_dict(self) -> dict[str, np.ndarray]:
        """Name -> array, in the one-device grouped form: the columns' kernels one after the other."""
        state = merged([column.state_dict() for column in self.columns])
        return {self.outside(name): array for name, array in state.items()}

    def outside(self, name: str) -> str:
        """What the preset calls "conv1.weight" in weights that are saved."""
        layer, kind = name.split(".")
        return f"{self.preset.names.get(layer, layer)}.{kind}"

    def layer_of(self, name: str) -> str:
        """The layer, "conv1", of a name in weights that are saved, or of a parameter."""
        layer = name.rpartition(".")[0]
        return {theirs: ours for ours, theirs in self.preset.names.items()}.get(layer, layer.rpartition(".")[2])

    def kernels(self) -> np.ndarray:
        """The kernels of conv1, (96, 3, 11, 11), a copy: those of the columns one after the other."""
        return np.concatenate([column.conv1.weight.numpy() for column in self.columns])

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> nn.LeftOut:
        """Take weights in the one-device form; CheckpointError lists every name that does not fit.

        strict=False: takes those that fit, and returns the names of the others.
        """
        own = self.state_dict()
        fitting, left_out = nn.fitting_state("AlexNet", own, state, strict)
        arrays = {**own, **fitting}
        for i, column in enumerate(self.columns):
            last = {name for name, _ in column.named_parameters() if name.startswith("fc8")}
            column.load_state_dict(
                {
                    name: array if name in last else np.split(array, len(self.devices))[i]
                    for name, _ in column.named_parameters()
                    for array in [arrays[self.outside(name)]]
                }
            )
        return left_out

    def on_one_device(self, device: str | None = None) -> AlexNet:
        """The same net on one device, its columns side by side: a copy, on the first of its own where none is given."""
        first, columns = self.columns[0], len(self.devices)
        widths = [len(getattr(first, layer).weight) * columns // self.preset.columns for layer in LAYERS[:-1]]
        net = AlexNet(
            len(first.fc8.weight), self.preset, [device or self.devices[0]], self.input_size, widths, first.p,
            str(first.fc8.weight.dtype),
        )  # fmt: skip
        net.load_state_dict(self.state_dict())
        return net.train(self.training)

    def freeze(self, layers: Collection[str], frozen: bool = True) -> None:
        """Leave these layers, "conv1" to "fc8", as they are in training, or train them again.

        ArgumentError for a layer that there is not, and where none would be left to train.
        """
        parts = [(name.split(".")[-2], parameter) for name, parameter in self.named_parameters()]
        unknown = set(layers) - {layer for layer, _ in parts}
        if unknown:
            raise ArgumentError(f"AlexNet.freeze: the layers are {', '.join(LAYERS)}, got {', '.join(sorted(unknown))}")
        if frozen and not any(p.requires_grad for layer, p in parts if layer not in layers):
            raise ArgumentError(f"AlexNet.freeze: {', '.join(layers)} are all that there is to train: leave one out")
        for layer, parameter in parts:
            if layer in layers:
                parameter.requires_grad = not frozen

    def parameter_groups(
        self, lr: float, weight_decay: float, apart: Mapping[str, tuple[float, float]] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Weights and biases as two groups for an optimizer: the original code treats them differently.

        apart: layer -> lr and weight decay of its weights, for layers whose two are groups of their own, after the
        others.
        """
        others, of_biases = (lr, weight_decay), weight_decay if self.preset.bias_decay else 0.0
        rates, parts = {"": others, **(apart or {})}, {}
        for name, parameter in self.named_parameters():
            layer, kind = name.split(".")[-2:]
            parts.setdefault((layer if layer in rates else "", kind), []).append(parameter)
        for layer, (rate, decay) in rates.items():
            yield {"params": parts[layer, "weight"], "lr": rate, "weight_decay": decay}
            yield {"params": parts[layer, "bias"], "lr": rate * self.preset.bias_lr, "weight_decay": of_biases}


def merged(columns: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Arrays by name of each column, as those of the grouped net: output channels or neurons one after the other."""
    return {name: np.concatenate([arrays[name] for arrays in columns if name in arrays]) for name in columns[0]}


def main_directions(images: np.ndarray, size: int, stride: int, share: float) -> np.ndarray:
    """The directions, orthonormal rows (k, C size size), in which windows of images (N, C, H, W) vary most: as few as
    hold this share of the sum of all squares, but three or more for each colour.

    Photographs are smooth: of the 363 directions of a window of 11 x 11 colours two dozen hold 98 %.  In the others
    random kernels are noise, which answers to nothing, so that no gradient ever takes it away.  Where nearly all that
    varies is brightness, one direction may hold 98 %; three for each colour leave room for its two slopes: for edges.
    """
    moments = np.zeros((images.shape[1] * size * size,) * 2)
    for image in images:
        windows = np.lib.stride_tricks.sliding_window_view(image, (size, size), axis=(1, 2))[:, ::stride, ::stride]
        rows = windows.transpose(1, 2, 0, 3, 4).reshape(-1, len(moments))
        moments += rows.T @ rows
    squares, directions = np.linalg.eigh(moments)  # the least first
    held = np.cumsum(squares[::-1])
    count = max(int(np.searchsorted(held, share * held[-1])) + 1, 3 * images.shape[1])
    return directions[:, ::-1][:, :count].T


# ---------------------------------------------------------------- what a column reads

Reads = Callable[[str], list[Tensor]]  # from a device's name to tensors on it; called by that device's own worker


def same(images: Tensor) -> Reads:
    """The same images for every column."""
    return lambda device: [images.to(device)]


def both(halves: Sequence[Tensor]) -> Reads:
    """Where the columns talk: a copy of each half on the device that reads it, whose gradient flows home."""
    return lambda device: [half.to(device) for half in halves]


def beside(halves: Sequence[Tensor]) -> Tensor:
    """The halves side by side: the channels or neurons of one after those of the other.  All on one device."""
    return F.concat(halves, axis=1) if len(halves) > 1 else halves[0]
