"""How batches of images come to a device."""

from __future__ import annotations

from typing import Any

import minigrad.functional as F
from minigrad import Tensor


class Inputs:
    """Brings the images of batches to a device, for the model: float32 (N, C, H, W), or (N, V, C, H, W) with V views.

    Those of some loaders are there already, sent by the threads that load.  Where a batch holds pictures as they were
    decoded (`pictures=True` of a Loader), the device prepares them.
    """

    def __init__(self, device: str):
        self.device = device
        self.mean: Tensor | None = None  # the mean image, which is the same in all batches: it travels once

    def __call__(self, batch: Any) -> Tensor:
        images, views = batch.images, getattr(batch, "views", None)
        if not isinstance(images, Tensor):
            images = Tensor(images, device=self.device)
        if views is None:
            return images
        if self.mean is None:
            self.mean = Tensor(views.mean, device=self.device)
        return F.prepare(images, *views._replace(mean=self.mean))
