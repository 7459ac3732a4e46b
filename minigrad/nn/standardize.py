"""Weights that fit the data: start every layer with outputs of mean 0 and a chosen spread.

Let z[n,o,...] be the outputs of a layer's unit o over some images.  Replacing

    w[o] <- w[o] * std / sd(z[:,o]),     b[o] <- (b[o] - mean(z[:,o])) * std / sd(z[:,o])

gives them mean 0 and standard deviation `std`.  Done layer by layer from the input on, each layer sees inputs that
were set right before it, so that at the first step no unit is silent for all images, none is always on, and all layers
learn at a similar pace.

Source: Krähenbühl, Doersch, Donahue, Darrell 2016, "Data-dependent Initializations of Convolutional Neural Networks",
section 3.1 (within-layer initialization); Mishkin, Matas 2016, "All you need is a good init".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from .. import functional as F
from ..base.arguments import number
from ..base.grad_mode import no_grad
from ..errors import ArgumentError
from ..processor.chunks import whole_batches
from ..tensor import Tensor
from .layers import Conv2d, Linear
from .module import Module


def standardize_outputs(
    model: Module,
    images: Tensor,
    std: Mapping[Module, float] | float = 1.0,
    only: Collection[Module] | None = None,
) -> None:
    """Rescale the Conv2d and Linear layers of a model in place, in the order in which its forward uses them.

    images: what the model is called with; a hundred typical ones are enough.
    std: the spread that each layer's outputs get, by layer; layers not named get 1.  Dropout is off meanwhile.
    only: these layers, where the others are trained already; None: all.
    A unit whose output does not vary is left as it is.
    ArgumentError for a layer without bias, a std that is no number > 0, or what is no such layer in std or only;
    and where a layer's outputs, or their mean or spread, are not finite: the layers before it are rescaled by then.
    """
    if not isinstance(model, Module):
        raise ArgumentError(f"standardize_outputs: model must be a Module, got {type(model).__name__}")
    wanted = std if isinstance(std, Mapping) else {}
    default = 1.0 if isinstance(std, Mapping) else std
    for spread in (default, *wanted.values()):
        number("standardize_outputs", "std", spread, above=0)
    layers: list[Any] = [module for module in model.modules() if isinstance(module, (Conv2d, Linear))]
    for name, given in (("std", wanted), ("only", only or ())):
        for layer in given:
            if layer not in layers:
                raise ArgumentError(
                    f"standardize_outputs: {name} names what is no Conv2d or Linear of the model: {layer!r}: name its "
                    f"layers themselves, {'{net.fc8: 0.1}' if name == 'std' else '[net.fc8]'}"
                )
    if only is not None:
        layers = [layer for layer in layers if layer in only]
    for layer in layers:
        if layer.bias is None:
            raise ArgumentError(
                f"standardize_outputs: a layer has no bias to centre its outputs with: {layer}: make it with bias=True"
            )

    def first_use(layer: Any) -> Any:
        """A forward for this one call: look at the outputs, change the weights, compute again."""

        def forward(x: Tensor) -> Tensor:
            del layer.forward
            _standardize(layer, layer(x), wanted.get(layer, default))
            return layer(x)

        return forward

    training = model.training
    try:
        for layer in layers:
            layer.forward = first_use(layer)  # an attribute of the object comes before the method of its class
        with no_grad(), whole_batches():
            model.eval()(images)
    finally:
        model.train(training)
        for layer in layers:
            vars(layer).pop("forward", None)


def _standardize(layer: Any, z: Tensor, std: float) -> None:
    others = (0, *range(2, z.ndim))
    mean = F.mean(z, others, keepdims=True)
    centred = z - mean
    sd = np.sqrt(F.mean(centred * centred, others).numpy())
    spoilt = ~(np.isfinite(mean.numpy().reshape(-1)) & np.isfinite(sd))
    if spoilt.any():
        raise ArgumentError(
            f"standardize_outputs: {spoilt.sum()} of {len(sd)} units of {layer} have outputs without a finite mean "
            "and spread: look for nan, inf or very large numbers in images and weights"
        )
    scale = np.where(sd > 0, std / np.where(sd > 0, sd, 1), 1).astype(z.dtype)
    layer.weight *= Tensor(scale.reshape(-1, *[1] * (layer.weight.ndim - 1)), device=z.device)
    layer.bias -= mean.flatten()
    layer.bias *= Tensor(scale, device=z.device)
