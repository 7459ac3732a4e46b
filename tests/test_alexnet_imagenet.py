"""The main job from end to end, with a narrow net on a small folder of odd files."""

import csv
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from narrow import NARROW, coloured_classes, left_in, make_narrow, narrow_net  # noqa: F401
from narrow import main as run
from PIL import Image

import minigrad.functional as F
from minigrad import checkpoint
from minigrad.cudasim import compiler
from minigrad.cudasim.runtime import SimRuntime
from minigrad.data import ImageFolder, Loader

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "examples"))
import alexnet_imagenet  # noqa: E402
import figures  # noqa: E402
import trained  # noqa: E402
from alexnet import AlexNet  # noqa: E402

CACHE = os.environ.get("XDG_CACHE_HOME", "")
PICTURES = ("learning_curves.png", "conv1_kernels.png", "predictions.png", "nearest.png", "confusion.png")


def of_every_kind(image, folder, i):
    if i == 0:
        image.convert("CMYK").save(folder / "a.JPEG")
    elif i == 1:
        image.convert("L").save(folder / "b.jpg")
    elif i == 2:
        image.save(folder / "c.png")
    else:
        image.save(folder / f"{i}.JPG", "jpeg")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three classes told apart by colour, in every kind of file that ILSVRC holds, and one that is broken."""
    root = tmp_path_factory.mktemp("images")
    coloured_classes(root, 5, 2, size=lambda i: (60 + 14 * i, 90 - 10 * i), save=of_every_kind)
    (root / "train" / "bee" / "broken.jpg").write_bytes((root / "train" / "bee" / "3.JPG").read_bytes()[:300])
    return root


emulated = [pytest.mark.slow, pytest.mark.skipif(compiler.available() is not None, reason=str(compiler.available()))]


@pytest.mark.parametrize("devices", ["cpu:0,cpu:1", "cpu:0", pytest.param("cudasim:0,cudasim:1", marks=emulated)])
def test_train_evaluate_predict(folder, tmp_path, capsys, devices):
    """Two columns draw; on one device there are the same scores, and no pictures, which take most of the time."""
    drawn, leave = (PICTURES, []) if "," in devices else ((), ["--no-figures"])
    out_folder = tmp_path / "runs"
    code, out, err = run(
        capsys, "--data", folder, "--out", out_folder, "--epochs", 3, "--batch-size", 3, "--devices", devices, *leave
    )
    assert code == 0, err
    assert "broken.jpg" in out and "broken.jpg" in err, (
        "the unreadable file is to be named, while it runs and at the end"
    )
    assert "16 training and 6 test images of 3 classes" in out
    (result,) = (path for path in out_folder.iterdir() if path.is_dir())
    assert (out_folder / "index.html").is_file() == bool(drawn)
    assert left_in(result) == {
        "config.json", "log.csv", "metrics.json", "weights.safetensors", "preparation.npz", "checkpoints",
        *(("report.html", *drawn) if drawn else ()),
    }  # fmt: skip
    for name in drawn:
        picture = np.asarray(Image.open(result / name).convert("L"))
        assert min(picture.shape) > 200 and picture.std() > 5, f"{name} is blank"
    config = json.loads((result / "config.json").read_text())
    assert config["classes"] == ["ape", "bee", "cat"] and config["recipe"]["epochs"] == 3
    rows = list(csv.DictReader((result / "log.csv").open()))
    assert [row["split"] for row in rows] == (["train"] * 5 + ["val"]) * 3
    assert all(float(row["loss"]) > 0 for row in rows)
    scores = json.loads((result / "metrics.json").read_text())
    training = scores.pop("training")
    images, waited, computed = (
        sum(float(row[name]) for row in rows if row["split"] == "train") for name in ("images", "data_s", "compute_s")
    )
    assert training["images"] == images and training["seconds"] == pytest.approx(waited + computed, rel=1e-4)
    assert training["images_per_s"] == pytest.approx(images / (waited + computed), rel=1e-4)
    assert training["waiting_for_data"] == pytest.approx(waited / (waited + computed), rel=1e-3)
    assert f"{training['images_per_s']:.1f} images/s, {training['waiting_for_data']:.1%} of the time waiting" in out
    assert {name: (s["views"], s["epoch"], s["step"], s["images"]) for name, s in scores.items()} == {
        "one_view": (1, 3, 15, 6), "ten_views": (10, 3, 15, 6)
    }  # fmt: skip
    assert f"Ten views: top-1 {scores['ten_views']['top1']:.1%}" in out
    assert float(rows[-1]["loss"]) == pytest.approx(scores["one_view"]["loss"], rel=1e-5)
    rates = [float(row["lr"]) for row in rows if row["split"] == "train"]
    assert rates == sorted(rates, reverse=True) and rates[-1] < 0.1 * rates[0], "the cosine falls towards 0"

    weights = result / "weights.safetensors"
    code, evaluated, _ = run(capsys, "--data", folder, "--evaluate", weights, "--devices", "cpu:0")
    assert code == 0
    same = [line for line in out.splitlines() if line.startswith("Ten views:")][0]
    assert same.split("Ten views: ")[1].split(" (guessing")[0] in evaluated, "one device or two: the same scores"

    image = folder / "val" / "cat" / "a.JPEG"
    code, predicted, err = run(capsys, "--predict", weights, image, tmp_path / "no.jpg", "--devices", "cpu:0")
    assert code == 2 and "no.jpg" in err and err.endswith("--predict: 1 of 2 image(s) could not be read\n")
    shares = [float(part.split()[-1].rstrip("%")) for part in predicted.strip().split(": ")[1].split(", ")]
    assert len(shares) == 3 and sum(shares) == pytest.approx(100, abs=0.3) and shares == sorted(shares, reverse=True)


class Quadrants(AlexNet):
    """AlexNet's last layer on the mean colours of an image's quadrants: fast, and other views give other answers."""

    def forward(self, images):
        x = F.avg_pool2d(images, 112, 112).flatten(1)
        return F.linear(x, self.columns[0].fc8.weight[:, : x.shape[1]], self.columns[0].fc8.bias)


@pytest.mark.parametrize(
    "net", [pytest.param(Quadrants, marks=emulated[1:]), pytest.param(AlexNet, marks=emulated)], ids=["tiny", "narrow"]
)
def test_a_card_prepares_the_pictures_as_the_processor_would(folder, tmp_path, capsys, monkeypatch, net):
    """Losses and scores are the same, to the last bit, where the processor prepares them."""
    monkeypatch.setattr(alexnet_imagenet, "AlexNet", functools.partial(net, widths=NARROW))
    monkeypatch.setenv("XDG_CACHE_HOME", CACHE)  # where kernels may lie compiled
    sent, numbers, threads, real = {}, {}, set(), SimRuntime.from_host

    def from_host(self, values):
        sent[how][values.dtype.name, values.shape] += 1
        if values.dtype == np.uint8:
            threads.add(threading.current_thread().name.rpartition("-")[0])
        return real(self, values)

    monkeypatch.setattr(SimRuntime, "from_host", from_host)
    for how in ("card", "processor"):
        sent[how] = Counter()
        if how == "processor":
            monkeypatch.setattr(trained.Trained, "loader", lambda self, *rest, **options: Loader(*rest, **options))
        code, _, err = run(
            capsys, "--data", folder, "--devices", "cudasim:0", "--preset", "paper", "--steps", 3, "--batch-size", 2,
            "--val-limit", 1, "--no-figures", "--out", tmp_path, "--name", how,
        )  # fmt: skip
        assert code == 0, err
        rows = list(csv.DictReader((tmp_path / how / "log.csv").open()))
        scores = json.loads((tmp_path / how / "metrics.json").read_text())
        numbers[how] = [row["loss"] for row in rows], scores["one_view"], scores["ten_views"]
    assert numbers["card"] == numbers["processor"] and len(set(numbers["card"][0])) == 4
    pictures = {("uint8", (n, 256, 256, 3)) for n in (2, 3)}  # a training batch, and all images of a test
    views = {("float32", (n, 3, 224, 224)) for n in (2, 3)}
    assert threads == {"minigrad-loader"}, "the next batch is sent while the card works on this one"
    assert pictures <= set(sent["card"]) and not views & set(sent["card"])
    assert views <= set(sent["processor"]) and not pictures & set(sent["processor"])
    assert sent["card"]["float32", (256, 256, 3)] == 3, "the mean image travels once for the epoch, and for each test"


def test_the_same_seed_gives_the_same_run(folder, tmp_path, capsys):
    columns = []
    for workers in (0, 3):
        run(
            capsys, "--data", folder, "--out", tmp_path / f"{workers}", "--steps", 4, "--batch-size", 4, "--workers",
            workers, "--no-figures", "--seed", 5, "--val-limit", 1,
        )  # fmt: skip
        (result,) = (tmp_path / f"{workers}").iterdir()
        columns.append([row["loss"] for row in csv.DictReader((result / "log.csv").open())])
    assert columns[0] == columns[1] and len(columns[0]) == 5


@pytest.mark.parametrize("preset", ["paper", "original"])
def test_the_papers_recipe_runs(folder, tmp_path, capsys, preset):
    code, out, err = run(
        capsys, "--data", folder, "--preset", preset, "--steps", 2, "--batch-size", 8, "--val-limit", 1,
        "--out", tmp_path, "--no-figures",
    )  # fmt: skip
    assert code == 0, err
    assert f"preset {preset}" in out


@pytest.mark.parametrize("name, code", [("SIGINT", 130), ("SIGTERM", 143)])
def test_an_interrupted_run_keeps_its_weights(folder, tmp_path, capsys, monkeypatch, name, code):
    def interrupted(model, batches, *args, real=alexnet_imagenet.train_epoch, **options):
        def until_ctrl_c():
            for i, batch in enumerate(batches):
                if i == 2:
                    signal.raise_signal(getattr(signal, name))
                yield batch

        return real(model, until_ctrl_c(), *args, **options)

    monkeypatch.setattr(alexnet_imagenet, "train_epoch", interrupted)
    done, out, err = run(
        capsys, "--data", folder, "--out", tmp_path, "--epochs", 2, "--batch-size", 3, "--name", "mine"
    )
    assert done == code and f"interrupted ({name})" in err
    assert "Stopped after 2 of 10 steps: keeping the net" in out and "Ten views" not in out
    left = left_in(tmp_path / "mine")
    whole = {"config.json", "log.csv", "weights.safetensors", "preparation.npz", "checkpoints", "report.html"}
    assert left == whole, "nothing is drawn any more"
    weights = tmp_path / "mine" / "weights.safetensors"
    done, out, err = run(capsys, "--data", folder, "--evaluate", weights, "--val-limit", 1)
    assert done == 0, err


def test_a_picture_that_cannot_be_drawn_costs_neither_scores_nor_the_other_pictures(
    folder, tmp_path, capsys, monkeypatch
):
    def broken(*_):
        assert "ten_views" in (tmp_path / "mine" / "metrics.json").read_text(), "scores go to a file first"
        raise ValueError("a font is\nmissing")

    def drawn(*given, **_):
        (path,) = (value for value in given if isinstance(value, Path))
        path.write_bytes(b"drawn")

    for name in ("learning_curves", "predictions", "neighbours", "confusion"):  # as they are, they take seconds
        monkeypatch.setattr(figures, name, drawn)
    monkeypatch.setattr(figures, "conv1_kernels", broken)
    code, out, err = run(
        capsys, "--data", folder, "--out", tmp_path, "--steps", 1, "--batch-size", 6, "--val-limit", 1, "--name", "mine"
    )
    assert code == 1 and "conv1_kernels.png could not be drawn: ValueError: a font is" in err
    assert err.splitlines()[-1].endswith("not all of the run could be written: conv1_kernels.png: a font is")
    assert "Ten views" in out and "conv1_kernels" not in out
    left = left_in(tmp_path / "mine")
    assert set(PICTURES) - left == {"conv1_kernels.png"}


def test_any_name_of_a_class_can_be_drawn(folder, tmp_path, capsys):
    odd = tmp_path / "odd"
    shutil.copytree(folder, odd)
    for split in ("train", "val"):
        (odd / split / "ape").rename(odd / split / r"$\foo$")
        (odd / split / "bee").rename(odd / split / "$a^{_\x1b[31m")
    code, out, err = run(
        capsys, "--data", odd, "--out", tmp_path / "runs", "--steps", 1, "--batch-size", 6, "--val-limit", 1
    )
    assert code == 0, err
    assert all(name in out for name in PICTURES) and "\x1b" not in err


def test_a_run_is_never_overwritten(folder, tmp_path, capsys):
    common = ["--data", folder, "--out", tmp_path, "--steps", 1, "--batch-size", 4, "--val-limit", 1, "--no-figures"]
    common += ["--name", "mine"]
    assert run(capsys, *common)[0] == 0
    before = (tmp_path / "mine" / "weights.safetensors").read_bytes()
    code, _, err = run(capsys, *common)
    assert code == 2 and "mine exists" in err
    assert (tmp_path / "mine" / "weights.safetensors").read_bytes() == before


OVERFLOW = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # is what these runs are about


@OVERFLOW
def test_a_net_that_has_diverged_gets_no_score_and_is_not_saved(folder, tmp_path, capsys):
    code, out, err = run(
        capsys, "--data", folder, "--out", tmp_path, "--lr", "1e30", "--steps", 1, "--batch-size", 8, "--name", "mine"
    )
    assert code == 1 and "after step 1 the net answers nan or inf for 6 of the 6 images" in err, err
    assert str(folder / "val" / "ape" / "a.JPEG") in err and "lower --lr" in err
    assert "Ten views" not in out and "top-1" not in out
    left = sorted(left_in(tmp_path / "mine"))
    assert left == ["checkpoints", "config.json", "log.csv", "report.html"]


@OVERFLOW
@pytest.mark.parametrize(
    "how, spoilt",
    [("epoch", np.nan), ("epoch", 1e38), ("interrupted", 1e38)],
    ids=["epoch, nan", "epoch, finite, but not its products", "interrupted, finite, but not its products"],
)
def test_good_weights_are_kept_where_the_net_diverges_later(folder, tmp_path, capsys, monkeypatch, spoilt, how):
    after_the_first_epoch = []

    def diverging(model, *args, real=alexnet_imagenet.train_epoch, **options):
        step = real(model, *args, **options)
        if options["epoch"] == 2:
            after_the_first_epoch.append((tmp_path / "mine" / "weights.safetensors").read_bytes())
            state = model.state_dict()
            state["conv2.weight"][:] = spoilt
            model.load_state_dict(state)
            if how == "interrupted":
                raise KeyboardInterrupt
        return step

    monkeypatch.setattr(alexnet_imagenet, "train_epoch", diverging)
    code, out, err = run(
        capsys, "--data", folder, "--out", tmp_path, "--epochs", 3, "--batch-size", 8, "--val-limit", 1, "--no-figures",
        "--name", "mine",
    )  # fmt: skip
    assert code == (130 if how == "interrupted" else 1) and "weights saved earlier are kept" in err, err
    assert "epoch 1: top-1" in out and "epoch 2" not in out and "Ten views" not in out
    assert [(tmp_path / "mine" / "weights.safetensors").read_bytes()] == after_the_first_epoch


@pytest.fixture(scope="module")
def trained_net(folder, tmp_path_factory):
    """The folder of a run of four steps."""
    runs = tmp_path_factory.mktemp("runs")
    options = ["--data", str(folder), "--out", str(runs), "--steps", "4", "--batch-size", "8", "--no-figures"]
    with pytest.MonkeyPatch.context() as patch:
        make_narrow(patch)
        assert alexnet_imagenet.main([*options, "--name", "mine"]) == 0
    return runs / "mine"


def changed(net, to, config=None, **arrays):
    """A copy of a run in the folder `to`; each of `arrays` changes an array of the weights, each of `config` a fact."""
    shutil.copytree(net, to)
    state, facts = checkpoint.load(net / "weights.safetensors")
    for name, change in arrays.items():
        state[name.replace("_", ".")] = change(state[name.replace("_", ".")])
    checkpoint.save(to / "weights.safetensors", state, facts)
    facts = json.loads((net / "config.json").read_text()) | (config or {})
    (to / "config.json").write_text(json.dumps(facts))
    return to / "weights.safetensors"


def scores(out):
    return re.search(r"top-1 .* held-out images", out)[0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_evaluate_and_predict_refuse_weights_that_are_not_finite(folder, trained_net, tmp_path, capsys, value):
    weights = changed(trained_net, tmp_path / "net", fc8_bias=lambda bias: np.float32([value, *bias[1:]]))
    for options in (["--evaluate", weights], ["--predict", weights, folder / "val" / "cat" / "a.JPEG"]):
        code, out, err = run(capsys, *options)
        assert code == 2 and "top-1" not in out and "cat" not in out and "fc8.bias" in err and err.count("\n") == 1


@OVERFLOW
def test_evaluate_and_predict_refuse_a_net_that_answers_nan(folder, trained_net, tmp_path, capsys):
    """Its weights are finite, their products are not."""
    weights = changed(trained_net, tmp_path / "net", conv1_weight=lambda w: np.sign(w) * np.float32(3e38))
    image = folder / "val" / "cat" / "a.JPEG"
    code, out, err = run(capsys, "--evaluate", weights)
    assert code == 1 and "top-1" not in out and f"{folder}/val/ape/a.JPEG" in err
    code, out, err = run(capsys, "--predict", weights, image)
    assert code == 1 and out == "" and f"1 of the 1 images of a batch ({image})" in err


def test_a_net_that_answers_the_same_for_all_classes_scores_nothing(trained_net, tmp_path, capsys):
    weights = changed(trained_net, tmp_path / "net", fc8_bias=np.zeros_like, fc8_weight=np.zeros_like)
    code, out, err = run(capsys, "--evaluate", weights)
    assert code == 0 and scores(out) == "top-1 0.0%, top-5 100.0%, loss 1.099 on 6 held-out images"  # of 3 classes


def test_predictions_keep_their_order_where_probabilities_vanish(folder, trained_net, tmp_path, capsys):
    def order(out):
        return [part.split()[0] for part in out.strip().split(": ")[1].split(", ")]

    biases = {}
    for factor in (1, 1e4):
        biases[factor] = lambda bias, factor=factor: np.float32([0.1, 0.3, 0.2]) * np.float32(factor)
        weights = changed(trained_net, tmp_path / f"{factor}", fc8_bias=biases[factor], fc8_weight=np.zeros_like)
        _, out, _ = run(capsys, "--predict", weights, folder / "val" / "cat" / "a.JPEG")
        assert order(out) == ["bee", "cat", "ape"]


def test_distances_between_large_features_are_told_apart(folder, trained_net, tmp_path):
    """1e25 fits into float32, its square does not: all would be as far from each other."""
    weights = changed(trained_net, tmp_path / "net", fc7_weight=lambda weight: np.float32(1e25) * weight)
    net = trained.Trained.restore(weights, "trainable", ["cpu:0"])
    there = net.features([ImageFolder(folder, "val").image(i) for i in range(6)])
    distances = ((there[:, None] - there) ** 2).sum(2)
    assert np.isfinite(distances).all() and (distances + np.eye(6) > 0).all() and distances.max() > 1e40


# ---------------------------------------------------------------- which images


def test_evaluate_takes_the_images_that_the_net_was_trained_for(folder, trained_net, tmp_path, capsys, monkeypatch):
    _, expected, _ = run(capsys, "--evaluate", trained_net / "weights.safetensors", "--data", folder)
    monkeypatch.chdir(folder.parent)
    options = ["--data", folder.name, "--out", tmp_path, "--steps", 1, "--no-figures", "--name", "relative"]
    options += ["--batch-size", 4, "--val-limit", 1]
    assert run(capsys, *options)[0] == 0
    config = json.loads((tmp_path / "relative" / "config.json").read_text())
    assert config["data"] == str(folder), "the folder, wherever it is called from"
    monkeypatch.chdir(tmp_path)
    code, out, _ = run(capsys, "--evaluate", trained_net / "weights.safetensors")
    assert code == 0 and f"no --data: the images are those that the weights were trained for, in {folder}\n" in out
    assert scores(out) == scores(expected)
    assert not (tmp_path / "cache").exists(), "the demo set has no part in it"


@pytest.mark.parametrize("data", ["/no/such/folder", "relative", 7, None, "missing", "damaged"])
def test_evaluate_asks_for_data_that_it_does_not_find(trained_net, tmp_path, capsys, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "relative").mkdir()  # may be another one than the run's
    weights = changed(trained_net, tmp_path / "net", config={"data": data})
    if data == "missing":
        weights.with_name("config.json").unlink()
    if data == "damaged":
        weights.with_name("config.json").write_bytes(b"[\xff")
    code, out, err = run(capsys, "--evaluate", weights)
    assert code == 2 and err.count("\n") == 1 and err.endswith(": give --data PATH\n") and "config.json" in err
    assert out == "" and not (tmp_path / "cache").exists()


def test_evaluate_on_other_classes_advises_to_remove_nothing(folder, trained_net, tmp_path, capsys):
    shutil.copytree(folder, tmp_path / "other")
    (tmp_path / "other" / "val" / "bee").rename(tmp_path / "other" / "val" / "dog")
    code, _, err = run(capsys, "--evaluate", trained_net / "weights.safetensors", "--data", tmp_path / "other")
    assert code == 2 and "ape, bee, cat" in err and "dog" in err and "images are of other data" in err
    assert "emove" not in err and "ename" not in err
    (tmp_path / "other" / "val" / "dog" / "more").mkdir()
    code, _, err = run(capsys, "--data", tmp_path / "other", "--out", tmp_path)
    assert code == 2 and "Rename or remove those folders" in err, "where the folders do not fit each other"


# ---------------------------------------------------------------- what it prints


def words(line):
    """The words of a command line, as bash reads them."""
    done = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True, timeout=20)
    return [os.fsdecode(word) for word in done.stdout.split(b"\0")[:-1]]


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash reads the command lines")
@pytest.mark.parametrize("name", ["it's my $HOME; ls", "é – 犬 line\nbreak \x1b[31m \\t'", b"\xff \xc3"])
def test_what_to_try_next_can_be_typed(folder, tmp_path, capsys, monkeypatch, name):
    name = os.fsdecode(name)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder, tmp_path / name, ignore=shutil.ignore_patterns("broken.jpg", "[bc].*", "[345].JPG"))
    monkeypatch.setattr(sys, "argv", [f"../{name}/alexnet_imagenet.py"])
    monkeypatch.setattr(sys, "orig_argv", ["bin/python3", *sys.argv])
    given = ["--data", name, f"--out=-{name}", "--name", name, "--devices", "cpu:1,cpu:0", "--steps", 1]
    code, out, err = run(capsys, *given, "--no-figures", "--preset", "paper", "--lr", "0.001")
    assert code == 0, err
    assert all(line.isprintable() for line in out.splitlines())
    lines = [words(line.replace(" IMAGE...", "")) for line in out.split("Try next:\n")[1].splitlines()]
    program, weights = ["bin/python3", f"../{name}/alexnet_imagenet.py"], f"./-{name}/{name}/weights.safetensors"
    longer, evaluate, predict, one = (line[:2] == program and line[2:] for line in lines)
    assert evaluate == ["--devices", "cpu:1,cpu:0", "--evaluate", weights]
    assert predict == ["--devices", "cpu:1,cpu:0", "--predict", weights]
    kept = ["--data", name, "--preset", "paper", "--lr", "0.001", "--out", f"./-{name}", "--no-figures"]
    assert longer == ["--resume", f"./-{name}/{name}", "--epochs", "4"]
    assert one == [*kept[:4], "--steps", "1", *kept[4:], "--devices", "cpu:1"]
    options = alexnet_imagenet.parse(one)
    assert options.data == Path(name) and options.out == Path(f"-{name}") and options.preset == "paper"
    for line in (longer, evaluate, [*predict, tmp_path / name / "val" / "cat" / "a.JPEG"]):
        code, out, err = run(capsys, *line)
        assert code == 0, err


NARROW_PROGRAM = f"""
import functools, sys
sys.path.insert(0, {str(ROOT / "examples")!r})
import alexnet, alexnet_imagenet, trained
for module in (alexnet_imagenet, trained):
    module.AlexNet = functools.partial(alexnet.AlexNet, widths={NARROW})
