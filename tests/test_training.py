"""The examples' training loop and tests, against plain NumPy."""

import csv
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tqdm import tqdm

import minigrad.functional as F
from minigrad import Tensor, nn, optim

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from figures import smooth  # noqa: E402
from run_folder import Log, TrainingError  # noqa: E402
from training import evaluate, probabilities, train_epoch  # noqa: E402


class Linear(nn.Module):
    """Logits from the mean colour of an image: enough to be right or wrong."""

    def __init__(self, classes=7):
        self.layer = nn.Linear(3, classes)

    def forward(self, x):
        return self.layer(x.mean(axis=(2, 3)))


def batches(count, n=6, views=None, seed=0):
    rng = np.random.default_rng(seed)
    shape = (n, 3, 4, 4) if views is None else (n, views, 3, 4, 4)
    return [
        SimpleNamespace(images=3 * rng.standard_normal(shape, dtype="f"), labels=rng.integers(0, 7, n))
        for _ in range(count)
    ]


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def logits(model, images):
    w, b = model.layer.weight.numpy(), model.layer.bias.numpy()
    return images.mean((-1, -2)) @ w.T + b


@pytest.mark.parametrize("views", [None, 10])
def test_scores_are_counted_right(views):
    model, data = Linear(), batches(3, views=views)
    p = np.concatenate([softmax(logits(model, batch.images)) for batch in data])
    p = p if views is None else p.mean(1)
    labels = np.concatenate([batch.labels for batch in data])
    order = np.argsort(-p, axis=1)
    scores = evaluate(model, data, "cpu:0")
    assert scores.images == 18
    assert scores.top1 == pytest.approx(np.mean(order[:, 0] == labels))
    assert scores.top5 == pytest.approx(np.mean([label in row[:5] for label, row in zip(labels, order)]))
    assert scores.loss == pytest.approx(-np.log(p[np.arange(18), labels]).mean(), rel=1e-5)
    assert 0 < scores.top1 < scores.top5 < 1, "the case must tell the three apart"


def test_views_are_averaged_after_the_softmax():
    model, (batch,) = Linear(), batches(1, views=10)
    expected = softmax(logits(model, batch.images)).mean(1)
    np.testing.assert_allclose(probabilities(model, batch.images, "cpu:0"), expected, rtol=1e-5)


def test_an_epoch_takes_the_steps_it_says(tmp_path):
    model, data = Linear(), batches(5)
    twin = Linear()
    twin.load_state_dict(model.state_dict())
    optimizer, by_hand = (optim.SGD(m.parameters(), 0.1, momentum=0.9) for m in (model, twin))
    schedule, same = optim.StepLR(optimizer, 2), optim.StepLR(by_hand, 2)
    log = Log(tmp_path / "log.csv")
    with tqdm(total=5, disable=True) as bar:
        step = train_epoch(
            model, data, optimizer, "cpu:0", epoch=3, first_step=40, log=log, bar=bar, schedule=schedule
        )  # fmt: skip
    losses = []
    for batch in data:
        by_hand.zero_grad()
        loss = F.cross_entropy(twin(Tensor(batch.images)), batch.labels)
        losses.append(loss.item())
        loss.backward()
        by_hand.step()
        same.step()
    assert step == 45
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, twin.state_dict()[name])
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [float(row["loss"]) for row in rows] == pytest.approx(losses, rel=1e-5)
    assert [row["step"] for row in rows] == ["41", "42", "43", "44", "45"] and {row["epoch"] for row in rows} == {"3"}
    assert [float(row["lr"]) for row in rows] == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001])


def test_a_loss_that_is_no_number_stops_before_the_weights_are_spoilt(tmp_path):
    model, (batch,) = Linear(), batches(1)
    batch.images[0] = np.nan
    before = model.state_dict()
    with tqdm(disable=True) as bar, pytest.raises(TrainingError, match="loss is nan at step 0.*lower --lr than 0.1"):
        train_epoch(
            model, [batch], optim.SGD(model.parameters(), 0.1), "cpu:0",
            epoch=1, first_step=0, log=Log(tmp_path / "log.csv"), bar=bar,
        )  # fmt: skip
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_smooth_is_a_running_mean():
    values = np.array([4.0, 2.0, 6.0, 8.0])
    np.testing.assert_allclose(smooth(values, 2), [4, 3, 4, 7])
