"""The page of a run and that of all runs: what they say, what names cannot do to them, and how a browser shows them."""

import base64
import csv
import hashlib
import html
import io
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from narrow import coloured_classes, make_narrow, narrow_net  # noqa: F401
from narrow import main as run_main
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
import alexnet_imagenet  # noqa: E402
import figures  # noqa: E402
import page.curves  # noqa: E402
import page.live  # noqa: E402
import progress  # noqa: E402
import report  # noqa: E402
import trained  # noqa: E402
from interruption import Interrupted, interruptible  # noqa: E402
from page import document as page_document  # noqa: E402
from page import exhibits, facts  # noqa: E402
from page.curves import Curves  # noqa: E402
from page.document import data_of, document  # noqa: E402
from page.index import run_data, write_index  # noqa: E402
from run_folder import Log, Run, TrainingError, rows_of  # noqa: E402
from scoring import Scores, interval  # noqa: E402

from minigrad import checkpoint  # noqa: E402

SCRIPT, QUOTES, TURNED = "<script>alert(1)<", "b\"'&lt;", "c\u202egnp"
NAMES = sorted([SCRIPT, QUOTES, TURNED])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with one run, "mine<b>", of two epochs with a narrow net, as the main job leaves it."""
    root = tmp_path_factory.mktemp("report")
    data = coloured_classes(root / "data", 8, 2, NAMES, size=lambda i: (40, 60))
    (data / "train" / NAMES[0] / "broken<!--.jpg").write_bytes(b"no picture")
    with pytest.MonkeyPatch.context() as patch:
        make_narrow(patch)
        patch.setattr(alexnet_imagenet, "draw", lambda *_: [])  # the PNG files take longer than all the rest
        options = ["--data", data, "--out", root / "runs", "--name", "mine<b>", "--epochs", 2, "--batch-size", 4]
        patch.setattr(page.live, "SHARE", 1e9)  # time for all pictures after every epoch
        written, write_whole = [], page.live.write_whole
        patch.setattr(page.live, "write_whole", lambda path, text: (written.append(text), write_whole(path, text)))
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as err:
            assert alexnet_imagenet.main([str(option) for option in options]) == 0, err.getvalue()
    (root / "written.json").write_text(json.dumps([data_of(text) for text in written]))
    return root / "runs"


def page_of(folder):
    return data_of((folder / "report.html").read_text(encoding="utf-8"))


# ---------------------------------------------------------------- curves


def rows(count, images=4, seed=0):
    rng = np.random.default_rng(seed)
    return [
        {"split": "train", "epoch": 1, "step": i + 1, "images": images + i % 3, "lr": 0.1 / (i + 1),
         "loss": float(rng.random()), "top1": float(rng.random()), "data_s": float(rng.random()), "compute_s": 1.0}
        for i in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize("count", [1, 7, 8, 9, 37, 64, 65])
def test_curves_of_any_length_leave_nothing_out(monkeypatch, count):
    monkeypatch.setattr(page.curves, "MOST", 8)
    given, curves = rows(count), Curves()
    for row in given:  # one after the other, as a run adds them
        curves.add([row])
    data, width = curves.data(), curves.width
    assert len(data["x"]) <= 8 and width == max(1, 2 ** math.ceil(math.log2(count / 8))) and data["width"] == width
    groups = [given[i : i + width] for i in range(0, count, width)]
    images = [[row["images"] for row in group] for group in groups]
    assert data["x"] == np.cumsum([sum(n) for n in images]).tolist() and curves.images == data["x"][-1]
    for i, (group, n) in enumerate(zip(groups, images)):
        losses, seconds = [row["loss"] for row in group], sum(row["data_s"] + row["compute_s"] for row in group)
        assert data["loss"][i] == pytest.approx(np.average(losses, weights=n), rel=1e-4)
        assert data["top1"][i] == pytest.approx(np.average([row["top1"] for row in group], weights=n), rel=1e-4)
        assert data["low"][i] == pytest.approx(min(losses), rel=1e-4)
        assert data["high"][i] == pytest.approx(max(losses), rel=1e-4)
        assert data["lr"][i] == pytest.approx(group[-1]["lr"], rel=1e-4)
        assert data["speed"][i] == pytest.approx(sum(n) / seconds, rel=1e-4)
        assert data["waiting"][i] == pytest.approx(sum(row["data_s"] for row in group) / seconds, rel=1e-4)


def test_a_running_mean_is_there_where_it_says_something():
    few, many = Curves(), Curves()
    few.add(rows(page.curves.ENOUGH - 1))
    given = rows(60)
    many.add(given)
    assert few.data()["running"] == 0 and "mean_loss" not in few.data()
    data = many.data()
    assert data["running"] == 3
    for i in (0, 1, 2, 30, 59):
        last = given[max(0, i - 2) : i + 1]
        mean = np.average([row["top1"] for row in last], weights=[row["images"] for row in last])
        assert data["mean_top1"][i] == pytest.approx(mean, rel=1e-4)


def test_a_test_stands_where_its_step_does():
    curves, given = Curves(), rows(6)
    test = {"split": "val", "epoch": 1, "step": 4, "images": 50, "loss": 1.25, "top1": 0.5, "top5": 1.0}
    curves.add([*given[:4], test, *given[4:]])
    assert [entry["x"] for entry in curves.tests] == [sum(row["images"] for row in given[:4])]
    assert (curves.tests[0]["low"], curves.tests[0]["high"]) == interval(0.5, 50)


# ---------------------------------------------------------------- kernels


def test_the_share_of_colour_of_made_kernels():
    rng = np.random.default_rng(0)
    pattern = rng.normal(size=(1, 1, 11, 11))
    grey, opponent = np.repeat(pattern, 3, axis=1), pattern * np.array([1.0, -1.0, 0.0])[:, None, None]
    blue = pattern * np.array([0.0, 0.0, 1.0])[:, None, None]
    made = np.concatenate([grey, opponent, blue, grey + opponent, np.zeros_like(grey), -7 * grey + 5 * opponent])
    # energies: grey 3, opponent 2, of one channel 1/3 grey and 2/3 not
    expected = [0, 1, 2 / 3, 2 / 5, 0, 2 * 25 / (2 * 25 + 3 * 49)]
    assert exhibits.colour_shares(made.astype(np.float32)) == pytest.approx(expected, abs=1e-6)
    noise = exhibits.colour_shares(rng.normal(size=(200, 3, 11, 11)))
    assert noise.mean() == pytest.approx(2 / 3, abs=0.01)


def test_columns_that_have_specialised_lie_apart():
    rng = np.random.default_rng(0)
    pattern = rng.normal(size=(4, 1, 5, 5))
    weight = np.concatenate([np.repeat(pattern, 3, axis=1), pattern * np.array([1.0, -1.0, 0.0])[:, None, None]])
    data = exhibits.kernels_data(weight, rng.normal(size=weight.shape))
    assert [column["colour"] for column in data["columns"]] == pytest.approx([0, 1], abs=1e-6)
    assert data["apart"] == pytest.approx(1) and "added" in data["columns"][0]


def test_what_training_has_hardly_added_is_not_drawn():
    rng = np.random.default_rng(0)
    first = rng.normal(size=(12, 3, 5, 5))
    change = rng.normal(size=first.shape)
    change *= np.linalg.norm(first) / np.linalg.norm(change)
    for size, drawn in ((0.0, False), (0.009, False), (0.011, True)):
        data = exhibits.kernels_data(first + size * change, first)
        assert ["added" in column for column in data["columns"]] == [drawn, drawn]
        assert data["moved"] == pytest.approx(size, rel=1e-4)
    assert exhibits.kernels_data(first, None)["moved"] is None


def figure_of(monkeypatch, draw, *arguments):
    """The figure that a function of figures.py would save."""
    pytest.importorskip("matplotlib", reason="draws the pictures")
    found = []
    monkeypatch.setattr(figures, "save", lambda figure, path: found.append(figure))
    draw(*arguments)
    figures.pyplot().close("all")
    return found[0]


@pytest.mark.parametrize("steps, tests", [(1, 0), (3, 1), (39, 1), (40, 1)])
def test_the_picture_of_a_short_run_claims_no_means(monkeypatch, tmp_path, steps, tests):
    log = Log(tmp_path / "log.csv")
    log.rows = rows(steps) + [{"split": "val", "step": steps, "loss": 1.0, "top1": 0.5}] * tests
    figure = figure_of(monkeypatch, figures.learning_curves, log, 10, tmp_path / "a.png", "title")
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    means = ["mean of 2 batches"] if steps == 40 else []
    assert labels == ["each batch", *means, *["held-out images"] * tests, "chance"]


def test_the_picture_of_kernels_that_have_not_moved_shows_no_noise(monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    first = rng.normal(size=(12, 3, 5, 5))
    other = np.roll(first, 1, axis=0)  # longer, shorter: still the first noise; in another direction: learned
    for now, said, pictures in (
        (first, "has not moved", 2), (1.005 * first, "less than 1 %", 2), (0.5 * first, "by 50%", 2),
        (0.5 * first + 0.4 * other, "by 6", 4),
    ):  # fmt: skip
        figure = figure_of(monkeypatch, figures.conv1_kernels, now, first, tmp_path / "a.png")
        assert said in figure.get_suptitle() and len(figure.axes) == pictures


def test_what_training_added_is_not_what_weight_decay_took():
    rng = np.random.default_rng(0)
    first, edge = rng.normal(size=(6, 3, 5, 5)), np.zeros((6, 3, 5, 5))
    edge[..., :2], edge[..., 3:] = -3, 3
    edge -= (edge * first).sum((1, 2, 3), keepdims=True) / (first**2).sum((1, 2, 3), keepdims=True) * first
    left = np.linspace(0.05, 1, 6)[:, None, None, None]  # how much decay has left of each kernel's first weights
    assert figures.added(left * first + edge, first) == pytest.approx(edge, abs=1e-9)
    assert figures.added(left * first, first) is None


# ---------------------------------------------------------------- what a page says


def test_the_page_says_what_log_and_metrics_say(runs):
    run, data = runs / "mine<b>", page_of(runs / "mine<b>")
    assert (data["name"], data["state"], data["why"]) == ("mine<b>", "finished", "")
    log = list(csv.DictReader((run / "log.csv").open()))
    steps = [row for row in log if row["split"] == "train"]
    curves = data["curves"]
    assert len(steps) == 12 == len(curves["x"]) and curves["running"] == 0
    for name in ("loss", "top1", "lr"):
        assert curves[name] == pytest.approx([float(row[name]) for row in steps], rel=1e-3)
    assert curves["speed"] == pytest.approx([float(row["images_per_s"]) for row in steps], rel=1e-3)
    assert curves["x"] == np.cumsum([int(row["images"]) for row in steps]).tolist()
    tests = [row for row in log if row["split"] == "val"]
    assert [test["top1"] for test in data["tests"]] == pytest.approx([float(row["top1"]) for row in tests], rel=1e-3)
    assert [test["x"] for test in data["tests"]] == [curves["x"][5], curves["x"][11]]
    metrics = json.loads((run / "metrics.json").read_text())
    for views in ("one_view", "ten_views"):
        for name in ("top1", "top5", "loss", "epoch", "step", "images"):
            assert data["scores"][views][name] == pytest.approx(metrics[views][name], rel=1e-4)
        assert data["scores"][views]["top1_interval"] == pytest.approx(metrics[views]["top1_interval"], rel=1e-4)
    assert data["speed"]["images_per_s"] == pytest.approx(metrics["training"]["images_per_s"], rel=1e-3)
    assert data["chance"] == pytest.approx({"loss": math.log(3), "top1": 1 / 3})
    assert data["progress"]["step"] == data["progress"]["steps"] == 12
    settings = dict(map(tuple, data["settings"]))
    assert settings["batch size"] == "4" and settings["classes"] == "3" and settings["epochs"] == "2"
    assert data["versions"]["numpy"] == np.__version__
    assert any("broken" in line for line in data["warnings"]) and data["skipped"]["count"] == 1


def test_the_page_says_class_by_class_what_metrics_says(runs):
    metrics = json.loads((runs / "mine<b>" / "metrics.json").read_text())["ten_views"]
    shown = {name: name.replace("\u202e", r"\u202e") for name in NAMES}
    answers = page_of(runs / "mine<b>")["answers"]
    assert (answers["views"], answers["step"], answers["images"]) == (10, 12, 6)
    assert {row["name"]: row["top1"] for row in answers["rows"]} == {
        shown[name]: pytest.approx(found["top1"], rel=1e-4) for name, found in metrics["classes"].items()
    }
    assert answers["square"]["names"] == [shown[name] for name in NAMES]
    assert answers["square"]["counts"] == [[metrics["confusion"][a].get(b, 0) for b in NAMES] for a in NAMES]
    assert answers["wrong"] == sum(n for a, row in metrics["confusion"].items() for b, n in row.items() if a != b)


def test_of_many_classes_the_hardest_are_shown():
    k = 1200
    right = np.arange(k) % 11
    confusion = np.zeros((k, k), np.int64)
    confusion[np.arange(k), np.arange(k)] = right
    confusion[np.arange(k), (np.arange(k) + 1) % k] = 10 - right
    scores = Scores(1.0, 0.5, 0.9, 10 * k, right, confusion)
    answers = facts.answers_of_scores(scores, [f"c{i:04}" for i in range(k)], 1, 5)
    assert len(answers["rows"]) == 1000 and answers["left_out"] == 200
    assert answers["rows"][0] == {
        "name": "c0000", "images": 10, "top1": 0.0, "interval": pytest.approx(interval(0, 10), rel=1e-4),
        "other": "c0001", "times": 10,
    }  # fmt: skip
    assert max(row["top1"] for row in answers["rows"]) == 0.9 and len(answers["square"]["names"]) == 20
    assert answers["wrong"] == int((10 - right).sum()) and answers["pairs"][0]["times"] == 10
    assert all(pair["class"] != pair["taken_for"] for pair in answers["pairs"])


def test_pictures_are_those_of_the_net(runs):
    data = page_of(runs / "mine<b>")
    shown = [name.replace("\u202e", r"\u202e") for name in NAMES]
    predictions = data["predictions"]
    assert (predictions["views"], predictions["step"], len(predictions["pictures"])) == (10, 12, 6)
    for picture in predictions["pictures"]:
        shares = [share for _, share in picture["best"]]
        assert picture["class"] in shown and {name for name, _ in picture["best"]} == set(shown)
        assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(1, abs=1e-3)
        pixels = np.asarray(opened(picture["image"])).mean((0, 1))
        assert pixels.argmax() == shown.index(picture["class"]), "classes are told apart by colour"
    neighbours = data["neighbours"]
    assert len(neighbours["rows"]) == 5 and all(
        len(row["fc7"]) == len(row["pixels"]) == 6 for row in neighbours["rows"]
    )
    own = sum(near["class"] == row["class"] for row in neighbours["rows"] for near in row["pixels"])
    assert neighbours["right"]["pixels"] == own == 30 == neighbours["of"], "by colour, pixels find the class"
    assert opened(data["kernels"]["columns"][0]["kernels"]).mode == "RGBA"


def opened(address):
    kind, content = address.split(";base64,")
    assert kind in ("data:image/jpeg", "data:image/png")
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_neighbours_in_pixels_are_the_nearest():
    rng = np.random.default_rng(0)
    pool = rng.integers(0, 256, (30, 16, 16, 3), dtype=np.uint8)
    labels = np.arange(30)
    images = type("Images", (), {"labels": labels, "__len__": lambda self: 30, "image": lambda self, i: pool[i]})()
    net = SimpleNamespace(names=[str(k) for k in labels], features=lambda given: np.zeros((len(given), 2)))
    shown = exhibits.Exhibits(net, images, images, seed=1)
    for near, k in zip(shown.neighbours()["pixels"], shown.held_out()[1]):
        distances = ((pool.astype(float) - pool[k]) ** 2).sum((1, 2, 3))
        assert [label for _, label in near] == np.argsort(distances)[:6].tolist()
    assert exhibits.neighbours_data(shown)["pool"] == 30, "as many as there are, where that is less than are wanted"


def test_pictures_that_are_kept_hold_no_shard_open():
    whole = np.zeros((3, 4, 4, 3), np.uint8)
    images = SimpleNamespace(image=lambda i: whole[i])
    found = trained.readable(images, [2, 0], 2)
    assert [i for i, _ in found] == [2, 0] and not any(np.shares_memory(image, whole) for _, image in found)


# ---------------------------------------------------------------- hostile names


def test_no_name_becomes_part_of_the_page(runs):
    text = (runs / "mine<b>" / "report.html").read_text(encoding="utf-8")
    index = (runs / "index.html").read_text(encoding="utf-8")
    for page_text in (text, index):
        assert "<script>alert" not in page_text and "mine<b>" not in page_text and "\u202e" not in page_text
        assert page_text.count("<script") == page_text.count("</script>") == 4 and "{{" not in page_text
    assert "<title>mine&lt;b&gt; · minigrad</title>" in text
    classes = {row["name"] for row in page_of(runs / "mine<b>")["answers"]["rows"]}
    assert classes == {SCRIPT, QUOTES, r"c\u202egnp"}
    assert len(text) < 2_000_000


def test_what_looks_like_a_place_in_the_template_is_text():
    odd = {"name": "{{scripts}}</script><!--", "nested": [{"\x1b[31m": "a\udcffb"}], "number": 0.5}
    text = document("report", "{{data}} & co", odd)
    assert data_of(text) == {"name": odd["name"], "nested": [{r"\x1b[31m": r"a\xffb"}], "number": 0.5}
    assert "<title>{{data}} &amp; co</title>" in text
    with pytest.raises(ValueError):
        document("report", "nan", {"loss": math.nan})


def test_the_policy_lets_in_what_is_written_there_and_nothing_else(runs):
    text = (runs / "mine<b>" / "report.html").read_text(encoding="utf-8")
    policy = dict(
        part.split(" ", 1) for part in html.unescape(re.search(r'Policy" content="(.*?)"', text)[1]).split("; ")
    )
    assert set(policy) == {"default-src", "script-src", "style-src", "img-src", "base-uri", "form-action"}
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["img-src"] == "data:"
    for directive, pattern in (("script-src", r"<script>(.*?)</script>"), ("style-src", r"<style>(.*?)</style>")):
        parts = re.findall(pattern, text, re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in parts]
        assert policy[directive].split() == [f"'sha256-{digest}'" for digest in digests] and digests
    assert (page_document.HERE / "vendor" / "LICENSE-uPlot").read_text().startswith("The MIT License")


# ---------------------------------------------------------------- a run with a page


class Faults:
    """A page's writer that fails when it is told to."""

    def __init__(self, monkeypatch):
        self.error, self.real = None, page.live.write_whole
        monkeypatch.setattr(page.live, "write_whole", self)

    def __call__(self, path, content):
        if self.error is not None:
            raise self.error
        self.real(path, content)