sys.exit(alexnet_imagenet.main())
"""


@pytest.mark.parametrize("locale", ["C", "C.UTF-8", "ascii", "latin-1"])
def test_names_that_a_terminal_cannot_show_are_written_as_escapes(folder, trained_net, tmp_path, locale):
    plain = {"LC_ALL": "C.UTF-8" if locale == "C.UTF-8" else "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    environment = {**os.environ, **plain, "PYTHONPATH": str(ROOT)}
    if locale in ("ascii", "latin-1"):
        environment["PYTHONIOENCODING"] = locale
    names = [b"\xff\xfe.jpg", "é 犬.jpg".encode(), b"a\nb\x1b[31m.jpg", b"plain.jpg"]
    for name in names:
        shutil.copy(folder / "val" / "cat" / "a.JPEG", os.path.join(os.fsencode(tmp_path), name))
    weights = changed(trained_net, tmp_path / "net")
    state, facts = checkpoint.load(weights)
    checkpoint.save(weights, state, facts | {"classes": json.dumps(["ape", "\x1b[31mbé\n", "\udcff"])})
    command = [sys.executable, "-c", NARROW_PROGRAM, "--predict", weights, *names, b"no\x1b\xff.jpg"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=120)
    assert done.returncode == 2, done.stderr.decode()
    assert done.stderr.count(b"\n") == 2 and b"\x1b" not in done.stderr and b"no\\x1b\\xff.jpg" in done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 4 and b"\x1b" not in done.stdout
    shown = ("é 犬" if locale == "C.UTF-8" else "\\xc3\\xa9 \\xe7\\x8a\\xac").encode()  # file names are ASCII elsewhere
    assert [line.split(b".jpg")[0] for line in lines] == [b"\\xff\\xfe", shown, b"a\\nb\\x1b[31m", b"plain"]
    encoding = {"C.UTF-8": "utf-8", "latin-1": "latin-1"}.get(locale, "ascii")
    bee = "\\x1b[31mbé\\n ".encode(encoding, "backslashreplace")
    assert all(bee in line and b"\\xff " in line for line in lines)


@OVERFLOW
def test_a_diverging_run_says_so(folder, tmp_path, capsys):
    code, _, err = run(
        capsys, "--data", folder, "--lr", "1e30", "--out", tmp_path, "--epochs", 9, "--batch-size", 8, "--no-figures"
    )
    assert code == 1 and "start again with a lower --lr" in err


BAD = [
    (["--epochs", "0"], "--epochs: must be above 0, got 0"),
    (["--batch-size", "x"], "--batch-size: invalid whole number value: 'x'"),
    (["--lr", "nan"], "--lr: must be above 0"),
    (["--devices", "tpu:0"], "expected a name such as 'cpu:0'"),
    (["--devices", "cpu:0,cpu:0"], "one device or two different ones"),
    (["--devices", "cuda:0"], "cuda:0"),
    (["--preset", "best"], "invalid choice: 'best'"),
    (["--no-such-option"], "unrecognized arguments"),
    (["--data", "/no/such/folder"], "'/no/such/folder' should be a folder with train/ and val/ inside"),
    (["--evaluate", "/no/such/weights"], "/no/such/weights"),
    (["--predict", "/no/such/weights"], "at least one image"),
    (["--epochs", "٣"], "--epochs: invalid whole number value: '٣'"),
    (["--epochs", "1_0"], "--epochs: invalid whole number value: '1_0'"),
    (["--steps", "9" * 99], "--steps: must be at most 1000000000"),
    (["--workers", "1001"], "--workers: must be at most 1000"),
    (["--lr", "1e-40"], "--lr: must be a normal number in float32"),
    (["--lr", "1e39"], "--lr: must be a normal number in float32"),
    (["--lr", "١"], "--lr: invalid number value: '١'"),
    (["--devices", "cpu:٣"], "expected a name such as 'cpu:0'"),
    (["--name", "../x"], "--name: must be a name, not a path"),
    (["--name", ".."], "--name: must be a name, not a path"),
    (["--name", ""], "--name: must be a name, not a path"),
    (["--name", "x/"], "--name: must be a name, not a path"),
    (["--name", "x" * 256], "--name: must have at most 255 bytes, got 256"),
    (["--data", ""], "--data: must not be empty"),
    (["--no\x1b[31m\n"], "unrecognized arguments: --no\\x1b[31m\\n"),
]


@pytest.mark.parametrize("arguments, message", BAD, ids=[ascii(" ".join(a))[:40] for a, _ in BAD])
def test_bad_values_get_one_line_and_exit_code_2(arguments, message, capsys):
    try:
        code, _, err = run(capsys, *arguments)
    except SystemExit as stop:
        code, err = stop.code, capsys.readouterr().err
    assert code == 2
    assert message in err and err.count("\n") == 1, err


@pytest.mark.parametrize("arguments", [["--data", "/no/such/folder"], ["--no\x1b[31m\n"]])
def test_a_process_ends_likewise(arguments):
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "alexnet_imagenet.py", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    (message,) = (message for given, message in BAD if given == arguments)
    assert message in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_help_reads_well(capsys):
    with pytest.raises(SystemExit) as stop:
        alexnet_imagenet.main(["--help"])
    out = capsys.readouterr().out
    assert stop.value.code == 0
    for option in ("--data", "--devices", "--epochs", "--batch-size", "--lr", "--preset", "--seed", "--workers",
                   "--evaluate", "--predict"):  # fmt: skip
        assert option in out
