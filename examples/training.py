"""The training loop and the tests of the examples: plain code around a model, an optimizer and batches."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from interruption import held
from run_folder import Log, TrainingError

import minigrad
import minigrad.functional as F
from minigrad import Tensor, nn


class Scores(NamedTuple):
    """How a model did on some images: mean cross-entropy, share of right answers, share with the right one in five."""

    loss: float
    top1: float
    top5: float
    images: int


def timed(batches: Iterable[Any]) -> Iterator[tuple[float, Any]]:
    """(seconds waited for it, batch) for every batch."""
    iterator = iter(batches)
    while True:
        begin = time.perf_counter()
        batch = next(iterator, None)
        if batch is None:
            return
        yield time.perf_counter() - begin, batch


def train_epoch(
    model: nn.Module,
    batches: Iterable[Any],
    optimizer: Any,
    device: str,
    *,
    epoch: int,
    first_step: int,
    log: Log,
    bar: Any,
    schedule: Any = None,
) -> int:
    """One pass over the batches (.images, .labels); returns the number of the next step.

    The bar shows loss and top-1 averaged over about the last 20 steps, images/s, and for the last step the
    milliseconds waited for data and spent computing: where the first is not near 0, more --workers may help.
    `schedule`, where given, sets the learning rate before every step.  TrainingError where the loss is not finite.
    An interruption in the middle of a step leaves the weights of the step before: an update is done whole, with its
    row of the log, or not at all.
    """
    model.train()
    step, mean_loss, mean_top1 = first_step, math.nan, math.nan
    for data_s, batch in timed(batches):
        begin = time.perf_counter()
        lr = optimizer.param_groups[0]["lr"]
        optimizer.zero_grad()
        logits = model(Tensor(batch.images, device=device))
        loss = F.cross_entropy(logits, batch.labels)
        value, top1 = loss.item(), float(np.mean(logits.numpy().argmax(1) == batch.labels))
        if not math.isfinite(value):
            raise TrainingError(f"the loss is {value} at step {step}: start again with a lower --lr than {lr:g}")
        loss.backward()
        with held():
            optimizer.step()
            if schedule is not None:
                schedule.step()
            compute_s = time.perf_counter() - begin
            step, n = step + 1, len(batch.labels)
            speed = n / (data_s + compute_s)
            log.add(split="train", epoch=epoch, step=step, images=n, lr=lr, loss=value, top1=top1,
                    images_per_s=speed, data_s=data_s, compute_s=compute_s)  # fmt: skip
        keep = 1 - 1 / min(step - first_step, 20)  # a mean of all steps at first, of about the last 20 later
        mean_loss = value if step == first_step + 1 else keep * mean_loss + (1 - keep) * value
        mean_top1 = top1 if step == first_step + 1 else keep * mean_top1 + (1 - keep) * top1
        bar.set_postfix_str(
            f"loss {mean_loss:.3f} top-1 {mean_top1:.0%} {speed:.1f} images/s "
            f"data {data_s * 1e3:.0f} ms compute {compute_s * 1e3:.0f} ms",
            refresh=False,
        )
        bar.update()
    return step


def probabilities(model: nn.Module, images: np.ndarray, device: str) -> np.ndarray:
    """Softmax outputs (N, classes); for several views of each image, (N, V, C, H, W), averaged over the views."""
    model.eval()
    views = images.shape[1] if images.ndim == 5 else 1
    flat = images.reshape(-1, *images.shape[-3:])
    with minigrad.no_grad():
        p = F.softmax(model(Tensor(flat, device=device))).numpy()
    return p.reshape(-1, views, p.shape[1]).mean(1)


def evaluate(model: nn.Module, batches: Iterable[Any], device: str, bar: Any = None) -> Scores:
    """Scores over all batches; images (N, C, H, W), or (N, V, C, H, W) with V views each (section 4.1)."""
    right1 = right5 = n = 0
    total = 0.0
    for batch in batches:
        p, target = probabilities(model, batch.images, device), batch.labels
        of_target = p[np.arange(len(p)), target]
        ahead = (p > of_target[:, None]).sum(1)  # how many classes the model finds likelier than the right one
        right1 += int((ahead < 1).sum())
        right5 += int((ahead < 5).sum())
        total -= float(np.log(np.maximum(of_target, 1e-30)).sum())
        n += len(p)
        if bar is not None:
            bar.update()
    return Scores(total / n, right1 / n, right5 / n, n)
