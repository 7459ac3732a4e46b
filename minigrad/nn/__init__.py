"""Models: modules that hold parameters, and the layers that AlexNet is made of."""

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
