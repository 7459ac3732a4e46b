"""Optimisers, which change parameters by their gradients, and schedules, which change the learning rate."""

from typing import TYPE_CHECKING

from ..base.spellings import of_module
from .adam import Adam, AdamW
from .clipping import clip_grad_norm_
from .optimizer import Optimizer
from .rmsprop import RMSprop
from .schedules import (
    ExponentialLR,
    MultiStepLR,
    OneCycleLR,
    ReduceOnPlateau,
    Schedule,
    StepLR,
    Warmup,
    WarmupCosine,
)
from .sgd import SGD

if not TYPE_CHECKING:  # which is to know what there is not
    __getattr__ = of_module("minigrad.optim")

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "ExponentialLR",
    "MultiStepLR",
    "OneCycleLR",
    "Optimizer",
    "RMSprop",
    "ReduceOnPlateau",
    "Schedule",
    "StepLR",
    "Warmup",
    "WarmupCosine",
    "clip_grad_norm_",
]