CONFIG = {"recipe": {"epochs": 2}, "classes": ["a", "b"], "seed": 0}


@pytest.fixture
def page_and_run(tmp_path):
    """A page of a run without a net."""
    (tmp_path / "runs" / "r").mkdir(parents=True)
    run = Run(tmp_path / "runs" / "r")
    run.planned, run.save = 8, lambda folder: None
    run.write("config.json", json.dumps(CONFIG))
    progress.warned.clear()
    empty = SimpleNamespace(train_set=[], net=SimpleNamespace(words={}), names=["a", "b"], forget=lambda: None)
    return page.live.Page(run, CONFIG, None, None, empty, SimpleNamespace(skipped=[])), run


def step(run, count=1):
    for row in rows(run.log.steps() + count)[run.log.steps() :]:
        run.log.add(**row)


def test_a_page_that_cannot_be_written_is_one_warning_and_the_old_one_stays(page_and_run, monkeypatch, capsys):
    live, run = page_and_run
    clock = [0.0]
    monkeypatch.setattr(page.live.time, "monotonic", lambda: clock[0])
    live._begun, live._written = 0.0, -100.0
    disk = Faults(monkeypatch)
    live.begin()
    step(run)
    live.after_step(1)
    before = (run.path / "report.html").read_text()
    disk.error = OSError(28, "No space left on device")
    for _ in range(3):
        clock[0] += 40
        step(run)
        live.after_step(run.log.steps())
    assert capsys.readouterr().err.count("report.html cannot be written (OSError: No space left") == 1
    assert (run.path / "report.html").read_text() == before and page_of(run.path)["progress"]["step"] == 1
    disk.error = None
    clock[0] += 40
    live.after_step(4)
    data = page_of(run.path)
    assert data["progress"]["step"] == 4 and any("No space left" in line for line in data["warnings"])
    clock[0] += 1
    step(run)
    live.after_step(5)
    assert page_of(run.path)["progress"]["step"] == 4, "not before it is due again"
    clock[0] += 40
    live.spent = 0.01 * clock[0]
    live.after_step(5)
    assert page_of(run.path)["progress"]["step"] == 4, "not where it has taken more than its share"


