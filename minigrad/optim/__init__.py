"""Optimisers, which change parameters by their gradients, and schedules, which change the learning rate."""

from .adam import Adam
from .optimizer import Optimizer
from .schedules import ReduceOnPlateau, Schedule, StepLR, Warmup, WarmupCosine
from .sgd import SGD

__all__ = ["SGD", "Adam", "Optimizer", "ReduceOnPlateau", "Schedule", "StepLR", "Warmup", "WarmupCosine"]
