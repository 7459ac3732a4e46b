"""How the learning rate moves in a run: the paper's schedule, the original run's, and a cosine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alexnet_options import WARM_UP, Recipe
from trained import Trained

from minigrad import optim
from minigrad.data import Loader


def schedules(net: Trained, loader: Loader, optimizer: Any, recipe: Recipe, steps: int) -> tuple[Any, Any]:
    """What moves the learning rate after each step, and after each epoch's test; one of them is None."""
    if recipe.schedule == "cosine":
        return optim.WarmupCosine(optimizer, round(WARM_UP * steps), steps), None
    if recipe.schedule == "original":
        return None, OriginalSchedule(net, loader, optimizer, recipe)
    return None, optim.ReduceOnPlateau(optimizer, factor=0.1, patience=3)


class OriginalSchedule:
    """What the run behind the paper did (config 145 of the original code; docs/alexnet.md), at the begin of each epoch.

    With another number of epochs than its 93 all is stretched.
    """

    RATES = {1: 1.0, 23: 0.1, 51: 0.01, 78: 0.001}  # from this epoch on, so much of the first rate
    CONV1_SLOWER, CONV1_FROZEN = 68, 72  # from these on, conv1 learns at 0.001 of it, and not at all
    NO_COLOUR_NOISE, EPOCHS = 68, 93

    def __init__(self, net: Trained, loader: Loader, optimizer: Any, recipe: Recipe):
        self.net, self.loader, self.optimizer, self.recipe = net, loader, optimizer, recipe
        self.base_lrs = [group["lr"] for group in optimizer.param_groups]
        conv1 = {id(p) for name, p in net.model.named_parameters() if "conv1" in name}
        self.of_conv1 = [all(id(p) in conv1 for p in group["params"]) for group in optimizer.param_groups]

    def begin(self, epoch: int) -> None:
        """Set rates and noise for this epoch (from 1); what they were before does not matter."""
        then = (epoch - 1) * self.EPOCHS // self.recipe.epochs + 1  # its epoch, in that run
        rate = next(rate for first, rate in reversed(self.RATES.items()) if then >= first)
        for group, base, of_conv1 in zip(self.optimizer.param_groups, self.base_lrs, self.of_conv1):
            group["lr"] = base * (0.001 if of_conv1 and then >= self.CONV1_SLOWER else rate)
        if then >= self.CONV1_FROZEN:
            self.net.model.freeze(["conv1"])
        noise = self.recipe.colour_noise if then < self.NO_COLOUR_NOISE else 0.0
        self.loader.transform = self.net.train_view(noise)

    def step(self, error: float) -> bool:
        return False  # the test error is not asked

    def state_dict(self) -> dict[str, Any]:
        return {"base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.base_lrs = list(state["base_lrs"])