def test_time_left_is_that_of_the_steps_left(page_and_run, monkeypatch):
    live, run = page_and_run
    clock = [100.0]
    monkeypatch.setattr(page.live.time, "monotonic", lambda: clock[0])
    live.begin()
    step(run)
    live.after_step(1)
    assert page_of(run.path)["progress"]["seconds_left"] is None, "one step may have been slow"
    clock[0] += 90
    step(run, 2)
    live.after_step(3)
    assert page_of(run.path)["progress"] == {"step": 3, "steps": 8, "epoch": 1, "epochs": 2, "seconds_left": 150.0}
    live.testing("testing with ten views")
    assert page_of(run.path)["why"] == "testing with ten views" and page_of(run.path)["patience"] > 3600


@pytest.mark.parametrize(
    "error, state, why",
    [
        (None, "finished", ""), (Interrupted(signal.SIGTERM), "stopped", "SIGTERM"),
        (TrainingError("nan <"), "failed", "nan <"),
    ],
)  # fmt: skip
def test_the_page_says_how_the_run_ended(page_and_run, error, state, why):
    live, run = page_and_run
    live.begin()
    assert [each["state"] for each in data_of((run.path.parent / "index.html").read_text())["runs"]] == ["training"]
    try:
        with run:
            step(run)
            live.after_step(1)
            assert page_of(run.path)["state"] == "training"
            run._kept_at = 1
            if error is not None:
                raise error
    except type(error or ValueError):
        pass
    assert (page_of(run.path)["state"], page_of(run.path)["why"]) == (state, why)
    assert [each["state"] for each in data_of((run.path.parent / "index.html").read_text())["runs"]] == ["stopped"]


