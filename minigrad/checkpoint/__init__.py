"""What is on disk: weights (weights.py), and a training with all that going on takes (training.py).

checkpoint.save(path, model.state_dict())
checkpoint.save_training(path, model=model, optimizer=optimizer, epoch=3)
"""

from ..base import files
from .keeping import Checkpoints
from .training import load_training, save_training, training_values
from .weights import load, save

__all__ = ["Checkpoints", "files", "load", "load_training", "save", "save_training", "training_values"]
