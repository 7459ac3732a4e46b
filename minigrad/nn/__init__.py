"""Models: modules that hold parameters and buffers, and layers."""

from typing import TYPE_CHECKING

from .. import functional as _functional
from ..base.spellings import of_module
from .batch_norm import BatchNorm1d, BatchNorm2d
from .conv_transpose import ConvTranspose2d
from .layers import (
    LRN,
    AdaptiveAvgPool2d,
    AvgPool2d,
    Conv2d,
    CrossEntropyLoss,
    Dropout,
    Flatten,
    LeakyReLU,
    Linear,
    LRNWithinMap,
    MaxPool2d,
    ReLU,
    Sequential,
    Sigmoid,
    Softplus,
    Tanh,
)
from .module import LeftOut, Module, fitting_state
from .parameter import Buffer, Parameter
from .standardize import standardize_outputs

if not TYPE_CHECKING:  # which is to know what there is not
    __getattr__ = of_module("minigrad.nn", _functional)

__all__ = [
    "LRN",
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "BatchNorm1d",
    "BatchNorm2d",
    "Buffer",
    "Conv2d",
    "ConvTranspose2d",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "LRNWithinMap",
    "LeakyReLU",
    "LeftOut",
    "Linear",
    "MaxPool2d",
    "Module",
    "Parameter",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Softplus",
    "Tanh",
    "fitting_state",
    "standardize_outputs",
]
