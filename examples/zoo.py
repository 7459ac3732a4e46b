"""The AlexNet of the ONNX model zoo (bvlcalexnet-*.onnx: Caffe's weights) as the beginning of a training.

Its graph is ours, layer by layer.  What differs, and what becomes of it, so that the net here gives the same logits:

- Names: the eight layers are found by their order.
- Colours: its pixels are blue, green, red: the channels of conv1's kernels change places.
- Pixels: it sees pixels less their mean, unscaled; the presets scale them, so conv1's kernels are divided by that.
- Mean: that of Caffe, colour by colour, takes the place of the training pictures' mean image.
- Input: Caffe trains on 227 x 227 pixels, and so does the net here; the zoo's file takes 224 and pads its last pool.
- Response normalisation: x / (k' + a' sum x^2)^beta there, with k' = 1, x / (k + a sum x^2)^beta here.  With the layer
  before it scaled by t = sqrt(a' k / (a k')), which ReLU lets through, the one here gives u = t (k' / k)^beta times the
  other's, and so does max-pooling: the next layer is divided by u.
- Dropout: Caffe's makes up for what it drops in training.  Where a preset does so in testing, halving the outputs, the
  weights that read them are twice as large.

One thing cannot be undone: its normalisation looks across the border of the two columns, ours does not, as in the
paper.  That concerns the two channels on either side.

Source: github.com/onnx/models, validated/vision/classification/alexnet; Caffe's models/bvlc_alexnet; the mean colour is
that of Caffe's imagenet_mean.binaryproto.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from alexnet import LAYERS, Preset
from trained import class_names, input_size_of

import minigrad
from minigrad import checkpoint
from minigrad.data import ImageStats
from minigrad.errors import CheckpointError, printable

MEAN_RGB = np.array([122.67891434, 116.66876762, 104.00698793], np.float32)
INPUT_SIZE = 227

_PASSED_OVER = ("Dropout", "Identity", "Softmax")
_CONV = {"dilations": [1, 1], "auto_pad": "NOTSET"}
_POOL = ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 0})
_NORM = ("LRN", {"size": 5, "beta": 0.75})
_GEMM = ("Gemm", {"transA": 0, "transB": 1, "alpha": 1.0, "beta": 1.0})
_RELU: tuple[str, dict[str, Any]] = ("Relu", {})


def _conv(stride: int, pad: int, group: int) -> tuple[str, dict[str, Any]]:
    return "Conv", {"strides": [stride] * 2, "pads": [pad] * 4, "group": group, **_CONV}


# The operators, in order, with the settings that matter.
GRAPH = (
    _conv(4, 0, 1), _RELU, _NORM, _POOL, _conv(1, 2, 2), _RELU, _NORM, _POOL,
    _conv(1, 1, 1), _RELU, _conv(1, 1, 2), _RELU, _conv(1, 1, 2), _RELU, _POOL,
    ("Reshape", {}), _GEMM, _RELU, _GEMM, _RELU, _GEMM,
)  # fmt: skip
_DEFAULTS = {
    "dilations": [1, 1], "auto_pad": "NOTSET", "ceil_mode": 0, "group": 1, "pads": [0] * 4, "strides": [1, 1],
    "transA": 0, "transB": 0, "alpha": 1.0, "beta": 1.0,
}  # fmt: skip


class FirstWeights(NamedTuple):
    """Weights by our names, and what they were made for."""

    state: dict[str, np.ndarray]
    input_size: int
    classes: Any = None  # their names, where the file has them
    is_zoo: bool = False  # ILSVRC2012's thousand classes in the order of their wnids, and Caffe's mean colour

    def prepared(self, stats: ImageStats) -> ImageStats:
        """The statistics of the training pictures, with the mean that the weights have learned with."""
        if not self.is_zoo:
            return stats
        return replace(stats, mean_image=np.full_like(stats.mean_image, MEAN_RGB), mean_rgb=MEAN_RGB)

    def names(self, classes: Sequence[str]) -> bool:
        """Whether these are the classes of the weights, in this order."""
        if not self.is_zoo:
            return bool(self.classes == list(classes))
        wnids = len(classes) == 1000 and all(re.fullmatch(r"n\d{8}", name) for name in classes)
        return wnids and list(classes) == sorted(classes)


def first_weights(path: Path, preset: Preset, dropout: float) -> FirstWeights:
    """The weights of a run, or those of the zoo's file (.onnx) fitted to a preset.

    CheckpointError for a file of another net, and for a preset whose layers stand in another order.
    """
    if path.suffix != ".onnx":
        state, facts = checkpoint.load(path)
        return FirstWeights(state, input_size_of(printable(path), facts), class_names(facts))
    layers, norms = _layers(path)
    return FirstWeights(fitted(layers, norms, preset, dropout), INPUT_SIZE, is_zoo=True)


def fitted(
    layers: Sequence[tuple[np.ndarray, np.ndarray]],
    norms: Sequence[tuple[float, float]],
    preset: Preset,
    dropout: float,
) -> dict[str, np.ndarray]:
    """Caffe's weights and biases, layer by layer, as a net of this preset needs them.

    norms: k' and a' of the two normalisations, by the paper's formula.
    """
    if preset.layer1 != ("relu", "lrn", "pool") or preset.layer2 != preset.layer1:
        raise CheckpointError(
            "weights of the zoo's AlexNet fit nets that normalise after ReLU, and then pool: take --preset trainable, "
            "or paper"
        )
    state = {}
    for layer, (weight, bias) in zip(LAYERS, layers):
        state[f"{layer}.weight"], state[f"{layer}.bias"] = weight.astype(np.float64), bias.astype(np.float64)
    state["conv1.weight"] = state["conv1.weight"][:, ::-1] / preset.pixel_scale
    for (layer, following), (their_k, their_alpha) in zip((("conv1", "conv2"), ("conv2", "conv3")), norms):
        scale = math.sqrt(their_alpha * 2 / (preset.lrn_alpha * their_k))  # the presets' k is 2, their beta 3/4
        state[f"{layer}.weight"] *= scale
        state[f"{layer}.bias"] *= scale
        state[f"{following}.weight"] /= scale * (their_k / 2) ** 0.75
    if preset.dropout == "paper":
        state["fc7.weight"] /= 1 - dropout
        state["fc8.weight"] /= 1 - dropout
    return {name: array.astype(np.float32) for name, array in state.items()}


def _layers(path: Path) -> tuple[list[tuple[np.ndarray, np.ndarray]], list[tuple[float, float]]]:
    """(weight, bias) of the eight layers, and (k, alpha) of the two normalisations, once the graph is AlexNet's."""
    net, where = minigrad.onnx.load(path, "cpu:0"), printable(path)
    nodes = [node for node in net.graph.nodes if node.op not in _PASSED_OVER]
    ops, expected = [node.op for node in nodes], [op for op, _ in GRAPH]
    if ops != expected:
        place = next(i for i, pair in enumerate(zip([*ops, "none"], [*expected, "none"])) if pair[0] != pair[1])
        seen, due = [*ops, "none"][place], [*expected, "none"][place]
        raise CheckpointError(
            f"{where} holds another net than the zoo's AlexNet: its operator {place} is {seen}, not {due}: give "
            "bvlcalexnet-*.onnx, or the weights.safetensors of a run"
        )
    for node, (op, settings) in zip(nodes, GRAPH):
        for name, value in settings.items():
            seen = node.attributes.get(name, _DEFAULTS.get(name))
            if op == "LRN":
                seen = round(seen, 6)
            if seen != value:
                raise CheckpointError(
                    f"{where}: {op} {node} has {name}={seen}, the zoo's AlexNet {value}: give its file"
                )
    weighty = [node for node in nodes if node.op in ("Conv", "Gemm")]
    if any(len(node.inputs) != 3 or not set(node.inputs[1:]) <= net.places.keys() for node in weighty):
        raise CheckpointError(f"{where}: not all layers have a weight and a bias of their own: give the zoo's file")
    layers = [(net.tensor_of(node.inputs[1]).numpy(), net.tensor_of(node.inputs[2]).numpy()) for node in weighty]
    norms = [node.attributes for node in nodes if node.op == "LRN"]
    return layers, [(norm.get("bias", 1.0), norm.get("alpha", 1e-4) / norm["size"]) for norm in norms]