def test_a_signal_that_a_library_makes_an_error_of_its_own_ends_the_run(page_and_run, monkeypatch):
    def library(*_):
        try:
            signal.raise_signal(signal.SIGTERM)
        except BaseException:
            raise ValueError("no such glyph") from None

    live, run = page_and_run
    live.begin()
    step(run)
    monkeypatch.setattr(page.live, "document", library)
    with interruptible(), pytest.raises(Interrupted, match="SIGTERM"):
        live.after_step(1)


def test_a_run_without_a_step_leaves_no_page(page_and_run, capsys):
    live, run = page_and_run
    with pytest.raises(TrainingError):
        with run:
            live.begin()
            raise TrainingError("before the first step")
    assert not run.path.exists() and capsys.readouterr().err == ""
    assert data_of((run.path.parent / "index.html").read_text())["runs"] == []


def test_a_page_that_cannot_be_made_costs_nothing_else(tmp_path, capsys, monkeypatch):
    def broken(*_):
        raise KeyError("no\nglyph")

    monkeypatch.setattr(page.live, "document", broken)
    monkeypatch.setattr(alexnet_imagenet, "draw", lambda *_: ["drawn.png"])
    data = coloured_classes(tmp_path / "data", 3, 1)
    options = ("--data", data, "--out", tmp_path, "--steps", 2, "--batch-size", 4, "--name", "mine")
    code, out, err = run_main(capsys, *options)
    left = {path.name for path in (tmp_path / "mine").iterdir()}
    assert code == 1 and err.splitlines()[-1].endswith("not all of the run could be written: report.html: 'no\\nglyph'")
    assert "Ten views" in out and {"weights.safetensors", "metrics.json", "checkpoints"} < left
    assert err.count("report.html cannot be written") == 1


