"""Optimisers, which change parameters by their gradients, and schedules, which change the learning rate."""

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
