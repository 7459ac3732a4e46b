"""The training loop and the tests of the examples: plain code around a model, an optimizer and batches."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from run_folder import Log, TrainingError

import minigrad
import minigrad.functional as F
from minigrad import Tensor, nn
from minigrad.base.interrupts import hold
from minigrad.errors import DataError, some


class Scores(NamedTuple):
    """How a model did on some images: mean cross-entropy, share of right answers, share with the right one in five.

    A tie counts against the model: the right class must be strictly ahead of all others (of all but four).
    """

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
    milliseconds waited for data and spent computing: where the first is not near 0, more --workers may help.  A card
    works while Python goes on: it does the end of a step while the next batch is waited for.
    `schedule`, where given, sets the learning rate before every step.  TrainingError where the loss or an output is
    not finite.  An interruption in the middle of a step leaves the weights of the step before: an update is done
    whole, with its row of the log, or not at all.
    """
    model.train()
    step, mean_loss, mean_top1, inputs = first_step, math.nan, math.nan, Inputs(device)
    for data_s, batch in timed(batches):
        begin = time.perf_counter()
        lr = optimizer.param_groups[0]["lr"]
        optimizer.zero_grad()
        logits = model(inputs(batch))
        loss = F.cross_entropy(logits, batch.labels)
        loss.backward()  # before anything is read: that waits for a card, which has work as long as it takes
        value, answer = loss.item(), logits.numpy()
        if not math.isfinite(value):
            raise TrainingError(f"the loss is {value} at step {step}: start again with a lower --lr than {lr:g}")
        if not np.isfinite(answer).all():  # -inf for a wrong class leaves the loss finite
            raise TrainingError(f"an output is not finite at step {step}: start again with a lower --lr than {lr:g}")
        top1 = float(np.mean(rivals(answer, batch.labels) == 0))
        with hold(finish=True):
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


def logits_of(model: nn.Module, images: np.ndarray | Tensor, device: str) -> np.ndarray:
    """Logits (N, V, classes) of images (N, C, H, W), V = 1, or of V views of each, (N, V, C, H, W)."""
    model.eval()
    views = images.shape[1] if images.ndim == 5 else 1
    flat = images.reshape(-1, *images.shape[-3:])
    with minigrad.no_grad():
        logits = model(flat if isinstance(flat, Tensor) else Tensor(flat, device=device)).numpy()
    return logits.reshape(-1, views, logits.shape[1])


def check_before_saving(model: nn.Module, state: Mapping[str, np.ndarray], image: np.ndarray, device: str) -> None:
    """TrainingError where a net has diverged: where its weights, or its answers to an image (C, H, W), are not finite.

    Weights of 1e20 are finite, yet their products are not: hence the image.
    """
    spoilt = [name for name, array in state.items() if not np.isfinite(array).all()]
    if not spoilt and not np.isfinite(logits_of(model, image[None], device)).all():
        spoilt = ["the outputs"]
    if spoilt:
        raise TrainingError(
            f"the net is not saved, for it has diverged: nan or inf in {some(spoilt, 3)}; "
            "weights saved earlier are kept; start again with a lower --lr"
        )


def answers(
    model: nn.Module, images: np.ndarray | Tensor, device: str, names: Sequence[Any], step: int | None = None
) -> np.ndarray:
    """Like logits_of.  TrainingError where a logit is not finite: it says for which images, by `names`, and after which
    step of training.
    """
    logits = logits_of(model, images, device)
    spoilt = np.flatnonzero(~np.isfinite(logits).all((1, 2)))
    if len(spoilt):
        when, advice = "", "use other weights, or train anew with a lower --lr"
        if step is not None:
            when, advice = f"after step {step} ", "weights saved earlier are kept; start again with a lower --lr"
        raise TrainingError(
            f"{when}the net answers nan or inf for {len(spoilt)} of the {len(logits)} images of a batch "
            f"({some([names[i] for i in spoilt], 3)}): it has diverged, {advice}"
        )
    return logits


def log_mean_softmax(logits: np.ndarray) -> np.ndarray:
    """The logarithm, float64 (N, classes), of the softmax of logits (N, V, classes), averaged over the V views.

    In logarithms nothing underflows: probabilities of 1e-400 keep their order.
    """
    z = logits.astype(np.float64)
    z -= z.max(2, keepdims=True)
    z -= np.log(np.exp(z).sum(2, keepdims=True))
    return np.logaddexp.reduce(z, axis=1) - math.log(z.shape[1])


def log_probabilities(
    model: nn.Module, images: np.ndarray, device: str, names: Sequence[Any] | None = None
) -> np.ndarray:
    """Logarithms of the softmax outputs, float64 (N, classes), of several views averaged; see answers."""
    return log_mean_softmax(answers(model, images, device, range(len(images)) if names is None else names))


def probabilities(model: nn.Module, images: np.ndarray, device: str) -> np.ndarray:
    """Softmax outputs (N, classes); for several views of each image, (N, V, C, H, W), averaged over the views."""
    return np.exp(log_probabilities(model, images, device))


def rivals(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many other classes score as high as the right one or higher, int64 (N,), of scores (N, classes)."""
    right = scores[np.arange(len(scores)), labels]
    return (~(scores < right[:, None])).sum(1) - 1  # "not <": NaN would count against the model too


def evaluate(
    model: nn.Module,
    batches: Iterable[Any],
    device: str,
    bar: Any = None,
    *,
    names: Sequence[Any] | None = None,
    step: int | None = None,
) -> Scores:
    """Scores over all batches; images (N, C, H, W), or (N, V, C, H, W) with V views each (section 4.1).

    Classes are ranked by their logits, with several views by the average of their softmax.  TrainingError where a
    logit is not finite: it says for which images, by `names` (of the whole dataset; else by their indices in it), and
    after which `step` of training.  DataError where there is no image.
    """
    right1 = right5 = n = 0
    total, inputs = 0.0, Inputs(device)
    for batch in batches:
        called = [f"image {i}" if names is None else names[i] for i in batch.indices]
        logits, target = answers(model, inputs(batch), device, called, step), batch.labels
        log_p = log_mean_softmax(logits)
        ahead = rivals(logits[:, 0] if logits.shape[1] == 1 else log_p, target)
        right1 += int((ahead < 1).sum())
        right5 += int((ahead < 5).sum())
        total -= float(log_p[np.arange(len(log_p)), target].sum())
        n += len(log_p)
        if bar is not None:
            bar.update()
    if n == 0:
        raise DataError("evaluate: there is no image to test on: give at least one batch")
    return Scores(total / n, right1 / n, right5 / n, n)