def test_pages_are_written_as_training_goes(runs):
    pages = json.loads((runs.parent / "written.json").read_text())
    assert [each["state"] for each in pages] == ["training"] * (len(pages) - 1) + ["finished"]
    assert pages[0]["progress"]["step"] == 1 and "kernels" not in pages[0] and pages[0]["answers"] is None
    after = {each["predictions"]["step"]: each for each in pages if each.get("predictions", {}).get("views") == 1}
    assert set(after) == {6, 12}, "after every epoch, with one view"
    for step, each in after.items():
        assert each["kernels"]["step"] == each["neighbours"]["step"] == each["answers"]["step"] == step
        assert each["answers"]["views"] == 1 and each["answers"]["images"] == 6
    assert [each["why"] for each in pages if each["why"]] == ["testing with ten views"]


def test_without_figures_there_is_no_page_and_the_same_net(runs, tmp_path, capsys):
    data = runs.parent / "data"
    options = ("--data", data, "--out", tmp_path, "--name", "r", "--epochs", 2, "--batch-size", 4, "--no-figures")
    assert run_main(capsys, *options)[0] == 0
    assert not list(tmp_path.glob("**/*.html"))
    looked_at, left_alone = (
        checkpoint.load(folder / "weights.safetensors")[0] for folder in (runs / "mine<b>", tmp_path / "r")
    )
    for name, array in left_alone.items():
        assert np.array_equal(looked_at[name], array), "looking at a net does not change what it learns"


def test_an_index_stays_where_the_runs_are(page_and_run, tmp_path):
    live, run = page_and_run
    live.begin()
    run.path = tmp_path / "elsewhere" / "r"
    run.path.mkdir(parents=True)
    live.end(None)
    assert not (tmp_path / "elsewhere" / "index.html").exists() and (tmp_path / "runs" / "index.html").exists()


