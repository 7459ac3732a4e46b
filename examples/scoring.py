"""How well a net does: its answers to images, one view or several, and the scores of answers; of several nets too."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from inputs import Inputs
from run_folder import TrainingError

import minigrad
from minigrad import Tensor, nn
from minigrad.errors import DataError, some


@dataclass(frozen=True)
class Scores:
    """How a model did on some images: mean cross-entropy, share of right answers, share with the right one in five.

    A tie counts against the model: the right class must be strictly ahead of all others (of all but four).
    right, confusion: for each class how many of its images were answered right, and as which class each was seen,
    int64 (classes,) and (right class, likeliest class).
    """

    loss: float
    top1: float
    top5: float
    images: int
    right: np.ndarray | None = None
    confusion: np.ndarray | None = None

    def __str__(self) -> str:
        return f"top-1 {self.top1:.1%}, top-5 {self.top5:.1%}, loss {self.loss:.3f} on {self.images} held-out images"

    def facts(self, classes: Sequence[str] = (), words: Mapping[str, str] | None = None) -> dict[str, Any]:
        """What metrics.json is to tell, with the names of the classes in full: intervals, classes, confusions.

        words: of classes, to be told beside their scores.
        """
        facts: dict[str, Any] = {"loss": self.loss, "top1": self.top1, "top5": self.top5, "images": self.images}
        facts |= {f"{name}_interval": interval(facts[name], self.images) for name in ("top1", "top5")}
        if classes and self.right is not None and self.confusion is not None:
            counts = self.confusion.sum(1)
            facts["classes"] = {
                name: {"images": int(n), "top1": int(right) / int(n) if n else None}
                for name, n, right in zip(classes, counts, self.right)
            }
            for name in classes:
                if words and name in words:
                    facts["classes"][name]["words"] = words[name]
            seen_as = [{classes[k]: int(row[k]) for k in np.flatnonzero(row)} for row in self.confusion]
            facts["confusion"] = dict(zip(classes, seen_as))
        return facts


def interval(share: float, images: int) -> tuple[float, float]:
    """Between which shares the true one lies with 95 % confidence, where `share` of so many images was seen.

    Wilson's interval (1927, "Probable inference, the law of succession, and statistical inference"), which holds for
    shares of 0 and 1, too.
    """
    z = 1.959964  # of the normal distribution: 2.5 % lie above
    middle = (share + z * z / (2 * images)) / (1 + z * z / images)
    half = z / (1 + z * z / images) * math.sqrt(share * (1 - share) / images + z * z / (4 * images * images))
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))  # rounding could pass them


def logits_of(model: nn.Module, images: np.ndarray | Tensor, device: str) -> np.ndarray:
    """Logits (N, V, classes) of images (N, C, H, W), V = 1, or of V views of each, (N, V, C, H, W)."""
    model.eval()
    views = images.shape[1] if images.ndim == 5 else 1
    flat = images.reshape(-1, *images.shape[-3:])
    with minigrad.no_grad():
        logits = model(flat if isinstance(flat, Tensor) else Tensor(flat, device=device)).numpy()
    return logits.reshape(-1, views, logits.shape[1])


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
    return tally((ranks, log_p, labels) for ranks, log_p, labels in answered(model, batches, device, bar, names, step))


Answered = tuple[np.ndarray, np.ndarray, np.ndarray]  # by what classes are ranked, the log-probabilities, the labels


def answered(
    model: nn.Module, batches: Iterable[Any], device: str, bar: Any, names: Sequence[Any] | None, step: int | None
) -> Iterator[Answered]:
    """The answers to each batch; see evaluate."""
    inputs = Inputs(device)
    for batch in batches:
        called = [f"image {i}" if names is None else names[i] for i in batch.indices]
        logits = answers(model, inputs(batch), device, called, step)
        log_p = log_mean_softmax(logits)
        if bar is not None:
            bar.update()
        yield logits[:, 0] if logits.shape[1] == 1 else log_p, log_p, batch.labels


def tally(batches: Iterable[Answered]) -> Scores:
    """Scores of answers.  DataError where there is no image."""
    right1 = right5 = n = 0
    total, right, confusion = 0.0, None, None
    for ranks, log_p, labels in batches:
        if right is None or confusion is None:
            classes = log_p.shape[1]
            right, confusion = np.zeros(classes, np.int64), np.zeros((classes, classes), np.int64)
        ahead = rivals(ranks, labels)
        right1 += int((ahead < 1).sum())
        right5 += int((ahead < 5).sum())
        total -= float(log_p[np.arange(len(log_p)), labels].sum())
        n += len(log_p)
        np.add.at(right, labels[ahead < 1], 1)
        np.add.at(confusion, (labels, ranks.argmax(1)), 1)
    if n == 0:
        raise DataError("evaluate: there is no image to test on: give at least one batch")
    return Scores(total / n, right1 / n, right5 / n, n, right, confusion)


def ensemble(models: Sequence[Iterable[Answered]]) -> tuple[list[Scores], Scores]:
    """(the scores of each model, those of the average of their softmax outputs), as in Table 2.

    All models must have been asked about the same images, in the same order.
    """
    each, labels = [], np.zeros(0, np.int64)
    mean: np.ndarray | None = None
    for model in models:
        parts = list(model)
        each.append(tally(parts))
        log_p, labels = (np.concatenate([part[k] for part in parts]) for k in (1, 2))
        mean = log_p if mean is None else np.logaddexp(mean, log_p)
    assert mean is not None, "there is no model"
    mean = mean - math.log(len(models))
    return each, tally([(mean, mean, labels)])
