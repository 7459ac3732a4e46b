"""The examples' training loop and tests, against plain NumPy."""

import csv
import sys
from decimal import Decimal, getcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tqdm import tqdm

import minigrad
import minigrad.functional as F
from minigrad import Tensor, nn, optim
from minigrad.errors import DataError

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from figures import smooth  # noqa: E402
from run_folder import Log, TrainingError  # noqa: E402
from scoring import evaluate, probabilities, rivals  # noqa: E402
from training import check_before_saving, train_epoch  # noqa: E402


class Linear(nn.Module):
    """Logits from the mean colour of an image: enough to be right or wrong."""

    def __init__(self, classes=7):
        self.layer = nn.Linear(3, classes)

    def forward(self, x):
        return self.layer(x.mean(axis=(2, 3)))


def shares(scores):
    return scores.top1, scores.top5, scores.images


def batches(count, n=6, views=None, seed=0):
    rng = np.random.default_rng(seed)
    shape = (n, 3, 4, 4) if views is None else (n, views, 3, 4, 4)
    return [
        SimpleNamespace(
            images=3 * rng.standard_normal(shape, dtype="f"), labels=rng.integers(0, 7, n), indices=i * n + np.arange(n)
        )
        for i in range(count)
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


class Given(nn.Module):
    """Answers with the logits that its images hold in place of pixels: (..., 1, 1, classes)."""

    def forward(self, x):
        return x.flatten(1) * 1.0


def given(logits, labels):
    """A batch for Given: logits (N, classes), or (N, V, classes)."""
    logits, labels = np.asarray(logits, "f"), np.asarray(labels)
    return SimpleNamespace(images=logits[..., None, None, :], labels=labels, indices=np.arange(len(labels)))


def counted(scores, labels):
    """(top-1, top-5, images) one class at a time; scores are anything that can be compared."""
    right = [0, 0]
    for row, label in zip(scores, labels):
        others = [score for k, score in enumerate(row) if k != label]
        at_least = len([score for score in others if score >= row[label]])
        right[0] += at_least == 0
        right[1] += at_least <= 4
    return right[0] / len(labels), right[1] / len(labels), len(labels)


@pytest.mark.parametrize("classes, top5", [(3, 1.0), (5, 1.0), (6, 0.0), (10, 0.0)])
@pytest.mark.parametrize("views", [None, 10])
def test_a_net_that_answers_the_same_for_all_classes_is_never_right(classes, top5, views):
    shape = (classes, classes) if views is None else (classes, views, classes)
    scores = evaluate(Given(), [given(np.full(shape, 0.25), np.arange(classes))], "cpu:0")
    assert shares(scores) == (0.0, top5, classes), "in five guesses of five classes the right one is always among them"
    assert scores.loss == pytest.approx(np.log(classes), rel=1e-12)


def test_ties_count_against_the_net():
    rng = np.random.default_rng(0)
    z, labels = rng.integers(0, 4, (400, 9)), rng.integers(0, 9, 400)  # mostly ties
    scores = evaluate(Given(), [given(z[:150], labels[:150]), given(z[150:], labels[150:])], "cpu:0")
    assert shares(scores) == counted(z, labels) and 0 < scores.top1 < scores.top5 < 1


def test_logits_that_hardly_differ_are_ranked_still():
    """1 and its neighbour in float32; and numbers that vanish beside the sum of the exponentials."""
    z = [[1, np.nextafter(np.float32(1), np.float32(2)), 0], [1e-30, 2e-30, 0]]
    assert evaluate(Given(), [given(z, [1, 1])], "cpu:0").top1 == 1
    assert evaluate(Given(), [given(z, [0, 0])], "cpu:0").top1 == 0


@pytest.mark.parametrize("factor", [1e4, 1e30])
def test_scores_do_not_change_where_probabilities_vanish(factor):
    """Larger logits in the same order: the softmax is 1 and zeros, yet the ranks are what they were."""
    rng = np.random.default_rng(0)
    z, labels = rng.standard_normal((200, 10), dtype="f"), rng.integers(0, 10, 200)
    plain, large = (evaluate(Given(), [given(x, labels)], "cpu:0") for x in (z, z * np.float32(factor)))
    assert shares(large) == shares(plain) and 0 < plain.top1 < plain.top5 < 1
    x = np.float64(z * np.float32(factor))
    assert large.loss == pytest.approx((x.max(1) - x[np.arange(200), labels]).mean(), rel=1e-9)


@pytest.mark.parametrize("factor", [1, 1e4])
def test_averaged_views_are_ranked_where_probabilities_vanish(factor, monkeypatch):
    monkeypatch.setattr(getcontext(), "prec", 40)
    rng = np.random.default_rng(1)
    z, labels = factor * rng.standard_normal((60, 4, 8), dtype="f"), rng.integers(0, 8, 60)
    p = []
    for views in z:
        e = [[Decimal(float(logit)).exp() for logit in view] for view in views]
        p.append([sum(view[k] / sum(view) for view in e) / len(e) for k in range(8)])
    scores = evaluate(Given(), [given(z, labels)], "cpu:0")
    assert shares(scores) == counted(p, labels) and 0 < scores.top1 < scores.top5 < 1
    assert scores.loss == pytest.approx(-float(sum(row[k].ln() for row, k in zip(p, labels))) / 60, rel=1e-9)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("views", [None, 3])
def test_an_answer_that_is_not_finite_is_an_error_that_names_the_images(value, views):
    rng = np.random.default_rng(0)
    z = rng.standard_normal((6, 7) if views is None else (6, views, 7))
    names = [f"{name}.jpg" for name in "abcdef\x1b"]
    z[1, ..., 5] = z[4].flat[2] = value  # of several views, one is enough
    batch = given(z, [0] * 6)
    message = r"after step 12 the net answers nan or inf for 2 of the 6 images of a batch \(b.jpg, e.jpg\)"
    with pytest.raises(TrainingError, match=message):
        evaluate(Given(), [batch], "cpu:0", names=names, step=12)
    with pytest.raises(TrainingError, match=r"^the net answers .* \(image 1, image 4\): .* use other weights"):
        evaluate(Given(), [batch], "cpu:0")
    with pytest.raises(TrainingError, match=r"\(1, 4\)"):
        probabilities(Given(), batch.images, "cpu:0")
    z[:] = value
    with pytest.raises(TrainingError, match=r"6 of the 6 .*\(a.jpg, \\x1b.jpg, c.jpg and 3 more\)"):
        evaluate(Given(), [given(z, [0] * 6)], "cpu:0", names=["a.jpg", "\x1b.jpg", *names[2:]])


def test_nothing_to_test_on_is_an_error():
    with pytest.raises(DataError, match="evaluate: there is no image"):
        evaluate(Given(), [], "cpu:0")


def test_rivals_counts_nan_against_the_net():
    scores = np.array([[np.nan, 1, 2], [1, np.nan, 0], [3, 1, 3]])
    np.testing.assert_array_equal(rivals(scores, np.array([0, 0, 0])), [2, 1, 1])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # overflow
def test_what_is_not_finite_is_not_saved():
    model, image = Linear(), np.ones((3, 4, 4), "f")
    state = model.state_dict()
    check_before_saving(model, state, image, "cpu:0")
    with pytest.raises(TrainingError, match="not saved.* in layer.weight, layer.bias; weights saved earlier are kept"):
        check_before_saving(model, {**state, "layer.weight": np.nan, "layer.bias": [0, -np.inf]}, image, "cpu:0")
    model.load_state_dict({**state, "layer.weight": np.full((7, 3), 2e38, "f")})
    with pytest.raises(TrainingError, match="not saved.* in the outputs;"):
        check_before_saving(model, model.state_dict(), image, "cpu:0")


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
    with tqdm(disable=True) as bar, pytest.raises(TrainingError, match="loss is nan at step 1.*lower --lr than 0.1"):
        train_epoch(
            model, [batch], optim.SGD(model.parameters(), 0.1), "cpu:0",
            epoch=1, first_step=0, log=Log(tmp_path / "log.csv"), bar=bar,
        )  # fmt: skip
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_a_step_is_begun_before_its_loss_is_waited_for(tmp_path, monkeypatch):
    model, seen = Linear(), []
    before, real = model.state_dict()["layer.bias"], Tensor.item

    def item(self):
        seen.append((model.layer.bias.grad is not None, (model.layer.bias.numpy() == before).all()))
        return real(self)

    monkeypatch.setattr(Tensor, "item", item)
    with tqdm(disable=True) as bar:
        train_epoch(
            model, batches(2), optim.SGD(model.parameters(), 0.1), "cpu:0",
            epoch=1, first_step=0, log=Log(tmp_path / "log.csv"), bar=bar,
        )  # fmt: skip
    assert seen == [(True, True), (True, False)]  # with gradients, and with the weights of the step before


@pytest.mark.parametrize("sizes", [(4, 4, 4), (5, 1, 3, 2)])
def test_batches_that_are_accumulated_do_as_one_large_one(tmp_path, sizes):
    """Twice as many as there are in a step, and one more: the last step has what is left."""
    parts = [batches(1, n, seed=k)[0] for k, n in enumerate((*sizes, *sizes, 3))]
    groups = parts[: len(sizes)], parts[len(sizes) : -1], parts[-1:]
    names = "images", "labels", "indices"
    whole = [
        SimpleNamespace(**{name: np.concatenate([getattr(b, name) for b in group]) for name in names})
        for group in groups
    ]
    states, rows, told = [], [], []
    for batches_, accumulate in ((parts, len(sizes)), (whole, 1)):
        minigrad.manual_seed(3)
        model, log = Linear(7), Log(tmp_path / f"{accumulate}.csv")
        with tqdm(disable=True) as bar:
            last = train_epoch(
                model, batches_, optim.SGD(model.parameters(), 0.1, momentum=0.9), "cpu:0", epoch=1, first_step=0,
                log=log, bar=bar, accumulate=accumulate, after_step=told.append,
            )  # fmt: skip
        assert last == 3
        states.append(model.state_dict())
        rows.append([[row["images"], row["top1"], row["loss"]] for row in log.rows])
    assert told == [1, 2, 3] * 2
    np.testing.assert_allclose(rows[0], rows[1], rtol=1e-6)
    for name, array in states[0].items():
        np.testing.assert_allclose(array, states[1][name], rtol=1e-5, atol=1e-7)


def train_on(batch, tmp_path, classes=7):
    """The rows of the log after one step with zero weights: what comes out is the bias."""
    model = Linear(classes)
    model.load_state_dict({"layer.weight": np.zeros((classes, 3), "f"), "layer.bias": batch.bias})
    log = Log(tmp_path / "log.csv")
    with tqdm(disable=True) as bar:
        train_epoch(
            model, [batch], optim.SGD(model.parameters(), 0.1), "cpu:0", epoch=1, first_step=0, log=log, bar=bar
        )  # fmt: skip
    return log.rows


def test_top1_of_a_step_does_not_count_ties(tmp_path):
    (batch,) = batches(1)
    batch.labels[:], batch.bias = 0, np.zeros(7, "f")
    assert train_on(batch, tmp_path)[0]["top1"] == 0
    batch.bias = np.float32([1, 0, 0, 0, 0, 0, 0])
    assert train_on(batch, tmp_path)[0]["top1"] == 1


def test_an_output_of_minus_infinity_stops_the_training_though_the_loss_is_finite(tmp_path):
    (batch,) = batches(1)
    batch.labels[:], batch.bias = 0, np.float32([0, 0, 0, -np.inf, 0, 0, 0])
    with pytest.raises(TrainingError, match="an output is not finite at step 1.*lower --lr than 0.1"):
        train_on(batch, tmp_path)


def test_smooth_is_a_running_mean():
    values = np.array([4.0, 2.0, 6.0, 8.0])
    np.testing.assert_allclose(smooth(values, 2), [4, 3, 4, 7])
