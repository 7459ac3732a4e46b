"""The training loop of the examples: plain code around a model, an optimizer and batches."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from inputs import Inputs
from run_folder import Log, TrainingError
from scoring import logits_of, rivals

import minigrad.functional as F
from minigrad import Tensor, nn
from minigrad.base.interrupts import hold
from minigrad.distributed import Comm, DataParallel
from minigrad.errors import some


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
    after_step: Callable[[int], None] | None = None,
    accumulate: int = 1,
    together: DataParallel | None = None,
) -> int:
    """One pass over the batches (.images, .labels); returns the number of the next step.

    together: the model as one of several processes trains it, of whose batches these are parts; all else is of the
    whole batches.
    accumulate: how many batches a step has.  Their gradients are added: the update is that of one large batch.
    The bar shows loss and top-1 averaged over about the last 20 steps, images/s, and for the last step the
    milliseconds waited for data and spent computing: where the first is not near 0, more --workers may help.  A card
    works while Python goes on: it does the end of a step while the next batch is waited for.
    `schedule`, where given, sets the learning rate before every step.  after_step is called after each with the number
    of steps done, before anything can interrupt.  TrainingError where the loss or an output is not finite.  An
    interruption in the middle of a step leaves the weights of the step before: an update is done whole, with its row of
    the log, or not at all.
    """
    net = together or DataParallel(model, Comm())
    model.train()
    step, mean_loss, mean_top1, inputs = first_step, math.nan, math.nan, Inputs(device)
    for data_s, compute_s, done in steps_of(net, inputs, optimizer, batches, accumulate):
        begin = time.perf_counter()
        lr = optimizer.param_groups[0]["lr"]
        value, top1, n, finite = whole(net.comm, *done.read())
        advice = f"start again with a lower --lr than {lr:g}"
        if not math.isfinite(value):
            raise TrainingError(f"the loss is {value} at step {step + 1}: {advice}")
        if not finite:  # -inf for a wrong class leaves the loss finite
            raise TrainingError(f"an output is not finite at step {step + 1}: {advice}")
        with hold(finish=True):
            optimizer.step()
            if schedule is not None:
                schedule.step()
            compute_s += time.perf_counter() - begin
            step += 1
            speed = n / (data_s + compute_s)
            log.add(split="train", epoch=epoch, step=step, images=n, lr=lr, loss=value, top1=top1,
                    images_per_s=speed, data_s=data_s, compute_s=compute_s)  # fmt: skip
            if after_step is not None:
                after_step(step)
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


def whole(comm: Comm, loss: float, logits: np.ndarray, labels: np.ndarray) -> tuple[float, float, int, bool]:
    """Of a step's images in all processes: mean loss, top-1, number, and whether all logits are finite."""
    right, n = int((rivals(logits, labels) == 0).sum()), len(labels)
    every = [part for part in comm.gather((loss, right, n, bool(np.isfinite(logits).all()))) if part[2]]
    losses, rights, counts, finite = zip(*every)
    return mean(losses, counts), sum(rights) / sum(counts), sum(counts), all(finite)


def mean(losses: Sequence[float], counts: Sequence[int]) -> float:
    """The mean loss of all images, of the mean losses of so many each; those of none do not count."""
    some = [(loss, n) for loss, n in zip(losses, counts) if n] or [(math.nan, 1)]
    return some[0][0] if len(some) == 1 else sum(loss * n for loss, n in some) / sum(n for _, n in some)


class Done(NamedTuple):
    """What the forward passes of a step gave, one for each of its batches; on a card it is still being computed."""

    losses: list[Tensor]
    logits: list[Tensor]
    labels: list[np.ndarray]

    def read(self) -> tuple[float, np.ndarray, np.ndarray]:
        """(mean loss, logits, labels) of all images; waits for a card.  The loss of no image is nan."""
        loss = mean([loss.item() for loss in self.losses], [len(labels) for labels in self.labels])
        return loss, np.concatenate([z.numpy() for z in self.logits]), np.concatenate(self.labels)


def steps_of(
    net: DataParallel, inputs: Inputs, optimizer: Any, batches: Iterable[Any], accumulate: int
) -> Iterator[tuple[float, float, Done]]:
    """For each step, when its gradients are made or on their way: seconds waited for data, seconds computing, the rest.

    The gradient of the mean loss of all images of several batches is the mean of their images' gradients: each batch
    adds its number of images times that of its own mean, and the sum is divided in the end.
    """
    waiting = timed(batches)
    while True:
        begin, data_s, images, done = time.perf_counter(), 0.0, 0, Done([], [], [])
        for waited, batch in itertools.islice(waiting, accumulate):
            if not done.losses:
                optimizer.zero_grad()
            data_s += waited
            logits = net(inputs(batch))
            loss = F.cross_entropy(logits, batch.labels)
            # Before anything is read: that waits for a card, which has work as long as it takes.
            if accumulate > 1:
                net.backward(loss * len(batch.labels), "sum")
            else:
                net.backward(loss)
            images += net.all_images
            for found, value in zip(done, (loss, logits, batch.labels)):
                found.append(value)
        if not done.losses:
            return
        if accumulate > 1:
            for group in optimizer.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        p.grad.device.update("true_divide", p.grad.data, images)
                        p.grad.mark_modified()
        yield data_s, time.perf_counter() - begin - data_s, done


def not_finite(state: Mapping[str, np.ndarray]) -> list[str]:
    """The names of the arrays that hold nan or inf."""
    return [name for name, array in state.items() if not np.isfinite(array).all()]


def check_before_saving(model: nn.Module, state: Mapping[str, np.ndarray], image: np.ndarray, device: str) -> None:
    """TrainingError where a net has diverged: where its weights, or its answers to an image (C, H, W), are not finite.

    Weights of 1e20 are finite, yet their products are not: hence the image.
    """
    spoilt = not_finite(state)
    if not spoilt and not np.isfinite(logits_of(model, image[None], device)).all():
        spoilt = ["the outputs"]
    if spoilt:
        raise TrainingError(
            f"the net is not saved, for it has diverged: nan or inf in {some(spoilt, 3)}; "
            "weights saved earlier are kept; start again with a lower --lr"
        )