def test_a_run_that_goes_on_keeps_what_only_its_page_had(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(alexnet_imagenet, "draw", lambda *_: [])
    shutil.copytree(runs / "mine<b>", tmp_path / "runs" / "mine")
    before = page_of(tmp_path / "runs" / "mine")
    code, out, err = run_main(capsys, "--resume", tmp_path / "runs" / "mine", "--epochs", 3)
    assert code == 0, err
    after = page_of(tmp_path / "runs" / "mine")
    assert after["warnings"][: len(before["warnings"])] == before["warnings"] != []
    assert after["curves"]["loss"][:12] == pytest.approx(before["curves"]["loss"], rel=1e-4)
    assert len(after["curves"]["loss"]) == 18
    assert [test["epoch"] for test in after["tests"]] == [1, 2, 3] and after["progress"]["step"] == 18
    assert after["kernels"]["step"] == after["answers"]["step"] == 18
    found = page.live.earlier(tmp_path / "runs" / "mine" / "report.html", 17)
    assert "kernels" not in found and "warnings" in found, "pictures of a net that is not yet there again"


# ---------------------------------------------------------------- made anew, and all runs


def test_report_makes_the_same_page_anew(runs, tmp_path, capsys):
    folder = tmp_path / "runs" / "mine<b>"
    shutil.copytree(runs / "mine<b>", folder)
    before = page_of(folder)
    assert report.main([str(folder)]) == 0, capsys.readouterr().err
    after = page_of(folder)
    differs = {name for name in before if before[name] != after.get(name)}
    assert differs <= {"written", "every", "patience", "progress", "curves", "tests", "speed"}
    for name in ("loss", "top1", "x", "speed"):  # log.csv has six digits
        assert after["curves"][name] == pytest.approx(before["curves"][name], rel=1e-3)
    (folder / "report.html").unlink()
    shutil.rmtree(folder / "checkpoints")
    shutil.move(folder / "weights.safetensors", tmp_path)
    capsys.readouterr()
    assert report.main([str(folder)]) == 0
    assert "no weights.safetensors of AlexNet" in capsys.readouterr().err
    bare = page_of(folder)
    assert not {"kernels", "predictions", "neighbours"} & set(bare) and bare["scores"] == after["scores"]


def test_report_draws_the_pictures_of_the_run_and_no_others(runs, tmp_path, capsys):
    folder = tmp_path / "runs" / "mine"
    shutil.copytree(runs / "mine<b>", folder)
    before = page_of(folder)
    shutil.rmtree(folder / "checkpoints")

    def drawn(*data):
        (folder / "report.html").unlink()
        assert report.main([str(folder), *map(str, data)]) == 0
        return page_of(folder), capsys.readouterr().err

    moved = shutil.copytree(runs.parent / "data", tmp_path / "moved")
    after, err = drawn("--data", moved)
    assert (after["predictions"], after["neighbours"]) == (before["predictions"], before["neighbours"]), err
    (moved / "train" / SCRIPT / "0.png").rename(moved / "train" / SCRIPT / "another.png")
    after, err = drawn("--data", moved)
    assert not {"predictions", "neighbours"} & set(after) and "kernels" in after
    assert f"{moved} has other pictures now (train_files: " in err and "--data PATH" in err
    config = json.loads((folder / "config.json").read_text())
    for name in ("train_files", "val_files"):  # a run of before they were noted: what is known is the same
        del config[name]
    (folder / "config.json").write_text(json.dumps(config | {"data": str(moved)}))
    assert {"predictions", "neighbours"} <= set(drawn()[0])
    (folder / "config.json").write_text(json.dumps(config | {"data": str(moved), "val_images": 7}))
    after, err = drawn()
    assert "neighbours" not in after and "(val_images: 7 then, 6 now)" in err
    del config["classes"]  # as the weights say
    (moved / "val" / QUOTES).rename(tmp_path / "away")
    (moved / "train" / QUOTES).rename(moved / "train" / "other")
    (folder / "config.json").write_text(json.dumps(config | {"data": str(moved)}))
    after, err = drawn()
    assert "neighbours" not in after and "(classes: other classes)" in err
    assert report.main([str(folder.parent), "--data", str(moved)]) == 2
    assert "--data: goes with a run" in capsys.readouterr().err


def test_report_refuses_what_is_no_run(tmp_path, capsys):
    assert report.main([str(tmp_path / "nowhere")]) == 2 and "no such folder" in capsys.readouterr().err
    assert report.main([str(tmp_path)]) == 2 and "no run is there" in capsys.readouterr().err
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "config.json").write_text("[]")
    assert report.main([str(tmp_path / "r")]) == 2 and "must hold an object" in capsys.readouterr().err
    (tmp_path / "r" / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "r" / "log.csv").write_text("split,step\r\ntrain,1\r\n")
    assert report.main([str(tmp_path / "r")]) == 2 and "are not those of a run" in capsys.readouterr().err
    assert not list(tmp_path.glob("**/*.html"))


def test_the_index_has_every_run(runs, tmp_path):
    for name in ("a b#?%", "broken", "no run"):
        (tmp_path / name).mkdir()
    for name in ("config.json", "metrics.json", "log.csv", "report.html"):
        shutil.copy(runs / "mine<b>" / name, tmp_path / "a b#?%" / name)
    (tmp_path / "broken" / "config.json").write_text("{")
    assert write_index(tmp_path)
    first, second = data_of((tmp_path / "index.html").read_text())["runs"]
    metrics = json.loads((runs / "mine<b>" / "metrics.json").read_text())
    assert (first["name"], first["state"], first["link"]) == ("a b#?%", "finished", "./a%20b%23%3F%25/report.html")
    assert first["scores"]["ten_views"]["top1"] == pytest.approx(metrics["ten_views"]["top1"], rel=1e-4)
    assert first["speed"] == pytest.approx(metrics["training"]["images_per_s"], rel=1e-4)
    assert (first["images"], first["epoch"], first["epochs"], first["preset"]) == (25, 2, 2, "trainable")
    log = [row for row in rows_of(runs / "mine<b>" / "log.csv") if row["split"] == "val"]
    assert [test["loss"] for test in first["tests"]] == pytest.approx([row["loss"] for row in log], rel=1e-4)
    assert (second["name"], second["state"]) == ("broken", "unreadable") and second["why"]


def test_the_index_knows_who_is_in_training(runs, tmp_path):
    shutil.copytree(runs / "mine<b>", tmp_path / "r")
    lock, here = tmp_path / "r" / "lock", os.uname().nodename
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    for about, state in (
        (f"process {os.getpid()} on {here}, since 2020", "training"),
        (f"process {ended.stdout.strip()} on {here}, since 2020", "finished"),
        (f"process {ended.stdout.strip()} on elsewhere, since 2020", "training"),
    ):
        lock.write_text(about)
        assert run_data(tmp_path / "r")["state"] == state
    lock.unlink()
    config = json.loads((tmp_path / "r" / "config.json").read_text())
    config["recipe"]["epochs"] = 5
    (tmp_path / "r" / "config.json").write_text(json.dumps(config))
    assert run_data(tmp_path / "r")["state"] == "stopped"


def test_an_index_of_somebody_else_is_left_alone(tmp_path, capsys):
    (tmp_path / "index.html").write_text("<h1>My home page</h1>")
    assert not write_index(tmp_path)
    assert (tmp_path / "index.html").read_text() == "<h1>My home page</h1>"
    assert "not of this program's making" in capsys.readouterr().err


# ---------------------------------------------------------------- TensorBoard


def test_events_have_each_step_once_also_after_going_on(runs, tmp_path, capsys, monkeypatch):
    pytest.importorskip("tensorboard", reason="reads the events: pip install tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setattr(alexnet_imagenet, "draw", lambda *_: [])
    shutil.copytree(runs / "mine<b>", tmp_path / "mine")
    kept = sorted((tmp_path / "mine" / "checkpoints").glob("step-*"))
    assert run_main(capsys, "--resume", kept[0], "--epochs", 3)[0] == 0
    assert len(list((tmp_path / "mine").glob("events.out.tfevents.*"))) == 1
    events = EventAccumulator(str(tmp_path / "mine"), size_guidance={"tensors": 0})  # 0: all
    events.Reload()
    log = list(rows_of(tmp_path / "mine" / "log.csv"))
    for tag, split, column in (
        ("loss/train", "train", "loss"),
        ("lr", "train", "lr"),
        ("top1/held_out", "val", "top1"),
    ):
        found = [(event.step, event.tensor_proto.float_val[0]) for event in events.Tensors(tag)]
        wanted = [(row["step"], row[column]) for row in log if row["split"] == split]
        assert [number for number, _ in found] == [number for number, _ in wanted]
        assert [value for _, value in found] == pytest.approx([value for _, value in wanted], rel=1e-4)


# ---------------------------------------------------------------- in a browser

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
in_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian's package chromium)")

# The pages in frames as wide as screens; what is measured of them is written into the outer page.
FRAMES = """<!doctype html><meta charset="utf-8"><body>{frames}<pre id="found"></pre><script>
addEventListener("load", () => {{
  const frames = [...document.querySelectorAll("iframe")];
  document.getElementById("found").textContent = JSON.stringify(frames.map((frame) => {{
    const page = frame.contentDocument, root = page.documentElement;
    const sort = page.querySelector("#classes thead button");
    if (sort) {{ sort.click(); sort.click(); }}
    return {{
      ready: root.dataset.ready || "", inside: root.clientWidth, needed: root.scrollWidth,
      canvases: [...page.querySelectorAll("canvas")].map((c) => [c.width, c.height, drawn(c)]),
      ground: frame.contentWindow.getComputedStyle(page.body).backgroundColor,
      title: page.title, heading: page.querySelector("h1").textContent, text: page.body.innerText,
      scripts: page.scripts.length, without_alt: page.querySelectorAll("img:not([alt]), img[alt='']").length,
      broken: [...page.images].filter((image) => !image.naturalWidth).length,
      images: page.images.length, sorted: page.querySelectorAll("[aria-sort=descending]").length,
      first_classes: [...page.querySelectorAll("#classes tbody th")].map((cell) => cell.textContent),
      loaded: frame.contentWindow.performance.getEntriesByType("resource").map((each) => each.name.slice(0, 40)),
    }};
  }}));
}});
function drawn(canvas) {{
  const bytes = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return bytes.reduce((count, byte) => count + (byte > 0), 0);
}}
</script>"""


def in_browser(folder, pages, dark):
    """(what FRAMES finds of each page, (address, width), the lines of the console)"""
    frames = "".join(f'<iframe src="{address}" width="{width}" height="900"></iframe>' for address, width in pages)
    (folder / "frames.html").write_text(FRAMES.format(frames=frames))
    text, console = browse(folder, dark)
    return json.loads(html.unescape(re.search(r'<pre id="found">(.*?)</pre>', text, re.DOTALL)[1])), console


def browse(folder, dark, virtual_ms=2000):
    """(what frames.html in the folder has become, the lines of the console)"""
    command = [
        CHROMIUM, "--headless=new", "--no-sandbox", "--hide-scrollbars", "--disable-gpu",
        "--allow-file-access-from-files",  # or the outer page could not measure the inner ones
        f"--blink-settings=preferredColorScheme={0 if dark else 1}", f"--user-data-dir={folder / 'profile'}",
        f"--virtual-time-budget={virtual_ms}", "--enable-logging=stderr", "--dump-dom",
        (folder / "frames.html").as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert '<pre id="found"></pre>' not in done.stdout, done.stderr[-2000:]
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@in_chromium
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_browser_shows_the_pages(runs, tmp_path, dark):
    shutil.copytree(runs / "mine<b>", tmp_path / "runs" / "mine")
    shutil.copy(runs / "index.html", tmp_path / "runs")
    with open(tmp_path / "runs" / "mine" / "report.html", encoding="utf-8") as file:
        text = file.read()
    many = Scores(1.0, 1 / 3, 1.0, 90, np.full(30, 1), np.eye(30, dtype=int) + 2 * np.roll(np.eye(30, dtype=int), 1))
    answers = facts.answers_of_scores(many, [f"{i}{'long' * 30}" for i in range(30)], 1, 12)
    training = data_of(text) | {"state": "training", "written": 0, "name": "x" * 300, "answers": answers}
    (tmp_path / "runs" / "stale.html").write_text(document("report", "stale", training))
    pages = [(f"runs/{name}", width) for width in (390, 1280) for name in ("mine/report.html", "index.html")]
    found, console = in_browser(tmp_path, [*pages, ("runs/stale.html", 390)], dark)
    assert console == []
    for (name, width), page_found in zip(pages, found):
        assert page_found["ready"] == "yes" and page_found["scripts"] == 4 and page_found["loaded"] == []
        assert page_found["needed"] <= page_found["inside"] == width, f"{name} is wider than a screen of {width}"
        charts = page_found["canvases"]
        assert len(charts) == (2 if name == "runs/index.html" else 7)
        assert all(w > 100 and h > 100 and pixels > 500 for w, h, pixels in charts)
        lightness = sum(map(int, re.findall(r"\d+", page_found["ground"])[:3])) / 3
        assert lightness < 60 if dark else lightness > 230
        assert page_found["without_alt"] == page_found["broken"] == 0
        assert "[object" not in page_found["text"] and "undefined" not in page_found["text"]
    assert found[-1]["needed"] <= found[-1]["inside"] == 390, "long names, many classes"
    page_found = found[0]
    assert page_found["heading"] == "mine<b>" and SCRIPT in page_found["text"] and "finished" in page_found["text"]
    assert page_found["images"] == 4 + 6 + 5 * 13 and page_found["sorted"] == 1
    assert len(page_found["first_classes"]) == 3 and "mean of 1 " not in page_found["text"]
    assert found[-1]["first_classes"][0].startswith("9long") and len(found[-1]["first_classes"]) == 30, "Z to A"
    assert "stopped to refresh itself" in found[-1]["text"] and "stopped to refresh" not in page_found["text"]


# A page of a run in training, at whose chart of the loss somebody looks closer before it reads itself anew.
READER = """<!doctype html><meta charset="utf-8"><body><iframe src="training.html" width="390" height="700"></iframe>
<pre id="found"></pre><script>
const frame = document.querySelector("iframe");
let loads = 0;
frame.addEventListener("load", () => {
  const page = frame.contentDocument, view = frame.contentWindow;
  loads += 1;
  const about = () => ({ y: Math.round(view.scrollY), open: page.querySelector("details").open,
    zoom: [...page.querySelectorAll(".plot")].map((plot) => plot.dataset.zoom), ground: page.activeElement.tagName,
    sorted: page.querySelectorAll("[aria-sort=ascending]").length });
  if (loads === 1) {
    const before = about(), plot = page.querySelector(".u-over"), box = plot.getBoundingClientRect();
    const mouse = (type, x) => plot.dispatchEvent(new view.MouseEvent(type, { bubbles: true, view, movementX: 9,
      clientX: box.left + x * box.width, clientY: box.top + 40 }));
    mouse("mousemove", 0.2); mouse("mousedown", 0.2); mouse("mousemove", 0.6);
    page.dispatchEvent(new view.MouseEvent("mouseup", { bubbles: true, view, clientX: box.left + 0.6 * box.width }));
    page.querySelector("details").open = true;
    const sort = page.querySelector("#classes thead button");
    sort.click();
    sort.focus();
    view.scrollTo(0, 1500);
    setTimeout(() => { document.getElementById("found").dataset.before = JSON.stringify([before, about()]); }, 100);
  } else if (loads === 2) document.getElementById("found").textContent = JSON.stringify(about());
});
</script>"""


@in_chromium
def test_a_page_that_refreshes_itself_keeps_what_one_looks_at(runs, tmp_path):
    data = page_of(runs / "mine<b>") | {"state": "training", "written": time.time(), "every": 1, "patience": 1e6}
    (tmp_path / "training.html").write_text(document("report", "training", data))
    (tmp_path / "frames.html").write_text(READER)
    text, console = browse(tmp_path, dark=False, virtual_ms=12_000)
    before, left = json.loads(html.unescape(re.search(r'data-before="(.*?)"', text)[1]))
    after = json.loads(html.unescape(re.search(r'<pre id="found".*?>(.*?)</pre>', text, re.DOTALL)[1]))
    assert console == [] and before["y"] == 0 and not before["open"] and set(before["zoom"]) == {"all"}
    assert left["y"] == 1500 and left["zoom"][0] == "closer" and left["zoom"][-1] == "all" and left["sorted"] == 1
    assert abs(after.pop("y") - left.pop("y")) < 20, "a legend may have got another line"
    assert after == left
